//! The environment: where its tasks come from, and what its worlds share.
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use openclaw_sandbox::Backend;

use super::{
    agents::BashAgent,
    build::{Built, build},
    families::{self, Family},
    hands::{self, SENTINEL, ends},
    row::Row,
    settings::{Settings, Talk, Tools},
    task_set,
    world::Desk,
};
use crate::{
    agent::Agent,
    registry::{Kind, settings},
    sandboxed::{Sandbox, backend, isolates},
    terminal::Control,
    world::{Environment, Part, Said, Spec, Split, Task, World, WorldError},
};

/// In the registry.
pub const KIND: Kind = Kind {
    name: "swe",
    about: "issues in a repository, judged by its tests: rows of SWE-bench and its kin, or small modules made from a seed",
    make: |table| Ok(Arc::new(Swe::new(settings(table)?)?)),
};

/// Repositories that are kept once they were made.
const BUILT_MAX: usize = 32;
/// Most characters of an issue that are told.
const ISSUE_CHARS: usize = 20_000;

/// The environment.
pub struct Swe {
    spec: Spec,
    shared: Arc<Shared>,
}

/// What its worlds share.
pub(super) struct Shared {
    pub(super) settings: Settings,
    source: Source,
    able: OnceLock<()>,
    built: Mutex<Repositories>,
}

enum Source {
    Families(Vec<Family>),
    Rows { train: Vec<Arc<Row>>, held_out: Vec<Arc<Row>> },
}

/// By the ids of their tasks. Whoever makes one holds its lock; the others wait for it.
type Repositories = BTreeMap<String, Arc<Mutex<Option<Built>>>>;

/// What a task is made of.
#[derive(Clone, Debug)]
pub(super) struct Play {
    pub(super) row: Arc<Row>,
    /// Of a family.
    files: Option<Arc<BTreeMap<String, String>>>,
}

impl Swe {
    /// With these settings.
    pub fn new(settings: Settings) -> Result<Self, WorldError> {
        settings.check()?;
        if settings.sandbox == Sandbox::Bubblewrap || settings.rows.is_none() {
            // What does not fit together is told before any task is.
            backend(settings.sandbox, settings.image.as_deref(), settings.socket.as_deref())?;
        }
        let rows = |key: &str, path: &Option<PathBuf>| match path {
            Some(path) => task_set::read(key, path),
            None => Ok(Vec::new()),
        };
        let source = match &settings.rows {
            None => Source::Families(settings.families.clone().unwrap_or_else(|| Family::ALL.to_vec())),
            Some(_) => {
                let train = rows("rows", &settings.rows)?;
                let held_out = rows("held_out_rows", &settings.held_out_rows)?;
                if let Some(twice) = held_out.iter().find(|row| train.iter().any(|other| other.id == row.id))
                {
                    return Err(WorldError::Settings(format!("held_out_rows: {} is in rows, too", twice.id)));
                }
                Source::Rows { train, held_out }
            }
        };
        let spec = Spec {
            kind: KIND.name,
            steps: settings.steps,
            // A verdict is more than its tests: they run twice, and a repository is packed and unpacked.
            patience: Duration::from_secs(2 * settings.verifier_secs.max(settings.step_secs) + 120),
        };
        let shared = Shared { settings, source, able: OnceLock::new(), built: Mutex::default() };
        Ok(Self { spec, shared: Arc::new(shared) })
    }
}

impl Environment for Swe {
    fn spec(&self) -> &Spec {
        &self.spec
    }

    fn tasks(&self, split: Split) -> Option<u64> {
        match &self.shared.source {
            Source::Families(_) => None,
            Source::Rows { train, held_out } => {
                Some(if split == Split::Train { train.len() } else { held_out.len() } as u64)
            }
        }
    }

    fn task(&self, split: Split, number: u64) -> Result<Task, WorldError> {
        let play = self.shared.play_of(split, number)?;
        let settings = &self.shared.settings;
        let system = Said { role: "system", parts: vec![Part::Text(about(settings))] };
        Ok(Task {
            id: play.row.id.as_str().into(),
            split,
            number,
            opening: vec![system, Said::user(ends(&play.row.problem, ISSUE_CHARS))],
            tools: hands::tools(settings),
        })
    }

    fn agent(&self) -> Box<dyn Agent> {
        Box::new(BashAgent::new(self.shared.settings.agent))
    }

    fn ready(&self) -> Result<(), WorldError> {
        if let Some(row) = self.shared.any_row() {
            self.shared.backend(row)?.sweep();
        }
        self.shared.isolates()
    }

    fn open(&self) -> Result<Box<dyn World>, WorldError> {
        self.shared.isolates()?;
        Ok(Box::new(Desk::new(Arc::clone(&self.shared))))
    }
}

/// What every task says first.
fn about(settings: &Settings) -> String {
    let submit = format!("echo {SENTINEL}");
    let rules = "Tests are there to judge your change: what you do to them does not count. Each command runs in a shell of its \
                 own, which starts in /workspace; a change of folder or a variable is gone with it. Nobody answers questions.";
    match (settings.tools, settings.agent) {
        (Tools::Edit, _) => {
            "You mend a Python module with tools: run_tests, read, replace, submit. Tests do not change. \
                             When all tests pass, submit."
                .to_owned()
        }
        (Tools::Bash, Talk::BashTool) => format!(
            "You work on the repository in /workspace with the tool bash: find the cause of an issue, change the sources, and \
             see that it is gone. {rules} When you are done, run this alone: {submit}"
        ),
        (Tools::Bash, Talk::BashBlock) => format!(
            "You work on the repository in /workspace with commands of bash: find the cause of an issue, change the sources, and \
             see that it is gone. {rules} Each of your replies says what you think and then has exactly one block with a \
             command, which is run:\n\n```bash\nls -a\n```\n\nWhen you are done, the block holds this alone: {submit}"
        ),
    }
}

impl Shared {
    /// Where the sandboxes of a row are made.
    pub(super) fn backend(&self, row: &Row) -> Result<Box<dyn Backend>, WorldError> {
        let settings = &self.settings;
        let own = match &row.start {
            super::row::Start::Image(image) => Some(image.as_str()),
            _ => None,
        };
        match (settings.sandbox, own) {
            (Sandbox::Bubblewrap, Some(image)) => {
                Err(WorldError::Refused(format!("{}: needs sandbox = \"docker\" for image:{image}", row.id)))
            }
            (Sandbox::Bubblewrap, None) => backend(settings.sandbox, None, None),
            (Sandbox::Docker, own) => {
                backend(settings.sandbox, own.or(settings.image.as_deref()), settings.socket.as_deref())
            }
        }
    }

    fn any_row(&self) -> Option<&Row> {
        match &self.source {
            Source::Families(_) => None,
            Source::Rows { train, held_out } => train.iter().chain(held_out).map(Arc::as_ref).next(),
        }
    }

    /// Nothing is run where it cannot be isolated; what is missing is named.
    fn isolates(&self) -> Result<(), WorldError> {
        if self.able.get().is_some() {
            return Ok(());
        }
        let settings = &self.settings;
        let backend = match (settings.sandbox, self.any_row()) {
            (Sandbox::Docker, Some(row)) => self.backend(row)?,
            _ => backend(settings.sandbox, settings.image.as_deref(), settings.socket.as_deref())?,
        };
        isolates(&*backend)?;
        self.able.get_or_init(|| ());
        Ok(())
    }

    fn play_of(&self, split: Split, number: u64) -> Result<Play, WorldError> {
        match &self.source {
            Source::Families(families) => {
                let count = families.len() as u64;
                let family = families[(number % count) as usize];
                let made = families::task(family, split, number / count, self.settings.kinds());
                Ok(Play { row: Arc::new(made.row), files: Some(Arc::new(made.files)) })
            }
            Source::Rows { train, held_out } => {
                let rows = if split == Split::Train { train } else { held_out };
                let row = usize::try_from(number).ok().and_then(|number| rows.get(number));
                let row = row.ok_or_else(|| WorldError::NoTask(format!("{split}/{number}")))?;
                Ok(Play { row: Arc::clone(row), files: None })
            }
        }
    }

    /// What a task is made of, if it is one of ours.
    pub(super) fn play(&self, task: &Task) -> Result<Play, WorldError> {
        let play = self.play_of(task.split, task.number)?;
        if play.row.id == *task.id { Ok(play) } else { Err(WorldError::NoTask(task.id.to_string())) }
    }

    /// The repository of a task, made once and then kept for a while.
    pub(super) fn built(
        &self,
        play: &Play,
        backend: &dyn Backend,
        control: &Control,
    ) -> Result<Built, WorldError> {
        let id = &play.row.id;
        let place = {
            let mut places = self.built.lock().unwrap_or_else(PoisonError::into_inner);
            while places.len() >= BUILT_MAX && !places.contains_key(id) {
                places.pop_first();
            }
            Arc::clone(places.entry(id.clone()).or_default())
        };
        let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(built) = place.as_ref() {
            return Ok(built.clone());
        }
        let made = match &play.files {
            Some(files) => {
                let broken = |error: std::io::Error| WorldError::Broken(error.to_string());
                let folder = tempfile::tempdir().map_err(broken)?;
                for (path, text) in files.iter() {
                    std::fs::write(folder.path().join(path), text).map_err(broken)?;
                }
                self.build(&play.row, Some(folder.path()), backend, control)?
            }
            None => self.build(&play.row, None, backend, control)?,
        };
        Ok(place.insert(made).clone())
    }

    fn build(
        &self,
        row: &Row,
        files: Option<&Path>,
        backend: &dyn Backend,
        control: &Control,
    ) -> Result<Built, WorldError> {
        build(row, files, &self.settings.limits(), backend, control)
    }
}
