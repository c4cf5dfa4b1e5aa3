//! One world: a desktop for each episode, prepared as its task says and judged as its task says.
use std::{
    collections::HashMap,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    environment::{Play, Shared},
    hands::Hands,
    machine::Desktop,
    osworld::{Check, Command, Getter, Got, OsworldTask, Step, Which},
    x11::Client,
};
use crate::{
    gui::{Ended, Point, Stage},
    stop::Stop,
    world::{
        Action, ImageRef, Interrupt, Observation, Outcome, StepVerdict, Task, Verdict, World, WorldError,
    },
};

/// How often a command is run again that is to end otherwise, and how long is waited before each.
const TRIES: usize = 5;
const BETWEEN_TRIES: Duration = Duration::from_millis(300);

/// A world.
pub(super) struct Room {
    shared: Arc<Shared>,
    stop: Arc<Stop>,
    stage: Stage,
    episode: Option<Episode>,
}

struct Episode {
    task: Play,
    seat: Seat,
    /// Why the desktop can say nothing of the task any more.
    broken: Option<String>,
    verdict: Option<Result<Verdict, WorldError>>,
}

/// Where an agent sits.
struct Seat {
    /// None once it is evaluated.
    desktop: Option<Desktop>,
    roles: HashMap<u64, String>,
    pointer: Point,
}

impl Seat {
    fn hands(&mut self) -> Result<Hands<'_>, WorldError> {
        let desktop = self.desktop.as_mut().ok_or_else(no_episode)?;
        Ok(Hands { desktop, roles: &mut self.roles, pointer: &mut self.pointer })
    }

    /// Whether all that makes a desktop is still there, as long as nothing of it was ended on purpose.
    fn health(&mut self, deadline: Instant) -> Result<(), WorldError> {
        let desktop = self.hands()?.desktop;
        if desktop.is_frozen() {
            return Ok(());
        }
        desktop.until(deadline);
        let broken = |what: &str| Err(WorldError::Broken(what.to_owned()));
        if !desktop.x11.is_managed()? {
            return broken("the window manager has ended");
        }
        if !desktop.bus.is_ready()? {
            return broken("the registry of accessibility has ended");
        }
        if desktop.has_crashed()? { broken("a program of the desktop has crashed") } else { Ok(()) }
    }

    /// Something that a task has done before an agent comes, or before a verdict.
    fn prepare(&mut self, step: &Step, deadline: Instant) -> Result<(), WorldError> {
        let mut hands = self.hands()?;
        hands.desktop.until(deadline);
        match step {
            Step::Execute { command, until } => {
                for _ in 0..TRIES {
                    let ran = hands.desktop.run(&command.line())?;
                    let Some(until) = until else { return Ok(()) };
                    let code = ran.exit_code().map(i64::from);
                    let is_code = until.returncode.is_some() && until.returncode == code;
                    let says = |wanted: &Option<String>, text: &str| {
                        wanted.as_ref().is_some_and(|wanted| text.contains(wanted))
                    };
                    if is_code
                        || says(&until.stdout, &ran.stdout.text())
                        || says(&until.stderr, &ran.stderr.text())
                    {
                        return Ok(());
                    }
                    hands.desktop.pause(BETWEEN_TRIES)?;
                }
                Ok(())
            }
            Step::Input(script) => hands.play(script),
            Step::Launch(command) => hands.desktop.launch(&command.line()),
            Step::Open(path) => {
                let command = Command::Argv(vec![opener(path).to_owned(), path.clone()]);
                hands.desktop.launch(&command.line())
            }
            Step::Sleep(seconds) => hands.desktop.pause(Duration::from_secs_f64(*seconds)),
            Step::Activate(which) => {
                let client = window(hands.desktop, which)?;
                hands.desktop.x11.activate(&client)?;
                let desktop = &*hands.desktop;
                desktop.wait(&which.name, || Ok(desktop.x11.has_keyboard(&client)?.then_some(())))
            }
            Step::Close(which) => {
                let client = window(hands.desktop, which)?;
                hands.desktop.x11.close(&client)
            }
        }
    }

    fn find(&mut self, getter: &Getter, deadline: Instant) -> Result<Got, WorldError> {
        let hands = self.hands()?;
        let desktop = hands.desktop;
        desktop.until(deadline);
        let words = |text: String| Got::Value(Value::String(text));
        Ok(match getter {
            Getter::Rule(rules) => Got::Value(rules.clone()),
            Getter::Output(command) => words(desktop.run(&command.line())?.stdout.text().into_owned()),
            Getter::ErrorOutput(command) => words(desktop.run(&command.line())?.stderr.text().into_owned()),
            Getter::File(path) => desktop.file(path)?.map_or(Got::Nothing, Got::File),
            Getter::Folder(path) => desktop.folder(path)?.map_or(Got::Nothing, |entries| {
                let child = |(name, is_folder): (String, bool)| {
                    json!({"name": name, "type": if is_folder { "directory" } else { "file" }})
                };
                Got::Value(json!({"children": entries.into_iter().map(child).collect::<Vec<_>>()}))
            }),
            Getter::Terminal => {
                let nodes = desktop.bus.tree()?;
                let terminal = nodes.into_iter().find(|node| node.role == "terminal");
                let text = terminal.and_then(|node| node.text);
                text.map_or(Got::Nothing, |text| words(text.trim_end().to_owned()))
            }
            Getter::ScreenSize => {
                let (width, height) = desktop.x11.size();
                Got::Value(json!({"width": width, "height": height}))
            }
            Getter::WindowSize(class) => {
                let clients = desktop.x11.clients()?;
                let client = clients.into_iter().rev().find(|client| client.class.contains(class.as_str()));
                client.map_or(Got::Nothing, |client| {
                    Got::Value(json!({"width": client.frame.2, "height": client.frame.3}))
                })
            }
        })
    }
}

/// A window that is there, or comes.
fn window(desktop: &Desktop, which: &Which) -> Result<Client, WorldError> {
    desktop.wait(&format!("the window {:?}", which.name), || {
        let clients = desktop.x11.clients()?.into_iter();
        Ok(clients.rev().find(|client| which.is(&client.title, &client.class)))
    })
}

/// The program for a file or a folder.
fn opener(path: &str) -> &'static str {
    let name = path.rsplit('/').next().unwrap_or(path);
    if name.contains('.') { "mousepad" } else { "pcmanfm" }
}

fn no_episode() -> WorldError {
    WorldError::Broken("no task was begun, or it is over".to_owned())
}

impl Room {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let stage = Stage::new(shared.settings.options());
        Self { shared, stop: Stop::new(), stage, episode: None }
    }

    fn verdict(
        seat: &mut Seat,
        task: &OsworldTask,
        ended: Option<Ended>,
        deadline: Instant,
    ) -> Result<f64, WorldError> {
        let check: &Check = &task.check;
        seat.health(deadline)?;
        // Who gives up is right where it cannot be done, and nowhere else.
        match (check.infeasible, ended) {
            (true, Some(Ended::Fail)) => return Ok(1.0),
            (true, _) | (false, Some(Ended::Fail)) => return Ok(0.0),
            (false, _) => {}
        }
        for step in &check.postconfig {
            seat.prepare(step, deadline)?;
        }
        if !check.is_live() {
            seat.hands()?.desktop.freeze()?;
        }
        check.score(|getter| seat.find(getter, deadline))
    }
}

impl World for Room {
    fn reset(&mut self, task: &Task) -> Result<Observation, WorldError> {
        self.close();
        let stop = self.stop.clone();
        let _running = stop.begin();
        let play = self.shared.play(task)?;
        let settings = &self.shared.settings;
        let deadline = Instant::now() + settings.setup_time();
        let desktop = Desktop::start(self.shared.backend.as_ref(), settings, &self.stop)?;
        let mut seat = Seat { desktop: Some(desktop), roles: HashMap::new(), pointer: Point::default() };
        for step in &play.config {
            seat.prepare(step, deadline)?;
        }
        // Nothing is under the pointer at first.
        let corner = Point { x: settings.width as f32 - 1.0, y: settings.height as f32 - 1.0 };
        seat.hands()?.go(corner)?;
        let begun = self.stage.begin(&mut seat.hands()?)?;
        self.episode = Some(Episode { task: play, seat, broken: None, verdict: None });
        Ok(begun)
    }

    fn step(&mut self, action: &Action) -> Result<Outcome, WorldError> {
        let stop = self.stop.clone();
        let _running = stop.begin();
        let episode = self.episode.as_mut().ok_or_else(no_episode)?;
        let infeasible = episode.task.check.infeasible;
        let stepped = self.stage.step(&mut episode.seat.hands()?, action);
        if let Err(WorldError::Broken(why)) = &stepped {
            episode.broken.get_or_insert_with(|| why.clone());
        }
        let mut outcome = stepped?;
        if let Some(ended) = self.stage.ended() {
            outcome.rule = match (ended, infeasible) {
                (Ended::Fail, true) => Some(StepVerdict::good("says that it cannot be done")),
                (Ended::Fail, false) => Some(StepVerdict::bad("gives up what can be done")),
                (_, true) => Some(StepVerdict::bad("says that it is done, and it cannot be")),
                (_, false) => outcome.rule,
            };
        }
        Ok(outcome)
    }

    fn keep(&mut self, to: &Path) -> Result<(), WorldError> {
        let stop = self.stop.clone();
        let _running = stop.begin();
        let episode = self.episode.as_mut().ok_or_else(no_episode)?;
        let deadline = Instant::now() + self.shared.settings.step_time();
        if let Err(WorldError::Broken(why)) = episode.seat.health(deadline) {
            episode.broken.get_or_insert(why);
        }
        let desktop = episode.seat.hands()?.desktop;
        // What the verdict needs alive goes on.
        if !episode.task.check.is_live() && !desktop.is_frozen() {
            desktop.freeze()?;
        }
        desktop.keep(to)
    }

    fn images(&mut self) -> Vec<(ImageRef, Vec<u8>)> {
        self.stage.images()
    }

    fn evaluate(&mut self) -> Result<Verdict, WorldError> {
        let stop = self.stop.clone();
        let _running = stop.begin();
        let episode = self.episode.as_mut().ok_or_else(no_episode)?;
        if let Some(verdict) = &episode.verdict {
            return verdict.clone();
        }
        let deadline = Instant::now() + self.shared.settings.setup_time();
        let score = match &episode.broken {
            Some(why) => Err(WorldError::Broken(why.clone())),
            None => Self::verdict(&mut episode.seat, &episode.task, self.stage.ended(), deadline),
        };
        let verdict = score.map(|score| {
            let success = score >= 1.0;
            let numbers =
                [("score", score), ("infeasible", f64::from(u8::from(episode.task.check.infeasible)))];
            let numbers = numbers.map(|(name, number)| (name.to_owned(), number)).into();
            Verdict { reward: if success { 1.0 } else { -1.0 }, success, numbers }
        });
        // A desktop that has broken can say nothing of the task any more.
        let verdict = verdict.map_err(|error| match error {
            WorldError::Broken(why) => WorldError::Invalid(why),
            error => error,
        });
        if verdict.is_ok() || matches!(verdict, Err(WorldError::Invalid(_))) {
            episode.seat.desktop = None;
            episode.verdict = Some(verdict.clone());
        }
        verdict
    }

    fn close(&mut self) {
        self.stop.session(None);
        self.episode = None;
    }

    fn interrupt(&self) -> Interrupt {
        let stop = self.stop.clone();
        Arc::new(move || stop.interrupt())
    }
}
