//! An episode in the world of a lease: what is asked of it, in the words of the routes.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use openclaw_environments::{
    wire,
    world::{
        Action, Environment, Observation, Outcome, Said, Split, Task, Tool, Verdict, World, WorldError,
        drawn, text_of,
    },
};
use serde_json::{Value, json};

use crate::{images::Images, meters, worker::Seat};

/// The most tasks that are looked through for a name.
const NAMES: u64 = 100_000;

/// Which task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// By its number.
    Number(Split, u64),
    /// By a seed that stands for a number.
    Seed(Split, u64),
    /// By its id, or the last part of it.
    Named(String),
}

/// A world, and how far its episode is.
pub struct Stage {
    environment: Arc<dyn Environment>,
    name: String,
    seat: Seat,
    images: Arc<Mutex<Images>>,
    lease_id: String,
    world: Option<Box<dyn World>>,
    task: Option<Arc<Task>>,
    seen: Option<Observation>,
    steps: u32,
    done: bool,
    evaluation: Option<Duration>,
}

impl Stage {
    /// Of an environment with a name; images go to `images`.
    pub fn new(
        environment: Arc<dyn Environment>,
        name: String,
        seat: Seat,
        images: Arc<Mutex<Images>>,
        lease_id: String,
    ) -> Self {
        let (world, task, seen) = (None, None, None);
        Self {
            environment,
            name,
            seat,
            images,
            lease_id,
            world,
            task,
            seen,
            steps: 0,
            done: false,
            evaluation: None,
        }
    }

    /// Leaves nothing behind.
    pub fn close(&mut self) {
        if let Some(mut world) = self.world.take() {
            world.close();
        }
        self.lock_images().release(&self.lease_id);
    }

    /// The task that was begun.
    pub fn task(&self) -> Result<&Arc<Task>, WorldError> {
        self.task
            .as_ref()
            .ok_or_else(|| WorldError::Broken("no task was begun: reset comes first".to_owned()))
    }

    /// What was seen last.
    pub fn seen(&self) -> Result<&Observation, WorldError> {
        self.task()?;
        Ok(self.seen.as_ref().expect("a task that was begun shows something"))
    }

    /// Steps of this episode, and whether it is over.
    pub fn progress(&self) -> (u32, bool) {
        (self.steps, self.done)
    }

    /// The episode is over, though its world would go on.
    pub fn finish(&mut self) {
        self.done = true;
    }

    /// The most steps of an episode.
    pub fn most_steps(&self) -> u32 {
        self.environment.spec().steps
    }

    /// What is asked now takes at most this.
    pub fn at_most(&self, time: Duration) {
        self.seat.at_most(time);
    }

    /// An evaluation takes at most this, where it is less than the environment's own limit.
    pub fn evaluation_at_most(&mut self, time: Option<Duration>) {
        self.evaluation = time;
    }

    /// The lease is over, and whatever came of its last step.
    pub fn is_stopped(&self) -> bool {
        self.seat.is_stopped()
    }

    /// Begins a task.
    pub fn reset(&mut self, place: &Place) -> Result<Value, WorldError> {
        let task = Arc::new(self.find(place)?);
        if self.world.is_none() {
            let world = self.environment.open()?;
            self.seat.interrupted_by(world.interrupt());
            self.world = Some(world);
        }
        (self.task, self.seen, self.steps, self.done) = (None, None, 0, false);
        let seen = self.world()?.reset(&task)?;
        self.keep_images();
        let told = json!({
            "ok": true, "observation": wire::observation(&seen), "user_msg": message(&task, &seen),
            "tool_schemas": task.tools.iter().map(Tool::function).collect::<Vec<_>>(),
            "task": wire::task(&task),
        });
        (self.task, self.seen) = (Some(task), Some(seen));
        Ok(told)
    }

    /// Takes a step.
    pub fn step(&mut self, action: &Action) -> Result<Outcome, WorldError> {
        self.task()?;
        let outcome = self.world()?.step(action)?;
        self.steps += 1;
        meters::stepped(&self.name);
        self.done |= outcome.done;
        self.seen = Some(outcome.observation.clone());
        self.keep_images();
        Ok(outcome)
    }

    /// How the task came out.
    pub fn evaluate(&mut self) -> Result<Verdict, WorldError> {
        self.task()?;
        if let Some(time) = self.evaluation {
            self.at_most(time);
        }
        self.world()?.evaluate()
    }

    fn world(&mut self) -> Result<&mut Box<dyn World>, WorldError> {
        self.world
            .as_mut()
            .ok_or_else(|| WorldError::Broken("no task was begun: reset comes first".to_owned()))
    }

    fn keep_images(&mut self) {
        let shown = self.world.as_mut().map(|world| world.images()).unwrap_or_default();
        for (image, bytes) in shown {
            self.lock_images().keep(&self.lease_id, &image, bytes);
        }
    }

    fn lock_images(&self) -> std::sync::MutexGuard<'_, Images> {
        self.images.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, place: &Place) -> Result<Task, WorldError> {
        let environment = &*self.environment;
        match place {
            Place::Number(split, number) => environment.task(*split, *number),
            Place::Seed(split, seed) => environment.task(*split, drawn(*seed, 0, environment.tasks(*split))),
            Place::Named(name) => named(environment, name),
        }
    }
}

/// The task of an id or, where tasks have an end, of the last part of one.
fn named(environment: &dyn Environment, name: &str) -> Result<Task, WorldError> {
    let mut parts = name.rsplit('/');
    let number = parts.next().and_then(|number| number.parse().ok());
    let split = parts.next().and_then(wire::split);
    if let Some((split, number)) = split.zip(number)
        && let Ok(task) = environment.task(split, number)
        && *task.id == *name
    {
        return Ok(task);
    }
    for split in [Split::Train, Split::HeldOut] {
        for number in 0..environment.tasks(split).unwrap_or_default().min(NAMES) {
            let task = environment.task(split, number)?;
            if *task.id == *name || task.id.rsplit('/').next() == Some(name) {
                return Ok(task);
            }
        }
    }
    Err(WorldError::NoTask(name.to_owned()))
}

/// What the user says first, as one text.
fn message(task: &Task, seen: &Observation) -> String {
    let of_user = |said: &&Said| said.role == "user";
    let said = task.opening.iter().filter(of_user).map(|said| text_of(&said.parts));
    let first = (!seen.parts.is_empty()).then(|| text_of(&seen.parts));
    said.chain(first).collect::<Vec<_>>().join("\n\n")
}
