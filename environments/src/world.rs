//! What an agent acts in, whatever kind it is. An [`Environment`] has tasks and opens worlds; a [`World`] is one of them for
//! one episode at a time. How a model is talked to about it is the matter of an [`Agent`](crate::agent::Agent).
//!
//! Everything blocks: whoever drives a world gives it a thread of its own.

use std::{collections::BTreeMap, fmt, path::Path, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::agent::{Agent, ToolAgent};

/// What is trained on, and what is never.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// May be trained on.
    Train,
    /// Never is: it measures.
    HeldOut,
}

impl Split {
    /// The name in ids and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::HeldOut => "held-out",
        }
    }

    /// What a task is drawn from by its number: no seed is of both splits.
    pub fn seed(self, number: u64) -> u64 {
        number << 1 | u64::from(self == Self::HeldOut)
    }
}

/// A kind of world with its settings.
pub trait Environment: Send + Sync {
    /// What holds for all of its tasks.
    fn spec(&self) -> &Spec;

    /// How many tasks a split has; none where they are made from their numbers, without an end.
    fn tasks(&self, split: Split) -> Option<u64>;

    /// A task by its number, from 0. The same number is the same task for ever.
    fn task(&self, split: Split, number: u64) -> Result<Task, WorldError>;

    /// Whether this machine has what its worlds need. Asked once, before any is opened; what worlds of a process that was
    /// killed have left is cleared away.
    fn ready(&self) -> Result<(), WorldError> {
        self.open().map(drop)
    }

    /// A world, before its first task.
    fn open(&self) -> Result<Box<dyn World>, WorldError>;

    /// How a model is talked to about its tasks, for one episode.
    fn agent(&self) -> Box<dyn Agent> {
        Box::new(ToolAgent::default())
    }

    /// Who asks, each with an environment of their tasks alone; none where nobody in particular does.
    fn users(&self) -> Vec<User> {
        Vec::new()
    }
}

/// Someone whose tasks are told apart from those of others.
#[derive(Clone)]
pub struct User {
    /// Names them, in metrics too.
    pub name: Arc<str>,
    /// Their tasks.
    pub environment: Arc<dyn Environment>,
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Whoever asks in an environment: where nobody in particular does, one user by its name.
pub fn users_of(name: &str, environment: &Arc<dyn Environment>) -> Vec<User> {
    let users = environment.users();
    if !users.is_empty() {
        return users;
    }
    vec![User { name: name.into(), environment: environment.clone() }]
}

/// How a task stands after a first reply, and no other.
pub fn after_first_reply(
    environment: &dyn Environment,
    task: &Task,
    reply: &str,
) -> Result<Verdict, WorldError> {
    let mut world = environment.open()?;
    world.reset(task)?;
    world.step(&Action::Text(reply.to_owned()))?;
    world.evaluate()
}

/// The number of the task that comes as `nth`, from 0, in the order of a seed: far apart for different seeds where tasks
/// have no end. Families of tasks take 60 bits.
pub fn drawn(seed: u64, nth: u64, tasks: Option<u64>) -> u64 {
    let number = seed.wrapping_mul(1_000_003).wrapping_add(nth) & ((1 << 59) - 1);
    tasks.map_or(number, |tasks| number % tasks.max(1))
}

/// A world for one episode at a time. Dropping it closes it.
pub trait World: Send {
    /// Begins a task anew, whatever was before.
    fn reset(&mut self, task: &Task) -> Result<Observation, WorldError>;

    /// Does what the agent wants. What the agent did wrong is no error but an observation.
    fn step(&mut self, action: &Action) -> Result<Outcome, WorldError>;

    /// Copies the files that it holds to `to`, a folder of the host that it makes; a world without files does nothing. Asked
    /// before an evaluation, of whose doings nothing is seen.
    fn keep(&mut self, to: &Path) -> Result<(), WorldError> {
        let _ = to;
        Ok(())
    }

    /// The bytes of what observations have named as images since this was asked last: whoever drives the world keeps them.
    fn images(&mut self) -> Vec<(ImageRef, Vec<u8>)> {
        Vec::new()
    }

    /// How the task came out. Again, it says the same.
    fn evaluate(&mut self) -> Result<Verdict, WorldError>;

    /// Leaves nothing behind. Again, it does nothing.
    fn close(&mut self);

    /// For another thread: ends the step or evaluation that runs, which answers [`WorldError::Interrupted`].
    fn interrupt(&self) -> Interrupt;
}

/// Ends what a world does, from another thread.
pub type Interrupt = Arc<dyn Fn() + Send + Sync>;

/// What holds for all tasks of an environment.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// Its kind, as the registry has it.
    pub kind: &'static str,
    /// The most steps an episode takes, where the topology says nothing.
    pub steps: u32,
    /// The most that a step or the evaluation takes.
    pub patience: Duration,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// Names it within its environment for good: `tc1/train/7`.
    pub id: Arc<str>,
    /// What it may be used for.
    pub split: Split,
    /// Its number within its split.
    pub number: u64,
    /// What the agent is told, in order.
    pub opening: Vec<Said>,
    /// What it may call.
    pub tools: Vec<Tool>,
}

/// A message of a task.
#[derive(Clone, Debug, PartialEq)]
pub struct Said {
    /// `system`, `user` or `assistant`.
    pub role: &'static str,
    /// What it says.
    pub parts: Vec<Part>,
}

impl Said {
    /// A message of the user.
    pub fn user(text: impl Into<String>) -> Self {
        Self { role: "user", parts: vec![Part::Text(text.into())] }
    }

    /// In the form of chat completions.
    pub fn message(&self) -> Value {
        json!({"role": self.role, "content": text_of(&self.parts)})
    }
}

/// What can be said and seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Words.
    Text(String),
    /// An image.
    Image(ImageRef),
}

/// An image by its content; its bytes lie in a folder of the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRef {
    /// Of its bytes, in hexadecimal digits.
    pub sha256: String,
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
    /// `image/png`.
    pub media_type: String,
}

/// Something that can be called.
#[derive(Clone, Debug, PartialEq)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// JSON schema of its arguments.
    pub parameters: Value,
}

impl Tool {
    /// A tool whose arguments are texts, all of them needed: names and what they are.
    pub fn of_texts(name: &str, description: &str, arguments: &[(&str, &str)]) -> Self {
        let property = |(name, about): &(&str, &str)| {
            let mut schema = Map::from_iter([("type".to_owned(), json!("string"))]);
            if !about.is_empty() {
                schema.insert("description".to_owned(), json!(about));
            }
            ((*name).to_owned(), Value::Object(schema))
        };
        let properties: Map<String, Value> = arguments.iter().map(property).collect();
        let required: Vec<&str> = arguments.iter().map(|(name, _)| *name).collect();
        Self {
            name: name.to_owned(),
            description: description.to_owned(),
            parameters: json!({"type": "object", "properties": properties, "required": required}),
        }
    }

    /// As chat templates and clients have it.
    pub fn function(&self) -> Value {
        json!({"type": "function", "function": {
            "name": self.name, "description": self.description, "parameters": self.parameters,
        }})
    }
}

/// What an agent does in one step.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// It calls tools, in this order.
    Calls(Vec<Call>),
    /// It says something; in most worlds that ends the task.
    Text(String),
    /// It did neither, or nothing that can be read: the agent has told the model so, and the world only counts it.
    Malformed,
}

/// A call of a tool.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// Names it within its step.
    pub id: String,
    /// The tool's name, offered or not.
    pub name: String,
    /// By the names of the tool's parameters.
    pub arguments: Map<String, Value>,
}

impl Call {
    /// An argument that is a text.
    pub fn text(&self, argument: &str) -> Option<&str> {
        self.arguments.get(argument).and_then(Value::as_str)
    }
}

/// What an agent sees.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observation {
    /// What each call gave, in their order.
    pub results: Vec<CallResult>,
    /// What is seen beside that.
    pub parts: Vec<Part>,
    /// Names the state that the world is in, where it can be told: agents in the same one are compared with one another.
    /// None is what the observation says.
    pub state: Option<u64>,
    /// For people who look on, of a world with a screen. No agent is shown it: what one sees is in `parts`.
    pub shot: Option<Shot>,
}

/// A screen as it was after a step.
#[derive(Clone, Debug, PartialEq)]
pub struct Shot {
    /// Among what [`World::images`] hands over.
    pub image: ImageRef,
    /// Where the step has pointed last, from 0 at the left and at the top to 1.
    pub point: Option<(f32, f32)>,
}

impl Observation {
    /// Words alone.
    pub fn text(text: impl Into<String>) -> Self {
        Self { parts: vec![Part::Text(text.into())], ..Self::default() }
    }
}

/// What a call gave.
#[derive(Clone, Debug, PartialEq)]
pub struct CallResult {
    /// The call's.
    pub id: String,
    /// What it gave.
    pub parts: Vec<Part>,
    /// It failed.
    pub is_error: bool,
}

impl CallResult {
    /// Words.
    pub fn text(call: &Call, text: impl Into<String>) -> Self {
        Self { id: call.id.clone(), parts: vec![Part::Text(text.into())], is_error: false }
    }

    /// It failed, and this is why.
    pub fn error(call: &Call, text: impl Into<String>) -> Self {
        Self { is_error: true, ..Self::text(call, text) }
    }
}

/// What came of a step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// What is seen now.
    pub observation: Observation,
    /// What the world's own rule says of the step, if it has one.
    pub rule: Option<StepVerdict>,
    /// The task is over, and can be evaluated.
    pub done: bool,
}

/// How good one step was, and why; there is no 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepVerdict {
    /// +1 or -1.
    pub score: i8,
    /// For journals and for the documents a judge is taught with.
    pub reason: &'static str,
}

impl StepVerdict {
    /// +1.
    pub fn good(reason: &'static str) -> Self {
        Self { score: 1, reason }
    }

    /// -1.
    pub fn bad(reason: &'static str) -> Self {
        Self { score: -1, reason }
    }
}

/// How a task came out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verdict {
    /// How good it is to learn from; a finite number.
    pub reward: f32,
    /// Whether the task was done.
    pub success: bool,
    /// What else was measured.
    pub numbers: BTreeMap<String, f64>,
}

impl Verdict {
    /// See [`FIRST_CORRECT`].
    pub fn first_correct(&self) -> bool {
        self.numbers.get(FIRST_CORRECT).is_some_and(|right| *right > 0.0)
    }
}

/// Among a verdict's numbers: whether the first reply was right, where that is something else than that it was liked.
pub const FIRST_CORRECT: &str = "first_correct";

/// Why a world did not do what it was asked. None of it is the agent's doing, and no verdict on it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WorldError {
    /// There is no such task.
    #[error("there is no task {0}")]
    NoTask(String),
    /// Its settings cannot be used.
    #[error("{0}")]
    Settings(String),
    /// This machine lacks something, and will at the next try.
    #[error("refused: {0}")]
    Refused(String),
    /// It was ended from outside.
    #[error("interrupted")]
    Interrupted,
    /// The outcome cannot be told: a grader that failed is no failed task.
    #[error("no verdict: {0}")]
    Invalid(String),
    /// It broke; another world may do.
    #[error("broken: {0}")]
    Broken(String),
}

impl WorldError {
    /// For metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::NoTask(_) => "no_task",
            Self::Settings(_) => "settings",
            Self::Refused(_) => "refused",
            Self::Interrupted => "interrupted",
            Self::Invalid(_) => "invalid",
            Self::Broken(_) => "broken",
        }
    }

    /// Whether another world may do what this one did not.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Interrupted | Self::Broken(_))
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The texts of parts, joined by lines; an image is a placeholder that names it.
pub fn text_of(parts: &[Part]) -> String {
    let text = |part: &Part| match part {
        Part::Text(text) => text.clone(),
        Part::Image(image) => format!("[image {}x{}]", image.width, image.height),
    };
    parts.iter().map(text).collect::<Vec<_>>().join("\n")
}
