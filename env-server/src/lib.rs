//! Serves environments to other machines: a world is a lease, which ends with its holder. Two ways lead to the same table
//! of leases: the routes of the published environment servers, with what the kind `remote` needs of them, and OpenEnv's
//! socket.
//!
//! The table ([`leases`]) knows no socket and no world. Each world has a thread of its own ([`worker`]).

pub mod config;
mod connections;
mod images;
pub mod leases;
mod meters;
mod openenv;
mod published;
mod routes;
pub mod server;
pub mod stage;
pub mod worker;

use std::{future::Future, net::SocketAddr, path::Path, sync::Arc};

use openclaw_environments::world::WorldError;
use tokio::net::TcpListener;

pub use self::config::{Config, ConfigError};
use self::server::Server;

/// Why nothing is served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The file cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// This machine lacks what an environment needs.
    #[error("environments.{name}")]
    NotReady {
        /// The environment.
        name: String,
        /// What is missing.
        #[source]
        source: WorldError,
    },
    /// The address is taken, or not ours.
    #[error("server.bind: cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// A server that listens.
pub struct Listening {
    listener: TcpListener,
    server: Arc<Server>,
    address: SocketAddr,
}

impl Listening {
    /// Listens, once every environment has what it needs here.
    pub async fn bind(config: Config) -> Result<Self, ServeError> {
        meters::record();
        for (name, served) in &config.environments {
            let environment = served.environment.clone();
            let ready = tokio::task::spawn_blocking(move || environment.ready()).await;
            let ready = ready.unwrap_or_else(|error| Err(WorldError::Broken(error.to_string())));
            ready.map_err(|source| ServeError::NotReady { name: name.clone(), source })?;
        }
        let address = config.bind;
        let failed = |source| ServeError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, server: Server::new(config), address })
    }

    /// Where.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What is served.
    pub fn server(&self) -> &Arc<Server> {
        &self.server
    }

    /// Serves until `stop`; then every lease is ended, and nothing is left of any world when this returns.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let Self { listener, server, address } = self;
        tracing::info!(%address, environments = server.config.environments.len(), "environments are served");
        let caring = server.clone();
        let care = tokio::spawn(async move { caring.care().await });
        let router = routes::router(server.clone());
        let most = server.config.connections;
        connections::serve(listener, router, most, stop, server.stop()).await;
        care.abort();
    }
}

/// Serves what a file says until `stop`. The token comes from the variable that the file names.
pub async fn serve(path: &Path, stop: impl Future<Output = ()>) -> Result<(), ServeError> {
    let path = path.to_owned();
    // Kinds may read large files.
    let config = tokio::task::spawn_blocking(move || Config::load(&path)).await;
    let config = config.expect("a panic of a kind is one of ours")?;
    Listening::bind(config).await?.run(stop).await;
    Ok(())
}
