//! A tiny model with random weights, for tests: everything about it is real but its knowledge.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use openclaw_journal::{Journal, Judged, Record, Recorded, TurnMark, *};
use openclaw_model::{
    AdamWConfig, Batcher, BatcherConfig, ChatTemplate, FinishReason, ModelConfig, NANO_TEMPLATE,
    ParserConfig, ReplySplit, Trainer, Transformer, VersionFolders, WeightDtype, Weights, random_weights,
    train_bpe,
};
use serde_json::{Value, json};

use crate::{
    breaker::BreakerConfig,
    engine::{Device, Engine, EngineLimits, EngineText, Exited, Place, PolicyWeights, ServingModel},
    optimizer::BuildTrainer,
    policy::BuildModel,
};

const SPECIAL: [&str; 4] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>"];
const CONTEXT_TOKENS: usize = 1024;

#[derive(Clone)]
pub(crate) struct Tiny {
    pub transformer: Transformer<Device>,
    pub flat: Arc<Vec<f32>>,
    pub weights: PolicyWeights,
}

impl Tiny {
    pub fn text() -> EngineText {
        EngineText {
            tokenizer: train_bpe(std::iter::empty(), 256 + SPECIAL.len(), &SPECIAL)
                .expect("a byte vocabulary"),
            template: ChatTemplate::from_source(NANO_TEMPLATE).expect("our own template"),
            context_tokens: CONTEXT_TOKENS,
        }
    }

    pub fn new(seed: u64) -> Self {
        let config = ModelConfig {
            family: Default::default(),
            vocab_size: 256 + SPECIAL.len(),
            hidden_size: 32,
            intermediate_size: 48,
            layers: 2,
            heads: 4,
            kv_heads: 2,
            head_dim: 8,
            rms_norm_eps: 1e-6,
            rope_theta: 10_000.0,
            rope_scaling: None,
            max_positions: CONTEXT_TOKENS,
            tied: true,
        };
        // Ten times the usual spread, so that prompts matter to the distribution.
        let mut flat = random_weights(&config, seed);
        flat.iter_mut().filter(|value| **value != 1.0).for_each(|value| *value *= 10.0);
        let device = Device::new(Place::Cpu, "tiny", 1).expect("one thread");
        let transformer = Transformer::new(config, device).expect("a valid shape");
        let weights = Arc::new(Weights::from_host(&transformer, &flat).expect("the right length"));
        Self { transformer, flat: Arc::new(flat), weights }
    }

    pub fn build_model(&self) -> BuildModel {
        let tiny = self.clone();
        Arc::new(move |version| {
            let text = Self::text();
            let end_ids = vec![text.tokenizer.special_id("<|im_end|>").expect("it is in the vocabulary")];
            let limits = BatcherConfig {
                max_batch_tokens: 512,
                max_sequences: 8,
                kv_blocks: 512,
                block_size: 16,
                max_waiting: 64,
                step_time: None,
            };
            let transformer = tiny.transformer.clone();
            Batcher::new(transformer, text.tokenizer, end_ids, limits, version.number, version.weights)
                .map(|batcher| Box::new(batcher) as Box<dyn ServingModel>)
                .map_err(|error| error.to_string())
        })
    }

    pub fn build_trainer(&self, learning_rate: f32) -> BuildTrainer {
        let tiny = self.clone();
        Arc::new(move || {
            let config = AdamWConfig { learning_rate, weight_decay: 0.0, ..AdamWConfig::default() };
            Trainer::new(tiny.transformer.clone(), &tiny.flat, config).map_err(|error| error.to_string())
        })
    }

    /// Where versions are kept under `dir`.
    pub fn folders(&self, dir: &Path) -> VersionFolders {
        let (text, template) = (Self::text(), dir.join("base"));
        std::fs::create_dir_all(&template).expect("a folder");
        text.tokenizer.save(&template).expect("a tokenizer");
        VersionFolders {
            dir: dir.join("versions"),
            config: self.transformer.config.clone(),
            dtype: WeightDtype::F32,
            template,
            end_ids: text.tokenizer.special_id("<|im_end|>").into_iter().collect(),
            adapter: None,
        }
    }

    pub async fn engine(&self, name: &str) -> (Engine, Exited) {
        let engine = Engine::new(name, EngineLimits::default(), Self::text());
        let (build, weights) = (self.build_model(), self.weights.clone());
        let version = crate::publisher::Version { number: 0, weights };
        let exited = engine.start(move || build(version)).await.expect("it starts");
        (engine, exited)
    }
}

/// A breaker that nothing trips but what is not finite: log-probs made up for a test are far from any model's.
pub(crate) fn open_breaker() -> BreakerConfig {
    let any = f64::INFINITY;
    BreakerConfig {
        max_grad_norm: any,
        max_kl: any,
        max_drift: any,
        max_entropy: any,
        max_degenerate: 1.0,
        max_canary_drop: any,
        canary_every_steps: 0,
        canary_prompts: Vec::new(),
    }
}

pub(crate) fn message(role: &str, content: &str) -> Value {
    json!({"role": role, "content": content})
}

static NEXT: AtomicUsize = AtomicUsize::new(1);

/// A turn that answers `messages` with the bytes of `answer`; its log-probs are made up.
pub(crate) fn turn(messages: Vec<Value>, answer: &str) -> Turn {
    let text = Tiny::text();
    let prompt_ids = text.prompt_ids(&messages, &[], &serde_json::Map::new()).expect("a prompt");
    let mut response_ids = text.tokenizer.encode(answer).expect("text");
    response_ids.extend(text.tokenizer.special_id("<|im_end|>"));
    Turn {
        id: TurnId(format!("turn-{}", NEXT.fetch_add(1, Ordering::Relaxed)).into()),
        session: SessionId("session".into()),
        index: 1,
        kind: TurnKind::Main,
        trainable: true,
        messages: Arc::new(messages),
        tools: Arc::default(),
        template_kwargs: Arc::default(),
        completion: Completion {
            prompt_ids,
            rollout_logprobs: vec![-1.0; response_ids.len()],
            policy_logprobs: None,
            response_ids,
            policy_version: 0,
            temperature: 0.8,
            finish_reason: FinishReason::Stop,
            text: answer.to_owned(),
            split: ReplySplit::of(answer, ParserConfig::new(&[], false)),
        },
    }
}

/// A user's message as a next state.
pub(crate) fn user_says(text: &str) -> NextState {
    NextState {
        kind: NextStateKind::User,
        text: text.to_owned(),
        rating: None,
        is_error: false,
        by_rule: None,
        screen: None,
    }
}

/// Records all that comes before a judge.
pub(crate) async fn record_followed(journal: &Journal, evaluate: &Evaluate) {
    let Evaluate { turn, next_state, .. } = evaluate.clone();
    let id = turn.id.clone();
    journal.submit(Record::TurnCompleted { turn, mark: TurnMark::default() }).await;
    let seen = journal.record(Record::NextStateSeen { turn: id, next_state, provisional: false }).await;
    assert_eq!(seen.expect("recorded"), Recorded::Done);
}

/// Records all that comes before a teacher.
pub(crate) async fn record_judged(journal: &Journal, judged: &Judged) {
    let Judged { turn, verdict, hints, .. } = judged.clone();
    let turn_id = turn.id.clone();
    record_followed(journal, &Evaluate { turn, next_state: user_says("?"), undone: 0 }).await;
    let teach = !hints.is_empty();
    let record = Record::Judged {
        turn: turn_id,
        undone: 0,
        verdict,
        answers: Vec::new(),
        hints,
        hint_answers: Vec::new(),
        teach,
        wish: None,
    };
    assert_eq!(journal.record(record).await.expect("recorded"), Recorded::Done);
}

/// Records all that comes before the optimizer.
pub(crate) async fn record_ready(journal: &Journal, sample: &Sample) {
    let Sample { turn, verdict, teacher, .. } = sample.clone();
    let turn_id = turn.id.clone();
    let hints: Vec<String> = teacher.iter().map(|signal| signal.hint.clone()).collect();
    record_judged(journal, &Judged { turn, verdict, hints, undone: 0 }).await;
    if teacher.is_some() {
        let taught = Record::Taught { turn: turn_id, undone: 0, signal: teacher };
        assert_eq!(journal.record(taught).await.expect("recorded"), Recorded::Done);
    }
}
