//! A sandbox that runs, whoever made it, and the processes in it as they are seen from here.

use std::{
    fs, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};

/// A sandbox that runs. Dropping it ends it.
pub(crate) trait Running: Send {
    /// Readable when its command has ended.
    fn end(&self) -> BorrowedFd<'_>;

    /// Its pipes. The first time only.
    fn streams(&mut self) -> Streams;

    /// Of its command.
    fn main(&self) -> Option<Pid>;

    /// Every process that the command could have started, and its own. None where the kernel does not tell.
    fn processes(&self) -> Option<Vec<Pid>>;

    /// Ends everything in it, and returns when nothing is left. With the code of the command, if it ever ran.
    fn finish(&mut self) -> Option<i32>;
}

/// The pipes of a sandbox, at this end.
#[derive(Debug)]
pub(crate) struct Streams {
    /// None where its input comes from elsewhere.
    pub(crate) stdin: Option<OwnedFd>,
    /// None where its output goes elsewhere.
    pub(crate) stdout: Option<OwnedFd>,
    pub(crate) stderr: Option<OwnedFd>,
}

/// What a sandbox reads.
#[derive(Debug)]
pub(crate) enum Input {
    Nothing,
    /// What is written into [`Streams::stdin`].
    Fed,
    From(OwnedFd),
}

/// Every process below `pid`, as seen from here. None where the kernel does not tell.
pub(crate) fn below(pid: Pid) -> Option<Vec<Pid>> {
    let mut all = vec![pid];
    let mut next = 0;
    while next < all.len() {
        let at = all[next].as_raw_nonzero();
        // One that has ended meanwhile has no children any more.
        if let Ok(threads) = fs::read_dir(format!("/proc/{at}/task")) {
            for thread in threads.flatten() {
                match fs::read_to_string(thread.path().join("children")) {
                    Ok(pids) => {
                        let pids = pids.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?));
                        all.extend(pids);
                    }
                    Err(error) if error.kind() == io::ErrorKind::NotFound && thread.path().exists() => {
                        return None;
                    }
                    Err(_) => {}
                }
            }
        }
        next += 1;
    }
    all.remove(0);
    Some(all)
}

/// One that has ended meanwhile needs none.
pub(crate) fn signal(pid: Pid, signal: Signal) {
    let _ = pidfd_open(pid, PidfdFlags::empty()).and_then(|fd| pidfd_send_signal(fd, signal));
}

/// Waits until there is something to read, or an end. False when the time is over.
pub(crate) fn is_readable(fd: impl AsFd, timeout: Duration) -> bool {
    let deadline = Instant::now() + timeout;
    loop {
        let left = timespec(deadline.saturating_duration_since(Instant::now()));
        match poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&left)) {
            Ok(ready) => return ready > 0,
            Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

pub(crate) fn timespec(duration: Duration) -> Timespec {
    let tv_sec = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    Timespec { tv_sec, tv_nsec: duration.subsec_nanos().into() }
}
