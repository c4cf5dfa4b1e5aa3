//! A session: its base, its disk, and the sandboxes that share it.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{Read, Seek},
    os::{
        fd::OwnedFd,
        unix::{fs::OpenOptionsExt, process::ExitStatusExt},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::{
    Bubblewrap,
    cgroup::{Cgroups, Group},
    keeper::{Keeper, Rlimit},
    options::{self, Places},
    prefix,
    process::{Launch, Running, is_readable},
    run::{Pipes, Sink, Stop, attend, deadline, drain, nonblocking},
    scripts::{EMPTY, PACK, UNPACK, WRITE},
    seccomp, shell,
    shell::Shell,
};
use crate::{
    Copied, Ending, Exec, Interrupt, Limits, Listing, Ran, SandboxError, Session, Snapshot, Spec, Workspace,
    capture::Capture, files,
};

/// For the programs that carry files.
const PORTER_TIMEOUT: Duration = Duration::from_secs(600);
/// Says that its mounts are made, and waits for the end of its input.
const BASE_WORDS: [&str; 3] = ["sh", "-c", "echo; exec cat"];

/// See [`Session`].
pub(super) struct BubblewrapSession {
    spec: Spec,
    bwrap: OsString,
    user: Option<u32>,
    /// For snapshots.
    dir: PathBuf,
    seccomp: Vec<u8>,
    rlimits: Vec<Rlimit>,
    places: Places,
    interrupt: Interrupt,
    /// Nothing untrusted has run.
    furnishing: bool,
    open: Option<Open>,
}

/// In the order in which it goes.
struct Open {
    shell: Option<Shell>,
    workspace: OwnedFd,
    base: Running,
    group: Group,
    keeper: Keeper,
    folder: TempDir,
}

struct Captures {
    stdout: Capture,
    stderr: Capture,
}

impl Captures {
    fn new(limit: usize) -> Self {
        Self { stdout: Capture::new(limit), stderr: Capture::new(limit) }
    }
}

impl Sink for Captures {
    fn stdout(&mut self, bytes: &[u8]) {
        self.stdout.push(bytes);
    }

    fn stderr(&mut self, bytes: &[u8]) {
        self.stderr.push(bytes);
    }
}

impl BubblewrapSession {
    pub(super) fn open(backend: &Bubblewrap, cgroups: &Cgroups, spec: &Spec) -> Result<Self, SandboxError> {
        let made = |source| SandboxError::io("make the folder of a session", source);
        let folder = tempfile::Builder::new().prefix(&prefix()).tempdir_in(&backend.dir).map_err(made)?;
        let places = Places::make(folder.path()).map_err(made)?;
        let name = folder.path().file_name().expect("it was given a name").to_string_lossy().into_owned();
        let group = cgroups.make(&name, &spec.limits)?;
        let keeper = Keeper::new().map_err(|source| SandboxError::io("start a thread", source))?;
        let bwrap = super::find_program("bwrap").unwrap_or_else(|| "bwrap".into()).into_os_string();
        let seccomp = seccomp::program();
        let mut base = Launch {
            keeper: &keeper,
            bwrap: &bwrap,
            inside: None,
            options: options::base(&places, spec),
            words: BASE_WORDS.map(OsString::from).to_vec(),
            seccomp: &seccomp,
            group: None,
            rlimits: &[],
            user: backend.becomes(),
            stdin: Stdio::piped(),
            stdout: Stdio::piped(),
        }
        .start()?;
        ready(&mut base)?;
        let root = format!("/proc/{}/root", base.first().as_raw_nonzero());
        let disk = Path::new(&root).join(places.disk.strip_prefix("/").unwrap_or(&places.disk));

        let mut session = Self {
            rlimits: rlimits(&spec.limits, group.memory),
            spec: spec.clone(),
            bwrap,
            user: backend.becomes(),
            dir: backend.dir.clone(),
            seccomp,
            places,
            interrupt: Interrupt::new()?,
            furnishing: true,
            // Replaced below, once the folder is there.
            open: None,
        };
        let opened = open_dir(&disk)?;
        session.open = Some(Open { shell: None, workspace: opened, base, group, keeper, folder });
        session.furnish()?;
        session.furnishing = false;
        session.open.as_mut().ok_or(SandboxError::Closed)?.workspace = open_dir(&disk.join("workspace"))?;
        Ok(session)
    }

    /// Makes the folders of the disk and copies in what was asked for.
    fn furnish(&mut self) -> Result<(), SandboxError> {
        let mut folders = vec!["mkdir", "-p", "workspace", "home", "tmp", "shm"];
        folders.extend(["logs/agent", "logs/verifier", "logs/artifacts"]);
        let numbers: Vec<String> =
            (0..self.spec.read_only.len()).map(|number| format!("/store/{number}")).collect();
        folders.extend(numbers.iter().map(String::as_str));
        self.carry("make the disk of a session", &folders, Stdio::null(), Stdio::null())?;
        let read_only: Vec<PathBuf> = self.spec.read_only.values().cloned().collect();
        for (from, to) in read_only.iter().zip(&numbers) {
            self.copy_in(from, to)?;
        }
        match self.spec.workspace.clone() {
            Workspace::Empty => Ok(()),
            Workspace::Folder(from) => self.copy_in(&from, "/disk/workspace"),
            Workspace::Snapshot(snapshot) => self.unpack(snapshot.open()?),
        }
    }

    fn copy_in(&mut self, from: &Path, to: &str) -> Result<(), SandboxError> {
        if !from.is_dir() {
            return Err(SandboxError::path(from, "is not a folder"));
        }
        let mut said =
            tempfile::tempfile().map_err(|source| SandboxError::io("make a temporary file", source))?;
        let stderr = said.try_clone().map_err(|source| SandboxError::io("make a temporary file", source))?;
        let mut tar = Command::new("tar")
            .args(["--create", "--sparse", "--file=-", "--directory"])
            .arg(from)
            .arg(".")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .map_err(|source| SandboxError::io("start tar", source))?;
        let packed = tar.stdout.take().expect("it is a pipe");
        let words = ["sh", "-c", UNPACK, "sh", to];
        let unpacked = self.carry("copy a folder in", &words, packed.into(), Stdio::null());
        if unpacked.is_err() {
            let _ = tar.kill();
        }
        let status = tar.wait().map_err(|source| SandboxError::io("wait for tar", source))?;
        unpacked?;
        // Nobody reads the padding behind the last block.
        if status.success() || status.signal() == Some(libc::SIGPIPE) {
            return Ok(());
        }
        let mut why = String::new();
        let _ = said.rewind().and_then(|()| said.take(4096).read_to_string(&mut why));
        Err(SandboxError::Carry { doing: "copy a folder in", why: why.trim().into() })
    }

    fn unpack(&mut self, packed: File) -> Result<(), SandboxError> {
        let words = ["sh", "-c", UNPACK, "sh", "/disk/workspace"];
        self.carry("unpack a workspace", &words, packed.into(), Stdio::null())
    }

    /// Runs a program of the host's in a sandbox with the whole disk.
    fn carry(
        &mut self,
        doing: &'static str,
        words: &[&str],
        stdin: Stdio,
        stdout: Stdio,
    ) -> Result<(), SandboxError> {
        let words = words.iter().map(OsString::from).collect();
        self.carry_bytes(doing, words, stdin, stdout, &[])
    }

    fn carry_bytes(
        &mut self,
        doing: &'static str,
        words: Vec<OsString>,
        stdin: Stdio,
        stdout: Stdio,
        feed: &[u8],
    ) -> Result<(), SandboxError> {
        // Whatever the session's own processes hold, files can be carried: these have limits of their own.
        let rlimits = [
            ("-c", 0),
            ("-f", self.spec.limits.disk_bytes.saturating_mul(2).div_ceil(1024) + (64 << 10)),
            ("-v", 2 << 20),
        ];
        let options = options::porter(&self.places, self.furnishing);
        let running = self.launch(options, words, None, &rlimits, stdin, stdout)?;
        let (ending, captures) = self.attend(running, feed, PORTER_TIMEOUT, None)?;
        match ending {
            Ending::Exited(0) => Ok(()),
            ending => {
                let said = captures.stderr.finish().text().trim().to_owned();
                let why = if said.is_empty() { format!("{ending:?}") } else { said };
                Err(SandboxError::Carry { doing, why })
            }
        }
    }

    fn launch(
        &self,
        options: Vec<OsString>,
        words: Vec<OsString>,
        group: Option<&Group>,
        rlimits: &[Rlimit],
        stdin: Stdio,
        stdout: Stdio,
    ) -> Result<Running, SandboxError> {
        let open = self.open.as_ref().ok_or(SandboxError::Closed)?;
        if is_readable(open.base.end(), Duration::ZERO) {
            return Err(SandboxError::Closed);
        }
        Launch {
            keeper: &open.keeper,
            bwrap: &self.bwrap,
            inside: Some(open.base.first()),
            options,
            words,
            seccomp: &self.seccomp,
            group,
            rlimits,
            user: self.user,
            stdin,
            stdout,
        }
        .start()
    }

    fn launch_command(&self, options: Vec<OsString>, words: Vec<OsString>) -> Result<Running, SandboxError> {
        let group = self.open.as_ref().map(|open| &open.group);
        self.launch(options, words, group, &self.rlimits, Stdio::piped(), Stdio::piped())
    }

    /// Attends to a command until all it started is gone.
    fn attend(
        &self,
        mut running: Running,
        feed: &[u8],
        timeout: Duration,
        interrupt: Option<&Interrupt>,
    ) -> Result<(Ending, Captures), SandboxError> {
        let mut captures = Captures::new(self.spec.limits.output_bytes);
        let mut stdin = running.stdin.take().map(nonblocking).transpose()?;
        let none = || File::open("/dev/null").map_err(|source| SandboxError::io("open /dev/null", source));
        let stdout = match running.stdout.take() {
            Some(stdout) => nonblocking(stdout)?,
            None => none()?.into(),
        };
        let stderr = nonblocking(running.stderr.take().expect("it is always a pipe"))?;
        let mut pipes = Pipes { stdin: &mut stdin, stdout: &stdout, stderr: &stderr, feed, closes: true };
        let stop = attend(&running, &mut pipes, deadline(timeout), interrupt, &mut captures);
        let code = running.finish();
        drain(&pipes, &mut captures);
        let ending = match (stop?, code) {
            (Stop::TimedOut, _) => Ending::TimedOut,
            (Stop::Interrupted, _) => Ending::Interrupted,
            (_, Some(code)) => Ending::Exited(code),
            (_, None) if captures.stderr.starts_with(b"bwrap: ") => Ending::NotStarted,
            (_, None) => Ending::Killed,
        };
        Ok((ending, captures))
    }

    fn workspace(&self) -> Result<&OwnedFd, SandboxError> {
        self.open.as_ref().map(|open| &open.workspace).ok_or(SandboxError::Closed)
    }

    fn kills(&self) -> u64 {
        self.open.as_ref().map_or(0, |open| open.group.kills())
    }
}

impl Session for BubblewrapSession {
    fn exec(&mut self, exec: &Exec) -> Result<Ran, SandboxError> {
        let (began, kills) = (Instant::now(), self.kills());
        self.interrupt.clear();
        let options = options::command(&self.places, &self.spec, Some(exec))?;
        let running = self.launch_command(options, exec.words())?;
        let (ending, captures) = self.attend(running, &exec.stdin, exec.timeout, Some(&self.interrupt))?;
        Ok(Ran {
            ending,
            stdout: captures.stdout.finish(),
            stderr: captures.stderr.finish(),
            duration: began.elapsed(),
            out_of_memory: self.kills() > kills,
            shell_lost: false,
        })
    }

    fn shell(&mut self, line: &str, timeout: Duration) -> Result<Ran, SandboxError> {
        let (began, kills) = (Instant::now(), self.kills());
        if line.contains('\0') {
            return Err(SandboxError::path(Path::new(line), "has a zero byte"));
        }
        self.interrupt.clear();
        let shell = match self.open.as_mut().ok_or(SandboxError::Closed)?.shell.take() {
            Some(shell) => shell,
            None => {
                let options = options::command(&self.places, &self.spec, None)?;
                let words = shell::WORDS.map(OsString::from).to_vec();
                let running = self.launch_command(options, words)?;
                Shell::new(running, self.spec.limits.output_bytes)?
            }
        };
        let open = self.open.as_mut().ok_or(SandboxError::Closed)?;
        let step = open.shell.insert(shell).line(line, timeout, &self.interrupt);
        let step = match step {
            Ok(step) => step,
            Err(error) => {
                open.shell = None;
                return Err(error);
            }
        };
        if step.lost {
            open.shell = None;
        }
        Ok(Ran {
            ending: step.ending,
            stdout: step.stdout,
            stderr: step.stderr,
            duration: began.elapsed(),
            out_of_memory: self.kills() > kills,
            shell_lost: step.lost,
        })
    }

    fn stop_all(&mut self) -> Result<(), SandboxError> {
        self.open.as_mut().ok_or(SandboxError::Closed)?.shell = None;
        Ok(())
    }

    fn read_file(&self, path: &Path) -> Result<Vec<u8>, SandboxError> {
        files::read(self.workspace()?, path, self.spec.limits.read_bytes)
    }

    fn write_file(&mut self, path: &Path, bytes: &[u8]) -> Result<(), SandboxError> {
        let (parent, name) = files::place(self.workspace()?, path)?;
        let folder = Path::new("/disk/workspace").join(parent);
        let other = format!(".{}", uuid::Uuid::new_v4().simple());
        let mut words: Vec<OsString> = ["sh", "-c", WRITE, "sh"].map(OsString::from).to_vec();
        let folder = folder.components().as_path().as_os_str().to_owned();
        words.extend([folder, name, other.into()]);
        self.carry_bytes("write a file", words, Stdio::piped(), Stdio::null(), bytes)
    }

    fn list(&self, path: &Path) -> Result<Listing, SandboxError> {
        files::list(self.workspace()?, path)
    }

    fn copy_out(&self, path: &Path, to: &Path) -> Result<Copied, SandboxError> {
        files::copy_out(self.workspace()?, path, to, self.spec.limits.disk_bytes)
    }

    fn snapshot(&mut self) -> Result<Snapshot, SandboxError> {
        let (snapshot, file) = Snapshot::create(&self.dir)?;
        let words = ["sh", "-c", PACK, "sh", "/disk/workspace"];
        self.carry("pack the workspace", &words, Stdio::null(), file.into())?;
        Ok(snapshot)
    }

    fn reset(&mut self, snapshot: &Snapshot) -> Result<(), SandboxError> {
        self.stop_all()?;
        let words = ["sh", "-c", EMPTY, "sh", "workspace", "logs", "home", "tmp", "shm"];
        self.carry("empty the disk", &words, Stdio::null(), Stdio::null())?;
        self.unpack(snapshot.open()?)
    }

    fn interrupt_handle(&self) -> Interrupt {
        self.interrupt.clone()
    }

    fn close(&mut self) -> Result<(), SandboxError> {
        let Some(Open { shell, workspace, base, mut group, keeper, folder }) = self.open.take() else {
            return Ok(());
        };
        drop((shell, workspace, base, keeper));
        let removed = group.remove();
        folder.close().map_err(|source| SandboxError::io("remove the folder of a session", source))?;
        removed.map_err(|source| SandboxError::io("remove a control group", source))
    }
}

impl Drop for BubblewrapSession {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::warn!(%error, "a sandbox leaves something behind");
        }
    }
}

/// Waits until the base has its mounts.
fn ready(base: &mut Running) -> Result<(), SandboxError> {
    let mut stdout = base.stdout.take().expect("it is a pipe");
    if is_readable(&stdout, Duration::from_secs(60)) && stdout.read(&mut [0]).is_ok_and(|length| length == 1)
    {
        return Ok(());
    }
    let mut stderr = base.stderr.take().expect("it is a pipe");
    base.finish();
    let mut why = String::new();
    let _ = stderr.read_to_string(&mut why);
    Err(SandboxError::Start { why: why.trim().into() })
}

fn open_dir(path: &Path) -> Result<OwnedFd, SandboxError> {
    let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
    let opened = fs::OpenOptions::new().read(true).custom_flags(flags).open(path);
    Ok(opened.map_err(|source| SandboxError::io("open the disk of a session", source))?.into())
}

fn rlimits(limits: &Limits, group_has_memory: bool) -> Vec<Rlimit> {
    let mut all = vec![
        ("-c", 0),
        ("-f", limits.file_bytes.div_ceil(1024)),
        ("-l", 64),
        ("-n", limits.open_files),
        ("-q", 64 << 10),
        ("-t", limits.cpu_secs),
        // Counted in the user namespace of the base: all of the session together.
        ("-u", limits.processes),
    ];
    if !group_has_memory {
        all.push(("-v", limits.memory_bytes.div_ceil(1024)));
    }
    all
}
