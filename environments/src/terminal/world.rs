//! One world: a session of a sandbox for each episode, and another for its verifier.
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use openclaw_sandbox::{Session, Snapshot, Spec, Workspace};

use super::{
    build::Built,
    control::Control,
    environment::{Play, Shared},
    families::{FamilyTask, Progress},
    grade,
    results::Grade,
    task_set::FolderTask,
    tools::Hands,
    tree::Tree,
};
use crate::world::{
    Action, CallResult, Interrupt, Observation, Outcome, StepVerdict, Task, Verdict, World, WorldError,
    text_of,
};

/// A world.
pub(super) struct Desk {
    shared: Arc<Shared>,
    control: Control,
    episode: Option<Episode>,
}

struct Episode {
    /// None once it is evaluated.
    session: Option<Box<dyn Session>>,
    /// Where the shell starts.
    folder: PathBuf,
    /// The shell is there, or further.
    placed: bool,
    plot: Plot,
    verdict: Option<Result<Verdict, WorldError>>,
}

enum Plot {
    Family { task: Box<FamilyTask>, progress: Progress },
    Folder { task: Arc<FolderTask>, built: Built, left: Option<Snapshot> },
}

impl Desk {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, control: Control::new(), episode: None }
    }

    fn begin(&mut self, task: &Task) -> Result<Observation, WorldError> {
        let settings = &self.shared.settings;
        match self.shared.play(task)? {
            Play::Family(task) => {
                let broken = |error: std::io::Error| WorldError::Broken(error.to_string());
                let made = tempfile::tempdir().map_err(broken)?;
                task.start.write(made.path()).map_err(broken)?;
                let spec = Spec {
                    workspace: Workspace::Folder(made.path().to_owned()),
                    limits: settings.limits(None, None),
                    ..Spec::default()
                };
                let session = self.control.open(self.shared.backend.as_ref(), &spec)?;
                let state = Some(task.start.hash());
                let progress = task.begin();
                let plot = Plot::Family { task: Box::new(task), progress };
                self.episode = Some(Episode::new(session, PathBuf::new(), plot));
                Ok(Observation { state, ..Observation::default() })
            }
            Play::Folder(task) => {
                let built = self.shared.built(&task, &self.control)?;
                let environment = &task.task.environment;
                let spec = Spec {
                    workspace: Workspace::Snapshot(built.snapshot.clone()),
                    env: built.env.clone(),
                    limits: settings.limits(environment.memory_mb, environment.storage_mb),
                    ..Spec::default()
                };
                let session = self.control.open(self.shared.backend.as_ref(), &spec)?;
                let folder = built.folder.clone();
                let plot = Plot::Folder { task, built, left: None };
                self.episode = Some(Episode::new(session, folder, plot));
                Ok(Observation::default())
            }
        }
    }
}

impl Episode {
    fn new(session: Box<dyn Session>, folder: PathBuf, plot: Plot) -> Self {
        Self { session: Some(session), folder, placed: false, plot, verdict: None }
    }
}

fn no_episode() -> WorldError {
    WorldError::Broken("no task was begun, or it is over".to_owned())
}

impl World for Desk {
    fn reset(&mut self, task: &Task) -> Result<Observation, WorldError> {
        self.close();
        let _running = self.control.begin();
        self.begin(task)
    }

    fn step(&mut self, action: &Action) -> Result<Outcome, WorldError> {
        let _running = self.control.begin();
        let settings = &self.shared.settings;
        let episode = self.episode.as_mut().ok_or_else(no_episode)?;
        let session = episode.session.as_mut().ok_or_else(no_episode)?;
        let mut results: Vec<CallResult> = Vec::new();
        if let Action::Calls(calls) = action {
            let mut hands = Hands {
                session: session.as_mut(),
                control: &self.control,
                folder: &episode.folder,
                placed: &mut episode.placed,
                deadline: Instant::now() + settings.step_time(),
                output_bytes: settings.output_bytes,
            };
            for call in calls {
                results.push(hands.call(call)?);
            }
        }
        let mut rule = None;
        let mut observation = Observation { results, ..Observation::default() };
        if let Plot::Family { task, progress } = &mut episode.plot {
            let tree = Tree::read(session.as_ref())?;
            let texts: Vec<String> =
                observation.results.iter().map(|result| text_of(&result.parts)).collect();
            let after = task.after(progress, &tree, &texts.join("\n"));
            rule = Some(match action {
                Action::Text(_) => task.finish(&tree),
                _ => task.step(progress, &after),
            });
            *progress = after;
            observation.state = Some(tree.hash());
        }
        if *action == Action::Malformed {
            rule = Some(StepVerdict::bad("neither a call nor an answer"));
        }
        Ok(Outcome { observation, rule, done: matches!(action, Action::Text(_)) })
    }

    fn keep(&mut self, to: &Path) -> Result<(), WorldError> {
        let _running = self.control.begin();
        let episode = self.episode.as_mut().ok_or_else(no_episode)?;
        let session = episode.session.as_mut().ok_or_else(no_episode)?;
        session.stop_all()?;
        session.copy_out(Path::new(""), to)?;
        Ok(())
    }

    fn evaluate(&mut self) -> Result<Verdict, WorldError> {
        let _running = self.control.begin();
        let episode = self.episode.as_mut().ok_or_else(no_episode)?;
        if let Some(verdict) = &episode.verdict {
            return verdict.clone();
        }
        let verdict = match &mut episode.plot {
            Plot::Family { task, .. } => {
                let session = episode.session.as_mut().ok_or_else(no_episode)?;
                session.stop_all()?;
                let tree = Tree::read(session.as_ref())?;
                let (passed, total) = task.rate(&tree);
                let rate = passed as f64 / total as f64;
                Ok(grade::of(&Grade { rate, passed, total, named: Default::default() }))
            }
            Plot::Folder { task, built, left } => {
                let left = match left {
                    Some(left) => left,
                    None => {
                        let session = episode.session.as_mut().ok_or_else(no_episode)?;
                        session.stop_all()?;
                        left.insert(session.snapshot()?)
                    }
                };
                // What it holds in memory goes before the verifier's comes.
                episode.session = None;
                let backend = self.shared.backend.as_ref();
                grade::verdict(task, built, left, &self.shared.settings, backend, &self.control)
            }
        };
        // Another try may do, otherwise.
        if verdict.is_ok() || matches!(verdict, Err(WorldError::Invalid(_))) {
            episode.session = None;
            episode.verdict = Some(verdict.clone());
        }
        verdict
    }

    fn close(&mut self) {
        self.control.release();
        self.episode = None;
    }

    fn interrupt(&self) -> Interrupt {
        self.control.interrupt()
    }
}
