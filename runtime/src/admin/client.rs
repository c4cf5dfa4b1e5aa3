//! The other end of the socket.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, header};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{
    operator::{AuditEntry, Command, DeadTurn, DeadTurnStory, Done, NodeStatus, StandingWish},
    socket::{self, SOCKET_FILE, SocketPath},
};
use crate::{refusal::Refusal, versions::VersionStatus};

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

    /// Wishes that stand.
    pub async fn wishes(&self) -> Result<Vec<StandingWish>, ClientError> {
        self.look("wishes").await
    }

    /// What operators did.
    pub async fn audit(&self) -> Result<Vec<AuditEntry>, ClientError> {
        self.look("audit").await
    }

    /// Has it done.
    pub async fn operate(&self, command: Command) -> Result<Done, ClientError> {
        let (verb, body) = command.into_request();
        self.ask(self.request(Method::POST, &verb).json(&body).timeout(COMMAND_DEADLINE)).await
    }

    /// What the page shows at `path`, such as `session?id=x`; nothing while it is as it was at `moment`, which moves on.
    pub async fn page<T: DeserializeOwned>(
        &self,
        path: &str,
        moment: &mut Option<String>,
    ) -> Result<Option<T>, ClientError> {
        let mut request = self.request(Method::GET, &format!("page/{path}")).timeout(LOOK_DEADLINE);
        if let Some(moment) = moment {
            request = request.header(header::IF_NONE_MATCH, moment.as_str());
        }
        let response = request.send().await.map_err(|error| self.unreachable(error))?;
        if response.status() == StatusCode::NOT_MODIFIED {
            return Ok(None);
        }
        let etag = response.headers().get(header::ETAG).and_then(|etag| etag.to_str().ok());
        let now = etag.map(str::to_owned);
        let shown = self.read(response).await?;
        *moment = now;
        Ok(Some(shown))
    }

    async fn look<T: DeserializeOwned>(&self, what: &str) -> Result<T, ClientError> {
        self.ask(self.request(Method::GET, what).timeout(LOOK_DEADLINE)).await
    }

    /// Its address is made up.
    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("http://node/{path}"))
    }

    async fn ask<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, ClientError> {
        self.read(request.send().await.map_err(|error| self.unreachable(error))?).await
    }

    fn unreachable(&self, error: reqwest::Error) -> ClientError {
        ClientError::Unreachable {
            socket: self.run_dir.join(SOCKET_FILE),
            source: error.without_url().into(),
        }
    }

    async fn read<T: DeserializeOwned>(&self, response: Response) -> Result<T, ClientError> {
        let socket = || self.run_dir.join(SOCKET_FILE);
        let status = response.status();
        let answer = response.text().await.map_err(|error| self.unreachable(error))?;
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
