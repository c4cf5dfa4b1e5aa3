//! How a world is interrupted while it opens and closes sessions.
use std::sync::Arc;

use openclaw_sandbox::{Backend, Ending, Session, Spec};

use crate::{
    stop::{Running, Stop},
    world::{Interrupt, WorldError},
};

/// Shared by a world and whoever interrupts it.
pub(crate) struct Control(Arc<Stop>);

impl Control {
    /// Nothing runs yet.
    pub(crate) fn new() -> Self {
        Self(Stop::new())
    }

    /// Something begins, and runs as long as the answer lives; what was asked before was not about it.
    pub(crate) fn begin(&self) -> Running {
        self.0.begin()
    }

    /// Between two things that a session does.
    pub(crate) fn check(&self) -> Result<(), WorldError> {
        if self.0.is_wanted() { Err(WorldError::Interrupted) } else { Ok(()) }
    }

    /// Opens a session and makes it the one that is interrupted.
    pub(crate) fn open(&self, backend: &dyn Backend, spec: &Spec) -> Result<Box<dyn Session>, WorldError> {
        self.check()?;
        let session = backend.open(spec)?;
        self.0.session(Some(session.interrupt_handle()));
        self.check()?;
        Ok(session)
    }

    /// There is no session.
    pub(crate) fn release(&self) {
        self.0.session(None);
    }

    /// An ending that is not the command's own doing.
    pub(crate) fn ended(&self, ending: Ending) -> Result<(), WorldError> {
        match ending {
            Ending::Interrupted => Err(WorldError::Interrupted),
            Ending::NotStarted => Err(WorldError::Broken("a command could not be started".to_owned())),
            Ending::Exited(_) | Ending::TimedOut | Ending::Killed => self.check(),
        }
    }

    /// For another thread, at any time.
    pub(crate) fn interrupt(&self) -> Interrupt {
        let stop = self.0.clone();
        Arc::new(move || stop.interrupt())
    }
}
