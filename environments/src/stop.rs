//! Ends what a world does, from another thread.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use openclaw_sandbox::Interrupt;
use tokio::sync::watch;

/// How long it takes until a command is interrupted that was not yet running the last time.
const AGAIN: Duration = Duration::from_millis(10);

/// Shared by a world and by whoever may interrupt it.
#[derive(Debug)]
pub(crate) struct Stop {
    state: Mutex<State>,
    ended: Condvar,
    /// The step that runs is to end.
    wanted: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct State {
    /// Counts what was begun.
    number: u64,
    running: bool,
    /// Of the session, if there is one.
    session: Option<Interrupt>,
}

/// Something runs that can be interrupted, as long as this lives.
#[derive(Debug)]
pub(crate) struct Running(Arc<Stop>);

impl Stop {
    pub(crate) fn new() -> Arc<Self> {
        let (wanted, _) = watch::channel(false);
        Arc::new(Self { state: Mutex::default(), ended: Condvar::new(), wanted })
    }

    /// Something begins. An interrupt from before does not count.
    pub(crate) fn begin(self: &Arc<Self>) -> Running {
        let mut state = self.lock();
        state.number += 1;
        state.running = true;
        self.wanted.send_replace(false);
        Running(self.clone())
    }

    /// The session that runs commands from now on.
    pub(crate) fn session(&self, session: Option<Interrupt>) {
        self.lock().session = session;
    }

    /// Whether what runs is to end.
    pub(crate) fn is_wanted(&self) -> bool {
        *self.wanted.borrow()
    }

    /// Comes when what runs is to end.
    pub(crate) async fn wanted(&self) {
        // Its sender lives as long as this does.
        let _ = self.wanted.subscribe().wait_for(|wanted| *wanted).await;
    }

    /// Ends what runs; if nothing does, nothing happens.
    pub(crate) fn interrupt(self: &Arc<Self>) {
        let state = self.lock();
        if !state.running || self.wanted.send_replace(true) {
            return;
        }
        let number = state.number;
        if let Some(session) = &state.session {
            session.interrupt();
        }
        drop(state);
        // A command that begins at this moment forgets what came before it, so it is told until the step has ended.
        let stop = self.clone();
        let insists = thread::Builder::new().name("interrupt".to_owned()).spawn(move || stop.insist(number));
        if let Err(error) = insists {
            tracing::warn!(%error, "an interrupt is told once only");
        }
    }

    fn insist(&self, number: u64) {
        let mut state = self.lock();
        while state.running && state.number == number {
            if let Some(session) = &state.session {
                session.interrupt();
            }
            (state, _) = self.ended.wait_timeout(state, AGAIN).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.lock().running = false;
        self.0.ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_runs_is_interrupted() {
        let stop = Stop::new();
        stop.interrupt();
        let first = stop.begin();
        assert!(!stop.is_wanted(), "that was before");
        stop.interrupt();
        assert!(stop.is_wanted());
        drop(first);
        let _second = stop.begin();
        assert!(!stop.is_wanted(), "that was for the one before");
    }
}
