//! The environment: which problem a number is, and what is offered for it.

use std::{
    fs::File,
    io::BufReader,
    path::Path,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use openclaw_sandbox::Backend;
use toml::Table;

use super::{
    boxed::{self, AnswerRule},
    families::{self, Family, FamilyTask, Knobs, TOOL},
    mcp::Servers,
    rows::{PromptMessage, ROLES, Row, read_rows},
    settings::{Problems, SYSTEM, SYSTEM_WITHOUT_CODE, Settings, refuse},
    tools,
    world::Bench,
};
use crate::{
    registry::{Kind, settings},
    sandboxed::backend,
    stop::Stop,
    world::{Environment, Part, Said, Spec, Split, Task, Tool, World, WorldError},
};

/// In the registry.
pub const KIND: Kind = Kind {
    name: "tool_call",
    about: "problems that are solved with Python in a sandbox, and with tools of MCP servers",
    make,
};

/// What a step may take beyond its calls: a session that opens, and one that ends.
const BESIDE: Duration = Duration::from_secs(30);

fn make(table: Table) -> Result<Arc<dyn Environment>, WorldError> {
    Ok(Arc::new(ToolCall(Arc::new(Shared::new(settings(table)?)?))))
}

/// The environment.
struct ToolCall(Arc<Shared>);

/// What an environment and its worlds share.
pub(super) struct Shared {
    pub(super) spec: Spec,
    pub(super) settings: Settings,
    pub(super) backend: Box<dyn Backend>,
    /// Python was seen to run in a sandbox.
    pub(super) python: OnceLock<()>,
    source: Source,
    /// What the servers offer, once they were asked.
    served: Mutex<Option<Arc<[Tool]>>>,
}

enum Source {
    Rows { train: Vec<Row>, held_out: Vec<Row>, rule: AnswerRule },
    Families(Vec<Family>, Knobs),
}

/// What is to be solved.
pub(super) enum Problem {
    /// One of a family.
    Family(Box<FamilyTask>),
    /// One of a file.
    Row { label: String, rule: AnswerRule },
}

impl Problem {
    /// Whether what was said holds the answer.
    pub(super) fn is_solved_by(&self, said: &str) -> bool {
        match self {
            Self::Family(task) => boxed::last_boxed(said).is_some_and(|given| task.correct(given)),
            Self::Row { label, rule } => boxed::answered(said, label, *rule).correct,
        }
    }
}

impl Shared {
    fn new(settings: Settings) -> Result<Self, WorldError> {
        let source = match settings.check()? {
            Problems::Families(families, knobs) => Source::Families(families, knobs),
            Problems::Rows(rule) => Source::Rows {
                train: rows("rows", settings.rows.as_deref())?,
                held_out: rows("held_out_rows", settings.held_out_rows.as_deref())?,
                rule,
            },
        };
        let spec = Spec {
            kind: KIND.name,
            steps: settings.steps,
            patience: Duration::from_secs(settings.step_secs) + BESIDE,
        };
        let (python, served) = (OnceLock::new(), Mutex::new(None));
        let backend = backend(settings.sandbox, settings.image.as_deref(), settings.socket.as_deref())?;
        Ok(Self { spec, settings, backend, python, source, served })
    }

    /// What a number is.
    pub(super) fn problem(&self, split: Split, number: u64) -> Result<Problem, WorldError> {
        match &self.source {
            Source::Rows { rule, .. } => {
                let label = self.row(split, number)?.label.clone();
                Ok(Problem::Row { label, rule: *rule })
            }
            Source::Families(families, knobs) => {
                let (family, seed) = turn(families, number);
                Ok(Problem::Family(Box::new(families::task(family, split, seed, knobs))))
            }
        }
    }

    /// What the servers offer. The first time, they are started to be asked, and ended.
    pub(super) fn served(&self) -> Result<Arc<[Tool]>, WorldError> {
        let mut served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(served) = &*served {
            return Ok(served.clone());
        }
        let tools: Arc<[Tool]> = match self.settings.mcp.as_slice() {
            [] => Arc::default(),
            servers => Servers::start(servers, &Stop::new())?.tools().into(),
        };
        let is_taken = |tool: &&Tool| tool.name == TOOL || tools::decoy(&tool.name).is_some();
        if let Some(tool) = tools.iter().find(is_taken) {
            return refuse("mcp", format!("{} is the name of a tool that is there already", tool.name));
        }
        *served = Some(tools.clone());
        Ok(tools)
    }

    fn row(&self, split: Split, number: u64) -> Result<&Row, WorldError> {
        let rows = match (&self.source, split) {
            (Source::Rows { train, .. }, Split::Train) => train.as_slice(),
            (Source::Rows { held_out, .. }, Split::HeldOut) => held_out,
            (Source::Families(..), _) => &[],
        };
        let row = usize::try_from(number).ok().and_then(|number| rows.get(number));
        row.ok_or_else(|| WorldError::NoTask(format!("row/{split}/{number}")))
    }

    /// A row's messages, after its own system message or what stands in its place.
    fn prompt(&self, messages: &[PromptMessage]) -> Vec<Said> {
        let own = messages.iter().find(|message| message.role == "system");
        let usual = if self.settings.interpreter { SYSTEM } else { SYSTEM_WITHOUT_CODE };
        let set = self.settings.system.as_deref();
        let first = set.or(own.map(|own| own.content.as_str())).unwrap_or(usual);
        let first = (!first.is_empty()).then(|| message("system", first));
        let others = messages.iter().filter(|message| message.role != "system");
        first.into_iter().chain(others.map(|other| message(&other.role, &other.content))).collect()
    }

    fn offered(&self, own: impl Iterator<Item = Tool>) -> Result<Vec<Tool>, WorldError> {
        let is_on = |tool: &Tool| self.settings.interpreter || tool.name != TOOL;
        Ok(own.filter(is_on).chain(self.served()?.iter().cloned()).collect())
    }
}

impl Environment for ToolCall {
    fn spec(&self) -> &Spec {
        &self.0.spec
    }

    fn tasks(&self, split: Split) -> Option<u64> {
        match (&self.0.source, split) {
            (Source::Families(..), _) => None,
            (Source::Rows { train, .. }, Split::Train) => Some(train.len() as u64),
            (Source::Rows { held_out, .. }, Split::HeldOut) => Some(held_out.len() as u64),
        }
    }

    fn task(&self, split: Split, number: u64) -> Result<Task, WorldError> {
        match &self.0.source {
            Source::Rows { .. } => {
                let row = self.0.row(split, number)?;
                Ok(Task {
                    id: format!("row/{split}/{number}").into(),
                    split,
                    number,
                    opening: self.0.prompt(&row.prompt),
                    tools: self.0.offered(std::iter::once(tools::interpreter()))?,
                })
            }
            Source::Families(families, knobs) => {
                let (family, seed) = turn(families, number);
                let task = families::task(family, split, seed, knobs);
                let system = self.0.settings.system.as_deref();
                let said = system.filter(|text| !text.is_empty()).map(|text| message("system", text));
                Ok(Task {
                    id: task.id.as_str().into(),
                    split,
                    number,
                    opening: said.into_iter().chain(task.opening()).collect(),
                    tools: self.0.offered(task.offered().into_iter())?,
                })
            }
        }
    }

    fn ready(&self) -> Result<(), WorldError> {
        self.0.backend.sweep();
        let missing = if self.0.settings.interpreter { self.0.backend.missing() } else { Vec::new() };
        if missing.is_empty() { Ok(()) } else { Err(WorldError::Refused(missing.join("; "))) }
    }

    fn open(&self) -> Result<Box<dyn World>, WorldError> {
        Ok(Box::new(Bench::new(self.0.clone())))
    }
}

/// The family of a number, and its seed.
fn turn(families: &[Family], number: u64) -> (Family, u64) {
    let count = families.len() as u64;
    (families[(number % count) as usize], number / count)
}

/// The rows of a file.
fn rows(key: &str, file: Option<&Path>) -> Result<Vec<Row>, WorldError> {
    let Some(file) = file else { return Ok(Vec::new()) };
    let opened = match File::open(file) {
        Ok(opened) => opened,
        Err(error) => return refuse(key, format!("{}: {error}", file.display())),
    };
    match read_rows(file, BufReader::new(opened)) {
        Ok(rows) if rows.is_empty() => refuse(key, format!("{} has no rows", file.display())),
        Ok(rows) => Ok(rows),
        Err(error) => refuse(key, error),
    }
}

/// A row has no other roles than these, see [`ROLES`].
fn message(role: &str, text: &str) -> Said {
    let role = ROLES.into_iter().find(|known| *known == role).unwrap_or("user");
    Said { role, parts: vec![Part::Text(text.to_owned())] }
}
