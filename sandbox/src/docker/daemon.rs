//! The way to the daemon: its calls wait for each other in a small runtime, whoever makes them only blocks.

use std::{path::Path, sync::mpsc};

use bollard::{API_DEFAULT_VERSION, errors::Error};
use tokio::runtime::{Builder, Runtime};

use crate::SandboxError;

/// For a call, in seconds. Streams have no end.
const PATIENCE_SECS: u64 = 120;

/// A connected daemon.
#[derive(Debug)]
pub(super) struct Daemon {
    /// Taken when it is dropped.
    runtime: Option<Runtime>,
    client: bollard::Docker,
}

impl Daemon {
    /// Why not, if it does not answer.
    pub(super) fn connect(socket: &Path) -> Result<Self, String> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("docker")
            .enable_all()
            .build()
            .map_err(|error| format!("no thread for it: {error}"))?;
        let path = socket.to_str().ok_or_else(|| format!("{} is not UTF-8", socket.display()))?;
        let client = bollard::Docker::connect_with_unix(path, PATIENCE_SECS, API_DEFAULT_VERSION)
            .map_err(|error| error.to_string())?;
        let client = wait_in(&runtime, client.negotiate_version()).map_err(|error| error.to_string())?;
        Ok(Self { runtime: Some(runtime), client })
    }

    /// Does it there, and waits for it here. It may itself be called in a runtime, where another must not be entered.
    pub(super) fn call<T, F>(&self, work: impl FnOnce(bollard::Docker) -> F) -> T
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let runtime = self.runtime.as_ref().expect("it is taken when this is dropped");
        wait_in(runtime, work(self.client.clone()))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// What the daemon said, when something could not be started.
pub(super) fn start_error(error: Error) -> SandboxError {
    SandboxError::Start { why: said(&error) }
}

/// In the daemon's own words.
pub(super) fn said(error: &Error) -> String {
    match error {
        Error::DockerResponseServerError { message, .. } => format!("docker: {}", message.trim()),
        error => format!("docker: {error}"),
    }
}

/// Whether what was asked about is not there.
pub(super) fn is_absent(error: &Error) -> bool {
    matches!(error, Error::DockerResponseServerError { status_code: 404, .. })
}

fn wait_in<T: Send + 'static>(runtime: &Runtime, work: impl Future<Output = T> + Send + 'static) -> T {
    let (done, result) = mpsc::sync_channel(1);
    runtime.spawn(async move {
        let _ = done.send(work.await);
    });
    result.recv().expect("the runtime lives as long as its owner, who waits here")
}
