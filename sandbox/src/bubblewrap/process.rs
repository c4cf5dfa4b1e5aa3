//! A sandbox that runs: its two processes outside, and what it says of itself.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Read, Seek, Write},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Stdio},
    time::{Duration, Instant},
};

use rustix::{
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create},
    io::Errno,
    pipe::{PipeFlags, pipe_with},
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};

use super::keeper::{Keeper, Rlimit, Start};
use crate::{
    SandboxError,
    cgroup::Group,
    running::{Running, Streams, below, is_readable},
};

/// Process 1 of a sandbox. It ends with the command, everything with it, and is waited for by bubblewrap itself: a first
/// process of bubblewrap's own would be left to process 1 of the host, which may never look.
const FIRST: &str = "\"$@\"\nexit $?";

/// How long bubblewrap may take to make a sandbox.
const PATIENCE: Duration = Duration::from_secs(60);

/// What to run in which sandbox.
pub(super) struct Launch<'a> {
    pub(super) keeper: &'a Keeper,
    /// The path of bubblewrap.
    pub(super) bwrap: &'a OsString,
    /// Of the process in whose user and mount namespaces to begin.
    pub(super) inside: Option<Pid>,
    /// For bubblewrap.
    pub(super) options: Vec<OsString>,
    /// To run.
    pub(super) words: Vec<OsString>,
    pub(super) seccomp: &'a [u8],
    pub(super) group: Option<&'a Group>,
    pub(super) rlimits: &'a [Rlimit],
    pub(super) user: Option<u32>,
    pub(super) stdin: Stdio,
    pub(super) stdout: Stdio,
}

/// A sandbox that runs. Dropping it ends it.
pub(super) struct Sandbox {
    outer: Child,
    /// Readable when `outer` has ended.
    outer_end: OwnedFd,
    /// Process 1 of the sandbox.
    first: Pid,
    first_end: OwnedFd,
    status: File,
    ended: bool,
    pub(super) stdin: Option<ChildStdin>,
    pub(super) stdout: Option<ChildStdout>,
    pub(super) stderr: Option<ChildStderr>,
}

impl Launch<'_> {
    pub(super) fn start(mut self) -> Result<Sandbox, SandboxError> {
        let failed = |source| SandboxError::io("start bubblewrap", source);
        let (status, status_end) = pipe_with(PipeFlags::CLOEXEC).map_err(|errno| failed(errno.into()))?;
        let (go, go_end) = pipe_with(PipeFlags::CLOEXEC).map_err(|errno| failed(errno.into()))?;
        let seccomp = sealed("seccomp", self.seccomp).map_err(failed)?;
        self.options.push("--as-pid-1".into());
        for (option, fd) in [("--json-status-fd", &status_end), ("--block-fd", &go), ("--seccomp", &seccomp)]
        {
            self.options.extend([option.into(), fd.as_raw_fd().to_string().into()]);
        }
        // As one file: what is in its arguments can be read inside.
        let options = sealed("options", &zero_terminated(&self.options)).map_err(failed)?;

        let mut argv = Vec::new();
        if let Some(pid) = self.inside {
            argv.extend([
                "nsenter".into(),
                "--preserve-credentials".into(),
                "--user".into(),
                "--mount".into(),
            ]);
            argv.extend(["--target".into(), pid.as_raw_nonzero().to_string().into(), "--".into()]);
        }
        argv.extend([
            self.bwrap.clone(),
            "--args".into(),
            options.as_raw_fd().to_string().into(),
            "--".into(),
        ]);
        argv.extend(["sh", "-c", FIRST, "sh"].map(OsString::from));
        argv.append(&mut self.words);
        let mut outer = self
            .keeper
            .start(Start {
                argv,
                stdin: self.stdin,
                stdout: self.stdout,
                stderr: Stdio::piped(),
                inherited: vec![status_end, go, seccomp, options],
                rlimits: self.rlimits.to_vec(),
                user: self.user,
            })
            .map_err(failed)?;

        let mut status = File::from(status);
        let Some(first) = first_process(&mut status) else {
            return Err(SandboxError::Start { why: give_up(outer) });
        };
        let ends = pidfd_open(Pid::from_child(&outer), PidfdFlags::empty())
            .and_then(|outer_end| Ok((outer_end, pidfd_open(first, PidfdFlags::empty())?)));
        let (outer_end, first_end) = match ends {
            Ok(ends) => ends,
            Err(errno) => {
                let why = give_up(outer);
                // No such process: it has ended already, and said why.
                return Err(if errno == Errno::SRCH {
                    SandboxError::Start { why }
                } else {
                    failed(errno.into())
                });
            }
        };
        let (stdin, stdout, stderr) = (outer.stdin.take(), outer.stdout.take(), outer.stderr.take());
        let running =
            Sandbox { outer, outer_end, first, first_end, status, ended: false, stdin, stdout, stderr };

        // It waits now, in front of the command, so the limits hold for all of it.
        if let Some(group) = self.group {
            group
                .add(first)
                .map_err(|source| SandboxError::io("put a sandbox into its control group", source))?;
        }
        // It may have failed already; then its end says so.
        let _ = File::from(go_end).write_all(b".");
        Ok(running)
    }
}

impl Sandbox {
    /// Process 1 of the sandbox, as seen from here.
    pub(super) fn first(&self) -> Pid {
        self.first
    }
}

impl Running for Sandbox {
    fn end(&self) -> BorrowedFd<'_> {
        self.outer_end.as_fd()
    }

    fn streams(&mut self) -> Streams {
        Streams {
            stdin: self.stdin.take().map(OwnedFd::from),
            stdout: self.stdout.take().map(OwnedFd::from),
            stderr: self.stderr.take().map(OwnedFd::from),
        }
    }

    fn main(&self) -> Option<Pid> {
        below(self.first)?.first().copied()
    }

    fn processes(&self) -> Option<Vec<Pid>> {
        below(self.first)
    }

    fn finish(&mut self) -> Option<i32> {
        if !self.ended {
            // The kernel ends every process of the namespace with its first one, and ends that one last.
            let _ = pidfd_send_signal(&self.first_end, Signal::KILL);
            is_readable(&self.first_end, PATIENCE);
            if !is_readable(&self.outer_end, PATIENCE) {
                let _ = self.outer.kill();
            }
            let _ = self.outer.wait();
            self.ended = true;
        }
        let mut said = String::new();
        let _ = self.status.read_to_string(&mut said);
        serde_json::Deserializer::from_str(&said)
            .into_iter::<serde_json::Value>()
            .map_while(Result::ok)
            .find_map(|part| part.get("exit-code")?.as_i64())
            .and_then(|code| i32::try_from(code).ok())
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.finish();
    }
}

/// Its first word is the number of process 1.
fn first_process(status: &mut File) -> Option<Pid> {
    let deadline = Instant::now() + PATIENCE;
    let mut said = Vec::new();
    while !said.contains(&b'}') {
        let mut some = [0; 512];
        if !is_readable(&*status, deadline.saturating_duration_since(Instant::now())) {
            return None;
        }
        match status.read(&mut some) {
            Ok(0) => return None,
            Ok(length) => said.extend_from_slice(&some[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
    let said: serde_json::Value = serde_json::from_slice(&said).ok()?;
    Pid::from_raw(said.get("child-pid")?.as_i64()?.try_into().ok()?)
}

/// Ends it. Why it did not start, in its own words.
fn give_up(mut outer: Child) -> String {
    let _ = outer.kill();
    let mut why = String::new();
    if let Some(stderr) = outer.stderr.take() {
        let _ = stderr.take(4096).read_to_string(&mut why);
    }
    let _ = outer.wait();
    if why.trim().is_empty() { "bubblewrap said nothing".into() } else { why.trim().into() }
}

/// A file in memory that whoever inherits it cannot change.
fn sealed(name: &str, bytes: &[u8]) -> io::Result<OwnedFd> {
    let mut file = File::from(memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
    file.write_all(bytes)?;
    file.rewind()?;
    fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
    Ok(file.into())
}

fn zero_terminated(words: &[OsString]) -> Vec<u8> {
    use std::os::unix::ffi::OsStrExt;
    words.iter().flat_map(|word| word.as_bytes().iter().copied().chain([0])).collect()
}
