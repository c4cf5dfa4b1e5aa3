//! Attends to a command: feeds it, keeps what it writes, and ends it when its time is over.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
    io::{Errno, read, write},
};

use crate::{
    Interrupt, SandboxError,
    running::{is_readable, timespec},
};

/// Why attending has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The sandbox has ended.
    End,
    /// What it writes says so.
    Enough,
    TimedOut,
    Interrupted,
}

/// The three pipes, and what is still to be written.
pub(crate) struct Pipes<'a> {
    pub(crate) stdin: &'a mut Option<OwnedFd>,
    pub(crate) stdout: &'a OwnedFd,
    pub(crate) stderr: &'a OwnedFd,
    pub(crate) feed: &'a [u8],
    /// Closes the input once all is written.
    pub(crate) closes: bool,
}

/// Takes what was read; says whether that is enough.
pub(crate) trait Sink {
    fn stdout(&mut self, bytes: &[u8]);
    fn stderr(&mut self, bytes: &[u8]);
    fn enough(&self) -> bool {
        false
    }
}

/// Until the sandbox ends, the sink has enough, or `deadline`.
pub(crate) fn attend(
    end: BorrowedFd<'_>,
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
        let at_end = watch(end, PollFlags::IN);
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
pub(crate) fn deadline(timeout: Duration) -> Instant {
    const FOR_EVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
    Instant::now() + timeout.min(FOR_EVER)
}

/// What is left after everything has ended: nobody writes any more.
pub(crate) fn drain(pipes: &Pipes<'_>, sink: &mut dyn Sink) {
    const PATIENCE: Duration = Duration::from_secs(10);
    while is_readable(pipes.stdout, PATIENCE) && take(pipes.stdout, |bytes| sink.stdout(bytes)) == Ok(true) {}
    while is_readable(pipes.stderr, PATIENCE) && take(pipes.stderr, |bytes| sink.stderr(bytes)) == Ok(true) {}
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
pub(crate) fn nonblocking(fd: impl Into<OwnedFd>) -> Result<OwnedFd, SandboxError> {
    let fd = fd.into();
    let set = fcntl_getfl(&fd).and_then(|flags| fcntl_setfl(&fd, flags | OFlags::NONBLOCK));
    set.map_err(|errno| SandboxError::io("prepare a pipe", errno))?;
    Ok(fd)
}

/// A descriptor on which its reader or writer waits, whatever it was made as.
pub(crate) fn blocking(fd: OwnedFd) -> Result<OwnedFd, SandboxError> {
    let set = fcntl_getfl(&fd).and_then(|flags| fcntl_setfl(&fd, flags - OFlags::NONBLOCK));
    set.map_err(|errno| SandboxError::io("prepare a pipe", errno))?;
    Ok(fd)
}
