//! The environment: where its tasks come from, and what its worlds share.
use std::sync::{Arc, OnceLock};

use openclaw_sandbox::{Backend, Bubblewrap};

use super::{
    families::{self, Family},
    machine,
    osworld::{Machine, OsworldTask, TaskSet},
    settings::Settings,
    world::Room,
};
use crate::{
    gui::Stage,
    registry::{Kind, settings},
    sandboxed::isolates,
    world::{Environment, Part, Said, Spec, Split, Task, World, WorldError},
};

/// In the registry.
pub const KIND: Kind = Kind {
    name: "desktop",
    about: "a desktop with its programs: tasks of OSWorld, or small tasks made from a seed",
    make: |table| Ok(Arc::new(DesktopEnvironment::new(settings(table)?, Box::new(Bubblewrap::default()))?)),
};

/// What every task says first.
const ABOUT: &str = "You use a desktop with the mouse and the keyboard. Files are in /home/user. When the task is done, say so with done; when it cannot be done on this desktop, say so with fail.";

/// The environment.
pub struct DesktopEnvironment {
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
    Folder(TaskSet),
}

/// The task of an episode.
pub(super) type Play = Arc<OsworldTask>;

impl DesktopEnvironment {
    /// With these settings, in sandboxes of `backend`.
    pub fn new(settings: Settings, backend: Box<dyn Backend>) -> Result<Self, WorldError> {
        settings.check()?;
        let source = match &settings.tasks {
            None => Source::Families(settings.families.clone().unwrap_or_else(|| Family::ALL.to_vec())),
            Some(folder) => {
                let machine = Machine { width: settings.width, height: settings.height, has: machine::has };
                let set = TaskSet::read(folder, settings.held_out, &machine)?;
                tracing::info!(folder = %folder.display(), "tasks: {}", set.summary);
                Source::Folder(set)
            }
        };
        let spec = Spec {
            kind: KIND.name,
            steps: settings.steps,
            patience: settings.setup_time().max(settings.step_time()) + settings.step_time(),
        };
        let shared = Shared { settings, backend, source, able: OnceLock::new() };
        Ok(Self { spec, shared: Arc::new(shared) })
    }
}

impl Environment for DesktopEnvironment {
    fn spec(&self) -> &Spec {
        &self.spec
    }

    fn tasks(&self, split: Split) -> Option<u64> {
        match &self.shared.source {
            Source::Families(_) => None,
            Source::Folder(set) => Some(set.of(split).len() as u64),
        }
    }

    fn task(&self, split: Split, number: u64) -> Result<Task, WorldError> {
        let play = self.shared.play_of(split, number)?;
        let system = Said { role: "system", parts: vec![Part::Text(ABOUT.to_owned())] };
        Ok(Task {
            id: play.id.as_str().into(),
            split,
            number,
            opening: vec![system, Said::user(play.instruction.clone())],
            tools: Stage::tools(self.shared.settings.actions),
        })
    }

    fn ready(&self) -> Result<(), WorldError> {
        self.shared.backend.sweep();
        self.shared.is_able()
    }

    fn open(&self) -> Result<Box<dyn World>, WorldError> {
        self.shared.is_able()?;
        Ok(Box::new(Room::new(Arc::clone(&self.shared))))
    }
}

impl Shared {
    /// Nothing is run where it cannot be isolated, or where a desktop's programs are not there; what is missing is named.
    fn is_able(&self) -> Result<(), WorldError> {
        if self.able.get().is_some() {
            return Ok(());
        }
        isolates(&*self.backend)?;
        let mut lacking = machine::lacking();
        if let Source::Families(families) = &self.source {
            let programs = families.iter().flat_map(|family| family.programs());
            let programs: std::collections::BTreeSet<&str> = programs.copied().collect();
            let missing = programs.into_iter().filter(|program| !machine::has(program));
            lacking.extend(missing.map(|program| format!("{program}: install {program}")));
        }
        if !lacking.is_empty() {
            return Err(WorldError::Refused(lacking.join("; ")));
        }
        self.able.get_or_init(|| ());
        Ok(())
    }

    fn play_of(&self, split: Split, number: u64) -> Result<Play, WorldError> {
        match &self.source {
            Source::Families(families) => {
                let count = families.len() as u64;
                let family = families[(number % count) as usize];
                let machine =
                    Machine { width: self.settings.width, height: self.settings.height, has: machine::has };
                Ok(Arc::new(families::task(family, split, number / count).read(&machine)))
            }
            Source::Folder(set) => {
                let task = usize::try_from(number).ok().and_then(|number| set.of(split).get(number));
                task.cloned().ok_or_else(|| WorldError::NoTask(format!("{split}/{number}")))
            }
        }
    }

    /// What a task is made of, if it is one of ours.
    pub(super) fn play(&self, task: &Task) -> Result<Play, WorldError> {
        let play = self.play_of(task.split, task.number)?;
        if *play.id == *task.id { Ok(play) } else { Err(WorldError::NoTask(task.id.to_string())) }
    }
}

#[cfg(test)]
#[path = "environment_tests.rs"]
mod tests;
