//! Serves the verbs and the page's data: on the socket always, on a loopback port where the topology names one.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::Router;
use openclaw_actors::{
    connections::{self, ConnectionLimits},
    gateway::ApiKey,
    stop::{StopHandle, StopSignal, stop_flag},
};
use openclaw_model::durable::{self, Access};
use tokio::{
    net::{TcpListener, UnixListener},
    task::JoinHandle,
};

use super::{
    operator::Operator,
    routes,
    socket::{self, SOCKET_FILE},
};
use crate::{descriptors, page::Page};

/// Holds the port's token.
pub const TOKEN_FILE: &str = "admin.token";
/// Answers under way get this long to end when the server stops.
const STOP_DEADLINE: Duration = Duration::from_secs(1);

/// Why the operator cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Another process has the run's folder.
    #[error("a node is already running in {}: `openclaw-rl status --run {}` shows it", dir.display(), dir.display())]
    Running {
        /// The folder.
        dir: PathBuf,
    },
    /// A file in the run's folder cannot be made.
    #[error("cannot make {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The address is taken or not ours.
    #[error("cannot serve the operator's verbs on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What the port asks for.
#[derive(Clone, Debug)]
pub struct Token {
    text: String,
    key: ApiKey,
}

impl Token {
    /// One that nobody can guess.
    pub fn random() -> Self {
        let text: String = rand::random::<[u8; 32]>().iter().map(|byte| format!("{byte:02x}")).collect();
        Self { key: ApiKey::new(text.clone()).expect("32 bytes are not empty"), text }
    }

    /// Writes it where the owner alone can read it.
    fn write(&self, run_dir: &Path) -> Result<PathBuf, ServeError> {
        let path = run_dir.join(TOKEN_FILE);
        durable::write(&path, format!("{}\n", self.text).as_bytes(), Access::Owner)
            .map_err(|source| ServeError::File { path: path.clone(), source })?;
        Ok(path)
    }
}

/// The loopback port.
pub struct Port<'a> {
    /// Where; port 0 is any free one.
    pub address: SocketAddr,
    /// What it asks for.
    pub token: &'a Token,
}

/// A server; its files go with [`AdminServer::stop`].
#[derive(Debug)]
pub struct AdminServer {
    /// The loopback port, where there is one.
    pub address: Option<SocketAddr>,
    files: Vec<PathBuf>,
    stop: StopHandle,
    serving: Vec<JoinHandle<()>>,
}

impl AdminServer {
    /// Serves `operator` and the data of `page` in the run's folder, and on `port` to who has its token.
    pub async fn start(
        operator: Arc<impl Operator>,
        page: Option<Page>,
        run_dir: &Path,
        port: Option<Port<'_>>,
    ) -> Result<Self, ServeError> {
        let socket_file = run_dir.join(SOCKET_FILE);
        let failed = |source| ServeError::File { path: socket_file.clone(), source };
        if socket::is_live(run_dir).map_err(failed)? {
            return Err(ServeError::Running { dir: run_dir.to_owned() });
        }
        let (stop, stopped) = stop_flag();
        let shares = descriptors::shares();
        let mut server = Self { address: None, files: Vec::new(), stop, serving: Vec::new() };
        let router = routes::router(operator, page);
        if let Some(Port { address, token }) = port {
            let failed = |source| ServeError::Listen { address, source };
            let listener = TcpListener::bind(address).await.map_err(failed)?;
            server.address = Some(listener.local_addr().map_err(failed)?);
            server.files.push(token.write(run_dir)?);
            let router = routes::on_port(router.clone(), token.key.clone());
            server.serve(listener, router, shares.admin, stopped.clone());
        }
        let listener = socket::bind(run_dir).and_then(UnixListener::from_std).map_err(failed)?;
        server.files.push(socket_file);
        server.serve(listener, router, shares.socket, stopped);
        Ok(server)
    }

    fn serve<L: axum::serve::Listener>(
        &mut self,
        listener: L,
        router: Router,
        most: usize,
        mut stop: StopSignal,
    ) where
        L::Addr: std::fmt::Debug,
    {
        let limits = ConnectionLimits::new(most);
        let stopped = async move { stop.wait().await };
        self.serving.push(tokio::spawn(connections::serve(listener, router, limits, stopped)));
    }

    /// Removes its files, and lets answers under way end.
    pub async fn stop(mut self) {
        // First, so that a node that starts now does not lose files of its own.
        for file in &self.files {
            // Whoever removed it did what was wanted.
            let _ = fs::remove_file(file);
        }
        self.stop.stop();
        let ended = futures::future::join_all(&mut self.serving);
        // Whoever is still being answered hears no more: the process ends.
        let _ = tokio::time::timeout(STOP_DEADLINE, ended).await;
    }
}

impl Drop for AdminServer {
    fn drop(&mut self) {
        for serving in &self.serving {
            serving.abort();
        }
    }
}
