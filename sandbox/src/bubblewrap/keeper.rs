//! The thread that starts the processes of a session. `--die-with-parent` of bubblewrap means the thread, so it lives
//! as long as the session does; and its own restrictions are inherited by all it starts.

use std::{
    ffi::OsString,
    io,
    os::fd::{AsRawFd, OwnedFd},
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    sync::{Mutex, PoisonError, mpsc},
    thread::{self, JoinHandle},
};

use landlock::{ABI, Access, RestrictionStatus, Ruleset, RulesetAttr, RulesetError, Scope};
use rustix::io::{FdFlags, fcntl_setfd};

/// Closes whatever descriptors the supervisor lets its children have (a library may open files without
/// `O_CLOEXEC`), but for those in the first word, limits itself as the second says, and becomes the rest. A limit that is
/// stricter already stays. Not `prlimit` from here: a supervisor that is root in a container may not limit others.
const BECOME: &str = r#"keep=" 0 1 2 $1 "; limits=$2; shift 2
for fd in /proc/self/fd/*; do
  fd=${fd##*/}
  case $keep in *" $fd "*) ;; *) eval "exec $fd<&-" ;; esac
done
for limit in $limits; do ulimit "${limit%=*}" "${limit#*=}"; done 2>/dev/null
exec "$@""#;

/// A limit of each process: the option of bash's `ulimit`, and its value.
pub(super) type Rlimit = (&'static str, u64);

/// What to start.
pub(super) struct Start {
    /// The program and its arguments.
    pub(super) argv: Vec<OsString>,
    pub(super) stdin: Stdio,
    pub(super) stdout: Stdio,
    pub(super) stderr: Stdio,
    /// Given to the child under their numbers here, and closed here.
    pub(super) inherited: Vec<OwnedFd>,
    pub(super) rlimits: Vec<Rlimit>,
    /// Whom to become first; none where the supervisor is nobody special.
    pub(super) user: Option<u32>,
}

type Answer = mpsc::SyncSender<io::Result<Child>>;

/// The thread, and the way to it.
pub(super) struct Keeper {
    starts: Option<mpsc::Sender<(Start, Answer)>>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    pub(super) fn new() -> io::Result<Self> {
        let (starts, waiting) = mpsc::channel::<(Start, Answer)>();
        let thread = thread::Builder::new().name("sandbox".into()).spawn(move || {
            fence();
            for (start, answer) in waiting {
                // Whoever asked has gone if this fails, and its child with the thread.
                let _ = answer.send(start.spawn());
            }
        })?;
        Ok(Self { starts: Some(starts), thread: Some(thread) })
    }

    pub(super) fn start(&self, start: Start) -> io::Result<Child> {
        let (answer, started) = mpsc::sync_channel(1);
        let starts = self.starts.as_ref().expect("the thread ends with the keeper");
        starts.send((start, answer)).map_err(|_| gone())?;
        started.recv().map_err(|_| gone())?
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.starts = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn gone() -> io::Error {
    io::Error::other("the thread of the sandbox has ended")
}

/// A second fence, where the kernel has it: no signal and no abstract socket reaches outside, and no memory of a process
/// outside can be read. Rules about files would forbid the mounts that bubblewrap makes.
fn fence() {
    if let Err(error) = restrict() {
        tracing::debug!(%error, "no landlock");
    }
}

/// From now on, this thread.
pub(super) fn restrict() -> Result<RestrictionStatus, RulesetError> {
    let ruleset = Ruleset::default().scope(Scope::from_all(ABI::V6))?.create()?;
    ruleset.restrict_self()
}

impl Start {
    fn spawn(self) -> io::Result<Child> {
        // Two at once would give each the other's descriptors.
        static ONE: Mutex<()> = Mutex::new(());
        let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);

        let keep: Vec<String> = self.inherited.iter().map(|fd| fd.as_raw_fd().to_string()).collect();
        let mut command = Command::new("bash");
        let limits: Vec<String> =
            self.rlimits.iter().map(|(option, limit)| format!("{option}={limit}")).collect();
        command.args(["--noprofile", "--norc", "-c", BECOME, "bash", &keep.join(" "), &limits.join(" ")]);
        command.args(&self.argv);
        command.stdin(self.stdin).stdout(self.stdout).stderr(self.stderr);
        // The environment of the first process inside can be read by all.
        command.env_clear().env("PATH", super::PATH).current_dir("/");
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        for fd in &self.inherited {
            fcntl_setfd(fd, FdFlags::empty())?;
        }
        command.spawn()
    }
}
