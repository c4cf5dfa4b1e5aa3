//! The tables of the topology file, key by key: its reference. A default is what `= ..` says.

use std::{collections::BTreeMap, fmt, net::SocketAddr, path::PathBuf, str::FromStr};

use openclaw_actors::{breaker::BreakerConfig, methods::MethodConfig, prompts::PromptStyle};
use openclaw_model::WeightDtype;
use toml::Value;

use super::{
    adapter::Adapting,
    agents, method,
    people::People,
    problems::Problems,
    read::{FromToml, foreign_words, section, words},
};

section! {
    /// A whole topology: what runs, where, on which model, and how it learns.
    pub struct Topology {
        /// The run.
        run: Run,
        /// The processes, by name.
        nodes: BTreeMap<String, Node>,
        /// The checkpoints, by name.
        models: BTreeMap<String, Model>,
        /// How signals become a loss.
        #[serde(serialize_with = "method::write_used")]
        method: MethodConfig,
        /// How the loss becomes a step.
        optimizer: AdamW,
        /// When a step's version is withheld.
        breaker: Breaker = every_default(),
        /// How much of a run is kept.
        journal: Journal = every_default(),
        /// Who has a model of their own.
        people: Option<People> = None,
        /// What agents act in, by name.
        environments: BTreeMap<String, agents::Environment> = BTreeMap::new(),
        /// The roles.
        actors: Actors,
    }
}

section! {
    /// `[run]`.
    pub struct Run {
        /// Shown in logs and dashboards.
        name: String,
        /// Holds everything the run writes: checkpoints, versions, the resolved topology.
        dir: PathBuf,
        /// Every random choice derives from it.
        seed: u64,
    }
}

section! {
    /// `[journal]`: everything in it is optional.
    pub struct Journal {
        /// Turns that are trained on, dropped or answered leave this long after; open ones stay.
        keep_days: usize = 30,
        /// The journal's size; beyond it the oldest of those leave sooner.
        max_mib: usize = 4096,
        /// Turns that are not settled; beyond it the oldest that nobody judged yet are dropped.
        max_backlog_turns: usize = 20_000,
        /// What clients get while it cannot be written: answers that are written down later, or a 503.
        when_failing: WhenFailing = WhenFailing::Serve,
        /// How long a stop waits for it; what is not written by then goes to `spill`.
        stop_wait_secs: u64 = 10,
        /// The folder below which a stop puts what the journal could not take, for the next launch of the run; the
        /// system's folder for temporary files, unless given.
        spill: Option<PathBuf> = None,
    }
}

section! {
    /// `[nodes.NAME]`: one process.
    pub struct Node {
        /// Where Prometheus scrapes; port 0 picks a free one.
        metrics: SocketAddr,
        /// A loopback port for the operator's verbs.
        admin: Option<SocketAddr> = None,
        /// Where tensors live.
        device: Device = Device::Auto,
        /// Threads that serve; 0 for one on each core.
        serve_threads: usize = half_the_cores(),
        /// Threads that train; 0 for one on each core. Where serving and training have more together than there are cores,
        /// each is faster alone, and serving slower while a step is trained.
        train_threads: usize = half_the_cores(),
    }
}

section! {
    /// `[models.NAME]`: a Hugging Face checkpoint folder.
    pub struct Model {
        /// The folder; or `hf:OWNER/NAME` or `hf:OWNER/NAME@REVISION`, as it was pulled from the hub.
        path: PathBuf,
        /// What the parameters of published versions are stored in; an adapter's are f32. A model that is not trained, or that
        /// has an adapter trained on it, lies in memory so, too: in bf16 it takes half, and each number is widened as it is read.
        dtype: Dtype,
        /// What is trained: `"none"` for all of it; an adapter, `{ rank = 16, alpha = 32, targets = "all" }`; or `"auto"`, this
        /// adapter where the model has more than 50 M parameters.
        adapter: Adapting = Adapting::Auto,
        /// A frozen model in bf16 lies in a file of the user's cache folder, which all processes of the machine share in memory and
        /// which the next launch need not convert; as large as the model again on the disk.
        mapped: bool = false,
    }
}

section! {
    /// `[optimizer]`: AdamW.
    pub struct AdamW {
        /// The step size; 0 keeps the weights as they are.
        learning_rate: f64,
        /// Decay of the two moments.
        betas: [f64; 2],
        /// Decoupled weight decay.
        weight_decay: f64,
        /// The gradient's norm is scaled down to this.
        grad_clip: f64,
        /// Keeps the division by the second moment finite.
        epsilon: f64 = 1e-8,
    }
}

section! {
    /// `[breaker]`: a version that leaves one of these bands is withheld, and its batch quarantined.
    pub struct Breaker {
        /// Norm of the gradient before clipping.
        max_grad_norm: f64 = BreakerConfig::default().max_grad_norm,
        /// Mean distance to the base model on the batch, nats per token; read when the method has a KL term.
        max_kl: f64 = BreakerConfig::default().max_kl,
        /// Mean difference of serving's and training's log-probs before the step, nats per token, either way.
        max_drift: f64 = BreakerConfig::default().max_drift,
        /// Mean entropy of the trained tokens in two batches running, nats.
        max_entropy: f64 = BreakerConfig::default().max_entropy,
        /// Share of the canary's answers that are empty, looping or cut.
        max_degenerate: f64 = BreakerConfig::default().max_degenerate,
        /// How much less likely the last good version's answers may become, nats per token.
        max_canary_drop: f64 = BreakerConfig::default().max_canary_drop,
        /// The canary prompts are answered at every so many steps; 0 for never.
        canary_every_steps: u64 = BreakerConfig::default().canary_every_steps,
        /// What the last good version and the candidate are asked.
        canary_prompts: Vec<String> = BreakerConfig::default().canary_prompts,
    }
}

section! {
    /// `[actors]`.
    pub struct Actors {
        /// The HTTP API.
        gateway: Gateway,
        /// The model being trained, as it serves.
        policy: Policy,
        /// Pairs turns with what follows them.
        sessions: Sessions,
        /// Rates turns and writes hints.
        judge: Judge,
        /// Scores responses under a hint; needed by every method but `binary_rl`.
        teacher: Option<Teacher> = None,
        /// Takes the steps.
        optimizer: Trainer,
        /// Simulated users.
        rollout: Vec<Rollout> = Vec::new(),
        /// Workers that let the policy act.
        agent: Vec<agents::Agent> = Vec::new(),
    }
}

section! {
    /// `[actors.gateway]`.
    pub struct Gateway {
        /// Where clients connect; port 0 picks a free one.
        listen: SocketAddr,
        /// The model's name in the API.
        served_model: String,
        /// Further names it answers to.
        aliases: Vec<String> = Vec::new(),
        /// The environment variable that holds the key clients must send. Without it there is no
        /// authentication, and `listen` must be a loopback address.
        api_key_env: Option<String> = None,
        /// Origins (`https://chat.example`) whose web pages may use the API; `*` is all of them, and needs a key.
        allow_origins: Vec<String> = Vec::new(),
        /// Requests answered at once.
        max_in_flight: usize,
        /// Requests that may wait for a place.
        queue_depth: usize = 256,
        /// How long a request waits before it is told to come back.
        queue_timeout_secs: u64 = 30,
        /// The largest request body.
        max_body_bytes: usize = 8 << 20,
    }
}

section! {
    /// `[actors.policy]`.
    pub struct Policy {
        /// Its name under `[models]`.
        model: String,
        /// Engines that serve it.
        replicas: usize,
        /// Most tokens in one forward pass.
        max_batch_tokens: usize,
        /// Sampling temperature of a request that names none.
        temperature: f64 = 1.0,
        /// Most tokens of a response whose request names no limit.
        max_new_tokens: usize = 1024,
        /// Tokens that the paged key-value cache holds.
        kv_tokens: usize = 65536,
    }
}

section! {
    /// `[actors.sessions]`.
    pub struct Sessions {
        /// A session without a request for this long ends.
        idle_timeout_secs: u64,
        /// What a turn is whose request does not say.
        default_turn_type: TurnType,
        /// Sessions remembered at once; the idlest ends to make room.
        max_sessions: usize = 16384,
        /// What a user said next is learnt from once a later request shows it in its history, its session ends, or this
        /// long after it: else a title that a client asks for would be taken for an answer. A bare thumb down waits as
        /// long for the words that say why. With 0 at once.
        settle_secs: u64 = 60,
    }
}

section! {
    /// `[actors.judge]`: `model` or `engine`, not both.
    pub struct Judge {
        /// Its name under `[models]`.
        model: Option<String> = None,
        /// A chat endpoint in its place.
        engine: Option<Engine> = None,
        /// The folder of an adapter on the model, as `sft --adapter` writes one: it judges better, and the base is not loaded twice.
        adapter: Option<PathBuf> = None,
        /// Judges that work side by side.
        replicas: usize = 1,
        /// Samples per turn, of which the majority decides; or `"score"`: the likeliest verdict, without a sample.
        votes: Votes,
        /// With `"score"`: a verdict that is not by so many nats likelier than the next is 0.
        score_margin: f64 = 1.0,
        /// Sampling temperature of a vote.
        temperature: f64,
        /// Most tokens of a vote.
        max_new_tokens: usize,
        /// A vote that takes longer does not count; a turn without any has twice the time at its next attempt.
        deadline_secs: u64,
        /// The wording: `compact` for the embedded model, `full` for others.
        prompt: PromptStyle = PromptStyle::Compact,
        /// A hint is checked before it is distilled: it has to follow from what was said, to change what the teacher says,
        /// and to leave an answer.
        hint_check: bool = false,
        /// What a person explicitly wished for stands for that person until it is withdrawn, and the teacher is shown it
        /// with every reply of theirs. Whoever a client does not name (`user`) is one person; agents' episodes are nobody's.
        remember_hints: bool = false,
        /// An engine that sees: it is shown the screen before a step and behind it, where the agent acts on one.
        images: bool = false,
    }
}

/// How verdicts come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Votes {
    /// So many samples.
    Sampled(usize),
    /// By their probabilities.
    Scored,
}

impl FromToml for Votes {
    fn from_toml(value: &toml::Value, key: &str, problems: &mut Problems) -> Self {
        match value {
            toml::Value::String(word) if word == "score" => Self::Scored,
            toml::Value::String(_) => {
                problems.add(key, "expected a whole number, or \"score\"");
                Self::placeholder()
            }
            _ => Self::Sampled(usize::from_toml(value, key, problems)),
        }
    }

    fn placeholder() -> Self {
        Self::Sampled(1)
    }
}

impl serde::Serialize for Votes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Sampled(votes) => serializer.serialize_u64(*votes as u64),
            Self::Scored => serializer.serialize_str("score"),
        }
    }
}

section! {
    /// An engine outside this process.
    pub struct Engine {
        /// What it speaks.
        kind: EngineKind,
        /// Its base address, such as `https://host/v1`.
        url: String,
        /// The model's name there.
        model: String,
        /// The environment variable that holds its key.
        api_key_env: Option<String> = None,
    }
}

section! {
    /// `[actors.teacher]`.
    pub struct Teacher {
        /// Its name under `[models]`.
        model: String,
        /// The folder of an adapter on it.
        adapter: Option<PathBuf> = None,
        /// Engines that score.
        replicas: usize = 1,
        /// Takes the policy's weights at every so many versions; never, unless given.
        refresh_every: Option<u64> = None,
        /// A turn that is not scored in time uses up an attempt and has twice the time at the next; the judge's
        /// `deadline_secs`, unless given.
        deadline_secs: Option<u64> = None,
    }
}

section! {
    /// `[actors.optimizer]`.
    pub struct Trainer {
        /// Samples of a full batch.
        batch_samples: usize,
        /// Samples drawn more versions ago than this are dropped.
        max_staleness: u64,
        /// The oldest sample waits no longer than this for a full batch.
        max_wait_secs: u64,
        /// Steps between checkpoints.
        checkpoint_every_steps: u64,
        /// 0: a version has the optimizer's moments before it is announced. Else they are written behind its announcement, when so
        /// many steps were taken since the last that were; a crash before that goes on with those of an earlier version.
        moments_every_steps: u64 = 0,
        /// Version folders kept.
        keep_versions: usize,
        /// Most tokens in one forward and backward pass.
        micro_batch_tokens: usize = 4096,
        /// Whether it is up from the start. A node without it serves and judges, needs no memory to train, and keeps what is said
        /// until `openclaw-rl resume optimizer`.
        learns: bool = true,
    }
}

section! {
    /// `[[actors.rollout]]`: one group of workers.
    pub struct Rollout {
        /// Who they play: the users of an environment, a name under `[environments]`.
        environment: String,
        /// Workers in the group.
        workers: usize,
        /// Sessions per user before they give up.
        max_sessions: usize = 72,
        /// Starts a session only when what was said before has been judged and learnt from: a person would take
        /// minutes between two conversations. Without it they talk as fast as they are answered.
        wait_for_learning: bool = true,
        /// Seeds the group's choices; `run.seed`, unless given.
        seed: Option<u64> = None,
    }
}

foreign_words!(PromptStyle, Compact, ["compact", "full"]);

words! {
    /// What parameters are stored in.
    pub enum Dtype {
        /// 32-bit floats.
        F32 = "f32",
        /// bfloat16.
        Bf16 = "bf16",
    }
}

impl Model {
    /// Whether the processes of a machine have one copy of it: where it says so, and where many people's nodes would each have
    /// one.
    pub fn is_shared(&self, has_people: bool) -> bool {
        self.mapped || has_people && self.dtype == Dtype::Bf16
    }

    /// What its parameters, so many, are in memory: exact where all of them are trained, as a policy's are without an adapter.
    pub fn in_memory(&self, parameters: usize, is_policy: bool) -> WeightDtype {
        let trained_whole = is_policy && self.adapter.of(parameters).is_none();
        if trained_whole { WeightDtype::F32 } else { self.dtype.into() }
    }
}

impl From<Dtype> for WeightDtype {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F32 => Self::F32,
            Dtype::Bf16 => Self::Bf16,
        }
    }
}

words! {
    /// What clients get while the journal cannot be written.
    pub enum WhenFailing {
        /// Answers; they are lost if the process is killed before it can be written again.
        Serve = "serve",
        /// 503, with when to come back.
        Refuse = "refuse",
    }
}

words! {
    /// What a turn is whose request does not say.
    pub enum TurnType {
        /// The classifier decides.
        Auto = "auto",
        /// Trainable.
        Main = "main",
        /// Never trained on.
        Side = "side",
    }
}

words! {
    /// What an engine outside this process speaks.
    pub enum EngineKind {
        /// OpenAI's chat completions.
        Openai = "openai",
    }
}

/// Where tensors live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// The first GPU, if there is a usable one; else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// The GPU with this number.
    Cuda(u32),
}

impl FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.strip_prefix("cuda:").map(str::parse);
        match (text, number) {
            ("auto", _) => Ok(Self::Auto),
            ("cpu", _) => Ok(Self::Cpu),
            (_, Some(Ok(number))) => Ok(Self::Cuda(number)),
            _ => Err(format!("\"{text}\" is not one of auto, cpu, cuda:0, cuda:1, ..")),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

impl serde::Serialize for Device {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl FromToml for Device {
    fn from_toml(value: &Value, key: &str, problems: &mut Problems) -> Self {
        super::read::parsed(value, key, problems)
    }

    fn placeholder() -> Self {
        Self::Auto
    }
}

/// A table whose every key has a default, and that is not there.
fn every_default<T: FromToml>() -> T {
    T::from_toml(&Value::Table(toml::Table::new()), "", &mut Problems::new(BTreeMap::new()))
}

impl Node {
    /// How many threads serve.
    pub fn serving_threads(&self) -> usize {
        threads(self.serve_threads)
    }

    /// How many threads train.
    pub fn training_threads(&self) -> usize {
        threads(self.train_threads)
    }
}

fn threads(set: usize) -> usize {
    if set == 0 { cores() } else { set }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn half_the_cores() -> usize {
    (cores() / 2).max(1)
}
