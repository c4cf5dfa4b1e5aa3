//! The gateway under supervision: the port stays the same through its restarts.

use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use openclaw_actors::{
    engine::Engine,
    gateway::{ApiKey, Gateway, GatewayConfig, GatewayDeps, GatewayHandle, Recorder},
    journal::{Journal, Record},
    sessions::SessionsAddress,
};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::watch;

use crate::topology::Topology;

/// Answers under way get this long to end when the gateway stops.
const STOP_DEADLINE: Duration = Duration::from_secs(8);
/// How often the number of requests in flight is looked at.
const LOOK_PERIOD: Duration = Duration::from_millis(200);

/// What starts the gateway.
#[derive(Clone)]
pub struct GatewayArguments {
    config: GatewayConfig,
    engines: Vec<Engine>,
    sessions: SessionsAddress,
    journal: Journal,
    address: Arc<watch::Sender<Option<SocketAddr>>>,
    in_flight: Arc<watch::Sender<usize>>,
    port: Arc<OnceLock<SocketAddr>>,
}

impl GatewayArguments {
    /// Reads the topology's table.
    pub fn new(
        topology: &Topology,
        engines: Vec<Engine>,
        sessions: SessionsAddress,
        journal: Journal,
        address: watch::Sender<Option<SocketAddr>>,
        in_flight: watch::Sender<usize>,
    ) -> anyhow::Result<Self> {
        let (table, policy) = (&topology.actors.gateway, &topology.actors.policy);
        let config = GatewayConfig {
            listen: table.listen,
            served_model: table.served_model.clone(),
            aliases: table.aliases.clone(),
            api_key: api_key(topology)?.and_then(ApiKey::new),
            max_in_flight: table.max_in_flight,
            queue_depth: table.queue_depth,
            queue_timeout_secs: table.queue_timeout_secs,
            max_body_bytes: table.max_body_bytes,
            default_temperature: policy.temperature as f32,
            default_max_tokens: policy.max_new_tokens,
            ..GatewayConfig::default()
        };
        Ok(Self {
            config,
            engines,
            sessions,
            journal,
            address: Arc::new(address),
            in_flight: Arc::new(in_flight),
            port: Arc::default(),
        })
    }
}

/// The key that clients must send, from the environment variable that the topology names.
pub fn api_key(topology: &Topology) -> anyhow::Result<Option<String>> {
    super::key_from_env("actors.gateway.api_key_env", topology.actors.gateway.api_key_env.as_deref())
}

/// The actor `gateway`.
pub struct GatewayActor;

/// One incarnation.
pub struct Serving {
    handle: Option<GatewayHandle>,
    in_flight: Arc<watch::Sender<usize>>,
}

impl Actor for GatewayActor {
    type Msg = Look;
    type State = Serving;
    type Arguments = GatewayArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<Look>,
        arguments: GatewayArguments,
    ) -> Result<Serving, ActorProcessingErr> {
        let journal = arguments.journal.clone();
        let recorder: Recorder = Arc::new(move |turn, mark| {
            let journal = journal.clone();
            Box::pin(async move {
                let completed = Record::TurnCompleted { turn, mark };
                journal.record(completed).await.map(drop).map_err(|error| error.to_string())
            })
        });
        let mut config = arguments.config.clone();
        if let Some(port) = arguments.port.get() {
            config.listen = *port;
        }
        // Every replica reads and writes text the same way.
        let text = arguments.engines.first().ok_or("there is no policy to serve")?.text();
        let deps = GatewayDeps {
            engines: arguments.engines.clone(),
            context_length: text.context_tokens,
            tokenizer: text.tokenizer.clone(),
            template: text.template.clone(),
            sessions: arguments.sessions.clone(),
            recorder: Some(recorder),
        };
        let handle = Gateway::start(config, deps).await?;
        let address = *arguments.port.get_or_init(|| handle.addr);
        arguments.address.send_replace(Some(address));
        myself.send_interval(LOOK_PERIOD, || Look);
        Ok(Serving { handle: Some(handle), in_flight: arguments.in_flight })
    }

    async fn handle(
        &self,
        _: ActorRef<Look>,
        _: Look,
        serving: &mut Serving,
    ) -> Result<(), ActorProcessingErr> {
        if let Some(handle) = &serving.handle {
            serving.in_flight.send_replace(handle.in_flight());
        }
        Ok(())
    }

    async fn post_stop(&self, _: ActorRef<Look>, serving: &mut Serving) -> Result<(), ActorProcessingErr> {
        if let Some(handle) = serving.handle.take() {
            handle.stop(STOP_DEADLINE).await;
        }
        Ok(())
    }
}

/// Time to look at the number of requests in flight.
pub struct Look;
