//! The handle on a model thread: what policy, judge and teacher run on.
//!
//! One named OS thread owns the model, because a forward pass may block for seconds. The handle outlives the
//! thread: while it is down, requests wait for the next incarnation instead of being refused, so a caller that
//! cannot wait for ever puts a deadline on its call. A response that was under way when the thread ended fails.

mod meters;
mod serving_model;
mod thread;

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use openclaw_model::{GenerateEvent, GenerateRequest, ScoreRequest, Scored};
use serde_json::{Map, Value, json};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

pub use serving_model::{Device, EngineText, GpuMemory, Place, PolicyWeights, ServingModel};
use thread::{Command, Gauges, Thread};
pub use thread::{Exited, Stopper};

/// Limits of an [`Engine`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EngineLimits {
    /// Most generations that run or wait; more wait in their callers.
    pub generations: usize,
    /// Most scorings that run or wait; more wait in their callers.
    pub scorings: usize,
    /// Scoring's share of the thread's time while sequences run, in (0, 1).
    pub score_share: f64,
}

impl Default for EngineLimits {
    fn default() -> Self {
        Self { generations: 256, scorings: 64, score_share: 0.25 }
    }
}

/// Why an engine did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// The request cannot be served: an empty prompt, a prompt beyond the context.
    #[error("{engine} refused the request: {reason}")]
    Refused {
        /// The engine.
        engine: String,
        /// Why.
        reason: String,
    },
    /// The thread ended before it answered.
    #[error("{engine} ended before it answered")]
    Ended {
        /// The engine.
        engine: String,
    },
    /// The thread could not be started.
    #[error("{engine} did not start: {reason}")]
    Start {
        /// The engine.
        engine: String,
        /// Why.
        reason: String,
    },
    /// The messages do not make a prompt.
    #[error("{engine} cannot render the prompt: {reason}")]
    Prompt {
        /// The engine.
        engine: String,
        /// Why.
        reason: String,
    },
    /// The model behind an HTTP endpoint did not answer as it should.
    #[error("{engine}: {reason}")]
    Remote {
        /// The endpoint's name.
        engine: String,
        /// Why.
        reason: String,
    },
}

/// What an operator sees of an engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineStatus {
    /// Whether its thread runs.
    pub up: bool,
    /// The version that new requests use.
    pub version: u64,
    /// Responses under way.
    pub sequences: usize,
    /// Tokens drawn, ever.
    pub generated_tokens: u64,
    /// How long it has owed an answer to [`Engine::ping`].
    pub silent: Option<Duration>,
}

/// The handle. Clones address the same engine; when the last is dropped, the thread ends.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
}

struct Shared {
    name: String,
    text: EngineText,
    limits: EngineLimits,
    generations: Arc<Semaphore>,
    scorings: Arc<Semaphore>,
    link: watch::Sender<Option<mpsc::UnboundedSender<Command>>>,
    gauges: Arc<Gauges>,
    /// Since when it owes an answer.
    pinged: std::sync::Mutex<Option<Instant>>,
    /// Held by the thread for as long as it may hold a model, even one that nobody waits for any more.
    thread_slot: Arc<Mutex<()>>,
}

impl Engine {
    /// A handle without a thread. `name` labels its metrics and its thread.
    pub fn new(name: impl Into<String>, limits: EngineLimits, text: EngineText) -> Self {
        Self {
            shared: Arc::new(Shared {
                name: name.into(),
                text,
                limits,
                generations: Arc::new(Semaphore::new(limits.generations.max(1))),
                scorings: Arc::new(Semaphore::new(limits.scorings.max(1))),
                link: watch::Sender::new(None),
                gauges: Arc::default(),
                pinged: std::sync::Mutex::default(),
                thread_slot: Arc::default(),
            }),
        }
    }

    /// Starts a thread that builds its model and serves. A former thread is stopped and its end awaited, so that
    /// two models never hold memory at once.
    pub async fn start(
        &self,
        build: impl FnOnce() -> Result<Box<dyn ServingModel>, String> + Send + 'static,
    ) -> Result<Exited, EngineError> {
        let failed = |reason| EngineError::Start { engine: self.name().to_owned(), reason };
        self.stop();
        let held = self.shared.thread_slot.clone().lock_owned().await;
        let (commands, inbox) = mpsc::unbounded_channel();
        let (report, exited) = oneshot::channel();
        let (built, ready) = oneshot::channel();
        let serving = Thread::new(&self.shared, inbox);
        let shared = Arc::downgrade(&self.shared);
        std::thread::Builder::new()
            .name(self.shared.name.clone())
            .spawn(move || thread::run(serving, build, built, shared, held, report))
            .map_err(|error| failed(error.to_string()))?;
        match ready.await {
            Ok(Ok(())) => {
                let stopper = Stopper(commands.downgrade());
                self.shared.link.send_replace(Some(commands));
                Ok(Exited { report: exited, stopper })
            }
            Ok(Err(reason)) => Err(failed(reason)),
            Err(_) => Err(failed(exited.await.ok().and_then(Result::err).unwrap_or_default())),
        }
    }

    /// Ends the thread; responses under way fail. Await its [`Exited`] to know when.
    pub fn stop(&self) {
        if let Some(commands) = &*self.shared.link.borrow() {
            // An error means that it has ended already.
            let _ = commands.send(Command::Stop);
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// How its model reads and writes text.
    pub fn text(&self) -> &EngineText {
        &self.shared.text
    }

    /// The ids of the prompt that asks for the assistant's next message.
    pub fn prompt_ids(
        &self,
        messages: &[Value],
        tools: &[Value],
        kwargs: &Map<String, Value>,
    ) -> Result<Vec<u32>, EngineError> {
        self.text().prompt_ids(messages, tools, kwargs).map_err(|error| EngineError::Prompt {
            engine: self.name().to_owned(),
            reason: error.to_string(),
        })
    }

    /// The ids of the prompt that asks for the answer to one message.
    pub fn question_ids(&self, question: &str) -> Result<Vec<u32>, EngineError> {
        self.prompt_ids(&[json!({"role": "user", "content": question})], &[], &Map::new())
    }

    /// The ids of a text, without anything around it.
    pub fn text_ids(&self, text: &str) -> Result<Vec<u32>, EngineError> {
        self.text().tokenizer.encode(text).map_err(|error| EngineError::Prompt {
            engine: self.name().to_owned(),
            reason: error.to_string(),
        })
    }

    /// The version that new requests use.
    pub fn version(&self) -> u64 {
        self.shared.gauges.version.load(Ordering::Acquire)
    }

    /// What an operator sees.
    pub fn status(&self) -> EngineStatus {
        EngineStatus {
            up: self.shared.link.borrow().is_some(),
            version: self.version(),
            sequences: self.shared.gauges.sequences.load(Ordering::Relaxed),
            generated_tokens: self.shared.gauges.generated_tokens.load(Ordering::Relaxed),
            silent: self.pinged().map(|since| since.elapsed()),
        }
    }

    /// Returns once the thread has turned its loop: it is neither down nor stuck in a call that does not return.
    pub async fn ping(&self) -> Result<(), EngineError> {
        let (reply, answer) = oneshot::channel();
        let commands = self.shared.link.borrow().clone().ok_or_else(|| self.ended())?;
        // Whoever gives up waiting leaves it owed.
        self.pinged().get_or_insert_with(Instant::now);
        // One that was not taken drops its reply.
        let _ = commands.send(Command::Ping(reply));
        drop(commands);
        let answered = self.answer(answer).await;
        *self.pinged() = None;
        answered
    }

    fn pinged(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.shared.pinged.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Draws a response. Waits for a place and, while the thread is down, for its return. Dropping the receiver
    /// cancels; a slow receiver delays nobody, because there is room for the whole response.
    pub async fn generate(
        &self,
        request: GenerateRequest,
    ) -> Result<mpsc::Receiver<GenerateEvent>, EngineError> {
        let place = place(&self.shared.generations).await;
        // One event per token, one for the end.
        let (events, receiver) = mpsc::channel(request.max_new_tokens.saturating_add(1).min(MOST_EVENTS));
        let (accepted, answer) = oneshot::channel();
        self.send(Command::Generate { request, events, accepted, place }).await;
        self.answer(answer).await?;
        Ok(receiver)
    }

    /// Log-probabilities of given ids under the version that is current when it begins. Waits like
    /// [`Engine::generate`]; dropping the future cancels.
    pub async fn score(&self, request: ScoreRequest) -> Result<Scored, EngineError> {
        let place = place(&self.shared.scorings).await;
        let (reply, answer) = oneshot::channel();
        self.send(Command::Score { request, reply, place }).await;
        self.answer(answer).await
    }

    /// Takes every place of a scoring: until it is dropped, an engine that is up scores nothing.
    #[cfg(test)]
    pub(crate) fn occupied(&self) -> OwnedSemaphorePermit {
        let places = self.shared.scorings.clone();
        let all = u32::try_from(places.available_permits()).expect("there are few");
        places.try_acquire_many_owned(all).expect("nobody takes one meanwhile")
    }

    /// Loads a version beside the one that serves; new requests use it as soon as this returns.
    pub async fn load(&self, version: u64, weights: PolicyWeights) -> Result<(), EngineError> {
        let (done, answer) = oneshot::channel();
        self.send(Command::Load { version, weights, done }).await;
        self.answer(answer).await
    }

    /// Hands `command` to the thread. One that was not taken is not lost: it goes to the next incarnation.
    async fn send(&self, mut command: Command) {
        let mut link = self.shared.link.subscribe();
        loop {
            let commands = {
                let up = link.wait_for(Option::is_some).await.expect("`self` holds the sender");
                up.as_ref().expect("just waited for").clone()
            };
            match commands.send(command) {
                Ok(()) => return,
                Err(mpsc::error::SendError(back)) => command = back,
            }
            // The thread says that it is gone just before it closes its channel.
            tokio::task::yield_now().await;
        }
    }

    async fn answer<T>(&self, answer: oneshot::Receiver<Result<T, String>>) -> Result<T, EngineError> {
        match answer.await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(reason)) => Err(EngineError::Refused { engine: self.name().to_owned(), reason }),
            Err(_) => Err(self.ended()),
        }
    }

    fn ended(&self) -> EngineError {
        EngineError::Ended { engine: self.name().to_owned() }
    }
}

/// Bounds the buffer of a response whatever its request says; no context is longer.
const MOST_EVENTS: usize = 1 << 20;

async fn place(places: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    places.clone().acquire_owned().await.expect("the semaphore is never closed")
}

#[cfg(test)]
mod tests;
