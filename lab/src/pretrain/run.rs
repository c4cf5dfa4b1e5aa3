//! `openclaw-rl pretrain`: trains the embedded model from nothing, on text that the generator writes.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use openclaw_environments::dice::Dice;
use openclaw_kernels::Cpu;
use openclaw_model::{
    AdamWConfig, ChatTemplate, ModelConfig, NANO_TEMPLATE, ParameterLayout, Tokenizer, TrainSequence,
    Trainer, Transformer, WeightDtype,
    checkpoint::{self, Speech},
    random_weights, train_bpe,
};
use serde::Deserialize;
use serde_json::{Map, json};
use tracing::info;

use super::{Document, DocumentGenerator, DocumentKind, drills, induction, slips::Slips};
use crate::{
    muon::Muon,
    schedule::Schedule,
    supervised::{self, Conversation, Progress},
};

/// The file that `openclaw-rl pretrain` reads.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PretrainConfig {
    /// Folder to write the checkpoint to.
    pub output: PathBuf,
    /// Seeds weights and text.
    pub seed: u64,
    /// A checkpoint folder to go on from, with its vocabulary and shape. Default: none, from nothing.
    #[serde(default)]
    pub start_from: Option<PathBuf>,
    /// CPU threads.
    pub threads: usize,
    /// Weight of each token that is read, beside 1 of those that are answered.
    #[serde(default)]
    pub context_weight: f32,
    /// The model is written each time that so many tokens more are read, too. Default: at the end alone.
    #[serde(default)]
    pub save_every_tokens: Option<u64>,
    /// Tokens at the beginning of which some documents only say again what they are told.
    #[serde(default)]
    pub copying_tokens: u64,
    /// Before this share of the tokens of an answer, words are put that do not belong there. Default: none.
    #[serde(default)]
    pub slips: f64,
    /// Kinds of documents of which there are so many times as many. Default: none.
    #[serde(default)]
    pub mix: BTreeMap<DocumentKind, f64>,
    /// Element type of the saved weights.
    pub dtype: WeightDtype,
    /// The vocabulary.
    pub tokenizer: TokenizerConfig,
    /// The model's shape.
    pub model: ShapeConfig,
    /// The optimizer.
    pub optimizer: OptimizerConfig,
    /// How long and how fast.
    pub schedule: Schedule,
}

/// How the vocabulary is made.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizerConfig {
    /// Number of tokens.
    pub vocab_size: usize,
    /// Documents it is trained on.
    pub documents: usize,
}

/// Shape of the model.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShapeConfig {
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the gated activation.
    pub intermediate_size: usize,
    /// Decoder layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Base of the rotary embedding.
    pub rope_theta: f64,
    /// Longest context.
    pub max_positions: usize,
}

/// The optimizer; the learning rate is the schedule's.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerConfig {
    /// Decay rates of the moments.
    pub betas: (f32, f32),
    /// Hidden matrices take Muon, with this share of the learning rate; without it all take AdamW.
    #[serde(default)]
    pub muon: Option<f32>,
    /// Decoupled weight decay.
    pub weight_decay: f32,
    /// Largest gradient norm.
    pub grad_clip: f32,
    /// Most tokens run through the model at once.
    pub micro_batch_tokens: usize,
}

impl PretrainConfig {
    /// Reads a file; unknown keys are errors.
    pub fn from_file(path: &Path) -> anyhow::Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("{} is not a pretraining file", path.display()))
    }
}

/// Tokens that are never split; the first ends a document, the third a message.
const SPECIAL_TOKENS: [&str; 9] = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "</tool_response>",
    "<think>",
    "</think>",
];

/// Share of the documents that say things again, where a run begins with them.
const COPYING: f64 = 0.3;

impl From<Document> for Conversation {
    fn from(document: Document) -> Self {
        let weight = document.kind.weight();
        Self { messages: document.messages, tools: document.tools, trained: document.trained, weight }
    }
}

/// Trains and writes the checkpoint; over one that is there only with `force`.
pub fn run(config: &PretrainConfig, force: bool, bar: bool) -> anyhow::Result<Progress> {
    checkpoint::may_write(&config.output, force)
        .with_context(|| format!("output: cannot write {}", config.output.display()))?;
    if !(0.0..=0.5).contains(&config.slips) {
        bail!("slips: {} is not between 0 and 0.5", config.slips);
    }
    if let Some((kind, times)) = config.mix.iter().find(|(_, times)| !(0.0..=100.0).contains(*times)) {
        bail!("mix: {kind:?}: {times} is not between 0 and 100");
    }
    let template = ChatTemplate::from_source(NANO_TEMPLATE)?;
    let tokenizer = match &config.start_from {
        Some(folder) => Tokenizer::from_dir(folder)?,
        None => make_tokenizer(config, &template)?,
    };
    let shape = &config.model;
    let model = ModelConfig {
        family: Default::default(),
        vocab_size: tokenizer.vocab_size(),
        hidden_size: shape.hidden_size,
        intermediate_size: shape.intermediate_size,
        layers: shape.layers,
        heads: shape.heads,
        kv_heads: shape.kv_heads,
        head_dim: shape.head_dim,
        rms_norm_eps: 1e-6,
        rope_theta: shape.rope_theta,
        rope_scaling: None,
        max_positions: shape.max_positions,
        tied: true,
    };
    let flat = match &config.start_from {
        Some(folder) => {
            let (found, flat) = checkpoint::load(folder)?;
            if found != model {
                bail!("start_from: {} has another shape than [model]", folder.display());
            }
            flat
        }
        None => {
            let mut flat = random_weights(&model, config.seed);
            if model.layers < 2 || model.hidden_size < 3 * model.head_dim {
                bail!("[model]: the heads that copy take 2 layers, and a hidden_size of 3 times head_dim");
            }
            induction::put(&model, &mut flat);
            flat
        }
    };
    info!(parameters = ParameterLayout::new(&model).len(), vocab = model.vocab_size, "model made");
    let transformer = Transformer::new(model.clone(), Cpu::new("pretrain", config.threads)?)?;
    let optimizer = AdamWConfig {
        learning_rate: config.schedule.learning_rate,
        betas: config.optimizer.betas,
        eps: 1e-8,
        weight_decay: config.optimizer.weight_decay,
        grad_clip: config.optimizer.grad_clip,
    };
    let mut trainer = Trainer::new(transformer, &flat, optimizer)?;
    trainer.micro_batch_tokens = config.optimizer.micro_batch_tokens;

    let longest = config.schedule.max_conversation_tokens;
    let PretrainConfig { context_weight, copying_tokens, .. } = *config;
    let mut read = 0;
    // The vocabulary's documents have the seed itself; the text of the run goes on with others.
    let mut dice = Dice::new(config.seed + 2);
    let mut documents =
        DocumentGenerator::new(config.seed + 1).with_more(&config.mix).map(Conversation::from);
    let mut slips = Slips::new(&tokenizer, config.slips, config.seed + 3);
    let mut source = std::iter::from_fn(|| {
        loop {
            let copies = read < copying_tokens && dice.chance(COPYING);
            let document = if copies { drills::copied(&mut dice).into() } else { documents.next()? };
            match supervised::encode(&tokenizer, &template, &document, context_weight) {
                Ok(sequence) if sequence.ids.len() > longest => {}
                Ok(sequence) => {
                    // What is called has to be exact.
                    let sequence =
                        if document.tools.is_empty() { slips.put_into(sequence) } else { sequence };
                    read += sequence.ids.len() as u64;
                    return Some(Ok(sequence));
                }
                Err(error) => return Some(Err(anyhow::Error::from(error))),
            }
        }
    });
    let view = progress_bar(config.schedule.tokens, bar);
    let OptimizerConfig { betas, weight_decay, grad_clip, muon, .. } = config.optimizer;
    let mut muon = match muon {
        Some(ratio) => {
            let cpus: Result<_, _> = (0..config.threads).map(|n| Cpu::new(&format!("muon-{n}"), 1)).collect();
            Some(Muon::new(&ParameterLayout::new(&model), cpus?, ratio, weight_decay, betas))
        }
        None => None,
    };
    let save = |trainer: &Trainer<Cpu>| {
        let flat = trainer.weights()?.to_host(trainer.transformer())?;
        write(config, &model, &flat, &tokenizer, &template)
    };
    let (every, mut taken) = (config.save_every_tokens.unwrap_or(u64::MAX), 0);
    let take = |trainer: &mut Trainer<Cpu>, batch: &[TrainSequence], learning_rate| -> anyhow::Result<_> {
        let report = match &mut muon {
            Some(muon) => muon.step(trainer, batch, learning_rate, grad_clip)?,
            None => supervised::adamw(trainer, batch, learning_rate)?,
        };
        let before = taken;
        taken += batch.iter().map(|sequence| sequence.ids.len() as u64).sum::<u64>();
        if taken / every != before / every && taken < config.schedule.tokens {
            save(trainer)?;
        }
        Ok(report)
    };
    let progress = supervised::run_with(&mut trainer, &mut source, &config.schedule, take, |p| {
        view.set_position(p.tokens);
        view.set_message(format!("step {} loss {:.3} {:.0} tok/s", p.step, p.loss, p.tokens_per_sec));
        if p.step.is_multiple_of(50) && !bar {
            info!(
                step = p.step,
                tokens = p.tokens,
                loss = p.loss,
                grad_norm = p.grad_norm,
                learning_rate = p.learning_rate,
                tokens_per_sec = p.tokens_per_sec,
                "pretraining"
            );
        }
    })?;
    view.finish_and_clear();
    progress.check()?;
    save(&trainer)?;
    Ok(progress)
}

fn make_tokenizer(config: &PretrainConfig, template: &ChatTemplate) -> anyhow::Result<Tokenizer> {
    let kwargs = Map::new();
    let mut texts = Vec::new();
    for document in DocumentGenerator::new(config.seed).take(config.tokenizer.documents) {
        texts.push(template.render(&document.messages, &document.tools, &kwargs, false)?);
    }
    Ok(train_bpe(texts.into_iter(), config.tokenizer.vocab_size, &SPECIAL_TOKENS)?)
}

fn write(
    config: &PretrainConfig,
    model: &ModelConfig,
    flat: &[f32],
    tokenizer: &Tokenizer,
    template: &ChatTemplate,
) -> anyhow::Result<()> {
    let end = tokenizer.special_id("<|im_end|>").context("the tokenizer has no <|im_end|>")?;
    let pad = tokenizer.special_id("<|endoftext|>").context("the tokenizer has no <|endoftext|>")?;
    let generation = json!({ "eos_token_id": [end, pad], "pad_token_id": pad, "temperature": 0.8 });
    let speech = Speech { tokenizer, template, generation: &generation };
    checkpoint::save_new(&config.output, model, flat, config.dtype, &[end, pad], speech)?;
    Ok(())
}

fn progress_bar(tokens: u64, visible: bool) -> ProgressBar {
    if !visible {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {percent}% {msg} eta {eta}")
        .expect("the template is fixed and valid");
    ProgressBar::new(tokens).with_style(style)
}
