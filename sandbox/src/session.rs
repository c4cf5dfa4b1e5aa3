//! A session, whoever makes its sandboxes: a base that holds its disk, and sandboxes that share it.

use std::{
    ffi::OsString,
    fs::File,
    io::{Read, Seek},
    os::{
        fd::OwnedFd,
        unix::{net::UnixStream, process::ExitStatusExt},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use crate::{
    Copied, Ending, Exec, Interrupt, Listing, Program, Ran, SandboxError, Session, Snapshot, Spec, TMP,
    WORKSPACE, Workspace,
    attend::{Pipes, Sink, Stop, attend, deadline, drain, nonblocking},
    capture::Capture,
    files,
    program::Programs,
    running::{Input, Running, Streams},
    scripts::{EMPTY, PACK, UNPACK, WRITE},
    shell::{self, Shell},
};

/// For the programs that carry files.
const PORTER_TIMEOUT: Duration = Duration::from_secs(600);

/// Makes the sandboxes of one session. Dropping it ends them all.
pub(crate) trait Maker: Send {
    /// What it makes.
    type Sandbox: Running + 'static;

    /// For a command, or for the shell. All that it starts ends with it.
    fn command(
        &mut self,
        spec: &Spec,
        exec: Option<&Exec>,
        words: Vec<OsString>,
    ) -> Result<Self::Sandbox, SandboxError>;

    /// For a program that carries files. It starts in a folder with `workspace`, `logs`, `home`, `tmp` and `shm`.
    fn porter(
        &mut self,
        words: Vec<OsString>,
        stdin: Input,
        stdout: Option<OwnedFd>,
    ) -> Result<Self::Sandbox, SandboxError>;

    /// Whether a program may go on while another command runs, and ends.
    fn keeps_programs(&self) -> bool {
        true
    }

    /// Where read-only folders lie for a porter, by number, until [`Maker::furnished`].
    fn store(&self) -> &'static str {
        "/store"
    }

    /// Nothing untrusted has run, and now it may.
    fn furnished(&mut self) -> Result<(), SandboxError>;

    /// The folder of the workspace.
    fn workspace(&self) -> &OwnedFd;

    /// The folder of temporary files.
    fn tmp(&self) -> &OwnedFd;

    /// How often the kernel has killed for memory.
    fn kills(&self) -> u64;

    /// Whether a sandbox that ended so never ran its command.
    fn is_refusal(code: Option<i32>, stderr: &Capture) -> bool;

    /// Ends everything and leaves nothing behind.
    fn close(self) -> Result<(), SandboxError>;
}

/// See [`Session`].
pub(crate) struct Machine<M: Maker> {
    spec: Spec,
    /// For snapshots.
    dir: PathBuf,
    interrupt: Interrupt,
    /// Ends before its maker.
    shell: Option<Shell<M::Sandbox>>,
    programs: Programs,
    maker: Option<M>,
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

impl<M: Maker> Machine<M> {
    /// With the disk that was asked for.
    pub(crate) fn open(maker: M, spec: &Spec, dir: &Path) -> Result<Self, SandboxError> {
        let interrupt = Interrupt::new()?;
        let mut machine = Self {
            spec: spec.clone(),
            dir: dir.into(),
            interrupt,
            shell: None,
            programs: Programs::default(),
            maker: Some(maker),
        };
        machine.furnish()?;
        machine.maker()?.furnished()?;
        Ok(machine)
    }

    /// Makes the folders of the disk and copies in what was asked for.
    fn furnish(&mut self) -> Result<(), SandboxError> {
        let store = self.maker()?.store();
        let mut folders = vec!["mkdir", "-p", "workspace", "home", "tmp", "shm"];
        folders.extend(["logs/agent", "logs/verifier", "logs/artifacts"]);
        let numbers: Vec<String> =
            (0..self.spec.read_only.len()).map(|number| format!("{store}/{number}")).collect();
        folders.extend(numbers.iter().map(String::as_str));
        self.carry("make the disk of a session", &folders, Input::Nothing, None)?;
        let read_only: Vec<PathBuf> = self.spec.read_only.values().cloned().collect();
        for (from, to) in read_only.iter().zip(&numbers) {
            self.copy_in(from, to)?;
        }
        match self.spec.workspace.clone() {
            Workspace::Empty => Ok(()),
            Workspace::Folder(from) => self.copy_in(&from, "workspace"),
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
        let unpacked = self.carry("copy a folder in", &words, Input::From(packed.into()), None);
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
        let words = ["sh", "-c", UNPACK, "sh", "workspace"];
        self.carry("unpack a workspace", &words, Input::From(packed.into()), None)
    }

    /// Runs a program that carries files.
    fn carry(
        &mut self,
        doing: &'static str,
        words: &[&str],
        stdin: Input,
        stdout: Option<OwnedFd>,
    ) -> Result<(), SandboxError> {
        let words = words.iter().map(OsString::from).collect();
        self.carry_bytes(doing, words, stdin, stdout, &[])
    }

    fn carry_bytes(
        &mut self,
        doing: &'static str,
        words: Vec<OsString>,
        stdin: Input,
        stdout: Option<OwnedFd>,
        feed: &[u8],
    ) -> Result<(), SandboxError> {
        let running = self.maker()?.porter(words, stdin, stdout)?;
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

    /// Attends to a command until all it started is gone.
    fn attend(
        &self,
        mut running: M::Sandbox,
        feed: &[u8],
        timeout: Duration,
        interrupt: Option<&Interrupt>,
    ) -> Result<(Ending, Captures), SandboxError> {
        let mut captures = Captures::new(self.spec.limits.output_bytes);
        let none = || File::open("/dev/null").map_err(|source| SandboxError::io("open /dev/null", source));
        let prepared = |stream: Option<OwnedFd>| match stream {
            Some(stream) => nonblocking(stream),
            None => Ok(none()?.into()),
        };
        let Streams { stdin, stdout, stderr } = running.streams();
        let mut stdin = stdin.map(nonblocking).transpose()?;
        let (stdout, stderr) = (prepared(stdout)?, prepared(stderr)?);
        let mut pipes = Pipes { stdin: &mut stdin, stdout: &stdout, stderr: &stderr, feed, closes: true };
        let stop = attend(running.end(), &mut pipes, deadline(timeout), interrupt, &mut captures);
        let code = running.finish();
        drain(&pipes, &mut captures);
        let ending = match (stop?, code) {
            (Stop::TimedOut, _) => Ending::TimedOut,
            (Stop::Interrupted, _) => Ending::Interrupted,
            (_, code) if M::is_refusal(code, &captures.stderr) => Ending::NotStarted,
            (_, Some(code)) => Ending::Exited(code),
            (_, None) => Ending::Killed,
        };
        Ok((ending, captures))
    }

    fn maker(&mut self) -> Result<&mut M, SandboxError> {
        self.maker.as_mut().ok_or(SandboxError::Closed)
    }

    fn workspace(&self) -> Result<&OwnedFd, SandboxError> {
        self.maker.as_ref().map(Maker::workspace).ok_or(SandboxError::Closed)
    }

    fn kills(&self) -> u64 {
        self.maker.as_ref().map_or(0, Maker::kills)
    }
}

impl<M: Maker> Session for Machine<M> {
    fn exec(&mut self, exec: &Exec) -> Result<Ran, SandboxError> {
        let (began, kills) = (Instant::now(), self.kills());
        self.interrupt.clear();
        let maker = self.maker.as_mut().ok_or(SandboxError::Closed)?;
        let running = maker.command(&self.spec, Some(exec), exec.words())?;
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

    fn start(&mut self, exec: &Exec) -> Result<Program, SandboxError> {
        let maker = self.maker.as_mut().ok_or(SandboxError::Closed)?;
        if !maker.keeps_programs() {
            return Err(SandboxError::Carry {
                doing: "start a program that goes on",
                why: "in this kind of sandbox it ends with the next command; bubblewrap keeps it".to_owned(),
            });
        }
        let program = Program::new(maker.command(&self.spec, Some(exec), exec.words())?)?;
        self.programs.add(&program);
        Ok(program)
    }

    fn shell(&mut self, line: &str, timeout: Duration) -> Result<Ran, SandboxError> {
        let (began, kills) = (Instant::now(), self.kills());
        if line.contains('\0') {
            return Err(SandboxError::path(Path::new(line), "has a zero byte"));
        }
        self.interrupt.clear();
        let maker = self.maker.as_mut().ok_or(SandboxError::Closed)?;
        let shell = match self.shell.take() {
            Some(shell) => shell,
            None => {
                let words = shell::WORDS.map(OsString::from).to_vec();
                let running = maker.command(&self.spec, None, words)?;
                Shell::new(running, self.spec.limits.output_bytes)?
            }
        };
        let step = self.shell.insert(shell).line(line, timeout, &self.interrupt);
        if !step.as_ref().is_ok_and(|step| !step.lost) {
            self.shell = None;
        }
        let step = step?;
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
        self.shell = None;
        self.programs.end();
        self.maker().map(|_| ())
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
        self.carry_bytes("write a file", words, Input::Fed, None, bytes)
    }

    fn list(&self, path: &Path) -> Result<Listing, SandboxError> {
        files::list(self.workspace()?, path)
    }

    fn copy_out(&self, path: &Path, to: &Path) -> Result<Copied, SandboxError> {
        files::copy_out(self.workspace()?, path, to, self.spec.limits.disk_bytes)
    }

    fn snapshot(&mut self) -> Result<Snapshot, SandboxError> {
        let (snapshot, file) = Snapshot::create(&self.dir)?;
        let words = ["sh", "-c", PACK, "sh", "workspace"];
        self.carry("pack the workspace", &words, Input::Nothing, Some(file.into()))?;
        Ok(snapshot)
    }

    fn reset(&mut self, snapshot: &Snapshot) -> Result<(), SandboxError> {
        self.stop_all()?;
        let words = ["sh", "-c", EMPTY, "sh", "workspace", "logs", "home", "tmp", "shm"];
        self.carry("empty the disk", &words, Input::Nothing, None)?;
        self.unpack(snapshot.open()?)
    }

    fn connect(&self, path: &Path) -> Result<UnixStream, SandboxError> {
        let maker = self.maker.as_ref().ok_or(SandboxError::Closed)?;
        let places = [(WORKSPACE, maker.workspace()), (TMP, maker.tmp())];
        let inside = places.into_iter().find_map(|(at, folder)| Some((folder, path.strip_prefix(at).ok()?)));
        let Some((folder, inside)) = inside else {
            return Err(SandboxError::path(path, format!("is below neither {WORKSPACE} nor {TMP}")));
        };
        files::connect(folder, inside).map_err(|why| SandboxError::path(path, why))
    }

    fn interrupt_handle(&self) -> Interrupt {
        self.interrupt.clone()
    }

    fn close(&mut self) -> Result<(), SandboxError> {
        self.shell = None;
        self.programs.end();
        self.maker.take().map_or(Ok(()), Maker::close)
    }
}

impl<M: Maker> Drop for Machine<M> {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::warn!(%error, "a sandbox leaves something behind");
        }
    }
}
