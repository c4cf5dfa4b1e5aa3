//! Supervised training on conversations: what `pretrain` and `sft` share.

use std::time::Instant;

use openclaw_kernels::{Backend, KernelError};
use openclaw_model::{
    ChatTemplate, Objective, PromptScript, StepReport, TextError, Tokenizer, TrainRow, TrainSequence, Trainer,
};
use serde_json::{Map, Value};

use crate::schedule::Schedule;

/// A conversation and which of its messages are trained.
#[derive(Clone, Debug)]
pub struct Conversation {
    /// Messages as the chat template takes them.
    pub messages: Vec<Value>,
    /// Tool definitions.
    pub tools: Vec<Value>,
    /// Indexes of the assistant messages whose tokens count in the loss.
    pub trained: Vec<usize>,
    /// Weight of each of those tokens in the loss, beside those of other conversations; 1 is usual.
    pub weight: f32,
}

/// Why a conversation cannot be turned into tokens.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// Rendering or tokenising failed.
    #[error(transparent)]
    Text(#[from] TextError),
    /// The template renders a message differently once others follow, so its tokens cannot be told apart.
    #[error("messages[{index}] is rendered differently once later messages follow; train it as the last one")]
    NotAPrefix {
        /// The message.
        index: usize,
    },
}

/// Tokens of a conversation; the rows are the trained messages' tokens, their end token included.
///
/// Each piece is tokenised by itself, as in use, where the prompt is given and the response is drawn. With a `context_weight`
/// above 0 all tokens before them are predicted, too, with this weight.
pub fn encode(
    tokenizer: &Tokenizer,
    template: &ChatTemplate,
    conversation: &Conversation,
    context_weight: f32,
) -> Result<TrainSequence, EncodeError> {
    let kwargs = Map::new();
    let script =
        PromptScript::new(tokenizer, template, &conversation.messages, &conversation.tools, &kwargs)?;
    let full = script.render(conversation.messages.len(), false)?;
    let mut ids = Vec::new();
    let mut rows = Vec::new();
    let mut at = 0;
    for &index in &conversation.trained {
        let start = script.render(index, true)?;
        let mut end = script.render(index + 1, false)?;
        end.truncate(end.trim_end_matches('\n').len());
        if start.len() < at || !full.starts_with(&end) || !end.starts_with(&start) {
            return Err(EncodeError::NotAPrefix { index });
        }
        for (piece, weight) in
            [(&full[at..start.len()], context_weight), (&full[start.len()..end.len()], conversation.weight)]
        {
            let piece = script.encode(piece)?;
            let predicted = ids.len().max(1)..ids.len() + piece.len();
            let row = |position| TrainRow { position, weight, ..TrainRow::default() };
            rows.extend(predicted.map(row).filter(|row| row.weight > 0.0));
            ids.extend(piece);
        }
        at = end.len();
    }
    // Nothing after the last trained token has an influence on the loss.
    Ok(TrainSequence { ids, rows, temperature: 1.0 })
}

/// State of a run, once per step.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// Optimizer steps taken.
    pub step: u64,
    /// Tokens run through the model.
    pub tokens: u64,
    /// Tokens that counted in the loss.
    pub trained_tokens: u64,
    /// Loss per trained token, smoothed over about 20 steps, nats.
    pub loss: f64,
    /// Norm of the last gradient.
    pub grad_norm: f64,
    /// Learning rate of the last step.
    pub learning_rate: f32,
    /// Tokens per second since the start.
    pub tokens_per_sec: f64,
    /// Steps left out because a loss or gradient was not finite.
    pub skipped_steps: u64,
}

impl Progress {
    /// Refuses the end of a run that came apart: nothing of it is to be written.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let Self { step, tokens, .. } = self;
        let choose = "choose a lower learning rate";
        anyhow::ensure!(
            self.loss.is_finite(),
            "the loss is not finite after {step} steps, {tokens} tokens: {choose}"
        );
        Ok(())
    }
}

/// Trains until the schedule's tokens are used or `source` ends.
pub fn run<B: Backend, E: From<KernelError>>(
    trainer: &mut Trainer<B>,
    source: &mut dyn Iterator<Item = Result<TrainSequence, E>>,
    schedule: &Schedule,
    report: impl FnMut(Progress),
) -> Result<Progress, E> {
    let take = |trainer: &mut Trainer<B>, batch: &[TrainSequence], rate| Ok(adamw(trainer, batch, rate)?);
    run_with(trainer, source, schedule, take, report)
}

/// A step of the trainer's own optimizer with this learning rate.
pub fn adamw<B: Backend>(
    trainer: &mut Trainer<B>,
    batch: &[TrainSequence],
    learning_rate: f32,
) -> Result<StepReport, KernelError> {
    trainer.config_mut().learning_rate = learning_rate;
    trainer.step(batch, &Objective::CrossEntropy)
}

/// The same by steps of another optimizer, which is given the batch and the learning rate.
pub fn run_with<B: Backend, E: From<KernelError>>(
    trainer: &mut Trainer<B>,
    source: &mut dyn Iterator<Item = Result<TrainSequence, E>>,
    schedule: &Schedule,
    mut take: impl FnMut(&mut Trainer<B>, &[TrainSequence], f32) -> Result<StepReport, E>,
    mut report: impl FnMut(Progress),
) -> Result<Progress, E> {
    let started = Instant::now();
    let mut progress = Progress::default();
    while progress.tokens < schedule.tokens {
        let mut batch = Vec::new();
        let mut tokens = 0;
        while tokens < schedule.batch_tokens {
            let Some(sequence) = source.next() else { break };
            let sequence = sequence?;
            tokens += sequence.ids.len();
            batch.push(sequence);
        }
        if batch.is_empty() {
            break;
        }
        let rows: usize = batch.iter().map(|s| s.rows.len()).sum();
        let all: f32 = batch.iter().flat_map(|s| &s.rows).map(|row| row.weight).sum();
        for row in batch.iter_mut().flat_map(|s| &mut s.rows) {
            row.weight /= all.max(f32::MIN_POSITIVE);
        }
        progress.learning_rate = schedule.learning_rate(progress.tokens, progress.step);
        let step = take(trainer, &batch, progress.learning_rate)?;
        progress.step += 1;
        progress.skipped_steps += u64::from(step.skipped);
        progress.tokens += tokens as u64;
        progress.trained_tokens += rows as u64;
        progress.grad_norm = step.grad_norm;
        let share = if progress.step == 1 { 1.0 } else { 0.05 };
        progress.loss += share * (step.loss - progress.loss);
        progress.tokens_per_sec = progress.tokens as f64 / started.elapsed().as_secs_f64();
        report(progress);
    }
    Ok(progress)
}

#[cfg(test)]
mod tests {
    use openclaw_model::{NANO_TEMPLATE, train_bpe};
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_read_counts_with_the_weight_that_it_is_given() {
        let template = ChatTemplate::from_source(NANO_TEMPLATE).expect("a template");
        let special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];
        let tokenizer = train_bpe(["ask say".to_owned()].into_iter(), 259, &special).expect("a vocabulary");
        let message = |role: &str, text: &str| json!({"role": role, "content": text});
        let conversation = Conversation {
            messages: vec![
                message("user", "ask"),
                message("assistant", "say"),
                message("user", "ask"),
                message("assistant", "say"),
            ],
            tools: Vec::new(),
            trained: vec![1, 3],
            weight: 4.0,
        };
        let of = |weight| encode(&tokenizer, &template, &conversation, weight).expect("it is encoded");
        let (answers, all) = (of(0.0), of(0.25));
        assert_eq!(answers.ids, all.ids);
        assert!(answers.rows.iter().all(|row| row.weight == 4.0));
        let positions: Vec<usize> = all.rows.iter().map(|row| row.position).collect();
        assert_eq!(positions, (1..all.ids.len()).collect::<Vec<_>>());
        let rest: Vec<&TrainRow> = all.rows.iter().filter(|row| row.weight == 0.25).collect();
        assert_eq!(rest.len() + answers.rows.len(), all.rows.len());
        assert!(answers.rows.iter().all(|row| all.rows.contains(row)));
    }
}
