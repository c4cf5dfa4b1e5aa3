//! The thread that owns a model, and what it says when it ends.

use std::{
    collections::HashMap,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use openclaw_journal::{fault, panics::panic_message};
use openclaw_model::{GenerateEvent, GenerateRequest, ScoreRequest, Scored};
use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit, mpsc, oneshot};
use tracing::{debug, warn};

use super::{PolicyWeights, ServingModel, Shared, meters::Meters};

/// What the handle reads of its thread.
#[derive(Default)]
pub(super) struct Gauges {
    pub version: AtomicU64,
    pub sequences: AtomicUsize,
    pub generated_tokens: AtomicU64,
}

// The channel is unbounded, what may be in it is not: every command but the rare load and ping holds one of a
// bounded number of places.
pub(super) enum Command {
    Generate {
        request: GenerateRequest,
        events: mpsc::Sender<GenerateEvent>,
        accepted: oneshot::Sender<Result<(), String>>,
        place: OwnedSemaphorePermit,
    },
    Score {
        request: ScoreRequest,
        reply: oneshot::Sender<Result<Scored, String>>,
        place: OwnedSemaphorePermit,
    },
    Load {
        version: u64,
        weights: PolicyWeights,
        done: oneshot::Sender<Result<(), String>>,
    },
    Ping(oneshot::Sender<Result<(), String>>),
    Stop,
}

/// Resolves when the thread has ended and its model is gone: `Err` with the panic's or the model's message.
pub struct Exited {
    pub(super) report: oneshot::Receiver<Result<(), String>>,
    pub(super) stopper: Stopper,
}

/// Ends one thread, and never its successor.
#[derive(Clone)]
pub struct Stopper(pub(super) mpsc::WeakUnboundedSender<Command>);

impl Stopper {
    /// Responses under way fail.
    pub fn stop(&self) {
        if let Some(commands) = self.0.upgrade() {
            // An error means that it has ended already.
            let _ = commands.send(Command::Stop);
        }
    }
}

impl Exited {
    /// Ends this thread.
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }
}

impl Future for Exited {
    type Output = Result<(), String>;
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.report)
            .poll(context)
            .map(|report| report.unwrap_or_else(|_| Err("engine thread vanished".to_owned())))
    }
}

/// Who waits for a sequence.
struct Active {
    events: mpsc::Sender<GenerateEvent>,
    _place: OwnedSemaphorePermit,
}

/// Who waits for a scoring.
struct Scoring {
    tokens: usize,
    reply: oneshot::Sender<Result<Scored, String>>,
    started: Instant,
    _place: OwnedSemaphorePermit,
}

/// The thread's own state. What waits for answers lives here and not with the model, so that a panic in the model
/// still lets everyone who waits know.
pub(super) struct Thread {
    name: String,
    inbox: mpsc::UnboundedReceiver<Command>,
    active: HashMap<u64, Active>,
    scorings: HashMap<u64, Scoring>,
    share: ScoreShare,
    gauges: Arc<Gauges>,
    meters: Meters,
}

/// Builds the model, serves, and tells everyone how it ended.
pub(super) fn run(
    mut serving: Thread,
    build: impl FnOnce() -> Result<Box<dyn ServingModel>, String>,
    built: oneshot::Sender<Result<(), String>>,
    shared: Weak<Shared>,
    held: OwnedMutexGuard<()>,
    report: oneshot::Sender<Result<(), String>>,
) {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let mut model = match build() {
            Ok(model) => model,
            Err(reason) => {
                // The starter may have given up.
                let _ = built.send(Err(reason.clone()));
                return Err(reason);
            }
        };
        serving.gauges.version.store(model.version(), Ordering::Release);
        serving.meters.version.set(model.version() as f64);
        let _ = built.send(Ok(()));
        serving.serve(&mut *model)
    }));
    let outcome = outcome.unwrap_or_else(|panic| Err(panic_message(panic)));
    // First nobody new, then a word to everybody who waits, then the slot that lets a successor start.
    if let Some(shared) = shared.upgrade() {
        shared.link.send_replace(None);
    }
    serving.fail_all(outcome.as_ref().err().map_or("the engine was stopped", String::as_str));
    if let Err(message) = &outcome {
        warn!(engine = serving.name, message, "engine thread ended");
        metrics::counter!("openclaw_engine_ended_total", "engine" => serving.name.clone()).increment(1);
    }
    drop(serving);
    drop(held);
    let _ = report.send(outcome);
}

impl Thread {
    pub fn new(shared: &Shared, inbox: mpsc::UnboundedReceiver<Command>) -> Self {
        Self {
            name: shared.name.clone(),
            inbox,
            active: HashMap::new(),
            scorings: HashMap::new(),
            share: ScoreShare::new(shared.limits.score_share),
            gauges: shared.gauges.clone(),
            meters: Meters::new(&shared.name),
        }
    }

    /// Until told to stop, or until every handle is gone and the last response has ended.
    fn serve(&mut self, model: &mut dyn ServingModel) -> Result<(), String> {
        loop {
            if model.is_idle() && !model.is_scoring() {
                match self.inbox.blocking_recv() {
                    None | Some(Command::Stop) => return Ok(()),
                    Some(command) => self.take(model, command),
                }
            }
            loop {
                match self.inbox.try_recv() {
                    Ok(Command::Stop) => return Ok(()),
                    Ok(command) => self.take(model, command),
                    // Disconnected: what runs may end; an idle loop then finds the channel closed.
                    Err(_) => break,
                }
            }
            self.cancel_abandoned(model);
            let busy = !model.is_idle();
            if model.is_scoring() && self.share.may_score(busy) {
                self.score(model)?;
            } else if busy {
                self.step(model)?;
            }
            self.gauges.sequences.store(self.active.len(), Ordering::Relaxed);
        }
    }

    fn take(&mut self, model: &mut dyn ServingModel, command: Command) {
        match command {
            Command::Generate { request, events, accepted, place } => match model.submit(request) {
                Ok(sequence) => {
                    self.active.insert(sequence, Active { events, _place: place });
                    let _ = accepted.send(Ok(()));
                }
                Err(reason) => {
                    debug!(engine = self.name, reason, "request refused");
                    self.meters.refused.increment(1);
                    let _ = accepted.send(Err(reason));
                }
            },
            Command::Score { request, reply, place } => {
                let tokens = request.ids.len();
                match model.submit_score(request) {
                    Ok(id) => {
                        let scoring = Scoring { tokens, reply, started: Instant::now(), _place: place };
                        self.scorings.insert(id, scoring);
                    }
                    Err(reason) => {
                        debug!(engine = self.name, reason, "scoring refused");
                        self.meters.refused.increment(1);
                        // The asker may have given up.
                        let _ = reply.send(Err(reason));
                    }
                }
            }
            Command::Load { version, weights, done } => {
                let started = Instant::now();
                let loaded = model.load(version, weights);
                if loaded.is_ok() {
                    self.gauges.version.store(model.version(), Ordering::Release);
                    self.meters.loaded(started.elapsed(), version);
                }
                let _ = done.send(loaded);
            }
            // The asker may have given up.
            Command::Ping(reply) => drop(reply.send(Ok(()))),
            Command::Stop => unreachable!("the loop returns on it"),
        }
    }

    fn cancel_abandoned(&mut self, model: &mut dyn ServingModel) {
        let cancelled = &self.meters.cancelled;
        self.active.retain(|&sequence, active| {
            let wanted = !active.events.is_closed();
            if !wanted {
                model.cancel(sequence);
                cancelled.increment(1);
            }
            wanted
        });
        self.scorings.retain(|&id, scoring| {
            let wanted = !scoring.reply.is_closed();
            if !wanted {
                model.cancel(id);
                cancelled.increment(1);
            }
            wanted
        });
    }

    fn step(&mut self, model: &mut dyn ServingModel) -> Result<(), String> {
        let started = Instant::now();
        fault::point("engine.step");
        let events = model.step()?;
        let mut tokens = 0;
        for (sequence, event) in events {
            let ended = match event {
                GenerateEvent::Token { .. } => {
                    tokens += 1;
                    false
                }
                GenerateEvent::Finished { .. } | GenerateEvent::Failed { .. } => true,
            };
            let Some(active) = self.active.get(&sequence) else { continue };
            // There is room for every event of a response: only a receiver that is gone makes this fail, and the
            // next round cancels its sequence.
            let _ = active.events.try_send(event);
            if ended {
                self.active.remove(&sequence);
            }
        }
        let took = started.elapsed();
        self.share.stepped(took);
        self.gauges.generated_tokens.fetch_add(tokens, Ordering::Relaxed);
        self.meters.stepped(took, tokens, self.active.len(), model);
        Ok(())
    }

    fn score(&mut self, model: &mut dyn ServingModel) -> Result<(), String> {
        let started = Instant::now();
        let scored = model.step_scores()?;
        self.share.scored(started.elapsed());
        for (id, scored) in scored {
            let Some(scoring) = self.scorings.remove(&id) else { continue };
            self.meters.scored(scoring.started.elapsed(), scoring.tokens);
            // The asker may have given up.
            let _ = scoring.reply.send(Ok(scored));
        }
        Ok(())
    }

    fn fail_all(&mut self, reason: &str) {
        for (_, active) in self.active.drain() {
            let failed = GenerateEvent::Failed { error: reason.to_owned(), by_request: false };
            let _ = active.events.try_send(failed);
        }
        // Dropping these tells their askers.
        self.scorings.clear();
        self.inbox.close();
        while self.inbox.try_recv().is_ok() {}
        self.gauges.sequences.store(0, Ordering::Relaxed);
        self.meters.ended();
    }
}

/// Shares the thread's time between scoring and generation while there is both to do.
pub(super) struct ScoreShare {
    share: f64,
    /// Time that generation is to be given before the next scoring.
    owed: Duration,
}

impl ScoreShare {
    pub fn new(share: f64) -> Self {
        Self { share: share.clamp(0.05, 0.95), owed: Duration::ZERO }
    }

    pub fn may_score(&mut self, generating: bool) -> bool {
        if !generating {
            self.owed = Duration::ZERO;
        }
        self.owed.is_zero()
    }

    pub fn scored(&mut self, took: Duration) {
        self.owed = took.mul_f64((1.0 - self.share) / self.share);
    }

    pub fn stepped(&mut self, took: Duration) {
        self.owed = self.owed.saturating_sub(took);
    }
}
