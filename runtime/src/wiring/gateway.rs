//! The gateway under supervision. Its socket outlives it: clients that arrive while it restarts wait, and answers under
//! way go on.

use std::{
    net::{SocketAddr, TcpListener},
    sync::{Arc, OnceLock},
    time::Duration,
};

use openclaw_actors::{
    connections::ConnectionLimits,
    engine::Engine,
    gateway::{
        ApiKey, Episodes, Gateway, GatewayConfig, GatewayDeps, GatewayHandle, Recall, Recalled, Recorder,
    },
    sessions::SessionsAddress,
    stop::StopSignal,
};
use openclaw_journal::{Journal, Record};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::sync::watch;

use crate::{
    descriptors,
    topology::{Topology, WhenFailing},
};

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
    judged_steps: bool,
    address: Arc<watch::Sender<Option<SocketAddr>>>,
    in_flight: Arc<watch::Sender<usize>>,
    socket: Arc<OnceLock<TcpListener>>,
    closing: StopSignal,
    connections: ConnectionLimits,
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
        closing: StopSignal,
    ) -> anyhow::Result<Self> {
        let (table, policy) = (&topology.actors.gateway, &topology.actors.policy);
        let config = GatewayConfig {
            listen: table.listen,
            served_model: table.served_model.clone(),
            aliases: table.aliases.clone(),
            api_key: api_key(topology)?.and_then(ApiKey::new),
            allow_origins: table.allow_origins.clone(),
            max_in_flight: table.max_in_flight,
            queue_depth: table.queue_depth,
            queue_timeout_secs: table.queue_timeout_secs,
            max_body_bytes: table.max_body_bytes,
            refuse_unrecorded: topology.journal.when_failing == WhenFailing::Refuse,
            default_temperature: policy.temperature as f32,
            default_max_tokens: policy.max_new_tokens,
            ..GatewayConfig::default()
        };
        Ok(Self {
            config,
            engines,
            sessions,
            journal,
            judged_steps: topology.method.needs().verdicts,
            address: Arc::new(address),
            in_flight: Arc::new(in_flight),
            socket: Arc::default(),
            closing,
            connections: ConnectionLimits::new(descriptors::shares().gateway),
        })
    }
}

/// The key that clients must send, from the environment variable that the topology names.
pub fn api_key(topology: &Topology) -> anyhow::Result<Option<String>> {
    super::key_from_env("actors.gateway.api_key_env", topology.actors.gateway.api_key_env.as_deref())
}

/// The actor `gateway`.
pub struct GatewayActor;

/// What it is told and asked.
pub enum GatewayControl {
    /// Time to look at the number of requests in flight.
    Look,
    /// Answers.
    Ping(RpcReplyPort<()>),
    /// Accepts no more, lets every answer end, answers, and stops.
    Drain(RpcReplyPort<()>),
}

/// One incarnation.
pub struct Serving {
    handle: Option<GatewayHandle>,
    in_flight: Arc<watch::Sender<usize>>,
    closing: StopSignal,
}

impl Actor for GatewayActor {
    type Msg = GatewayControl;
    type State = Serving;
    type Arguments = GatewayArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<GatewayControl>,
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
        let journal = arguments.journal.clone();
        let recall: Recall = Arc::new(move |what| {
            let journal = journal.clone();
            Box::pin(async move {
                let found = match what {
                    Recalled::Turn(turn) => journal.turn(&turn).await,
                    Recalled::LastOf(session) => journal.last_turn_of(&session).await,
                };
                let found = found.map_err(|error| error.to_string())?;
                Ok(found.map(|row| (row.turn, row.completed)))
            })
        });
        // Every replica reads and writes text the same way.
        let text = arguments.engines.first().ok_or("there is no policy to serve")?.text();
        let deps = GatewayDeps {
            engines: arguments.engines.clone(),
            context_length: text.context_tokens,
            tokenizer: text.tokenizer.clone(),
            template: text.template.clone(),
            sessions: arguments.sessions.clone(),
            recorder: Some(recorder),
            recall: Some(recall),
            episodes: Some(Episodes { journal: arguments.journal.clone(), judged: arguments.judged_steps }),
            journal: arguments.journal.health(),
            connections: arguments.connections.clone(),
            socket: arguments.socket.get().map(TcpListener::try_clone).transpose()?,
        };
        let handle = Gateway::start(arguments.config.clone(), deps).await?;
        // The first one stays; later ones are copies of it.
        let _ = arguments.socket.set(handle.socket()?);
        arguments.address.send_replace(Some(handle.addr));
        myself.send_interval(LOOK_PERIOD, || GatewayControl::Look);
        Ok(Serving {
            handle: Some(handle),
            in_flight: arguments.in_flight,
            closing: arguments.closing.clone(),
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<GatewayControl>,
        control: GatewayControl,
        serving: &mut Serving,
    ) -> Result<(), ActorProcessingErr> {
        match control {
            GatewayControl::Look => {
                let in_flight = serving.handle.as_ref().map_or(0, GatewayHandle::in_flight);
                serving.in_flight.send_replace(in_flight);
            }
            // The asker may have given up waiting, here and below.
            GatewayControl::Ping(reply) => drop(reply.send(())),
            GatewayControl::Drain(reply) => {
                let handle = serving.handle.take();
                tokio::spawn(async move {
                    if let Some(handle) = handle {
                        handle.finish().await;
                    }
                    let _ = reply.send(());
                    myself.stop(Some("drained".to_owned()));
                });
            }
        }
        Ok(())
    }

    async fn post_stop(
        &self,
        _: ActorRef<GatewayControl>,
        serving: &mut Serving,
    ) -> Result<(), ActorProcessingErr> {
        let handle = serving.handle.take();
        // In a restart the answers under way go on beside the successor.
        if let Some(handle) = handle.filter(|_| serving.closing.is_set()) {
            handle.stop(STOP_DEADLINE).await;
        }
        Ok(())
    }
}
