//! What every device asks of the arguments of a loss, apart from the ids, which only the device can read.

use super::{
    CandidateLoss, ClipRange, Head, LinearShape, LogitsShape, RowLoss, Score, ScoreOut, Surrogate, TokenTerm,
};
use crate::error::{KernelError, Result, expect_len};

/// A view, of which only the length matters here.
pub(crate) trait Length {
    /// Number of elements.
    fn length(&self) -> usize;
}
impl<T> Length for &[T] {
    fn length(&self) -> usize {
        self.len()
    }
}
impl<T> Length for &mut [T] {
    fn length(&self) -> usize {
        self.len()
    }
}

/// Checks a shape and the length of its logits.
pub(crate) fn check_logits(
    op: &'static str,
    what: &'static str,
    shape: LogitsShape,
    len: usize,
) -> Result<()> {
    let LogitsShape { rows, vocab, stride, temperature } = shape;
    if vocab == 0 || vocab > i32::MAX as usize || stride < vocab {
        let what = format!("a row of {vocab} logits does not fit a stride of {stride}");
        return Err(KernelError::Argument { op, what });
    }
    check_temperature(op, temperature)?;
    expect_len(op, what, len, rows * stride)
}

fn check_temperature(op: &'static str, temperature: f32) -> Result<()> {
    if temperature > 0.0 && temperature.is_finite() {
        return Ok(());
    }
    Err(KernelError::Argument { op, what: format!("temperature {temperature} is not a positive number") })
}

/// Checks the arguments that every operation of the head shares.
pub(crate) fn check_linear(
    op: &'static str,
    shape: &LinearShape,
    head: &Head<impl Length, impl Length>,
    scratch: usize,
) -> Result<()> {
    if shape.chunk_rows == 0 || shape.vocab == 0 || shape.width == 0 {
        return Err(KernelError::Argument { op, what: format!("{shape:?} has an empty side") });
    }
    check_temperature(op, shape.temperature)?;
    expect_len(op, "hidden", head.hidden.length(), shape.rows * shape.width)?;
    expect_len(op, "weight", head.weight.length(), shape.vocab * shape.width)?;
    expect_len(op, "scratch", scratch, shape.scratch_len())
}

/// The error of an id that the vocabulary does not have.
pub(crate) fn unknown_id(op: &'static str, what: &str, id: i32, vocab: usize) -> KernelError {
    KernelError::Argument { op, what: format!("{what} holds id {id}, the vocabulary has {vocab}") }
}

/// Checks the lengths of a score and of its results.
pub(crate) fn check_score<I: Length>(
    op: &'static str,
    rows: usize,
    score: &Score<I>,
    out: &ScoreOut<impl Length, impl Length>,
) -> Result<()> {
    expect_len(op, "targets", score.targets.length(), rows)?;
    expect_len(op, "logprobs", out.logprobs.length(), rows)?;
    expect_len(op, "lse", out.lse.length(), rows)?;
    if let Some(entropy) = &out.entropy {
        expect_len(op, "entropy", entropy.length(), rows)?;
    }
    match (&score.candidates, &out.candidates) {
        (Some(candidates), Some(out)) => {
            expect_len(op, "candidate ids", candidates.ids.length(), rows * candidates.k)?;
            expect_len(op, "candidate log-probs", out.length(), rows * candidates.k)?;
        }
        (None, None) => {}
        _ => {
            let what = "candidates are asked for and their output given together or not at all".into();
            return Err(KernelError::Argument { op, what });
        }
    }
    if let Some(top) = &out.top {
        expect_len(op, "top ids", top.ids.length(), rows * top.k)?;
        expect_len(op, "top log-probs", top.logprobs.length(), rows * top.k)?;
    }
    Ok(())
}

/// Checks the lengths of a row loss and its clips.
pub(crate) fn check_row_loss<F: Length, I: Length>(
    op: &'static str,
    rows: usize,
    loss: &RowLoss<F, I>,
) -> Result<()> {
    expect_len(op, "weights", loss.weights.length(), rows)?;
    expect_len(op, "targets", loss.targets.length(), rows)?;
    if let TokenTerm::Policy(policy) = &loss.token {
        check_clip(op, policy.clip)?;
        expect_len(op, "advantages", policy.advantages.length(), rows)?;
        match &policy.surrogate {
            Surrogate::Ppo { old_logprobs } => {
                expect_len(op, "old log-probs", old_logprobs.length(), rows)?;
            }
            Surrogate::Gspo { ratios } => expect_len(op, "ratios", ratios.length(), rows)?,
            Surrogate::Cispo { old_logprobs } => {
                expect_len(op, "old log-probs", old_logprobs.length(), rows)?;
                if let Some(dual) = policy.clip.dual {
                    let what = format!("cispo bounds every ratio and has no dual clip, {dual} given");
                    return Err(KernelError::Argument { op, what });
                }
            }
        }
        if let Some(importance) = &policy.importance {
            expect_len(op, "importance weights", importance.length(), rows)?;
        }
    }
    if let Some(kl) = &loss.kl {
        expect_len(op, "reference log-probs", kl.reference.length(), rows)?;
    }
    if let Some(candidates) = &loss.candidates {
        let len = rows * candidates.k;
        expect_len(op, "candidate ids", candidates.ids.length(), len)?;
        match &candidates.loss {
            CandidateLoss::ReverseKl { teacher_logprobs, .. } => {
                expect_len(op, "teacher log-probs", teacher_logprobs.length(), len)?;
            }
            CandidateLoss::Policy { advantages, weights, old_logprobs, clip } => {
                check_clip(op, *clip)?;
                expect_len(op, "candidate advantages", advantages.length(), len)?;
                expect_len(op, "candidate weights", weights.length(), len)?;
                expect_len(op, "candidate old log-probs", old_logprobs.length(), len)?;
            }
        }
    }
    Ok(())
}

fn check_clip(op: &'static str, clip: ClipRange) -> Result<()> {
    let ClipRange { low, high, dual } = clip;
    if low >= 0.0 && high >= 0.0 && dual.is_none_or(|dual| dual > 1.0) {
        return Ok(());
    }
    let what = format!("clip {low} below and {high} above must not be negative, dual clip {dual:?} above 1");
    Err(KernelError::Argument { op, what })
}
