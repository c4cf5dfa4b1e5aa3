//! Turns a topology into actors: what each is given, and in which order they start.
//!
//! Inboxes, engine handles and the announcement of versions are made here, once, and outlive every incarnation of
//! the actors that use them.

mod agents;
mod artefacts;
mod care;
mod gateway;
pub(crate) mod journal;
mod looks;
mod rollouts;

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use openclaw_actors::{
    breaker::BreakerConfig,
    chat_client::ChatClient,
    dispatch::{Dispatcher, DispatcherArguments, Route},
    engine::{Engine, EngineLimits, Place, PolicyWeights},
    judge::{Judge, JudgeConfig, JudgeEngine, RecentVerdicts, Votes},
    loaded_model::LoadedModel,
    optimizer::{Optimizer, OptimizerArguments, OptimizerConfig, TrainingSlot},
    pictures::Pictures,
    policy::{EngineActor, EngineArguments},
    publisher::{Publish, Publisher, Refresh, Versions},
    resume::Resume,
    rollback::Rollback,
    rollout::SessionReport,
    sessions::{DefaultTurnType, Sessions, SessionsAddress, SessionsArguments, SessionsConfig},
    stop::{StopHandle, stop_flag},
    teacher::{Teacher, TeacherConfig},
    worker::{Work, Worker, WorkerArguments},
};
use openclaw_environments::world::User;
use openclaw_journal::{
    Evaluate, Journal, Judged, Sample,
    inbox::{Inbox, InboxLimits},
};
use openclaw_model::{
    AdamWConfig, AdapterConfig, StepReport, VersionFolders, base_cache_folder, checkpoint::InFolder,
};
use ractor::{Actor, ActorCell};
use tokio::sync::{mpsc, watch};
use tracing::info;

pub(crate) use self::gateway::api_key;
use self::gateway::{GatewayActor, GatewayArguments};
use crate::{
    admin::{Corrections, Panel, TokenRates},
    page::{CONTEXT_TOKENS, Comparison, Films},
    run_dir::{self, Claim},
    supervisor::{ChildSpec, RunningChild, StartError},
    topology::{self, Frozen, Node, Topology},
};

/// Turns that one judge has under way at once.
const JUDGE_CONCURRENCY: usize = 4;
/// Turns that one teacher has under way at once.
const TEACHER_CONCURRENCY: usize = 2;
/// Messages before the task that a judge is shown.
const HISTORY_MESSAGES: usize = 6;

/// The actors of a node, not started yet, and what the rest of the process sees of them.
pub struct Wiring {
    /// In starting order; they stop in reverse.
    pub specs: Vec<ChildSpec>,
    /// What can be watched.
    pub view: View,
    /// What an operator sees of the roles and does to them.
    pub panel: Panel,
    /// Has two versions answer.
    pub comparison: Comparison,
    /// Where it finds what screens have shown.
    pub films: Films,
    /// What a person says of a turn.
    pub corrections: Corrections,
    /// Where the tensors live.
    pub device: String,
}

/// What the rest of the process sees of the actors.
pub struct View {
    /// Where the gateway listens, once it does.
    pub gateway: watch::Receiver<Option<SocketAddr>>,
    /// Requests being answered.
    pub in_flight: watch::Receiver<usize>,
    /// To be raised before the node stops: the gateway then lets answers end, and cuts those that take too long. A
    /// gateway that stops without it has a successor.
    pub closing: StopHandle,
    /// How fast the policy's engines draw tokens.
    pub rates: TokenRates,
    /// The announcement of versions.
    pub versions: Versions,
    /// Returns to earlier versions.
    pub rollback: Rollback,
    /// Keeps the current version.
    pub training: TrainingSlot,
    /// Everything recorded.
    pub journal: Journal,
    /// The last step.
    pub steps: watch::Receiver<Option<StepReport>>,
    /// Sessions of simulated users, as they end; none are left once every group is through.
    pub sessions: mpsc::Receiver<SessionReport>,
    /// Simulated users of all groups.
    pub users: Vec<User>,
}

/// What is seen of the gateway, whichever incarnation.
struct GatewayView {
    address: watch::Receiver<Option<SocketAddr>>,
    in_flight: watch::Receiver<usize>,
    closing: StopHandle,
}

/// Where work waits between the roles.
#[derive(Clone)]
struct Inboxes {
    evaluations: Inbox<Evaluate>,
    judged: Inbox<Judged>,
    samples: Inbox<Sample>,
    publish: Inbox<Publish>,
}

struct Builder<'a> {
    topology: &'a Topology,
    place: Place,
    node: &'a Node,
    models: BTreeMap<String, LoadedModel>,
    frozen: BTreeMap<Frozen, PolicyWeights>,
    inboxes: Inboxes,
    journal: Journal,
    versions: Versions,
    folders: VersionFolders,
    training: TrainingSlot,
    pictures: Pictures,
    specs: Vec<ChildSpec>,
    panel: Panel,
}

/// Where the tensors of a node live; logs what `auto` chose.
fn place_of(device: topology::Device) -> Place {
    match device {
        topology::Device::Cpu => Place::Cpu,
        topology::Device::Cuda(number) => Place::Cuda(number),
        topology::Device::Auto => {
            let (place, why) = Place::auto();
            info!(device = %place, reason = why.as_deref().unwrap_or("it computes"), "device chosen");
            place
        }
    }
}

/// Makes the actors of `node`. Loads the checkpoints, and the version that the run goes on with; starts nothing.
pub async fn wire(topology: &Topology, node: &Node) -> anyhow::Result<Wiring> {
    let place = place_of(node.device);
    let mut models = BTreeMap::new();
    for name in topology.models_in_use() {
        let table = topology.models.get(name).with_context(|| format!("models.{name} is missing"))?;
        let is_policy = *name == topology.actors.policy.model;
        let wanted = |stored: InFolder| table.in_memory(stored.parameters, is_policy);
        let cache = table.mapped.then(base_cache_folder);
        let mut model =
            LoadedModel::open_as(&table.path, place, node.serving_threads(), wanted, cache.as_deref())?;
        let adapter = table.adapter.of(model.parameters()).filter(|_| is_policy);
        if let Some(config) = adapter {
            info!(model = name, rank = config.rank, alpha = config.alpha, "an adapter is trained");
            model.adapt(config, topology.run.seed)?;
        }
        models.insert(name.clone(), model);
    }
    let frozen = topology.frozen().into_iter().map(|frozen| {
        let weights = frozen_weights(&models[&frozen.model], &frozen)?;
        Ok((frozen, weights))
    });
    let frozen = frozen.collect::<anyhow::Result<_>>()?;
    let policy = &models[&topology.actors.policy.model];
    let text = openclaw_model::text_files(&policy.path)?;
    let adapter = policy.weights.adapter_layout().map(|layout| described(&layout.config));
    let base =
        run_dir::Base { model: policy.path.clone(), fingerprint: policy.fingerprint.clone(), text, adapter };
    let claim = run_dir::claim(&topology.run.dir, base)?;
    openclaw_journal::inspect(&topology.run.dir)?;
    // From here on the folder is written into. `launch` puts it back when what follows refuses.
    run_dir::make_private(&topology.run.dir)?;
    let journal = journal::open(topology)?;
    let wired = go_on(topology, node, place, (models, frozen), claim, journal.clone()).await;
    if wired.is_err() {
        journal::end(topology, &journal).await;
    }
    wired
}

/// The weights of a model that does not change, with the adapter of its role.
fn frozen_weights(model: &LoadedModel, frozen: &Frozen) -> anyhow::Result<PolicyWeights> {
    let Some(folder) = &frozen.adapter else { return Ok(model.base.clone()) };
    let weights = model.with_adapter(folder);
    weights.with_context(|| format!("cannot use the adapter {}", folder.display()))
}

/// An adapter, as the run's folder remembers it.
fn described(config: &AdapterConfig) -> String {
    let targets = config.targets.iter().map(|target| target.name()).collect::<Vec<_>>().join(", ");
    format!("rank {}, alpha {}, {targets}", config.rank, config.alpha)
}

/// What there is to do once this process has the run's folder, and nobody else.
async fn go_on(
    topology: &Topology,
    node: &Node,
    place: Place,
    (models, frozen): (BTreeMap<String, LoadedModel>, BTreeMap<Frozen, PolicyWeights>),
    claim: Claim,
    journal: Journal,
) -> anyhow::Result<Wiring> {
    claim.write()?;
    let limits = InboxLimits::default();
    // Samples of steps without a checkpoint stay leased until the next one.
    let table = &topology.actors.optimizer;
    let held = table.batch_samples.saturating_mul(table.checkpoint_every_steps.max(1) as usize);
    let sample_limits = InboxLimits { capacity: limits.capacity.max(2 * held), ..limits };
    let policy = &models[&topology.actors.policy.model];
    let dtype = topology.models[&topology.actors.policy.model].dtype.into();
    let folders = policy.folders(topology.run.dir.join("versions"), dtype);
    journal.take_up(&journal::spill(topology), journal::patience(topology)).await?;
    let resume = Resume::find(&folders, &journal).await?;
    let weights = match &resume.stored {
        Some(stored) => Arc::new(policy.weights.with(&policy.transformer, &stored.state.weights)?),
        None => policy.weights.clone(),
    };
    if resume.number > 0 {
        info!(version = resume.number, step = resume.step, "the run goes on");
    }
    let versions = Versions::new(resume.number, weights);
    versions.show();
    let builder = Builder {
        topology,
        place,
        node,
        versions,
        folders,
        training: TrainingSlot::default(),
        pictures: artefacts::pictures(&topology.run.dir),
        inboxes: Inboxes {
            evaluations: Inbox::new("judge", limits),
            judged: Inbox::new("teacher", limits),
            samples: Inbox::new("optimizer", sample_limits),
            publish: Inbox::new("publisher", limits),
        },
        journal,
        models,
        frozen,
        specs: Vec::new(),
        panel: Panel::default(),
    };
    builder.build()
}

impl Builder<'_> {
    fn build(mut self) -> anyhow::Result<Wiring> {
        self.journal_writer();
        let sessions = self.sessions();
        let policies = self.policies();
        let bases = self.bases();
        let (reports, steps) = watch::channel(None);
        let judge_engine = match (self.topology.frozen_judge(), &self.topology.actors.judge.engine) {
            (Some(judge), _) => JudgeEngine::Embedded(bases[&judge].clone()),
            (None, Some(endpoint)) => JudgeEngine::OpenAi(chat_client(endpoint)?),
            (None, None) => bail!("actors.judge needs `model` or `engine`"),
        };
        let of = |frozen: Option<Frozen>| frozen.and_then(|frozen| bases.get(&frozen));
        self.optimizer(of(self.topology.frozen_reference()), reports);
        let refreshed = self.refreshed_teacher();
        let base = of(self.topology.frozen_teacher());
        let teacher_engine = refreshed.as_ref().map(|(engine, _)| engine).or(base).cloned();
        self.publisher(refreshed.map(|(_, refresh)| refresh));
        self.teachers(teacher_engine.as_ref(), &policies);
        self.judges(judge_engine);
        self.dispatcher();
        let pace = self.pace(&policies);
        let GatewayView { address: gateway, in_flight, closing } =
            self.gateway(&policies, sessions.clone())?;
        let (session_reports, session_view) = mpsc::channel(1024);
        let users = self.rollouts(&gateway, &pace, session_reports)?;
        self.agents(&policies, &pace)?;
        let rates = TokenRates::new(&policies);
        self.looks(&policies, &bases, &sessions, &in_flight, &steps, &rates);
        let policy = &self.models[&self.topology.actors.policy.model];
        let rollback = Rollback {
            versions: self.versions.clone(),
            folders: self.folders.clone(),
            base: policy.weights.clone(),
            transformer: policy.transformer.clone(),
            journal: self.journal.clone(),
        };
        let table = &self.topology.actors.policy;
        let kv_tokens = CONTEXT_TOKENS.min(table.kv_tokens);
        let asked = policy.serving(table.max_batch_tokens, kv_tokens, 1, "page");
        let comparison = Comparison::new(rollback.clone(), policy.text.clone(), asked);
        let view = View {
            gateway,
            in_flight,
            closing,
            rates,
            versions: self.versions,
            rollback,
            training: self.training,
            journal: self.journal,
            steps,
            sessions: session_view,
            users,
        };
        let corrections = Corrections {
            journal: view.journal.clone(),
            sessions,
            teaches: self.topology.method.needs_hints(),
            remembers: self.topology.actors.judge.remember_hints,
        };
        let device = self.place.to_string();
        let films =
            Films { episodes: self.topology.run.dir.join(artefacts::FOLDER), pictures: self.pictures };
        Ok(Wiring { specs: self.specs, view, panel: self.panel, comparison, films, corrections, device })
    }

    fn child<A, F>(&mut self, name: String, role: &str, make: F) -> &mut ChildSpec
    where
        A: Actor,
        F: Fn() -> (A, A::Arguments) + Send + Sync + 'static,
    {
        self.specs.push(child(name, role, make));
        self.specs.last_mut().expect("it was just pushed")
    }

    /// `replicas` workers of a role, numbered from 0; an operator may change how many.
    fn workers<W: Work>(
        &mut self,
        work: &Arc<W>,
        inbox: &Inbox<W::Message>,
        concurrency: usize,
        replicas: usize,
    ) {
        let (work, seen) = (work.clone(), inbox.clone());
        let make = move |number| worker(format!("{}.{number}", W::ROLE), work.clone(), &seen, concurrency);
        self.specs.extend((0..replicas.max(1)).map(&make));
        self.panel.inbox(W::ROLE, inbox);
        self.panel.factory(W::ROLE, make);
    }

    fn sessions(&mut self) -> SessionsAddress {
        let table = &self.topology.actors.sessions;
        let address = SessionsAddress::default();
        let arguments = SessionsArguments {
            config: SessionsConfig {
                idle_timeout_secs: table.idle_timeout_secs,
                default_turn_type: match table.default_turn_type {
                    topology::TurnType::Auto => DefaultTurnType::Auto,
                    topology::TurnType::Main => DefaultTurnType::Main,
                    topology::TurnType::Side => DefaultTurnType::Side,
                },
                max_sessions: table.max_sessions,
                settle_secs: table.settle_secs,
                teaches: self.topology.method.needs_hints(),
                ..SessionsConfig::default()
            },
            journal: self.journal.clone(),
            address: address.clone(),
        };
        let spec = self.child("sessions".into(), "sessions", move || (Sessions, arguments.clone()));
        care::sessions(spec);
        address
    }

    fn engine(&mut self, name: String, role: &str, model: &str, follows: bool, versions: Versions) -> Engine {
        let policy = &self.topology.actors.policy;
        let model = &self.models[model];
        let engine = Engine::new(name.clone(), EngineLimits::default(), model.text.clone());
        let arguments = EngineArguments {
            engine: engine.clone(),
            build: model.serving(
                policy.max_batch_tokens,
                policy.kv_tokens,
                self.node.serving_threads(),
                &name,
            ),
            versions,
            follows,
        };
        let spec = self.child(name, role, move || (EngineActor, arguments.clone()));
        care::engine(spec, engine.clone());
        engine
    }

    fn policies(&mut self) -> Vec<Engine> {
        let policy = &self.topology.actors.policy;
        (0..policy.replicas.max(1))
            .map(|i| self.engine(format!("policy.{i}"), "policy", &policy.model, true, self.versions.clone()))
            .collect()
    }

    /// One engine for each model that does not change: it stays on the version it starts with.
    fn bases(&mut self) -> BTreeMap<Frozen, Engine> {
        let frozen: Vec<_> =
            self.frozen.iter().map(|(frozen, weights)| (frozen.clone(), weights.clone())).collect();
        let engines = frozen.into_iter().enumerate().map(|(i, (frozen, weights))| {
            let versions = Versions::new(0, weights);
            let engine = self.engine(format!("base.{i}"), "base", &frozen.model, false, versions);
            (frozen, engine)
        });
        engines.collect()
    }

    fn optimizer(&mut self, reference: Option<&Engine>, reports: watch::Sender<Option<StepReport>>) {
        let (table, adam) = (&self.topology.actors.optimizer, &self.topology.optimizer);
        let config = AdamWConfig {
            learning_rate: adam.learning_rate as f32,
            betas: (adam.betas[0] as f32, adam.betas[1] as f32),
            eps: adam.epsilon as f32,
            weight_decay: adam.weight_decay as f32,
            grad_clip: adam.grad_clip as f32,
        };
        let model = &self.models[&self.topology.actors.policy.model];
        let threads = self.node.training_threads();
        let arguments = OptimizerArguments {
            config: OptimizerConfig {
                batch_samples: table.batch_samples,
                max_staleness: table.max_staleness,
                max_wait: Duration::from_secs(table.max_wait_secs),
                method: self.topology.method.clone(),
                checkpoint_every_steps: table.checkpoint_every_steps,
                moments_every_steps: table.moments_every_steps,
                breaker: self.breaker(),
            },
            folders: self.folders.clone(),
            text: model.text.clone(),
            samples: self.inboxes.samples.clone(),
            build: model.training(config, table.micro_batch_tokens, threads),
            reference: reference.cloned(),
            versions: self.versions.clone(),
            publisher: self.inboxes.publish.clone(),
            journal: self.journal.clone(),
            slot: self.training.clone(),
            reports,
        };
        self.panel.inbox("optimizer", &self.inboxes.samples);
        let samples = self.inboxes.samples.clone();
        let starts_down = !table.learns;
        let spec = self.child("optimizer".into(), "optimizer", move || (Optimizer, arguments.clone()));
        care::optimizer(spec).paused_when(move || samples.status().paused).starts_down = starts_down;
    }

    fn breaker(&self) -> BreakerConfig {
        let table = self.topology.breaker.clone();
        BreakerConfig {
            max_grad_norm: table.max_grad_norm,
            max_kl: table.max_kl,
            max_drift: table.max_drift,
            max_entropy: table.max_entropy,
            max_degenerate: table.max_degenerate,
            max_canary_drop: table.max_canary_drop,
            canary_every_steps: table.canary_every_steps,
            canary_prompts: table.canary_prompts,
        }
    }

    /// The engine of a teacher that takes the policy's weights now and then.
    fn refreshed_teacher(&mut self) -> Option<(Engine, Refresh)> {
        let teacher = self.topology.actors.teacher.as_ref()?;
        let every = teacher.refresh_every.filter(|every| *every > 0)?;
        let versions = Versions::new(0, self.models[&teacher.model].weights.clone());
        let name = "teacher.engine".to_owned();
        let engine = self.engine(name, "teacher", &teacher.model, true, versions.clone());
        Some((engine, Refresh { every, versions }))
    }

    fn publisher(&mut self, teacher: Option<Refresh>) {
        let work = Arc::new(Publisher {
            versions: self.versions.clone(),
            folders: self.folders.clone(),
            keep_versions: self.topology.actors.optimizer.keep_versions,
            teacher,
            journal: self.journal.clone(),
        });
        let inbox = self.inboxes.publish.clone();
        self.specs.push(worker("publisher".into(), work, &inbox, 1));
        self.panel.inbox("publisher", &inbox);
    }

    fn teachers(&mut self, engine: Option<&Engine>, policies: &[Engine]) {
        let (Some(engine), true) = (engine, self.topology.method.needs_hints()) else { return };
        let actors = &self.topology.actors;
        let deadline = actors.teacher.as_ref().and_then(|teacher| teacher.deadline_secs);
        let deadline = Duration::from_secs(deadline.unwrap_or(actors.judge.deadline_secs));
        let work = Arc::new(Teacher {
            config: TeacherConfig {
                hint_check: self.topology.actors.judge.hint_check,
                ..TeacherConfig::for_method(&self.topology.method, deadline)
            },
            student: policies[0].clone(),
            teacher: engine.clone(),
            journal: self.journal.clone(),
        });
        let inbox = self.inboxes.judged.clone();
        let replicas = self.topology.actors.teacher.as_ref().map_or(1, |teacher| teacher.replicas);
        self.workers(&work, &inbox, TEACHER_CONCURRENCY, replicas);
    }

    fn judges(&mut self, engine: JudgeEngine) {
        let table = &self.topology.actors.judge;
        let method = &self.topology.method;
        let work = Arc::new(Judge {
            config: JudgeConfig {
                votes: match table.votes {
                    topology::Votes::Sampled(votes) => Votes::Sampled(votes),
                    topology::Votes::Scored => Votes::Scored { margin: table.score_margin as f32 },
                },
                temperature: table.temperature as f32,
                max_new_tokens: table.max_new_tokens,
                deadline: Duration::from_secs(table.deadline_secs),
                prompt: table.prompt,
                history_messages: HISTORY_MESSAGES,
                hints: method.hint_selection(),
                hint_check: table.hint_check,
                remember_hints: table.remember_hints,
                images: table.images.then(|| self.pictures.clone()),
            },
            engine,
            recent: RecentVerdicts::new(),
            teaches: method.needs_hints(),
            journal: self.journal.clone(),
        });
        let inbox = self.inboxes.evaluations.clone();
        self.workers(&work, &inbox, JUDGE_CONCURRENCY, table.replicas);
    }

    fn gateway(&mut self, policies: &[Engine], sessions: SessionsAddress) -> anyhow::Result<GatewayView> {
        let (address, address_view) = watch::channel(None);
        let (in_flight, in_flight_view) = watch::channel(0);
        let (closing, node_closes) = stop_flag();
        let arguments = GatewayArguments::new(
            self.topology,
            policies.to_vec(),
            sessions,
            self.journal.clone(),
            address,
            in_flight,
            node_closes,
        )?;
        let spec = self.child("gateway".into(), "gateway", move || (GatewayActor, arguments.clone()));
        care::gateway(spec);
        Ok(GatewayView { address: address_view, in_flight: in_flight_view, closing })
    }

    /// Carries work into the inboxes of the stages above.
    fn dispatcher(&mut self) {
        let Inboxes { evaluations, judged, samples, .. } = self.inboxes.clone();
        let arguments = DispatcherArguments {
            journal: self.journal.clone(),
            evaluations: Some(Route::to(evaluations)),
            judged: self.topology.method.needs_hints().then(|| Route::to(judged)),
            samples: Some(Route::to(samples)),
        };
        let spec = self.child("dispatcher".into(), "dispatcher", move || (Dispatcher, arguments.clone()));
        care::dispatcher(spec);
    }
}

/// How an actor is started, anew each time.
fn child<A, F>(name: String, role: &str, make: F) -> ChildSpec
where
    A: Actor,
    F: Fn() -> (A, A::Arguments) + Send + Sync + 'static,
{
    ChildSpec::new(name, role, move |supervisor: ActorCell| {
        let (actor, arguments) = make();
        async move {
            let (reference, task) = Actor::spawn_linked(None, actor, arguments, supervisor)
                .await
                .map_err(|error| Box::new(error) as StartError)?;
            Ok(RunningChild { cell: reference.get_cell(), task })
        }
    })
}

fn worker<W: Work>(name: String, work: Arc<W>, inbox: &Inbox<W::Message>, concurrency: usize) -> ChildSpec {
    let (inbox, seen) = (inbox.clone(), inbox.clone());
    let mut spec = child(name, W::ROLE, move || {
        (Worker::default(), WorkerArguments { work: work.clone(), inbox: inbox.clone(), concurrency })
    });
    care::worker(&mut spec).paused_when(move || seen.status().paused);
    spec
}

/// The secret in the environment variable that `setting` names, if it names one.
fn key_from_env(setting: &str, variable: Option<&str>) -> anyhow::Result<Option<String>> {
    let read = |name| std::env::var(name).with_context(|| format!("{setting}: ${name}"));
    variable.map(read).transpose()
}

fn chat_client(endpoint: &topology::Engine) -> anyhow::Result<ChatClient> {
    let key = key_from_env("actors.judge.engine.api_key_env", endpoint.api_key_env.as_deref())?;
    Ok(ChatClient::new(&endpoint.url, endpoint.model.clone(), key)?)
}
