//! The handle on a model thread: what policy, judge and teacher run on.
//!
//! One named OS thread owns the model, because a forward pass may block for seconds. The handle outlives the
//! thread: while it is down, requests wait for the next incarnation instead of being refused, so a caller that
//! cannot wait for ever puts a deadline on its call. A response that was under way when the thread ended fails.

use std::{
    any::Any,
    collections::{HashMap, VecDeque},
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    thread,
    time::{Duration, Instant},
};

use openclaw_model::{GenerateEvent, GenerateRequest, ScoreRequest, Scored};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tracing::{debug, warn};

/// What an engine thread drives.
pub trait ServingModel {
    /// Names a sequence; ids are not reused.
    fn submit(&mut self, request: GenerateRequest) -> Result<u64, String>;
    /// Forgets a sequence.
    fn cancel(&mut self, sequence: u64);
    /// Moves every running sequence on by a token or a chunk of its prompt.
    fn step(&mut self) -> Result<Vec<(u64, GenerateEvent)>, String>;
    /// No sequence runs or waits.
    fn is_idle(&self) -> bool;
    /// New sequences use these weights; running ones end on theirs.
    fn load(&mut self, version: u64, weights: PolicyWeights) -> Result<(), String>;
    /// Log-probabilities of given ids under the current weights.
    fn score(&mut self, request: &ScoreRequest) -> Result<Scored, String>;
    /// The version that new sequences use.
    fn version(&self) -> u64;
}

/// One version's parameters.
pub type PolicyWeights = Arc<Vec<f32>>;

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
        Self { generations: 256, scorings: 64, score_share: 0.5 }
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
}

/// The handle. Clones address the same engine; when the last is dropped, the thread ends.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
}

struct Shared {
    name: String,
    limits: EngineLimits,
    generations: Arc<Semaphore>,
    scorings: Arc<Semaphore>,
    link: watch::Sender<Option<mpsc::UnboundedSender<Command>>>,
    gauges: Arc<Gauges>,
}

#[derive(Default)]
struct Gauges {
    version: AtomicU64,
    sequences: AtomicUsize,
    generated_tokens: AtomicU64,
}

// The channel is unbounded, what may be in it is not: every command but the rare load holds one of a bounded
// number of places.
enum Command {
    Generate {
        request: GenerateRequest,
        events: mpsc::Sender<GenerateEvent>,
        accepted: oneshot::Sender<Result<(), String>>,
        place: OwnedSemaphorePermit,
    },
    Score(Scoring),
    Load {
        version: u64,
        weights: PolicyWeights,
        done: oneshot::Sender<Result<(), String>>,
    },
    Stop,
}

struct Scoring {
    request: ScoreRequest,
    reply: oneshot::Sender<Result<Scored, String>>,
    _place: OwnedSemaphorePermit,
}

/// Resolves when the thread has ended and its model is gone: `Err` with the panic's or the model's message.
pub struct Exited(oneshot::Receiver<Result<(), String>>);

impl Future for Exited {
    type Output = Result<(), String>;
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0)
            .poll(context)
            .map(|report| report.unwrap_or_else(|_| Err("engine thread vanished".to_owned())))
    }
}

impl Engine {
    /// A handle without a thread. `name` labels its metrics and its thread.
    pub fn new(name: impl Into<String>, limits: EngineLimits) -> Self {
        Self {
            shared: Arc::new(Shared {
                name: name.into(),
                limits,
                generations: Arc::new(Semaphore::new(limits.generations.max(1))),
                scorings: Arc::new(Semaphore::new(limits.scorings.max(1))),
                link: watch::Sender::new(None),
                gauges: Arc::default(),
            }),
        }
    }

    /// Starts a thread that builds its model and serves. Await the former thread's [`Exited`] first: until then its
    /// model still holds its memory, and this call is refused.
    pub async fn start<M: ServingModel + 'static>(
        &self,
        build: impl FnOnce() -> Result<M, String> + Send + 'static,
    ) -> Result<Exited, EngineError> {
        let failed = |reason| EngineError::Start { engine: self.name().to_owned(), reason };
        if self.shared.link.borrow().is_some() {
            return Err(failed("its thread still runs".to_owned()));
        }
        let (commands, inbox) = mpsc::unbounded_channel();
        let (report, exited) = oneshot::channel();
        let (built, ready) = oneshot::channel();
        let serving = Thread {
            name: self.shared.name.clone(),
            inbox,
            active: HashMap::new(),
            scorings: VecDeque::new(),
            share: ScoreShare::new(self.shared.limits.score_share),
            gauges: self.shared.gauges.clone(),
        };
        let shared = Arc::downgrade(&self.shared);
        thread::Builder::new()
            .name(self.shared.name.clone())
            .spawn(move || run_thread(serving, build, built, shared, report))
            .map_err(|error| failed(error.to_string()))?;
        match ready.await {
            Ok(Ok(())) => {
                self.shared.link.send_replace(Some(commands));
                Ok(Exited(exited))
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
        }
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

    /// Log-probabilities of given ids. Waits like [`Engine::generate`].
    pub async fn score(&self, request: ScoreRequest) -> Result<Scored, EngineError> {
        let place = place(&self.shared.scorings).await;
        let (reply, answer) = oneshot::channel();
        self.send(Command::Score(Scoring { request, reply, _place: place })).await;
        self.answer(answer).await
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

/// Who waits for a sequence.
struct Active {
    events: mpsc::Sender<GenerateEvent>,
    _place: OwnedSemaphorePermit,
}

/// The thread's own state. What waits for answers lives here and not with the model, so that a panic in the model
/// still lets everyone who waits know.
struct Thread {
    name: String,
    inbox: mpsc::UnboundedReceiver<Command>,
    active: HashMap<u64, Active>,
    scorings: VecDeque<Scoring>,
    share: ScoreShare,
    gauges: Arc<Gauges>,
}

fn run_thread<M: ServingModel>(
    mut serving: Thread,
    build: impl FnOnce() -> Result<M, String>,
    built: oneshot::Sender<Result<(), String>>,
    shared: Weak<Shared>,
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
        let _ = built.send(Ok(()));
        serving.serve(&mut model)
    }));
    let outcome = outcome.unwrap_or_else(|panic| Err(panic_message(panic)));
    // First nobody new, then a word to everybody who waits, then the report that lets a successor start.
    if let Some(shared) = shared.upgrade() {
        shared.link.send_replace(None);
    }
    serving.fail_all(outcome.as_ref().err().map_or("the engine was stopped", String::as_str));
    if let Err(message) = &outcome {
        warn!(engine = serving.name, message, "engine thread ended");
        metrics::counter!("openclaw_engine_ended_total", "engine" => serving.name.clone()).increment(1);
    }
    drop(serving);
    let _ = report.send(outcome);
}

impl Thread {
    /// Until told to stop, or until every handle is gone and the last response has ended.
    fn serve(&mut self, model: &mut impl ServingModel) -> Result<(), String> {
        loop {
            if model.is_idle() && self.scorings.is_empty() {
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
            if self.share.may_score(busy)
                && let Some(scoring) = self.scorings.pop_front()
            {
                self.score(model, scoring);
            } else if busy {
                self.step(model)?;
            }
            self.gauges.sequences.store(self.active.len(), Ordering::Relaxed);
        }
    }

    fn take(&mut self, model: &mut impl ServingModel, command: Command) {
        match command {
            Command::Generate { request, events, accepted, place } => match model.submit(request) {
                Ok(sequence) => {
                    self.active.insert(sequence, Active { events, _place: place });
                    let _ = accepted.send(Ok(()));
                }
                Err(reason) => {
                    debug!(engine = self.name, reason, "request refused");
                    metrics::counter!("openclaw_engine_refused_total", "engine" => self.name.clone())
                        .increment(1);
                    let _ = accepted.send(Err(reason));
                }
            },
            Command::Score(scoring) => self.scorings.push_back(scoring),
            Command::Load { version, weights, done } => {
                let loaded = model.load(version, weights);
                if loaded.is_ok() {
                    self.gauges.version.store(model.version(), Ordering::Release);
                    metrics::gauge!("openclaw_engine_policy_version", "engine" => self.name.clone())
                        .set(version as f64);
                }
                let _ = done.send(loaded);
            }
            Command::Stop => unreachable!("the loop returns on it"),
        }
    }

    fn cancel_abandoned(&mut self, model: &mut impl ServingModel) {
        let name = &self.name;
        self.active.retain(|&sequence, active| {
            let wanted = !active.events.is_closed();
            if !wanted {
                model.cancel(sequence);
                metrics::counter!("openclaw_engine_cancelled_total", "engine" => name.clone()).increment(1);
            }
            wanted
        });
        self.scorings.retain(|scoring| !scoring.reply.is_closed());
    }

    fn step(&mut self, model: &mut impl ServingModel) -> Result<(), String> {
        let started = Instant::now();
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
        let name = || self.name.clone();
        metrics::counter!("openclaw_engine_generated_tokens_total", "engine" => name()).increment(tokens);
        metrics::histogram!("openclaw_engine_step_seconds", "engine" => name()).record(took.as_secs_f64());
        metrics::gauge!("openclaw_engine_sequences", "engine" => name()).set(self.active.len() as f64);
        Ok(())
    }

    fn score(&mut self, model: &mut impl ServingModel, scoring: Scoring) {
        let started = Instant::now();
        let tokens = scoring.request.ids.len();
        let scored = model.score(&scoring.request);
        let took = started.elapsed();
        self.share.scored(took);
        // The asker may have given up.
        let _ = scoring.reply.send(scored);
        let name = || self.name.clone();
        metrics::counter!("openclaw_engine_scored_tokens_total", "engine" => name()).increment(tokens as u64);
        metrics::histogram!("openclaw_engine_score_seconds", "engine" => name()).record(took.as_secs_f64());
    }

    fn fail_all(&mut self, reason: &str) {
        for (_, active) in self.active.drain() {
            let _ = active.events.try_send(GenerateEvent::Failed { error: reason.to_owned() });
        }
        // Dropping these tells their askers.
        self.scorings.clear();
        self.inbox.close();
        while self.inbox.try_recv().is_ok() {}
        self.gauges.sequences.store(0, Ordering::Relaxed);
    }
}

/// Shares the thread's time between scoring and generation while there is both to do.
struct ScoreShare {
    share: f64,
    /// Time that generation is to be given before the next scoring.
    owed: Duration,
}

impl ScoreShare {
    fn new(share: f64) -> Self {
        Self { share: share.clamp(0.05, 0.95), owed: Duration::ZERO }
    }

    fn may_score(&mut self, generating: bool) -> bool {
        if !generating {
            self.owed = Duration::ZERO;
        }
        self.owed.is_zero()
    }

    fn scored(&mut self, took: Duration) {
        self.owed = took.mul_f64((1.0 - self.share) / self.share);
    }

    fn stepped(&mut self, took: Duration) {
        self.owed = self.owed.saturating_sub(took);
    }
}

/// The text of a panic.
pub(crate) fn panic_message(panic: Box<dyn Any + Send>) -> String {
    match panic.downcast::<String>() {
        Ok(message) => *message,
        Err(panic) => panic.downcast_ref::<&str>().map_or("panicked", |message| message).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use openclaw_model::{FinishReason, SamplingParams, TokenLogprob};

    use super::*;

    /// A model that counts: each response is 0, 1, 2, .. and ends after `max_new_tokens`. Token 13 is its undoing.
    #[derive(Default)]
    struct Counting {
        version: u64,
        next: u64,
        running: Vec<(u64, u32, GenerateRequest, u64)>,
        cancelled: Arc<AtomicUsize>,
    }

    impl ServingModel for Counting {
        fn submit(&mut self, request: GenerateRequest) -> Result<u64, String> {
            if request.prompt_ids.is_empty() {
                return Err("the prompt is empty".to_owned());
            }
            self.next += 1;
            self.running.push((self.next, 0, request, self.version));
            Ok(self.next)
        }
        fn cancel(&mut self, sequence: u64) {
            self.running.retain(|(id, ..)| *id != sequence);
            self.cancelled.fetch_add(1, Ordering::SeqCst);
        }
        fn step(&mut self) -> Result<Vec<(u64, GenerateEvent)>, String> {
            let mut events = Vec::new();
            self.running.retain_mut(|(id, drawn, request, version)| {
                assert!(!request.prompt_ids.contains(&13), "token 13");
                let token = TokenLogprob { id: *drawn, logprob: -0.5, raw_logprob: -0.5, top: Vec::new() };
                events.push((*id, GenerateEvent::Token { token, text: String::new() }));
                *drawn += 1;
                let ends = *drawn as usize == request.max_new_tokens;
                if ends {
                    let finished = GenerateEvent::Finished {
                        reason: FinishReason::Length,
                        text: String::new(),
                        policy_version: *version,
                        cached_tokens: 0,
                    };
                    events.push((*id, finished));
                }
                !ends
            });
            Ok(events)
        }
        fn is_idle(&self) -> bool {
            self.running.is_empty()
        }
        fn load(&mut self, version: u64, _: PolicyWeights) -> Result<(), String> {
            self.version = version;
            Ok(())
        }
        fn score(&mut self, request: &ScoreRequest) -> Result<Scored, String> {
            let logprobs = request.ids[request.start..].iter().map(|&id| -(id as f32)).collect();
            Ok(Scored { logprobs, policy_version: self.version, ..Scored::default() })
        }
        fn version(&self) -> u64 {
            self.version
        }
    }

    fn request(prompt: u32, max_new_tokens: usize) -> GenerateRequest {
        GenerateRequest {
            prompt_ids: vec![prompt],
            sampling: SamplingParams::default(),
            max_new_tokens,
            stop: Vec::new(),
            top_logprobs: 0,
        }
    }

    async fn started() -> (Engine, Exited) {
        let engine = Engine::new("test", EngineLimits::default());
        let exited = engine.start(|| Ok(Counting::default())).await.expect("it starts");
        (engine, exited)
    }

    async fn drain(mut events: mpsc::Receiver<GenerateEvent>) -> (usize, Option<GenerateEvent>) {
        let (mut tokens, mut last) = (0, None);
        while let Some(event) = events.recv().await {
            tokens += usize::from(matches!(event, GenerateEvent::Token { .. }));
            last = Some(event);
        }
        (tokens, last)
    }

    #[tokio::test]
    async fn every_token_arrives_even_when_nobody_reads_for_long() {
        let (engine, _exited) = started().await;
        let unread = engine.generate(request(1, 1000)).await.expect("accepted");
        let read = engine.generate(request(2, 1500)).await.expect("accepted");
        assert_eq!(drain(read).await.0, 1500);
        let (tokens, last) = drain(unread).await;
        assert_eq!(tokens, 1000);
        assert!(matches!(last, Some(GenerateEvent::Finished { policy_version: 0, .. })));
    }

    #[tokio::test]
    async fn dropping_the_receiver_cancels() {
        let engine = Engine::new("test", EngineLimits::default());
        let cancelled = Arc::new(AtomicUsize::new(0));
        let seen = cancelled.clone();
        let build = move || Ok(Counting { cancelled: seen, ..Counting::default() });
        let exited = engine.start(build).await.expect("it starts");
        drop(engine.generate(request(1, MOST_EVENTS)).await.expect("accepted"));
        drop(engine);
        exited.await.expect("it ends once nothing runs");
        assert_eq!(cancelled.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_load_never_touches_a_running_response() {
        let (engine, _exited) = started().await;
        let before = engine.generate(request(1, 50_000)).await.expect("accepted");
        engine.load(7, Arc::default()).await.expect("loaded");
        assert_eq!(engine.version(), 7);
        let after = engine.generate(request(1, 1)).await.expect("accepted");
        for (events, version) in [(before, 0), (after, 7)] {
            let (_, last) = drain(events).await;
            let Some(GenerateEvent::Finished { policy_version, .. }) = last else { panic!("{last:?}") };
            assert_eq!(policy_version, version);
        }
    }

    #[tokio::test]
    async fn a_panic_reaches_everyone_who_waits_and_the_next_incarnation_serves() {
        let (engine, exited) = started().await;
        let bystander = engine.generate(request(1, MOST_EVENTS)).await.expect("accepted");
        let culprit = engine.generate(request(13, 5)).await.expect("accepted");
        for events in [bystander, culprit] {
            let (_, last) = drain(events).await;
            let Some(GenerateEvent::Failed { error }) = last else { panic!("{last:?}") };
            assert_eq!(error, "token 13");
        }
        assert_eq!(exited.await, Err("token 13".to_owned()));
        let waiting = tokio::spawn({
            let engine = engine.clone();
            async move { engine.generate(request(1, 3)).await }
        });
        let _exited = engine.start(|| Ok(Counting::default())).await.expect("it starts again");
        let events = waiting.await.expect("no panic").expect("it waited for the new thread");
        assert_eq!(drain(events).await.0, 3);
    }

    #[tokio::test]
    async fn refusals_and_failed_starts_say_why() {
        let (engine, exited) = started().await;
        let empty = GenerateRequest { prompt_ids: Vec::new(), ..request(1, 1) };
        let refused = engine.generate(empty).await.expect_err("refused");
        assert_eq!(refused.to_string(), "test refused the request: the prompt is empty");
        engine.stop();
        exited.await.expect("a stop is not a failure");
        let failed = engine.start(|| Err::<Counting, _>("out of memory".to_owned())).await;
        assert_eq!(failed.err().map(|e| e.to_string()).as_deref(), Some("test did not start: out of memory"));
    }

    #[tokio::test]
    async fn scores_are_answered_while_responses_run() {
        let (engine, _exited) = started().await;
        let _running = engine.generate(request(1, MOST_EVENTS)).await.expect("accepted");
        let request = ScoreRequest { ids: vec![5, 6, 7], start: 1, ..ScoreRequest::default() };
        assert_eq!(engine.score(request).await.expect("scored").logprobs, [-6.0, -7.0]);
    }

    #[test]
    fn after_a_score_generation_gets_its_share_of_time() {
        let mut share = ScoreShare::new(0.25);
        assert!(share.may_score(true));
        share.scored(Duration::from_millis(10));
        share.stepped(Duration::from_millis(29));
        assert!(!share.may_score(true));
        share.stepped(Duration::from_millis(1));
        assert!(share.may_score(true));
        share.scored(Duration::from_secs(1));
        assert!(share.may_score(false), "nobody else needs the time");
    }
}
