//! A backend to test, and what it must leave as it was.

#[allow(dead_code, reason = "not every suite has one")]
pub mod daemon;
#[allow(dead_code, reason = "not every suite makes one")]
pub mod image;

use std::{
    env, fs,
    io::{BufRead, BufReader, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use openclaw_sandbox::{Backend, Bubblewrap, Docker, Session, Spec};
use tempfile::TempDir;

/// A minute, which no test needs.
pub const MINUTE: Duration = Duration::from_secs(60);
/// For what never ends by itself.
#[allow(dead_code, reason = "not every suite looks")]
pub const SHORT: Duration = Duration::from_millis(700);

/// Counts what sessions could leave behind: one at a time, so that a difference is this test's.
pub struct Host {
    dir: TempDir,
    before: Left,
    _alone: MutexGuard<'static, ()>,
}

/// What there is of a kind that goes with a session.
#[derive(Debug, PartialEq, Eq)]
struct Left {
    children: Vec<String>,
    mounts: usize,
    containers: usize,
    groups: Vec<PathBuf>,
    files: Vec<PathBuf>,
}

impl Host {
    /// None, with the reason told, where bubblewrap cannot run.
    #[allow(dead_code, reason = "not every suite looks")]
    pub fn bubblewrap() -> Option<(Self, Bubblewrap)> {
        Self::of(|dir| {
            let backend = Bubblewrap::new(65534, dir);
            let missing = backend.missing();
            if missing.is_empty() { Ok(backend) } else { Err(missing.join("; ")) }
        })
    }

    /// With a daemon of this test's own. None, with the reason told, where none can run.
    #[allow(dead_code, reason = "not every suite looks")]
    pub fn docker() -> Option<(Self, Docker)> {
        if let Some(why) = env::var_os("OPENCLAW_WITHOUT_DOCKER") {
            eprintln!("skipped, {}", why.display());
            return None;
        }
        Self::of(|dir| {
            let mut backend = Docker::new(daemon::socket()?, daemon::IMAGE);
            backend.dir = dir;
            let missing = backend.missing();
            if missing.is_empty() { Ok(backend) } else { Err(missing.join("; ")) }
        })
    }

    fn of<B>(make: impl FnOnce(PathBuf) -> Result<B, String>) -> Option<(Self, B)> {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let backend = match make(dir.path().into()) {
            Ok(backend) => backend,
            Err(why) => {
                assert!(env::var_os("OPENCLAW_REQUIRE_ALL").is_none(), "{why}");
                eprintln!("skipped, no sandbox can be made here: {why}");
                return None;
            }
        };
        let before = Left::now(&dir);
        Some((Self { dir, before, _alone: alone }, backend))
    }

    /// Control groups of this process's sessions.
    #[allow(dead_code, reason = "not every suite looks")]
    pub fn groups(&self) -> Vec<PathBuf> {
        Left::now(&self.dir).groups
    }

    /// Numbers of this process's children.
    #[allow(dead_code, reason = "not every suite looks")]
    pub fn children(&self) -> Vec<String> {
        let stats = Left::now(&self.dir).children;
        stats.iter().filter_map(|stat| Some(stat.split_whitespace().next()?.to_owned())).collect()
    }

    /// Nothing is left. Processes and groups go a moment after their last signal.
    pub fn leaves_nothing(self) {
        eventually("everything of the sessions is gone", || Left::now(&self.dir) == self.before);
    }
}

impl Left {
    fn now(dir: &TempDir) -> Self {
        let own = std::process::id().to_string();
        let prefix = format!("openclaw-sandbox-{own}-");
        let mut children = Vec::new();
        for pid in pids() {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let parent =
                stat.rsplit(')').next().unwrap_or_default().split_whitespace().nth(1).unwrap_or_default();
            if parent == own {
                children.push(stat);
            }
        }
        let mut groups = Vec::new();
        find_groups("/sys/fs/cgroup".into(), &prefix, &mut groups);
        let files = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count();
        Self { children, mounts, containers: daemon::containers(), groups, files }
    }
}

fn find_groups(dir: PathBuf, prefix: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if entry.file_name().to_string_lossy().starts_with(prefix) {
                found.push(entry.path());
            }
            find_groups(entry.path(), prefix, found);
        }
    }
}

fn pids() -> Vec<u32> {
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
        .collect()
}

/// Processes of this machine, those in sandboxes too, with `marker` in their arguments.
pub fn with_marker(marker: &str) -> usize {
    let line = |pid: &u32| fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    pids().into_iter().filter(|pid| String::from_utf8_lossy(&line(pid)).contains(marker)).count()
}

/// Waits for a condition.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let patience = Instant::now() + MINUTE;
    while !condition() {
        assert!(Instant::now() < patience, "not in a minute: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// This binary's ignored test `a_supervisor` in a process of its own, with these variables, once it says that it runs.
#[allow(dead_code, reason = "not every suite kills one")]
pub fn supervisor(variables: &[(&str, &Path)]) -> Child {
    let mut supervisor = Command::new(env::current_exe().unwrap())
        .args(["--ignored", "--exact", "a_supervisor", "--nocapture"])
        .envs(variables.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(supervisor.stderr.take().unwrap()).lines();
    assert!(said.any(|line| line.unwrap() == RUNS));
    supervisor
}

/// The end of `a_supervisor`: it says that it runs, and waits to be killed.
#[allow(dead_code, reason = "not every suite kills one")]
pub fn supervise() {
    eprintln!("{RUNS}");
    let _ = std::io::stdin().read(&mut [0]);
}

const RUNS: &str = "it runs";

/// A session with defaults.
pub fn open(backend: &dyn Backend) -> Box<dyn Session> {
    backend.open(&Spec::default()).unwrap()
}

/// Makes tests of functions over a backend, which is one of [`Host`]'s.
#[macro_export]
macro_rules! claims {
    ($backend:ident, $suite:ident: $($name:ident),+ $(,)?) => {
        $(#[test]
        fn $name() {
            let Some((host, backend)) = $crate::host::Host::$backend() else { return };
            $crate::$suite::$name(&backend);
            host.leaves_nothing();
        })+
    };
}
