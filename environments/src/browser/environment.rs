//! The environment: where its tasks come from, and what its worlds share.
use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use super::{
    engine::Engine,
    families::{self, Family, FamilyTask},
    miniwob::WobTask,
    rows::{self, RowTask},
    settings::Settings,
    world::{BEGIN, Desk},
};
use crate::{
    gui::{Actions, Stage},
    registry::{Kind, settings},
    world::{Environment, Part, Said, Spec, Split, Task, World, WorldError},
};

/// In the registry.
pub const KIND: Kind = Kind {
    name: "browser",
    about: "pages in a browser: small ones made from a seed, MiniWoB++, or any with an evaluator",
    make: |table| Ok(Arc::new(Browsers::new(settings(table)?)?)),
};

/// What every task says first.
const ABOUT: &str = "You use a page in a browser. Each line of the list is something on the page; what is done there is done by its number. When the task is done, say so with a call, or without one in a few words.";

/// The same, for an agent that points.
const ABOUT_PLACES: &str = "You use a page in a browser, with the mouse and the keyboard. Places go from 0,0 at the upper left to 999,999 at the lower right. When the task is done, terminate.";

/// The environment.
pub struct Browsers {
    spec: Spec,
    shared: Arc<Shared>,
}

/// What its worlds share.
pub(super) struct Shared {
    pub(super) settings: Settings,
    pub(super) engine: Engine,
    source: Source,
    able: OnceLock<()>,
}

enum Source {
    Families(Vec<Family>),
    MiniWob(Vec<String>),
    Rows { train: Vec<RowTask>, held_out: Vec<RowTask> },
}

/// What a task is made of.
pub(super) enum Play {
    Family(Box<FamilyTask>),
    MiniWob(WobTask),
    Row(RowTask),
}

impl Browsers {
    /// With these settings.
    pub fn new(settings: Settings) -> Result<Self, WorldError> {
        settings.check()?;
        let source = match (&settings.tasks, &settings.rows) {
            (Some(tasks), _) => {
                let pages = settings.pages.as_ref().expect("checked: tasks have their pages");
                for (number, task) in tasks.iter().enumerate() {
                    WobTask::check(pages, task)
                        .map_err(|why| WorldError::Settings(format!("tasks[{number}]: {why}")))?;
                }
                Source::MiniWob(tasks.clone())
            }
            (None, Some(rows)) => Source::Rows {
                train: rows::read("rows", rows, settings.pages.as_deref())?,
                held_out: match &settings.held_out_rows {
                    Some(rows) => rows::read("held_out_rows", rows, settings.pages.as_deref())?,
                    None => Vec::new(),
                },
            },
            (None, None) => {
                Source::Families(settings.families.clone().unwrap_or_else(|| Family::ALL.to_vec()))
            }
        };
        let spec = Spec {
            kind: KIND.name,
            steps: settings.steps,
            // A browser may have to be started.
            patience: Duration::from_secs(settings.step_secs).max(BEGIN) + Duration::from_secs(60),
        };
        let engine = Engine::new(settings.engine());
        Ok(Self { spec, shared: Arc::new(Shared { settings, engine, source, able: OnceLock::new() }) })
    }
}

impl Environment for Browsers {
    fn spec(&self) -> &Spec {
        &self.spec
    }

    fn tasks(&self, split: Split) -> Option<u64> {
        match &self.shared.source {
            Source::Families(_) | Source::MiniWob(_) => None,
            Source::Rows { train, held_out } => {
                Some(if split == Split::Train { train.len() } else { held_out.len() } as u64)
            }
        }
    }

    fn task(&self, split: Split, number: u64) -> Result<Task, WorldError> {
        let actions = self.shared.settings.actions;
        let about = match actions {
            // What it was taught needs no words, and these it was not taught.
            Actions::Basic => None,
            Actions::Coordinates => Some(ABOUT_PLACES),
            Actions::Elements | Actions::Both => Some(ABOUT),
        };
        let system = |about: &str| Said { role: "system", parts: vec![Part::Text(about.to_owned())] };
        let play = self.shared.play_of(split, number)?;
        let mut opening: Vec<Said> = about.map(system).into_iter().collect();
        // What a page of MiniWoB++ asks for is known once it is there.
        opening.extend(play.instruction().map(Said::user));
        Ok(Task { id: play.id().into(), split, number, opening, tools: Stage::tools(actions) })
    }

    fn ready(&self) -> Result<(), WorldError> {
        self.shared.engine.ready()
    }

    fn open(&self) -> Result<Box<dyn World>, WorldError> {
        if self.shared.able.get().is_none() {
            self.shared.engine.isolates()?;
            self.shared.able.get_or_init(|| ());
        }
        Ok(Box::new(Desk::new(Arc::clone(&self.shared))))
    }
}

impl Play {
    pub(super) fn id(&self) -> &str {
        match self {
            Self::Family(task) => &task.id,
            Self::MiniWob(task) => &task.id,
            Self::Row(task) => &task.id,
        }
    }

    fn instruction(&self) -> Option<&str> {
        match self {
            Self::Family(task) => Some(&task.instruction),
            Self::MiniWob(_) => None,
            Self::Row(task) => Some(&task.instruction),
        }
    }
}

impl Shared {
    fn play_of(&self, split: Split, number: u64) -> Result<Play, WorldError> {
        match &self.source {
            Source::Families(all) => {
                let count = all.len() as u64;
                let family = all[(number % count) as usize];
                let task = families::task(family, split, number / count, &self.settings.knobs());
                Ok(Play::Family(Box::new(task)))
            }
            Source::MiniWob(tasks) => {
                let count = tasks.len() as u64;
                let name = &tasks[(number % count) as usize];
                Ok(Play::MiniWob(WobTask::new(name, split, number / count)))
            }
            Source::Rows { train, held_out } => {
                let rows = if split == Split::Train { train } else { held_out };
                let row = usize::try_from(number).ok().and_then(|number| rows.get(number));
                row.cloned().map(Play::Row).ok_or_else(|| WorldError::NoTask(format!("{split}/{number}")))
            }
        }
    }

    /// What a task is made of, if it is one of ours.
    pub(super) fn play(&self, task: &Task) -> Result<Play, WorldError> {
        let play = self.play_of(task.split, task.number)?;
        if play.id() == &*task.id { Ok(play) } else { Err(WorldError::NoTask(task.id.to_string())) }
    }
}
