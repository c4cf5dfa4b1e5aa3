//! The environment: where its tasks come from, and what its worlds share.
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use openclaw_sandbox::Backend;

use super::{
    build::{Built, build},
    control::Control,
    dockerfile::Offer,
    families::{self, Family, FamilyTask},
    settings::Settings,
    task_set::{FolderTask, TaskSet},
    tools::tools,
    world::Desk,
};
use crate::{
    registry::{Kind, settings},
    sandboxed::{backend, isolates},
    world::{Environment, Said, Spec, Split, Task, World, WorldError},
};

/// In the registry.
pub const KIND: Kind = Kind {
    name: "terminal",
    about: "a shell in a sandbox: task folders with tests, or small tasks made from a seed",
    make,
};

fn make(table: toml::Table) -> Result<Arc<dyn Environment>, WorldError> {
    let settings: Settings = settings(table)?;
    let backend = backend(settings.sandbox, settings.image.as_deref(), settings.socket.as_deref())?;
    Ok(Arc::new(Terminal::new(settings, backend)?))
}

/// Workspaces that are kept once they were made.
const BUILT_MAX: usize = 64;

/// The environment.
pub struct Terminal {
    spec: Spec,
    shared: Arc<Shared>,
}

/// What its worlds share.
pub(super) struct Shared {
    pub(super) settings: Settings,
    pub(super) backend: Box<dyn Backend>,
    source: Source,
    able: OnceLock<()>,
}

enum Source {
    Families(Vec<Family>),
    Folder {
        train: Vec<Arc<FolderTask>>,
        held_out: Vec<Arc<FolderTask>>,
        offer: Offer,
        built: Mutex<Workspaces>,
    },
}

/// By the ids of their tasks. Whoever makes one holds its lock; the others wait for it.
type Workspaces = BTreeMap<String, Arc<Mutex<Option<Built>>>>;

/// What a task is made of.
pub(super) enum Play {
    Family(FamilyTask),
    Folder(Arc<FolderTask>),
}

impl Terminal {
    /// With these settings, in sandboxes of `backend`.
    pub fn new(settings: Settings, backend: Box<dyn Backend>) -> Result<Self, WorldError> {
        settings.check()?;
        let source = match &settings.tasks {
            None => Source::Families(settings.families.clone().unwrap_or_else(|| Family::ALL.to_vec())),
            Some(folder) => {
                let TaskSet { train, held_out } = TaskSet::read(folder, settings.held_out)?;
                let shared = |tasks: Vec<FolderTask>| tasks.into_iter().map(Arc::new).collect();
                Source::Folder {
                    train: shared(train),
                    held_out: shared(held_out),
                    offer: Offer::host(&settings.images),
                    built: Mutex::default(),
                }
            }
        };
        let spec = Spec {
            kind: KIND.name,
            steps: settings.steps,
            // A verdict is more than its verifier: a workspace is packed and unpacked.
            patience: Duration::from_secs(settings.verifier_secs.max(settings.step_secs) + 60),
        };
        let shared = Shared { settings, backend, source, able: OnceLock::new() };
        Ok(Self { spec, shared: Arc::new(shared) })
    }
}

impl Environment for Terminal {
    fn spec(&self) -> &Spec {
        &self.spec
    }

    fn tasks(&self, split: Split) -> Option<u64> {
        match &self.shared.source {
            Source::Families(_) => None,
            Source::Folder { train, held_out, .. } => {
                Some(if split == Split::Train { train.len() } else { held_out.len() } as u64)
            }
        }
    }

    fn task(&self, split: Split, number: u64) -> Result<Task, WorldError> {
        let (id, opening) = match self.shared.play_of(split, number)? {
            Play::Family(task) => (task.id.clone(), task.opening()),
            Play::Folder(task) => (task.task.id.clone(), vec![Said::user(task.task.instruction.clone())]),
        };
        Ok(Task { id: id.into(), split, number, opening, tools: tools() })
    }

    fn ready(&self) -> Result<(), WorldError> {
        self.shared.backend.sweep();
        self.shared.isolates()
    }

    fn open(&self) -> Result<Box<dyn World>, WorldError> {
        self.shared.isolates()?;
        Ok(Box::new(Desk::new(Arc::clone(&self.shared))))
    }
}

impl Shared {
    /// Nothing is run where it cannot be isolated; what is missing is named.
    fn isolates(&self) -> Result<(), WorldError> {
        if self.able.get().is_some() {
            return Ok(());
        }
        isolates(&*self.backend)?;
        self.able.get_or_init(|| ());
        Ok(())
    }

    fn play_of(&self, split: Split, number: u64) -> Result<Play, WorldError> {
        match &self.source {
            Source::Families(families) => {
                let count = families.len() as u64;
                let family = families[(number % count) as usize];
                Ok(Play::Family(families::task(family, split, number / count, &self.settings.knobs())))
            }
            Source::Folder { train, held_out, .. } => {
                let tasks = if split == Split::Train { train } else { held_out };
                let task = usize::try_from(number).ok().and_then(|number| tasks.get(number));
                task.cloned().map(Play::Folder).ok_or_else(|| WorldError::NoTask(format!("{split}/{number}")))
            }
        }
    }

    /// What a task is made of, if it is one of ours.
    pub(super) fn play(&self, task: &Task) -> Result<Play, WorldError> {
        let play = self.play_of(task.split, task.number)?;
        let id = match &play {
            Play::Family(task) => &task.id,
            Play::Folder(task) => &task.task.id,
        };
        if **id == *task.id { Ok(play) } else { Err(WorldError::NoTask(task.id.to_string())) }
    }

    /// The workspace of a task, made once and then kept for a while.
    pub(super) fn built(&self, task: &FolderTask, control: &Control) -> Result<Built, WorldError> {
        let Source::Folder { offer, built, .. } = &self.source else {
            return Err(WorldError::NoTask(task.task.id.clone()));
        };
        let place = {
            let mut places = built.lock().unwrap_or_else(PoisonError::into_inner);
            while places.len() >= BUILT_MAX && !places.contains_key(&task.task.id) {
                places.pop_first();
            }
            Arc::clone(places.entry(task.task.id.clone()).or_default())
        };
        let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(built) = place.as_ref() {
            return Ok(built.clone());
        }
        let made = build(task, offer, &self.settings, self.backend.as_ref(), control)?;
        Ok(place.insert(made).clone())
    }
}

#[cfg(test)]
#[path = "environment_tests.rs"]
mod tests;
