//! A world on a thread of its own: worlds block, and some end with the thread that made them.

use std::{
    path::PathBuf,
    sync::{Arc, LazyLock, Mutex, PoisonError, mpsc},
    thread,
    time::Duration,
};

use openclaw_environments::world::{
    Action, Environment, ImageRef, Interrupt, Observation, Outcome, Task, Verdict, World, WorldError,
};
use tokio::{
    sync::{oneshot, watch},
    time::timeout,
};

/// Worlds of this process that are open.
static OPEN: LazyLock<watch::Sender<usize>> = LazyLock::new(watch::Sender::default);

/// Returns once every world is closed, or has not closed in time: what ends with the process leaves its folders behind.
pub async fn worlds_closed(within: Duration) {
    let mut open = OPEN.subscribe();
    // The sender is never dropped.
    let _ = timeout(within, open.wait_for(|open| *open == 0)).await;
}

/// A world that is open.
struct Open;

impl Open {
    fn new() -> Self {
        OPEN.send_modify(|open| *open += 1);
        Self
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        OPEN.send_modify(|open| *open -= 1);
    }
}

/// Above what a world allows itself: one that does not keep to it is broken.
const MARGIN: Duration = Duration::from_secs(30);

type Answer<T> = oneshot::Sender<Result<T, WorldError>>;

enum Request {
    Reset(Arc<Task>, Answer<Observation>),
    Step(Action, Answer<Outcome>),
    Keep(PathBuf, Answer<()>),
    Images(Answer<Vec<(ImageRef, Vec<u8>)>>),
    Evaluate(Answer<Verdict>),
}

/// The handle. Dropped, it ends what the world does, and the world.
pub struct Slot {
    requests: mpsc::Sender<Request>,
    interrupt: Arc<Mutex<Option<Interrupt>>>,
    patience: Duration,
}

impl Slot {
    /// Opens a world.
    pub async fn open(environment: Arc<dyn Environment>) -> Result<Self, WorldError> {
        let (requests, inbox) = mpsc::channel();
        let interrupt: Arc<Mutex<Option<Interrupt>>> = Arc::default();
        let patience = environment.spec().patience + MARGIN;
        let (opened, answer) = oneshot::channel();
        let shared = interrupt.clone();
        thread::Builder::new()
            .name("world".to_owned())
            .spawn(move || {
                let _open = Open::new();
                let mut world = match environment.open() {
                    Ok(world) => world,
                    // Whoever asked may be gone, here and below.
                    Err(error) => return drop(opened.send(Err(error))),
                };
                *shared.lock().unwrap_or_else(PoisonError::into_inner) = Some(world.interrupt());
                if opened.send(Ok(())).is_ok() {
                    serve(&mut *world, &inbox);
                }
                world.close();
            })
            .map_err(|error| WorldError::Broken(format!("no thread for it: {error}")))?;
        let slot = Self { requests, interrupt, patience };
        slot.answer(answer).await?;
        Ok(slot)
    }

    /// See [`World::reset`].
    pub async fn reset(&self, task: Arc<Task>) -> Result<Observation, WorldError> {
        self.ask(|answer| Request::Reset(task, answer)).await
    }

    /// See [`World::step`].
    pub async fn step(&self, action: Action) -> Result<Outcome, WorldError> {
        self.ask(|answer| Request::Step(action, answer)).await
    }

    /// See [`World::keep`].
    pub async fn keep(&self, to: PathBuf) -> Result<(), WorldError> {
        self.ask(|answer| Request::Keep(to, answer)).await
    }

    /// See [`World::images`].
    pub async fn images(&self) -> Result<Vec<(ImageRef, Vec<u8>)>, WorldError> {
        self.ask(Request::Images).await
    }

    /// See [`World::evaluate`].
    pub async fn evaluate(&self) -> Result<Verdict, WorldError> {
        self.ask(Request::Evaluate).await
    }

    async fn ask<T>(&self, request: impl FnOnce(Answer<T>) -> Request) -> Result<T, WorldError> {
        let (answer, asked) = oneshot::channel();
        // A thread that ended drops the answer.
        let _ = self.requests.send(request(answer));
        self.answer(asked).await
    }

    async fn answer<T>(&self, answer: oneshot::Receiver<Result<T, WorldError>>) -> Result<T, WorldError> {
        match timeout(self.patience, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(WorldError::Broken("its thread ended".to_owned())),
            Err(_) => Err(WorldError::Broken(format!("no answer within {:?}", self.patience))),
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(interrupt) = &*self.interrupt.lock().unwrap_or_else(PoisonError::into_inner) {
            interrupt();
        }
    }
}

fn serve(world: &mut dyn World, inbox: &mpsc::Receiver<Request>) {
    while let Ok(request) = inbox.recv() {
        match request {
            Request::Reset(task, answer) => drop(answer.send(world.reset(&task))),
            Request::Step(action, answer) => drop(answer.send(world.step(&action))),
            Request::Keep(to, answer) => drop(answer.send(world.keep(&to))),
            Request::Images(answer) => drop(answer.send(Ok(world.images()))),
            Request::Evaluate(answer) => drop(answer.send(world.evaluate())),
        }
    }
}
