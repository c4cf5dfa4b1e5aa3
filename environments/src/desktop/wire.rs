//! The way to an X server that an agent may have its hands in: nothing waits for ever, and nothing is larger than a screen.

use std::{
    io::{Error, ErrorKind, IoSlice, Result},
    os::{fd::AsFd, unix::net::UnixStream},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use x11rb::{
    rust_connection::{DefaultStream, PollMode, Stream},
    utils::RawFdContainer,
};

use crate::stop::Stop;

/// How often a stop is looked for.
const TICK: Duration = Duration::from_millis(20);
/// What every message of a server begins with.
const HEADER: usize = 32;
/// The longest message that is read: a screen of 4096 by 4096 pixels, and a little more.
const MESSAGE_BYTES: u64 = (64 << 20) + 4096;

/// A stream with a deadline.
pub(super) struct Wire {
    inner: DefaultStream,
    stop: Arc<Stop>,
    state: Mutex<State>,
}

struct State {
    deadline: Instant,
    /// Messages are told apart; not while the connection is being set up.
    framed: bool,
    header: Vec<u8>,
    /// Of the message whose header was read.
    body: u64,
}

impl Wire {
    pub(super) fn new(stream: UnixStream, stop: Arc<Stop>, deadline: Instant) -> Result<Self> {
        let (inner, _) = DefaultStream::from_unix_stream(stream)?;
        let state = State { deadline, framed: false, header: Vec::new(), body: 0 };
        Ok(Self { inner, stop, state: Mutex::new(state) })
    }

    /// Until then what is asked has to be answered.
    pub(super) fn until(&self, deadline: Instant) {
        self.state().deadline = deadline;
    }

    /// The connection is set up: from now on there are messages.
    pub(super) fn frame(&self) {
        self.state().framed = true;
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Refuses a message before there is room made for it.
    fn check(&mut self, mut bytes: &[u8]) -> Result<()> {
        while self.framed && !bytes.is_empty() {
            if self.body > 0 {
                let some = bytes.len().min(usize::try_from(self.body).unwrap_or(usize::MAX));
                self.body -= some as u64;
                bytes = &bytes[some..];
                continue;
            }
            let some = bytes.len().min(HEADER - self.header.len());
            self.header.extend(&bytes[..some]);
            bytes = &bytes[some..];
            if let [kind, _, _, _, length @ ..] = &self.header[..]
                && let (Some(length), HEADER) = (length.first_chunk::<4>(), self.header.len())
            {
                // A reply, or an event of an extension.
                let has_body = *kind == 1 || kind & 0x7f == 35;
                self.body = if has_body { u64::from(u32::from_ne_bytes(*length)) * 4 } else { 0 };
                self.header.clear();
                if self.body > MESSAGE_BYTES {
                    return Err(Error::new(ErrorKind::InvalidData, "a message is longer than a screen"));
                }
            }
        }
        Ok(())
    }
}

impl Stream for Wire {
    fn poll(&self, mode: PollMode) -> Result<()> {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, mode.readable());
        flags.set(PollFlags::OUT, mode.writable());
        loop {
            let left = self.state().deadline.saturating_duration_since(Instant::now());
            if self.stop.is_wanted() {
                return Err(Error::new(ErrorKind::ConnectionAborted, "interrupted"));
            }
            if left.is_zero() {
                return Err(Error::new(ErrorKind::TimedOut, "no answer in time"));
            }
            let wait = left.min(TICK);
            let wait = Timespec { tv_sec: 0, tv_nsec: wait.subsec_nanos().into() };
            match poll(&mut [PollFd::new(&self.inner.as_fd(), flags)], Some(&wait)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => return Ok(()),
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    fn read(&self, buf: &mut [u8], fds: &mut Vec<RawFdContainer>) -> Result<usize> {
        let length = self.inner.read(buf, fds)?;
        // No reply that is asked for has one.
        fds.clear();
        self.state().check(&buf[..length])?;
        Ok(length)
    }

    fn write(&self, buf: &[u8], fds: &mut Vec<RawFdContainer>) -> Result<usize> {
        self.inner.write(buf, fds)
    }

    fn write_vectored(&self, bufs: &[IoSlice<'_>], fds: &mut Vec<RawFdContainer>) -> Result<usize> {
        self.inner.write_vectored(bufs, fds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        State { deadline: Instant::now(), framed: true, header: Vec::new(), body: 0 }
    }

    fn message(kind: u8, length: u32) -> Vec<u8> {
        let mut bytes = vec![0; HEADER];
        bytes[0] = kind;
        bytes[4..8].copy_from_slice(&length.to_ne_bytes());
        bytes
    }

    #[test]
    fn a_message_that_is_no_screen_is_refused_before_there_is_room_for_it() {
        let mut fine = [message(1, 2), vec![0xff; 8], message(2, u32::MAX), message(35, 0)].concat();
        let mut state = state();
        for byte in &fine {
            state.check(&[*byte]).expect("it is fine in pieces");
        }
        state.check(&fine).expect("it is fine as a whole");
        assert_eq!((state.body, state.header.len()), (0, 0));
        for kind in [1, 35, 35 | 0x80] {
            assert!(state.check(&message(kind, u32::MAX)).is_err());
            state.body = 0;
        }
        fine.truncate(36);
        state.check(&fine).expect("it is fine");
        assert_eq!(state.body, 4, "the rest comes later");
    }

    #[test]
    fn who_does_not_answer_is_not_waited_for() {
        let (one, _other) = UnixStream::pair().expect("a pair");
        let stop = Stop::new();
        let wire = Wire::new(one, stop.clone(), Instant::now()).expect("a wire");
        let readable = PollMode::Readable;
        assert_eq!(wire.poll(readable).map_err(|error| error.kind()), Err(ErrorKind::TimedOut));
        wire.until(Instant::now() + Duration::from_secs(3600));
        let running = stop.begin();
        stop.interrupt();
        assert_eq!(wire.poll(readable).map_err(|error| error.kind()), Err(ErrorKind::ConnectionAborted));
        drop(running);
    }
}
