//! Attends to a command: feeds it, keeps what it writes, and ends it when its time is over.

use std::{
    os::fd::{AsFd, OwnedFd},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
    io::{Errno, read, write},
};

use super::process::{Running, timespec};
use crate::{Interrupt, SandboxError};

/// Why attending has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The sandbox has ended.
    End,
    /// What it writes says so.
    Enough,
    TimedOut,
    Interrupted,
}

/// The three pipes, and what is still to be written.
pub(super) struct Pipes<'a> {
    pub(super) stdin: &'a mut Option<OwnedFd>,
    pub(super) stdout: &'a OwnedFd,
    pub(super) stderr: &'a OwnedFd,
    pub(super) feed: &'a [u8],
    /// Closes the input once all is written.
    pub(super) closes: bool,
}

/// Takes what was read; says whether that is enough.
pub(super) trait Sink {
    fn stdout(&mut self, bytes: &[u8]);
    fn stderr(&mut self, bytes: &[u8]);
    fn enough(&self) -> bool {
        false
    }
}

/// Until the sandbox ends, the sink has enough, or `deadline`.
pub(super) fn attend(
    running: &Running,
    pipes: &mut Pipes<'_>,
    deadline: Instant,
    interrupt: Option<&Interrupt>,
    sink: &mut dyn Sink,
) -> Result<Stop, SandboxError> {
    let failed = |errno: Errno| SandboxError::io("talk to a command", errno);
    let (mut out, mut err) = (true, true);
    loop {
        if pipes.feed.is_empty() && pipes.closes {
            *pipes.stdin = None;
        }
        if sink.enough() {
            return Ok(Stop::Enough);
        }
        let mut fds = Vec::with_capacity(5);
        let mut watch = |fd, flags| {
            fds.push(PollFd::from_borrowed_fd(fd, flags));
            fds.len() - 1
        };
        let at_end = watch(running.end().as_fd(), PollFlags::IN);
        let at_stdout = out.then(|| watch(pipes.stdout.as_fd(), PollFlags::IN));
        let at_stderr = err.then(|| watch(pipes.stderr.as_fd(), PollFlags::IN));
        let at_stdin = match &*pipes.stdin {
            Some(stdin) if !pipes.feed.is_empty() => Some(watch(stdin.as_fd(), PollFlags::OUT)),
            _ => None,
        };
        let at_interrupt = interrupt.map(|interrupt| watch(interrupt.fd().as_fd(), PollFlags::IN));
        let left = timespec(deadline.saturating_duration_since(Instant::now()));
        match poll(&mut fds, Some(&left)) {
            Ok(0) => return Ok(Stop::TimedOut),
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(failed(errno)),
        }
        let is_ready = |at: Option<usize>| at.is_some_and(|at| !fds[at].revents().is_empty());
        let [ended, stdout, stderr, stdin, interrupted] =
            [Some(at_end), at_stdout, at_stderr, at_stdin, at_interrupt].map(is_ready);
        if interrupted {
            return Ok(Stop::Interrupted);
        }
        if stdout {
            out = take(pipes.stdout, |bytes| sink.stdout(bytes)).map_err(failed)?;
        }
        if stderr {
            err = take(pipes.stderr, |bytes| sink.stderr(bytes)).map_err(failed)?;
        }
        if stdin {
            let stdin = pipes.stdin.as_ref().expect("it was watched");
            match write(stdin, pipes.feed) {
                Ok(length) => pipes.feed = &pipes.feed[length..],
                Err(Errno::AGAIN | Errno::INTR) => {}
                // It does not read any more.
                Err(_) => pipes.feed = &[],
            }
        }
        if ended {
            return Ok(Stop::End);
        }
        // An endless output never lets `poll` wait.
        if Instant::now() >= deadline {
            return Ok(Stop::TimedOut);
        }
    }
}

/// When `timeout` is over; some years are for ever.
pub(super) fn deadline(timeout: Duration) -> Instant {
    const FOR_EVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
    Instant::now() + timeout.min(FOR_EVER)
}

/// What is left after everything has ended.
pub(super) fn drain(pipes: &Pipes<'_>, sink: &mut dyn Sink) {
    // A pipe holds little, and nobody is left who writes.
    while take(pipes.stdout, |bytes| sink.stdout(bytes)) == Ok(true) && has(pipes.stdout) {}
    while take(pipes.stderr, |bytes| sink.stderr(bytes)) == Ok(true) && has(pipes.stderr) {}
}

fn has(fd: &OwnedFd) -> bool {
    super::process::is_readable(fd, Duration::ZERO)
}

/// Reads once; false at the end.
fn take(fd: &OwnedFd, mut sink: impl FnMut(&[u8])) -> Result<bool, Errno> {
    let mut buffer = [0; 64 << 10];
    match read(fd, &mut buffer) {
        Ok(0) => Ok(false),
        Ok(length) => {
            sink(&buffer[..length]);
            Ok(true)
        }
        Err(Errno::AGAIN | Errno::INTR) => Ok(true),
        Err(errno) => Err(errno),
    }
}

/// A descriptor on which nothing waits.
pub(super) fn nonblocking(fd: impl Into<OwnedFd>) -> Result<OwnedFd, SandboxError> {
    let fd = fd.into();
    let set = fcntl_getfl(&fd).and_then(|flags| fcntl_setfl(&fd, flags | OFlags::NONBLOCK));
    set.map_err(|errno| SandboxError::io("prepare a pipe", errno))?;
    Ok(fd)
}
