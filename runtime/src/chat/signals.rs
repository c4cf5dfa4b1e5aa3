//! The signals that a conversation listens to.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Listens from its making on.
#[derive(Debug)]
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

/// What a signal wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// SIGINT: to stop what is under way.
    Interrupt,
    /// SIGTERM or SIGHUP: to leave.
    Leave,
}

impl Signals {
    /// Takes them over from the system. To be done before a line editor borrows SIGINT.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// The next one.
    pub async fn next(&mut self) -> Wish {
        tokio::select! {
            _ = self.interrupt.recv() => Wish::Interrupt,
            _ = self.terminate.recv() => Wish::Leave,
            _ = self.hangup.recv() => Wish::Leave,
        }
    }
}
