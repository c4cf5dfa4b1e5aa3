//! The OpenAI-compatible HTTP API in front of the policy: what it listens to, how it stops.

mod admission;
mod answer;
mod auth;
mod body;
mod completion;
mod cors;
mod door;
pub(crate) mod draft;
mod episodes;
mod errors;
mod feedback;
mod generation;
mod marks;
mod models;
mod person;
mod prompt;
pub(crate) mod protocol;
mod recall;
mod routes;
mod session_end;
mod stream;
mod tokens;
mod whole;

use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use futures::future::BoxFuture;
use openclaw_journal::{Health, Turn, TurnMark};
use openclaw_model::{ChatTemplate, ConstraintError, Grammars, Tokenizer};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    task::JoinHandle,
};
use tower_http::cors::CorsLayer;
use tracing::{info, warn};

use self::{admission::Admission, door::Door, models::ServedModels};
pub use self::{
    auth::{ApiKey, refused, to_foreign_name},
    cors::{check as check_origins, layer as cors_layer},
    episodes::Episodes,
    errors::ApiError,
    person::person_named,
    protocol::messages::in_shape as in_messages_shape,
    recall::{Recall, Recalled},
};
use crate::{
    connections::{ConnectionLimits, serve},
    engine::Engine,
    sessions::SessionsAddress,
};

/// How many bodies of the largest size may be on their way to prompts at once.
const BODIES_AT_ONCE: usize = 4;

/// What a gateway is told. `[actors.gateway]` of a topology file sets the first part of it.
#[derive(Clone, Debug, PartialEq)]
pub struct GatewayConfig {
    /// Where to listen; port 0 picks a free one. Default 127.0.0.1:30000.
    pub listen: SocketAddr,
    /// The model's name. Default `policy`. `<name>-side` asks the same model for a side turn.
    pub served_model: String,
    /// Further names. Default none.
    pub aliases: Vec<String>,
    /// The key that clients must send. Default none: no authentication, loopback only.
    pub api_key: Option<ApiKey>,
    /// The environment variable that holds the key, so that no file has to. Default none.
    pub api_key_env: Option<String>,
    /// Origins (`https://chat.example`) whose web pages may use the API; `*` is all of them, and needs a key. Default
    /// none beside this machine's own.
    pub allow_origins: Vec<String>,
    /// Requests answered at once. Default 64.
    pub max_in_flight: usize,
    /// Requests that wait for a place; more are told to come back. Default 256.
    pub queue_depth: usize,
    /// Longest wait for a place. Default 30.
    pub queue_timeout_secs: u64,
    /// Largest request body. Default 8 MiB.
    pub max_body_bytes: usize,
    /// Longest wait for a model that restarts. Default 120.
    pub engine_wait_secs: u64,
    /// An engine that has owed an answer this long is stuck. Default 30.
    pub engine_silence_secs: u64,
    /// Longest wait for the journal at the end of a reply; the turn is then written down later. Default 5.
    pub journal_wait_secs: u64,
    /// Refuses requests while the journal cannot be written, and ends no reply that is not recorded. Default false:
    /// they are answered, and written down later.
    pub refuse_unrecorded: bool,
    /// Sampling temperature of requests that name none. Default 1.
    pub default_temperature: f32,
    /// Nucleus of requests that name none. Default 1: all tokens.
    pub default_top_p: f32,
    /// Top-k of requests that name none. Default 0: all tokens.
    pub default_top_k: usize,
    /// Longest answer to requests that name no limit. Default 1024.
    pub default_max_tokens: usize,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 30000)),
            served_model: "policy".to_owned(),
            aliases: Vec::new(),
            api_key: None,
            api_key_env: None,
            allow_origins: Vec::new(),
            max_in_flight: 64,
            queue_depth: 256,
            queue_timeout_secs: 30,
            max_body_bytes: 8 << 20,
            engine_wait_secs: 120,
            engine_silence_secs: 30,
            journal_wait_secs: 5,
            refuse_unrecorded: false,
            default_temperature: 1.0,
            default_top_p: 1.0,
            default_top_k: 0,
            default_max_tokens: 1024,
        }
    }
}

/// How often a gateway that finishes looks whether it has.
const LOOK_PERIOD: Duration = Duration::from_millis(10);
/// Turns kept while the journal is away; more are lost to it.
const MOST_LATE_TURNS: usize = 1024;

/// Writes a complete turn down, with what it is recognised by; awaited before the client sees the end of the reply.
pub type Recorder = Arc<dyn Fn(Arc<Turn>, TurnMark) -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// What the gateway serves with.
pub struct GatewayDeps {
    /// The policy's engines, at least one; a session stays with one of them.
    pub engines: Vec<Engine>,
    /// Most tokens of prompt and answer together.
    pub context_length: usize,
    /// The policy's tokenizer.
    pub tokenizer: Tokenizer,
    /// The policy's chat template.
    pub template: ChatTemplate,
    /// Where requests and turns are told of.
    pub sessions: SessionsAddress,
    /// Where turns are written down, if anywhere.
    pub recorder: Option<Recorder>,
    /// Where they are read again, if anywhere.
    pub recall: Option<Recall>,
    /// Where episodes are, if anywhere.
    pub episodes: Option<Episodes>,
    /// Whether what is to be written down can be.
    pub journal: watch::Receiver<Health>,
    /// What its connections may take; the same for every incarnation, whose connections go on.
    pub connections: ConnectionLimits,
    /// A socket that listens already, see [`GatewayHandle::socket`]; else `listen` is bound.
    pub socket: Option<std::net::TcpListener>,
}

/// Why a gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// Someone else has the port, or it is not ours to have.
    #[error("gateway cannot listen on {listen}")]
    Listen {
        /// The address.
        listen: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Anyone who can reach the port could speak for the user and train the policy.
    #[error("gateway listens on {listen}, beyond this machine, without an api_key")]
    OpenWithoutKey {
        /// The address.
        listen: SocketAddr,
    },
    /// The key's variable is named, but says nothing: serving without a key would be a surprise.
    #[error("gateway: api_key_env names {variable}, which is not set in the environment")]
    NoKeyInEnvironment {
        /// The variable.
        variable: String,
    },
    /// A setting that cannot be served with.
    #[error("gateway: {key} {problem}")]
    Config {
        /// The setting.
        key: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// What all requests share.
pub struct Shared {
    config: GatewayConfig,
    admission: Admission,
    models: ServedModels,
    engines: Vec<Engine>,
    context_length: usize,
    tokenizer: Tokenizer,
    template: ChatTemplate,
    /// Made when the first answer is held to something.
    grammars: OnceLock<Result<Grammars, ConstraintError>>,
    sessions: SessionsAddress,
    recorder: Option<Recorder>,
    recall: Option<Recall>,
    episodes: Option<Episodes>,
    cors: Option<CorsLayer>,
    journal: watch::Receiver<Health>,
    /// Turns that may wait for the journal after their reply has ended.
    late_turns: Arc<Semaphore>,
    /// Set when answers that have not ended must end now.
    cut: watch::Sender<bool>,
    /// Until the gateway leaves: then each connection is closed after its next answer.
    open: watch::Receiver<bool>,
}

impl Shared {
    /// What is answered now may be lost with the process.
    fn journal_fails(&self) -> bool {
        *self.journal.borrow() != Health::Ok
    }

    fn grammars(&self) -> Result<&Grammars, ApiError> {
        let made = self.grammars.get_or_init(|| Grammars::new(&self.tokenizer));
        made.as_ref().map_err(|error| ApiError::internal(format!("No answer can be constrained: {error}.")))
    }
}

/// The API.
#[derive(Debug)]
pub struct Gateway;

impl Gateway {
    /// Listens and serves until [`GatewayHandle::stop`].
    pub async fn start(mut config: GatewayConfig, deps: GatewayDeps) -> Result<GatewayHandle, GatewayError> {
        let listen = config.listen;
        if let (None, Some(variable)) = (&config.api_key, &config.api_key_env) {
            let missing = || GatewayError::NoKeyInEnvironment { variable: variable.clone() };
            let key = std::env::var(variable).map_err(|_| missing())?;
            config.api_key = Some(ApiKey::new(key).ok_or_else(missing)?);
        }
        if config.api_key.is_none() && !listen.ip().is_loopback() {
            return Err(GatewayError::OpenWithoutKey { listen });
        }
        if config.served_model.is_empty() {
            return Err(GatewayError::Config { key: "served_model", problem: "is empty" });
        }
        if deps.engines.is_empty() {
            return Err(GatewayError::Config { key: "engines", problem: "are none" });
        }
        let cors = cors::layer(&config.allow_origins, config.api_key.is_some())
            .map_err(|problem| GatewayError::Config { key: "allow_origins", problem })?;
        let failed = |source| GatewayError::Listen { listen, source };
        let socket = match deps.socket {
            Some(socket) => socket,
            None => TcpListener::bind(listen).await.and_then(TcpListener::into_std).map_err(failed)?,
        };
        let addr = socket.local_addr().map_err(failed)?;
        let open = watch::Sender::new(true);
        let door = Door::new(&socket, open.subscribe()).map_err(failed)?;
        let queue_timeout = Duration::from_secs(config.queue_timeout_secs);
        let shared = Arc::new(Shared {
            admission: Admission::new(
                config.max_in_flight,
                config.max_body_bytes.saturating_mul(BODIES_AT_ONCE),
                config.queue_depth,
                queue_timeout,
            ),
            models: ServedModels::new(&config.served_model, &config.aliases, deps.context_length),
            engines: deps.engines,
            context_length: deps.context_length,
            tokenizer: deps.tokenizer,
            template: deps.template,
            grammars: OnceLock::new(),
            sessions: deps.sessions,
            recorder: deps.recorder,
            recall: deps.recall,
            episodes: deps.episodes,
            cors,
            journal: deps.journal,
            late_turns: Arc::new(Semaphore::new(MOST_LATE_TURNS)),
            cut: watch::Sender::new(false),
            open: open.subscribe(),
            config,
        });
        let router = routes::router(shared.clone());
        let hang_up = watch::Sender::new(false);
        let closing = door::time_to_hang_up(open.subscribe(), hang_up.subscribe());
        let server = tokio::spawn(serve(door, router, deps.connections, closing));
        info!(%addr, "gateway listens");
        Ok(GatewayHandle { addr, socket, shared, open, hang_up, server })
    }
}

/// A gateway that serves. Dropped, it accepts no more, and the answers under way go on.
pub struct GatewayHandle {
    /// Where it listens; the real port when 0 was asked for.
    pub addr: SocketAddr,
    socket: std::net::TcpListener,
    shared: Arc<Shared>,
    open: watch::Sender<bool>,
    hang_up: watch::Sender<bool>,
    server: JoinHandle<()>,
}

impl GatewayHandle {
    /// Requests being answered.
    pub fn in_flight(&self) -> usize {
        self.shared.admission.in_flight()
    }

    /// Requests that wait for a place.
    pub fn queued(&self) -> usize {
        self.shared.admission.waiting()
    }

    /// Where it listens, for its successor: as long as somebody holds it, clients that arrive while nobody serves wait
    /// for whoever serves next.
    pub fn socket(&self) -> std::io::Result<std::net::TcpListener> {
        self.socket.try_clone()
    }

    /// Accepts no more and returns when every answer has ended.
    pub async fn finish(self) {
        self.open.send_replace(false);
        while self.in_flight() + self.queued() > 0 {
            tokio::time::sleep(LOOK_PERIOD).await;
        }
    }

    /// Accepts no more, lets answers end until `deadline`, then cuts them. `true` when none was cut.
    pub async fn stop(self, deadline: Duration) -> bool {
        let Self { socket, shared, open, hang_up, mut server, .. } = self;
        drop(socket);
        open.send_replace(false);
        hang_up.send_replace(true);
        if tokio::time::timeout(deadline, &mut server).await.is_ok() {
            return true;
        }
        let in_flight = shared.admission.in_flight();
        warn!(in_flight, "answers are cut: the deadline for stopping has passed");
        shared.cut.send_replace(true);
        // Their clients are told; whoever does not read by then is left.
        if tokio::time::timeout(Duration::from_secs(1), &mut server).await.is_err() {
            server.abort();
        }
        false
    }
}
