//! The loss operations. Logits are read in blocks and nothing of their size is ever stored beside them.

#[cfg(target_arch = "x86_64")]
mod avx512;
mod blocks;
mod candidates;
mod head_type;
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

use crate::error::Result;
use crate::ops::unknown_id;

/// Checks that every id is below `vocab`; negative ones mean "none".
fn check_ids(op: &'static str, what: &str, ids: &[i32], vocab: usize) -> Result<()> {
    match ids.iter().find(|id| **id >= 0 && **id as usize >= vocab) {
        None => Ok(()),
        Some(id) => Err(unknown_id(op, what, *id, vocab)),
    }
}

/// Rows that one task should take at least, so that small vocabularies do not drown in scheduling.
fn min_rows(vocab: usize) -> usize {
    ((1 << 14) / vocab).max(1)
}
