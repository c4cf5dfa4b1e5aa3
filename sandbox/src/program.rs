//! A program that goes on while others do things.

use std::{
    fmt,
    fs::File,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use crate::{
    SandboxError,
    attend::blocking,
    running::{Running, is_readable},
};

/// A program that runs in a session until it ends or is ended. Dropping it ends it, with all that it has started; its session
/// does so too.
pub struct Program {
    running: Arc<Mutex<dyn Running>>,
    pipes: Option<ProgramPipes>,
}

/// The input and the outputs of a program, at this end. What is written blocks while it does not read.
#[derive(Debug)]
pub struct ProgramPipes {
    /// What it reads. Dropping it ends its input.
    pub stdin: File,
    /// What it writes. Ends when the last process that holds it has ended.
    pub stdout: File,
    /// Its errors. Whoever does not read them stops it some day.
    pub stderr: File,
}

impl Program {
    pub(crate) fn new(mut running: impl Running + 'static) -> Result<Self, SandboxError> {
        let streams = running.streams();
        let pipes = match (streams.stdin, streams.stdout, streams.stderr) {
            (Some(stdin), Some(stdout), Some(stderr)) => Some(ProgramPipes {
                stdin: blocking(stdin)?.into(),
                stdout: blocking(stdout)?.into(),
                stderr: blocking(stderr)?.into(),
            }),
            _ => None,
        };
        Ok(Self { running: Arc::new(Mutex::new(running)), pipes })
    }

    /// Its pipes. The first time only.
    pub fn pipes(&mut self) -> Option<ProgramPipes> {
        self.pipes.take()
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        is_readable(self.running().end(), Duration::ZERO)
    }

    /// Ends it, and returns when nothing of it is left. With its code, if it has ended by itself.
    pub fn end(&mut self) -> Option<i32> {
        self.running().finish()
    }

    fn running(&self) -> MutexGuard<'_, dyn Running + 'static> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The programs of a session, for as long as they are somebody's.
#[derive(Default)]
pub(crate) struct Programs(Vec<Weak<Mutex<dyn Running>>>);

impl Programs {
    pub(crate) fn add(&mut self, program: &Program) {
        self.0.retain(|one| one.strong_count() > 0);
        self.0.push(Arc::downgrade(&program.running));
    }

    /// Ends them all.
    pub(crate) fn end(&mut self) {
        for program in self.0.drain(..).filter_map(|program| program.upgrade()) {
            program.lock().unwrap_or_else(PoisonError::into_inner).finish();
        }
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Program").field("has_ended", &self.has_ended()).finish_non_exhaustive()
    }
}
