//! A real model whose thread panics under replies: clients see nothing of it.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use openclaw_actors::{
    engine::{Device, Engine, EngineLimits, EngineText, Exited, Place, PolicyWeights, ServingModel},
    gateway::{Gateway, GatewayConfig, GatewayHandle},
};
use openclaw_journal::Turn;
use openclaw_model::{
    Batcher, BatcherConfig, ChatTemplate, GenerateEvent, GenerateRequest, ModelConfig, NANO_TEMPLATE,
    ScoreRequest, Scored, Tokenizer, Transformer, Weights, random_weights,
};
use serde_json::{Value, json};

use crate::house::{CONTEXT_LENGTH, Events, House, ask, with};

/// Decides when engines panic: counts steps over all their incarnations.
#[derive(Default)]
struct Fate {
    steps: AtomicUsize,
    panics_after: Mutex<VecDeque<usize>>,
    /// The version that the next incarnation serves.
    version: AtomicU64,
    incarnations: AtomicUsize,
}

impl Fate {
    fn panic_after(&self, steps: &[usize]) {
        self.steps.store(0, Ordering::SeqCst);
        *self.panics_after.lock().expect("not poisoned") = steps.iter().copied().collect();
    }

    fn step(&self) {
        let step = self.steps.fetch_add(1, Ordering::SeqCst);
        let due = {
            let mut panics_after = self.panics_after.lock().expect("not poisoned");
            let due = panics_after.front().is_some_and(|after| step >= *after);
            due.then(|| panics_after.pop_front())
        };
        assert!(due.is_none(), "its time had come");
    }
}

struct Mortal {
    model: Batcher<Device>,
    fate: Arc<Fate>,
}

impl ServingModel for Mortal {
    fn submit(&mut self, request: GenerateRequest) -> Result<u64, String> {
        ServingModel::submit(&mut self.model, request)
    }
    fn cancel(&mut self, sequence: u64) {
        ServingModel::cancel(&mut self.model, sequence);
    }
    fn step(&mut self) -> Result<Vec<(u64, GenerateEvent)>, String> {
        self.fate.step();
        ServingModel::step(&mut self.model)
    }
    fn is_idle(&self) -> bool {
        self.model.is_idle()
    }
    fn load(&mut self, version: u64, weights: PolicyWeights) -> Result<(), String> {
        ServingModel::load(&mut self.model, version, weights)
    }
    fn submit_score(&mut self, request: ScoreRequest) -> Result<u64, String> {
        ServingModel::submit_score(&mut self.model, request)
    }
    fn step_scores(&mut self) -> Result<Vec<(u64, Scored)>, String> {
        ServingModel::step_scores(&mut self.model)
    }
    fn is_scoring(&self) -> bool {
        self.model.is_scoring()
    }
    fn version(&self) -> u64 {
        self.model.version()
    }
}

/// An engine that comes back whenever it ends, or does not.
async fn engine(name: &str, tokenizer: &Tokenizer, fate: &Arc<Fate>, comes_back: bool) -> Engine {
    let template = ChatTemplate::from_source(NANO_TEMPLATE).expect("the embedded template");
    let text = EngineText { tokenizer: tokenizer.clone(), template, context_tokens: CONTEXT_LENGTH };
    let engine = Engine::new(name, EngineLimits::default(), text);
    let mut exited = start(&engine, tokenizer, fate).await;
    if comes_back {
        let (engine, tokenizer, fate) = (engine.clone(), tokenizer.clone(), fate.clone());
        tokio::spawn(async move {
            loop {
                let _ = exited.await;
                exited = start(&engine, &tokenizer, &fate).await;
            }
        });
    }
    engine
}

async fn start(engine: &Engine, tokenizer: &Tokenizer, fate: &Arc<Fate>) -> Exited {
    fate.incarnations.fetch_add(1, Ordering::SeqCst);
    let (tokenizer, fate) = (tokenizer.clone(), fate.clone());
    engine.start(move || Ok(Box::new(mortal(tokenizer, fate)))).await.expect("it starts")
}

fn mortal(tokenizer: Tokenizer, fate: Arc<Fate>) -> Mortal {
    let config = ModelConfig {
        family: Default::default(),
        vocab_size: tokenizer.vocab_size(),
        hidden_size: 32,
        intermediate_size: 48,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        head_dim: 8,
        rms_norm_eps: 1e-6,
        rope_theta: 1e4,
        rope_scaling: None,
        max_positions: CONTEXT_LENGTH,
        tied: true,
    };
    let mut flat = random_weights(&config, 3);
    // Larger than usual, so that every token depends on those before it.
    flat.iter_mut().filter(|weight| **weight != 1.0).for_each(|weight| *weight *= 10.0);
    let transformer = Transformer::new(config, Device::new(Place::Cpu, "mortal", 1).expect("one thread"));
    let transformer = transformer.expect("a valid shape");
    let weights = Arc::new(Weights::from_host(&transformer, &flat).expect("the right length"));
    let limits = BatcherConfig {
        max_batch_tokens: 256,
        max_sequences: 8,
        kv_blocks: 256,
        block_size: 16,
        max_waiting: 16,
        step_time: None,
    };
    let end_ids = vec![tokenizer.eos_id().expect("the tokenizer has an end token")];
    let version = fate.version.load(Ordering::SeqCst);
    let model = Batcher::new(transformer, tokenizer, end_ids, limits, version, weights).expect("it fits");
    Mortal { model, fate }
}

struct Hospital {
    house: House,
    gateway: GatewayHandle,
    fate: Arc<Fate>,
}

impl Hospital {
    async fn new(replicas: usize, come_back: bool) -> Self {
        let house = House::new().await;
        let fate = Arc::new(Fate::default());
        let mut deps = house.deps();
        deps.engines.clear();
        for i in 0..replicas {
            let name = format!("policy.{i}");
            deps.engines.push(engine(&name, &house.tokenizer, &fate, come_back).await);
        }
        let listen = ([127, 0, 0, 1], 0).into();
        let config = GatewayConfig { listen, engine_wait_secs: 20, ..GatewayConfig::default() };
        let gateway = Gateway::start(config, deps).await.expect("the gateway starts");
        Self { house, gateway, fate }
    }

    /// The reply as its client has it, and as it was recorded.
    async fn reply(&self, body: &Value) -> (Reply, Arc<Turn>) {
        let url = format!("http://{}/v1/chat/completions", self.gateway.addr);
        let response = self.house.client.post(url).json(body).send().await.expect("an answer");
        let reply = if body["stream"] == true {
            let mut reply = Reply::default();
            for data in Events::of(response).rest().await.iter().filter(|data| *data != "[DONE]") {
                let chunk: Value = serde_json::from_str(data).expect("JSON");
                let choice = &chunk["choices"][0];
                reply.content.push_str(choice["delta"]["content"].as_str().unwrap_or_default());
                let entries = choice["logprobs"]["content"].as_array();
                reply.logprobs += entries.map_or(0, Vec::len);
                reply.finish_reason = choice["finish_reason"].as_str().map(str::to_owned);
            }
            reply
        } else {
            let whole: Value = response.json().await.expect("JSON");
            let choice = &whole["choices"][0];
            Reply {
                content: choice["message"]["content"].as_str().expect("content").to_owned(),
                logprobs: choice["logprobs"]["content"].as_array().expect("log-probs").len(),
                finish_reason: choice["finish_reason"].as_str().map(str::to_owned),
            }
        };
        (reply, self.house.turns().pop().expect("the turn was recorded"))
    }
}

#[derive(Debug, Default, PartialEq)]
struct Reply {
    content: String,
    logprobs: usize,
    finish_reason: Option<String>,
}

fn question() -> Value {
    let body = with(with(ask("hi"), "logprobs", json!(true)), "max_tokens", json!(60));
    with(body, "temperature", json!(0))
}

#[tokio::test]
async fn a_reply_goes_on_when_its_engine_panics_and_is_the_one_of_an_undisturbed_run() {
    let hospital = Hospital::new(1, true).await;
    let (plain, _) = hospital.reply(&question()).await;
    let letters: Vec<char> = plain.content.chars().collect();
    let middle: String = letters[letters.len() / 2..letters.len() / 2 + 3].iter().collect();
    let drawn = with(with(question(), "temperature", json!(1.0)), "seed", json!(5));
    for body in [question(), drawn, with(question(), "stop", json!([middle]))] {
        let (whole, undisturbed) = hospital.reply(&body).await;
        for stream in [true, false] {
            let before = hospital.fate.incarnations.load(Ordering::SeqCst);
            let steps = whole.logprobs / 3;
            hospital.fate.panic_after(&[steps, 2 * steps]);
            let (reply, turn) = hospital.reply(&with(body.clone(), "stream", json!(stream))).await;
            assert_eq!(hospital.fate.incarnations.load(Ordering::SeqCst), before + 2, "two panics");
            assert_eq!(reply, whole);
            assert!(turn.trainable);
            assert_eq!(turn.completion.response_ids, undisturbed.completion.response_ids);
            assert_eq!(turn.completion.text, undisturbed.completion.text);
            let logprobs = turn.completion.rollout_logprobs.iter();
            for (found, expected) in logprobs.zip(&undisturbed.completion.rollout_logprobs) {
                assert!((found - expected).abs() < 1e-4, "{found} {expected}");
            }
        }
    }
}

#[tokio::test]
async fn a_reply_that_two_versions_drew_is_whole_and_not_trained_on() {
    let hospital = Hospital::new(1, true).await;
    let (whole, _) = hospital.reply(&question()).await;
    hospital.fate.version.store(1, Ordering::SeqCst);
    hospital.fate.panic_after(&[whole.logprobs / 2]);
    let (reply, turn) = hospital.reply(&with(question(), "stream", json!(true))).await;
    assert_eq!(reply, whole, "both versions have the same weights here");
    assert_eq!((turn.trainable, turn.completion.policy_version), (false, 1));
    let (_, next) = hospital.reply(&question()).await;
    assert!(next.trainable, "one version drew this one");
}

#[tokio::test]
async fn another_replica_takes_a_reply_over_when_its_engine_stays_away() {
    let hospital = Hospital::new(2, false).await;
    let (whole, _) = hospital.reply(&question()).await;
    hospital.fate.panic_after(&[whole.logprobs / 2]);
    let (reply, turn) = hospital.reply(&with(question(), "stream", json!(true))).await;
    assert_eq!((reply, turn.trainable), (whole, true));
}

#[tokio::test]
async fn a_reply_that_ends_every_engine_is_given_up() {
    let hospital = Hospital::new(1, true).await;
    // It gets somewhere and then no further.
    hospital.fate.panic_after(&[3, 3, 3, 3, 3, 3]);
    let url = format!("http://{}/v1/chat/completions", hospital.gateway.addr);
    let body = with(question(), "stream", json!(true));
    let response = hospital.house.client.post(url).json(&body).send().await.expect("it begins");
    let events = Events::of(response).rest().await;
    assert!(events.last().is_some_and(|last| last.contains("its time had come")), "{events:?}");
    assert_eq!(hospital.house.turns().len(), 0);
    assert_eq!(hospital.fate.panics_after.lock().expect("not poisoned").len(), 3);
    assert!(hospital.gateway.stop(Duration::from_secs(20)).await);
}
