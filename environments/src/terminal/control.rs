//! How a world is interrupted while it opens and closes sessions, and what an error of a sandbox is for a world.
use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use openclaw_sandbox::{Advice, Backend, Ending, Interrupt as Handle, SandboxError, Session, Spec};

use crate::world::{Interrupt, WorldError};

/// Shared by a world and whoever interrupts it.
#[derive(Default)]
pub(super) struct Control {
    asked: AtomicBool,
    running: Mutex<Option<Handle>>,
}

impl Control {
    /// Something begins; what was asked before was not about it.
    pub(super) fn begin(&self) {
        self.asked.store(false, Ordering::SeqCst);
    }

    /// Between two things that a session does.
    pub(super) fn check(&self) -> Result<(), WorldError> {
        if self.asked.load(Ordering::SeqCst) { Err(WorldError::Interrupted) } else { Ok(()) }
    }

    /// Opens a session and makes it the one that is interrupted.
    pub(super) fn open(&self, backend: &dyn Backend, spec: &Spec) -> Result<Box<dyn Session>, WorldError> {
        self.check()?;
        let session = backend.open(spec).map_err(|error| failed(&error))?;
        *self.running() = Some(session.interrupt_handle());
        self.check()?;
        Ok(session)
    }

    /// Nothing runs.
    pub(super) fn release(&self) {
        *self.running() = None;
    }

    /// An ending that is not the command's own doing.
    pub(super) fn ended(&self, ending: Ending) -> Result<(), WorldError> {
        match ending {
            Ending::Interrupted => Err(WorldError::Interrupted),
            Ending::NotStarted => Err(WorldError::Broken("a command could not be started".to_owned())),
            Ending::Exited(_) | Ending::TimedOut | Ending::Killed => self.check(),
        }
    }

    /// For another thread, at any time.
    pub(super) fn interrupt(self: &Arc<Self>) -> Interrupt {
        let control = Arc::clone(self);
        Arc::new(move || {
            control.asked.store(true, Ordering::SeqCst);
            if let Some(handle) = control.running().as_ref() {
                handle.interrupt();
            }
        })
    }

    fn running(&self) -> MutexGuard<'_, Option<Handle>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an error of a sandbox is for a world.
pub(super) fn failed(error: &SandboxError) -> WorldError {
    let said = match error {
        SandboxError::Io { source, .. } => format!("{error}: {source}"),
        _ => error.to_string(),
    };
    match error.advice() {
        Advice::Retry | Advice::NewSession => WorldError::Broken(said),
        Advice::Refused => WorldError::Refused(said),
    }
}
