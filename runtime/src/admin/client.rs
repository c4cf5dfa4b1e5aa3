//! The other end of the socket.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use reqwest::{Client, Method};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{
    operator::{AuditEntry, Command, DeadTurn, DeadTurnStory, Done, NodeStatus, Refusal, VersionStatus},
    socket::{self, SOCKET_FILE, SocketPath},
};

/// What is looked at must be answered within this.
const LOOK_DEADLINE: Duration = Duration::from_secs(10);
/// What changes something may take this long: a drain waits for the work under way.
const COMMAND_DEADLINE: Duration = Duration::from_secs(15 * 60);

/// Why a node did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is none.
    #[error("no node is running in {}: `openclaw-rl launch FILE` starts one", dir.display())]
    NotRunning {
        /// The run's folder.
        dir: PathBuf,
    },
    /// There may be one, and it cannot be spoken to.
    #[error("cannot reach the node at {}", socket.display())]
    Unreachable {
        /// Its socket.
        socket: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It said no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It does not speak as this version does.
    #[error("the node at {} answered {status} with {answer:?}", socket.display())]
    Strange {
        /// Its socket.
        socket: PathBuf,
        /// The HTTP status.
        status: u16,
        /// What it said.
        answer: String,
    },
}

/// Speaks to the node of a run's folder.
pub struct AdminClient {
    http: Client,
    run_dir: PathBuf,
    // Holds the way to the socket open.
    _path: SocketPath,
}

impl AdminClient {
    /// For the node that runs in this folder.
    pub fn connect(run_dir: &Path) -> Result<Self, ClientError> {
        let unreachable = |source: io::Error| ClientError::Unreachable {
            socket: run_dir.join(SOCKET_FILE),
            source: source.into(),
        };
        if !socket::is_live(run_dir).map_err(unreachable)? {
            return Err(ClientError::NotRunning { dir: run_dir.to_owned() });
        }
        let path = SocketPath::new(run_dir, SOCKET_FILE).map_err(unreachable)?;
        let http = Client::builder()
            .unix_socket(path.as_path())
            .build()
            .map_err(|error| unreachable(io::Error::other(error)))?;
        Ok(Self { http, run_dir: run_dir.to_owned(), _path: path })
    }

    /// The run's folder.
    pub fn run_dir(&self) -> &Path {
        &self.run_dir
    }

    /// Whether the node still answers.
    pub fn is_live(&self) -> bool {
        // What cannot be known is not an end.
        socket::is_live(&self.run_dir).unwrap_or(true)
    }

    /// The node and its actors.
    pub async fn status(&self) -> Result<NodeStatus, ClientError> {
        self.look("status").await
    }

    /// Turns that were given up on.
    pub async fn dead(&self) -> Result<Vec<DeadTurn>, ClientError> {
        self.look("dead").await
    }

    /// One of them, with what was said.
    pub async fn dead_turn(&self, turn: &str) -> Result<DeadTurnStory, ClientError> {
        self.look(&format!("dead/{turn}")).await
    }

    /// Versions of the policy.
    pub async fn versions(&self) -> Result<Vec<VersionStatus>, ClientError> {
        self.look("versions").await
    }

    /// What operators did.
    pub async fn audit(&self) -> Result<Vec<AuditEntry>, ClientError> {
        self.look("audit").await
    }

    /// Has it done.
    pub async fn operate(&self, command: Command) -> Result<Done, ClientError> {
        let (verb, body) = command.into_request();
        self.ask(Method::POST, &verb, Some(body), COMMAND_DEADLINE).await
    }

    async fn look<T: DeserializeOwned>(&self, what: &str) -> Result<T, ClientError> {
        self.ask(Method::GET, what, None, LOOK_DEADLINE).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
        deadline: Duration,
    ) -> Result<T, ClientError> {
        let socket = || self.run_dir.join(SOCKET_FILE);
        let unreachable = |error: reqwest::Error| ClientError::Unreachable {
            socket: socket(),
            // Its address is made up.
            source: error.without_url().into(),
        };
        let mut request = self.http.request(method, format!("http://node/{path}")).timeout(deadline);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        let answer = response.text().await.map_err(unreachable)?;
        let strange =
            |answer: String| ClientError::Strange { socket: socket(), status: status.as_u16(), answer };
        if status.is_success() {
            return serde_json::from_str(&answer).map_err(|_| strange(answer));
        }
        let error: Option<Value> = serde_json::from_str(&answer).ok();
        let refusal = error.and_then(|mut error| serde_json::from_value(error.get_mut("error")?.take()).ok());
        Err(refusal.map_or_else(|| strange(answer), ClientError::Refused))
    }
}
