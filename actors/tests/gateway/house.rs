//! A gateway with all that it needs, and a policy that follows a script.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::{FutureExt, StreamExt};
use openclaw_actors::{
    connections::ConnectionLimits,
    engine::{Device, Engine, EngineLimits, EngineText, Exited, Place, PolicyWeights, ServingModel},
    gateway::{Episodes, Gateway, GatewayConfig, GatewayDeps, GatewayHandle, Recall, Recalled, Recorder},
    sessions::{Sessions, SessionsAddress, SessionsArguments, SessionsConfig},
};
use openclaw_journal::{Evaluate, Health, Journal, Record, Turn, TurnMark};
use openclaw_model::{
    ChatTemplate, FinishReason, GenerateEvent, GenerateRequest, ModelConfig, NANO_TEMPLATE, ScoreRequest,
    Scored, TokenLogprob, Tokenizer, Transformer, Weights, random_weights, train_bpe,
};
use ractor::Actor;
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};
use tokio::sync::watch;

pub const CONTEXT_LENGTH: usize = 600;
const SPECIAL: [&str; 8] = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
];

/// What the policy does with a request.
#[derive(Clone, Debug)]
pub enum Line {
    /// Says this.
    Say(&'static str),
    /// Says this and then waits until its client leaves.
    Hold(&'static str),
    /// Says this and breaks.
    Break(&'static str),
    /// Says this, and then that the request cannot be served any further.
    Refuse(&'static str),
}

/// What the policy was asked and will answer.
#[derive(Default)]
pub struct Script {
    lines: Mutex<VecDeque<Line>>,
    pub asked: Mutex<Vec<GenerateRequest>>,
    pub cancelled: AtomicUsize,
    released: std::sync::atomic::AtomicBool,
    stuck: std::sync::atomic::AtomicBool,
}

impl Script {
    pub fn then(&self, line: Line) {
        self.lines.lock().expect("no test panics with it").push_back(line);
    }

    pub fn last_asked(&self) -> GenerateRequest {
        self.asked.lock().expect("no test panics with it").last().expect("the policy was asked").clone()
    }

    /// The policy's thread does not come back from its next step, or goes on.
    pub fn stick(&self, stuck: bool) {
        self.stuck.store(stuck, Ordering::SeqCst);
    }

    /// Lets held replies end.
    pub fn release(&self) {
        self.released.store(true, Ordering::SeqCst);
    }
}

struct Policy {
    script: Arc<Script>,
    tokenizer: Tokenizer,
    version: u64,
    next: u64,
    running: HashMap<u64, Running>,
}

struct Running {
    ids: VecDeque<u32>,
    line: Line,
    drawn: usize,
    max_new_tokens: usize,
    top_logprobs: usize,
    version: u64,
}

impl ServingModel for Policy {
    fn submit(&mut self, request: GenerateRequest) -> Result<u64, String> {
        let line = self.script.lines.lock().expect("no test panics with it").pop_front();
        let line = line.unwrap_or(Line::Say("fine"));
        let (Line::Say(text) | Line::Hold(text) | Line::Break(text) | Line::Refuse(text)) = &line;
        let mut ids: VecDeque<u32> = self.tokenizer.encode(text).map_err(|e| e.to_string())?.into();
        if let Line::Say(_) = line {
            ids.push_back(self.tokenizer.eos_id().expect("the tokenizer has an end token"));
        }
        let (max_new_tokens, top_logprobs) = (request.max_new_tokens, request.top_logprobs);
        self.script.asked.lock().expect("no test panics with it").push(request);
        self.next += 1;
        let version = self.version;
        self.running
            .insert(self.next, Running { ids, line, drawn: 0, max_new_tokens, top_logprobs, version });
        Ok(self.next)
    }

    fn cancel(&mut self, sequence: u64) {
        if self.running.remove(&sequence).is_some() {
            self.script.cancelled.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn step(&mut self) -> Result<Vec<(u64, GenerateEvent)>, String> {
        while self.script.stuck.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
        let mut events = Vec::new();
        let mut ended = Vec::new();
        for (&sequence, running) in &mut self.running {
            let limit = running.drawn == running.max_new_tokens;
            let finished = |reason| GenerateEvent::Finished {
                reason,
                text: String::new(),
                policy_version: running.version,
                cached_tokens: 3,
            };
            let event = match running.ids.pop_front() {
                Some(id) if !limit => {
                    running.drawn += 1;
                    let top = (0..running.top_logprobs as u32).map(|i| (i, -1.0 - i as f32)).collect();
                    let logprob = -0.25 * running.drawn as f32;
                    let policy_logprob = logprob - 0.5;
                    let token = TokenLogprob { id, logprob, policy_logprob, raw_logprob: logprob - 1.0, top };
                    let is_end = Some(id) == self.tokenizer.eos_id();
                    let text = if is_end { String::new() } else { self.tokenizer.token_text(id) };
                    GenerateEvent::Token { token, text, policy_version: running.version }
                }
                Some(_) => finished(FinishReason::Length),
                None => match running.line {
                    Line::Say(_) => finished(FinishReason::Stop),
                    Line::Break(_) | Line::Refuse(_) => GenerateEvent::Failed {
                        error: "scripted".to_owned(),
                        by_request: matches!(running.line, Line::Refuse(_)),
                    },
                    Line::Hold(_) if self.script.released.load(Ordering::SeqCst) => {
                        finished(FinishReason::Stop)
                    }
                    Line::Hold(_) => continue,
                },
            };
            if !matches!(event, GenerateEvent::Token { .. }) {
                ended.push(sequence);
            }
            events.push((sequence, event));
        }
        for sequence in ended {
            self.running.remove(&sequence);
        }
        if events.is_empty() {
            // Everyone is held: leave the core to the others.
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(events)
    }

    fn is_idle(&self) -> bool {
        self.running.is_empty()
    }

    fn load(&mut self, version: u64, _: PolicyWeights) -> Result<(), String> {
        self.version = version;
        Ok(())
    }

    fn submit_score(&mut self, _: ScoreRequest) -> Result<u64, String> {
        Err("this policy only speaks".to_owned())
    }
    fn step_scores(&mut self) -> Result<Vec<(u64, Scored)>, String> {
        unreachable!("no score was taken")
    }
    fn is_scoring(&self) -> bool {
        false
    }
    fn version(&self) -> u64 {
        self.version
    }
}

/// A running gateway.
pub struct House {
    pub gateway: GatewayHandle,
    pub engine: Engine,
    pub script: Arc<Script>,
    pub tokenizer: Tokenizer,
    pub recorded: Arc<Mutex<Vec<Arc<Turn>>>>,
    pub journal: Journal,
    evaluated: u64,
    pub client: reqwest::Client,
    template: ChatTemplate,
    sessions: SessionsAddress,
    record: Recorder,
    pub health: watch::Sender<Health>,
    exited: Exited,
}

impl House {
    pub async fn new() -> Self {
        Self::with(GatewayConfig::default(), None).await
    }

    /// `recorder` is called after the house has taken its own note.
    pub async fn with(config: GatewayConfig, recorder: Option<Recorder>) -> Self {
        let config = GatewayConfig { listen: ([127, 0, 0, 1], 0).into(), ..config };
        let tokenizer =
            train_bpe(std::iter::empty(), 256 + SPECIAL.len(), &SPECIAL).expect("bytes and marks");
        let script = Arc::new(Script::default());
        let template = ChatTemplate::from_source(NANO_TEMPLATE).expect("the embedded template");
        let text = EngineText { tokenizer: tokenizer.clone(), template, context_tokens: CONTEXT_LENGTH };
        let engine = Engine::new("policy.0", EngineLimits::default(), text);
        let exited = start_policy(&engine, &script, &tokenizer).await;

        let journal = Journal::in_memory();
        let sessions = SessionsAddress::default();
        let arguments = SessionsArguments {
            config: SessionsConfig::default(),
            journal: journal.clone(),
            address: sessions.clone(),
        };
        Actor::spawn(None, Sessions, arguments).await.expect("sessions starts");

        let recorded: Arc<Mutex<Vec<Arc<Turn>>>> = Arc::default();
        let notes = recorded.clone();
        let kept = journal.clone();
        let record: Recorder = Arc::new(move |turn: Arc<Turn>, mark: TurnMark| {
            notes.lock().expect("no test panics with it").push(turn.clone());
            let recorded = match &recorder {
                Some(recorder) => recorder(turn.clone(), mark.clone()),
                None => async { Ok(()) }.boxed(),
            };
            let kept = kept.clone();
            async move {
                recorded.await?;
                let completed = Record::TurnCompleted { turn, mark };
                kept.record(completed).await.map(drop).map_err(|error| error.to_string())
            }
            .boxed()
        });
        let template = ChatTemplate::from_source(NANO_TEMPLATE).expect("the template compiles");
        let health = watch::Sender::default();
        let deps = deps_of(&engine, &tokenizer, &template, &sessions, &record, &health, &journal);
        let gateway = Gateway::start(config, deps).await.expect("the gateway starts");
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        Self {
            gateway,
            engine,
            script,
            tokenizer,
            recorded,
            journal,
            evaluated: 0,
            client,
            template,
            sessions,
            record,
            health,
            exited,
        }
    }

    /// For one more gateway in the same house.
    pub fn deps(&self) -> GatewayDeps {
        let Self { engine, tokenizer, template, sessions, record, health, journal, .. } = self;
        deps_of(engine, tokenizer, template, sessions, record, health, journal)
    }

    /// Replaces the policy's thread, as a supervisor would.
    pub async fn restart_policy(self) -> Self {
        self.engine.stop();
        self.exited.await.expect("a stop is no failure");
        let exited = start_policy(&self.engine, &self.script, &self.tokenizer).await;
        Self { exited, ..self }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.gateway.addr)
    }

    pub async fn post(&self, path: &str, body: &Value) -> Response {
        self.client.post(self.url(path)).json(body).send().await.expect("the gateway answers")
    }

    pub async fn chat(&self, body: &Value) -> Value {
        let response = self.post("/v1/chat/completions", body).await;
        let status = response.status();
        let body: Value = response.json().await.expect("JSON");
        assert_eq!(status, StatusCode::OK, "{body}");
        body
    }

    pub async fn stream(&self, body: &Value) -> Events {
        let response = self.post("/v1/chat/completions", body).await;
        assert_eq!(response.status(), StatusCode::OK);
        Events::of(response)
    }

    /// The next turn whose next state has arrived.
    pub async fn evaluation(&mut self) -> Evaluate {
        let mut changes = self.journal.backlog();
        loop {
            changes.mark_unchanged();
            if let Some((seq, evaluate)) =
                self.journal.evaluations(self.evaluated, 1).await.expect("read").pop()
            {
                self.evaluated = seq;
                return evaluate;
            }
            changes.changed().await.expect("the journal lives");
        }
    }

    pub fn turns(&self) -> Vec<Arc<Turn>> {
        self.recorded.lock().expect("no test panics with it").clone()
    }
}

fn deps_of(
    engine: &Engine,
    tokenizer: &Tokenizer,
    template: &ChatTemplate,
    sessions: &SessionsAddress,
    record: &Recorder,
    health: &watch::Sender<Health>,
    journal: &Journal,
) -> GatewayDeps {
    let (journal, episodes) = (journal.clone(), journal.clone());
    let recall: Recall = Arc::new(move |what| {
        let journal = journal.clone();
        async move {
            let found = match what {
                Recalled::Turn(turn) => journal.turn(&turn).await,
                Recalled::LastOf(session) => journal.last_turn_of(&session).await,
            };
            Ok(found.map_err(|error| error.to_string())?.map(|row| (row.turn, row.completed)))
        }
        .boxed()
    });
    GatewayDeps {
        engines: vec![engine.clone()],
        context_length: CONTEXT_LENGTH,
        tokenizer: tokenizer.clone(),
        template: template.clone(),
        sessions: sessions.clone(),
        recorder: Some(record.clone()),
        recall: Some(recall),
        episodes: Some(Episodes { journal: episodes, judged: true }),
        journal: health.subscribe(),
        connections: ConnectionLimits::new(1024),
        socket: None,
    }
}

async fn start_policy(engine: &Engine, script: &Arc<Script>, tokenizer: &Tokenizer) -> Exited {
    let (script, tokenizer) = (script.clone(), tokenizer.clone());
    let build = move || -> Result<Box<dyn ServingModel>, String> {
        Ok(Box::new(Policy { script, tokenizer, version: 7, next: 0, running: HashMap::new() }))
    };
    engine.start(build).await.expect("the policy starts")
}

/// Weights, for a policy that does not look at them.
pub fn any_weights() -> PolicyWeights {
    let shape = ModelConfig {
        family: Default::default(),
        vocab_size: 4,
        hidden_size: 2,
        intermediate_size: 2,
        layers: 1,
        heads: 1,
        kv_heads: 1,
        head_dim: 2,
        rms_norm_eps: 1e-6,
        rope_theta: 1e4,
        rope_scaling: None,
        max_positions: 2,
        tied: true,
    };
    let flat = random_weights(&shape, 1);
    let device = Device::new(Place::Cpu, "weights", 1).expect("one thread");
    let transformer = Transformer::new(shape, device).expect("a valid shape");
    Arc::new(Weights::from_host(&transformer, &flat).expect("the right length"))
}

/// A stream's `data:` lines as they arrive.
pub struct Events {
    bytes: futures::stream::BoxStream<'static, reqwest::Result<bytes::Bytes>>,
    pending: Vec<u8>,
    pub content_type: String,
    pub policy_version: String,
}

impl Events {
    pub fn of(response: Response) -> Self {
        let header = |name: &str| {
            response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
        };
        Self {
            content_type: header("content-type"),
            policy_version: header("x-policy-version"),
            pending: Vec::new(),
            bytes: response.bytes_stream().boxed(),
        }
    }

    /// The next event's data; `None` at the end of the stream.
    pub async fn next(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.pending.windows(2).position(|two| two == b"\n\n") {
                let event: Vec<u8> = self.pending.drain(..end + 2).take(end).collect();
                let event = String::from_utf8(event).expect("events are text");
                match event.strip_prefix("data: ") {
                    Some(data) => return Some(data.to_owned()),
                    None => continue,
                }
            }
            self.pending.extend_from_slice(&self.bytes.next().await?.ok()?);
        }
    }

    pub async fn next_json(&mut self) -> Value {
        let data = self.next().await.expect("the stream goes on");
        serde_json::from_str(&data).unwrap_or_else(|_| panic!("{data} is not JSON"))
    }

    pub async fn rest(mut self) -> Vec<String> {
        let mut all = Vec::new();
        while let Some(data) = self.next().await {
            all.push(data);
        }
        all
    }
}

pub fn user(text: &str) -> Value {
    json!({"role": "user", "content": text})
}

pub fn assistant(text: &str) -> Value {
    json!({"role": "assistant", "content": text})
}

pub fn ask(text: &str) -> Value {
    json!({"model": "policy", "messages": [user(text)]})
}

/// `body` with `field` set.
pub fn with(mut body: Value, field: &str, value: Value) -> Value {
    body[field] = value;
    body
}

pub fn exec_tool() -> Value {
    json!([{"type": "function", "function": {"name": "exec", "parameters": {"type": "object"}}}])
}
