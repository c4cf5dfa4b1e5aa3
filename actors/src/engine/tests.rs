use openclaw_model::{FinishReason, SamplingParams, TokenLogprob};

use std::{sync::atomic::AtomicUsize, time::Duration};

use super::{thread::ScoreShare, *};
use crate::tiny::Tiny;

/// A model that counts: each response is 0, 1, 2, .. and ends after `max_new_tokens`. Token 13 is its undoing.
#[derive(Default)]
struct Counting {
    version: u64,
    next: u64,
    running: Vec<(u64, u32, GenerateRequest, u64)>,
    cancelled: Arc<AtomicUsize>,
    scoring: Vec<(u64, ScoreRequest)>,
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
            let token = TokenLogprob {
                id: *drawn,
                logprob: -0.5,
                policy_logprob: -0.5,
                raw_logprob: -0.5,
                top: Vec::new(),
            };
            events.push((*id, GenerateEvent::Token { token, text: String::new(), policy_version: *version }));
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
    fn submit_score(&mut self, request: ScoreRequest) -> Result<u64, String> {
        self.next += 1;
        self.scoring.push((self.next, request));
        Ok(self.next)
    }
    fn step_scores(&mut self) -> Result<Vec<(u64, Scored)>, String> {
        let (id, request) = self.scoring.remove(0);
        if request.ids.contains(&13) {
            return Err("the device is lost".to_owned());
        }
        let logprobs = request.ids[request.start..].iter().map(|&id| -(id as f32)).collect();
        Ok(vec![(id, Scored { logprobs, policy_version: self.version, ..Scored::default() })])
    }
    fn is_scoring(&self) -> bool {
        !self.scoring.is_empty()
    }
    fn version(&self) -> u64 {
        self.version
    }
}

fn request(prompt: u32, max_new_tokens: usize) -> GenerateRequest {
    GenerateRequest {
        drawn_ids: Vec::new(),
        prompt_ids: vec![prompt],
        sampling: SamplingParams::default(),
        max_new_tokens,
        stop: Vec::new(),
        top_logprobs: 0,
        constraint: None,
    }
}

async fn started() -> (Engine, Exited) {
    let engine = Engine::new("test", EngineLimits::default(), Tiny::text());
    let exited = engine.start(|| Ok(Box::new(Counting::default()))).await.expect("it starts");
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
    let engine = Engine::new("test", EngineLimits::default(), Tiny::text());
    let cancelled = Arc::new(AtomicUsize::new(0));
    let seen = cancelled.clone();
    let build = move || -> Result<Box<dyn ServingModel>, String> {
        Ok(Box::new(Counting { cancelled: seen, ..Counting::default() }))
    };
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
    engine.load(7, Tiny::new(1).weights).await.expect("loaded");
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
        let Some(GenerateEvent::Failed { error, .. }) = last else { panic!("{last:?}") };
        assert_eq!(error, "token 13");
    }
    assert_eq!(exited.await, Err("token 13".to_owned()));
    let waiting = tokio::spawn({
        let engine = engine.clone();
        async move { engine.generate(request(1, 3)).await }
    });
    let _exited = engine.start(|| Ok(Box::new(Counting::default()))).await.expect("it starts again");
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
    let failed = engine.start(|| Err("out of memory".to_owned())).await;
    assert_eq!(failed.err().map(|e| e.to_string()).as_deref(), Some("test did not start: out of memory"));
}

#[tokio::test]
async fn scores_are_answered_while_responses_run() {
    let (engine, _exited) = started().await;
    let _running = engine.generate(request(1, MOST_EVENTS)).await.expect("accepted");
    let request = ScoreRequest { ids: vec![5, 6, 7], start: 1, ..ScoreRequest::default() };
    assert_eq!(engine.score(request).await.expect("scored").logprobs, [-6.0, -7.0]);
}

#[tokio::test]
async fn a_device_that_is_lost_in_a_score_ends_the_engine() {
    let (engine, exited) = started().await;
    let request = ScoreRequest { ids: vec![13, 6], start: 1, ..ScoreRequest::default() };
    let ended = EngineError::Ended { engine: "test".to_owned() };
    assert_eq!(engine.score(request).await.err(), Some(ended));
    assert!(exited.await.expect_err("it failed").contains("the device is lost"));
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

#[tokio::test]
async fn a_ping_is_answered_by_a_thread_that_turns_and_refused_by_one_that_is_down() {
    let (engine, exited) = started().await;
    engine.ping().await.expect("idle is well");
    let _running = engine.generate(request(1, MOST_EVENTS)).await.expect("accepted");
    engine.ping().await.expect("busy is well");
    engine.stop();
    exited.await.expect("a stop is not a failure");
    let ended = EngineError::Ended { engine: "test".to_owned() };
    assert_eq!(engine.ping().await, Err(ended));
}

#[tokio::test]
async fn a_start_that_was_given_up_holds_the_next_one_back_until_its_model_is_gone() {
    let engine = Engine::new("test", EngineLimits::default(), Tiny::text());
    let (building, mut is_building) = mpsc::unbounded_channel();
    let (let_go, held) = std::sync::mpsc::channel::<()>();
    let first = tokio::spawn({
        let (engine, building) = (engine.clone(), building.clone());
        async move {
            let build = move || -> Result<Box<dyn ServingModel>, String> {
                let _ = building.send("first");
                // An error means that the test is over.
                let _ = held.recv();
                let _ = building.send("first is built");
                Ok(Box::new(Counting::default()))
            };
            engine.start(build).await.map(drop)
        }
    });
    assert_eq!(is_building.recv().await, Some("first"));
    first.abort();
    assert!(first.await.expect_err("it was given up").is_cancelled());
    let second = tokio::spawn(async move {
        let build = move || -> Result<Box<dyn ServingModel>, String> {
            let _ = building.send("second");
            Ok(Box::new(Counting::default()))
        };
        engine.start(build).await.map(drop)
    });
    tokio::task::yield_now().await;
    let_go.send(()).expect("the first still builds");
    assert_eq!(is_building.recv().await, Some("first is built"));
    assert_eq!(is_building.recv().await, Some("second"));
    second.await.expect("no panic").expect("it starts");
}
