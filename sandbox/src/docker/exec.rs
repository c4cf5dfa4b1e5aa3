//! A command in a container, and its three pipes.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    pin::Pin,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use bollard::{
    container::LogOutput,
    errors::Error,
    exec::{CreateExecOptions, StartExecOptions, StartExecResults},
};
use futures::{Stream, StreamExt};
use rustix::{
    event::{EventfdFlags, eventfd},
    pipe::{PipeFlags, pipe_with},
    process::{Pid, PidfdFlags, pidfd_open},
};
use tokio::{
    fs::File,
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::unix::pipe,
};

use super::{container::Container, daemon::start_error};
use crate::{
    SandboxError,
    running::{Input, Running, Streams, is_readable},
};

const PATIENCE: Duration = Duration::from_secs(60);

type Attached = Pin<Box<dyn Stream<Item = Result<LogOutput, Error>> + Send>>;
type Sink = Pin<Box<dyn AsyncWrite + Send>>;

/// What becomes of the container when the command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaves {
    /// It ends, too.
    Nothing,
    /// It ends only if the command left something running in it.
    CleanCell,
    /// It goes on, unless the command has to be ended.
    Base,
}

/// A command.
pub(super) struct Launch<'a> {
    pub(super) container: &'a Arc<Container>,
    pub(super) words: Vec<String>,
    pub(super) env: Vec<String>,
    pub(super) stdin: Input,
    /// None keeps it.
    pub(super) stdout: Option<OwnedFd>,
    pub(super) leaves: Leaves,
}

/// A command that runs.
pub(super) struct Sandbox {
    container: Arc<Container>,
    exec: String,
    main: Option<Pid>,
    end: OwnedFd,
    leaves: Leaves,
    /// Whether all of its output has arrived where it goes, if that is not here.
    carried: Option<mpsc::Receiver<bool>>,
    streams: Streams,
    /// What `finish` said.
    finished: Option<Option<i32>>,
}

impl Launch<'_> {
    pub(super) fn start(self) -> Result<Sandbox, SandboxError> {
        let failed = |errno: rustix::io::Errno| SandboxError::io("make a pipe", errno);
        let pipe = || pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).map_err(failed);
        let (stdin, fed) = match self.stdin {
            Input::Nothing => (None, None),
            Input::Fed => pipe().map(|(end, own)| (Some(end), Some(own)))?,
            Input::From(file) => (Some(file), None),
        };
        let (kept, stdout) = match self.stdout {
            Some(file) => (None, file),
            None => pipe().map(|(own, end)| (Some(own), end))?,
        };
        let (stderr, stderr_end) = pipe()?;
        let (done, carried) = mpsc::sync_channel(1);
        let carried = kept.is_none().then_some(carried);
        let id = self.container.id.clone();
        let options = CreateExecOptions {
            attach_stdin: Some(stdin.is_some()),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            env: Some(self.env),
            cmd: Some(self.words),
            ..CreateExecOptions::default()
        };
        let started = self.container.daemon.call(|docker| async move {
            let exec = docker.create_exec(&id, options).await?.id;
            let how = StartExecOptions { output_capacity: Some(64 << 10), ..StartExecOptions::default() };
            if let StartExecResults::Attached { output, input } = docker.start_exec(&exec, Some(how)).await? {
                tokio::spawn(async move {
                    // Nobody waits for what is kept.
                    let _ = done.send(carry_out(output, stdout, stderr_end).await);
                });
                if let Some(stdin) = stdin {
                    tokio::spawn(carry_in(stdin, input));
                }
            }
            Ok(exec)
        });
        let exec = started.map_err(|error| match self.container.has_ended() {
            true => SandboxError::Closed,
            false => start_error(error),
        })?;
        let mut sandbox = Sandbox {
            container: Arc::clone(self.container),
            exec,
            main: None,
            end: ended().map_err(failed)?,
            leaves: self.leaves,
            carried,
            streams: Streams { stdin: fed, stdout: kept, stderr: Some(stderr) },
            finished: None,
        };
        sandbox.find()?;
        Ok(sandbox)
    }
}

/// How far a command is.
enum State {
    NotYet,
    Runs(Pid),
    Ended(Option<i32>),
}

impl Sandbox {
    /// Finds its process, if it still runs.
    fn find(&mut self) -> Result<(), SandboxError> {
        let patience = Instant::now() + PATIENCE;
        loop {
            match self.state() {
                State::Ended(_) => return Ok(()),
                State::Runs(pid) if self.main == Some(pid) => return Ok(()),
                // Its number is another's only after it has ended, which the daemon would know the second time.
                State::Runs(pid) => match pidfd_open(pid, PidfdFlags::empty()) {
                    Ok(end) => (self.main, self.end) = (Some(pid), end),
                    Err(_) => thread::sleep(Duration::from_millis(1)),
                },
                State::NotYet => thread::sleep(Duration::from_millis(1)),
            }
            if Instant::now() > patience {
                return Err(SandboxError::Start { why: "docker: a command did not start in time".into() });
            }
        }
    }

    fn state(&self) -> State {
        let exec = self.exec.clone();
        let Ok(said) = self.container.daemon.call(|docker| async move { docker.inspect_exec(&exec).await })
        else {
            // It goes with its container.
            return State::Ended(None);
        };
        let pid = said.pid.and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        match (said.running, pid, said.exit_code) {
            (Some(true), Some(pid), _) => State::Runs(pid),
            (Some(false), _, Some(code)) => State::Ended(i32::try_from(code).ok()),
            _ if self.container.has_ended() => State::Ended(None),
            _ => State::NotYet,
        }
    }

    /// The daemon knows it a moment after the kernel.
    fn code(&self) -> Option<i32> {
        let patience = Instant::now() + PATIENCE;
        loop {
            if let State::Ended(code) = self.state() {
                return code;
            }
            if self.container.has_ended() || Instant::now() > patience {
                return None;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Running for Sandbox {
    fn end(&self) -> BorrowedFd<'_> {
        self.end.as_fd()
    }

    fn streams(&mut self) -> Streams {
        let Streams { stdin, stdout, stderr } = &mut self.streams;
        Streams { stdin: stdin.take(), stdout: stdout.take(), stderr: stderr.take() }
    }

    fn main(&self) -> Option<Pid> {
        self.main
    }

    fn processes(&self) -> Option<Vec<Pid>> {
        self.container.processes()
    }

    fn finish(&mut self) -> Option<i32> {
        if let Some(code) = self.finished {
            return code;
        }
        let code = if is_readable(&self.end, Duration::ZERO) { self.code() } else { None };
        match self.leaves {
            Leaves::CleanCell if code.is_some() && self.container.is_clean() => {}
            Leaves::Base if code.is_some() => {}
            _ => self.container.kill(),
        }
        let arrived = |carried: &mpsc::Receiver<bool>| carried.recv_timeout(PATIENCE) == Ok(true);
        let code = code.filter(|_| self.carried.as_ref().is_none_or(arrived));
        *self.finished.insert(code)
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.finish();
    }
}

/// What is readable at once.
fn ended() -> rustix::io::Result<OwnedFd> {
    eventfd(1, EventfdFlags::CLOEXEC)
}

/// Its outputs end when nobody is left who could write. False if not all could be written here.
async fn carry_out(mut output: Attached, stdout: OwnedFd, stderr: OwnedFd) -> bool {
    let mut stdout = writer(stdout);
    let mut stderr = writer(stderr);
    while let Some(Ok(part)) = output.next().await {
        let to = match &part {
            LogOutput::StdErr { .. } => &mut stderr,
            _ => &mut stdout,
        };
        if to.write_all(part.as_ref()).await.is_err() {
            return false;
        }
    }
    stdout.flush().await.is_ok()
}

async fn carry_in(stdin: OwnedFd, mut input: Sink) {
    let mut stdin = reader(stdin);
    let mut buffer = vec![0; 64 << 10];
    loop {
        let length = match stdin.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(length) => length,
        };
        if input.write_all(&buffer[..length]).await.is_err() || input.flush().await.is_err() {
            break;
        }
    }
    let _ = input.shutdown().await;
}

fn writer(fd: OwnedFd) -> Pin<Box<dyn AsyncWrite + Send>> {
    let file = || fd.try_clone().map(std::fs::File::from);
    match fd.try_clone().and_then(pipe::Sender::from_owned_fd) {
        Ok(pipe) => Box::pin(pipe),
        Err(_) => match file() {
            Ok(file) => Box::pin(File::from_std(file)),
            Err(_) => Box::pin(tokio::io::sink()),
        },
    }
}

fn reader(fd: OwnedFd) -> Pin<Box<dyn AsyncRead + Send>> {
    match fd.try_clone().and_then(pipe::Receiver::from_owned_fd) {
        Ok(pipe) => Box::pin(pipe),
        Err(_) => Box::pin(File::from_std(fd.into())),
    }
}
