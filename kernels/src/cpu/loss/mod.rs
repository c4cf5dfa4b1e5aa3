//! The loss operations. Logits are read in blocks and nothing of their size is ever stored beside them.

#[cfg(target_arch = "x86_64")]
mod avx512;
mod blocks;
mod candidates;
mod linear_logprob;
mod linear_loss;
mod logprob;
mod logprob_gap;
mod row_loss;
mod softmax;
mod token;
mod top_k;

pub(super) use linear_logprob::linear_logprob;
pub(super) use linear_loss::linear_loss;
pub(super) use logprob::{logprob, logprob_backward};
pub(super) use logprob_gap::{logprob_gap, logprob_gap_backward};
pub(super) use row_loss::row_loss;

use crate::error::{KernelError, Result, expect_len};
use crate::ops::{Head, LinearShape, LogitsShape};

/// Checks a shape and the length of its logits.
fn check_logits(op: &'static str, what: &'static str, shape: LogitsShape, len: usize) -> Result<()> {
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
fn check_linear(op: &'static str, shape: &LinearShape, head: &Head<&[f32]>, scratch: &[f32]) -> Result<()> {
    if shape.chunk_rows == 0 || shape.vocab == 0 || shape.width == 0 {
        return Err(KernelError::Argument { op, what: format!("{shape:?} has an empty side") });
    }
    check_temperature(op, shape.temperature)?;
    expect_len(op, "hidden", head.hidden.len(), shape.rows * shape.width)?;
    expect_len(op, "weight", head.weight.len(), shape.vocab * shape.width)?;
    expect_len(op, "scratch", scratch.len(), shape.scratch_len())
}

/// Checks that every id is below `vocab`; negative ones mean "none".
fn check_ids(op: &'static str, what: &str, ids: &[i32], vocab: usize) -> Result<()> {
    match ids.iter().find(|id| **id >= 0 && **id as usize >= vocab) {
        None => Ok(()),
        Some(id) => Err(KernelError::Argument {
            op,
            what: format!("{what} holds id {id}, the vocabulary has {vocab}"),
        }),
    }
}

/// Rows that one task should take at least, so that small vocabularies do not drown in scheduling.
fn min_rows(vocab: usize) -> usize {
    ((1 << 14) / vocab).max(1)
}
