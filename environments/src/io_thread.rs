//! A thread for what waits on sockets, so that heartbeats never wait for a step, and whoever asks may be anywhere: within a
//! runtime, too.

use std::{sync::mpsc, thread};

use tokio::{
    runtime::{Builder, Handle},
    task::AbortHandle,
};

use crate::world::WorldError;

/// Its handle. Dropped, it ends.
pub(crate) struct IoThread {
    handle: Handle,
    /// Only to be dropped.
    _open: tokio::sync::mpsc::Sender<()>,
}

impl IoThread {
    /// Starts it.
    pub(crate) fn start(name: &str) -> Result<Self, WorldError> {
        let broken = |error: std::io::Error| WorldError::Broken(format!("no thread for sockets: {error}"));
        let runtime = Builder::new_current_thread().enable_all().build().map_err(broken)?;
        let handle = runtime.handle().clone();
        let (open, mut closed) = tokio::sync::mpsc::channel::<()>(1);
        let run = move || {
            runtime.block_on(closed.recv());
            // A name that is still being looked up is waited for by nobody.
            runtime.shutdown_background();
        };
        thread::Builder::new().name(name.to_owned()).spawn(run).map_err(broken)?;
        Ok(Self { handle, _open: open })
    }

    /// Runs something there, and waits for it here.
    pub(crate) fn wait_for<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, WorldError>> + Send + 'static,
    ) -> Result<T, WorldError> {
        let (done, answer) = mpsc::sync_channel(1);
        self.handle.spawn(async move {
            // Whoever asked waits for it.
            let _ = done.send(work.await);
        });
        answer
            .recv()
            .unwrap_or_else(|_| Err(WorldError::Broken("what speaks to a server panicked".to_owned())))
    }

    /// Runs something there that nobody waits for.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        self.handle.spawn(work).abort_handle()
    }
}
