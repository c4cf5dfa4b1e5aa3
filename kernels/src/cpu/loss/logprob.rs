//! Operation 1: log-prob of the taken token, log-sum-exp, entropy, candidates and top-k in one read.

use rayon::prelude::*;

use super::softmax::{Scale, Softmax};
use super::top_k::TopSlots;
use super::{check_ids, min_rows};
use crate::backend::Float;
use crate::error::{Result, expect_len};
use crate::ops::{LogitsShape, Score, ScoreOut, check_logits, check_score};

pub(crate) fn logprob<T: Float>(
    shape: LogitsShape,
    logits: &[T],
    score: Score<&[i32]>,
    out: ScoreOut<&mut [f32], &mut [i32]>,
) -> Result<()> {
    check_logits("logprob", "logits", shape, logits.len())?;
    check_score("logprob", shape.rows, &score, &out)?;
    check_score_ids("logprob", shape.vocab, &score)?;
    let scale = Scale::new(shape.temperature);
    let rows = split(shape.rows, score, out);
    let logits = logits.par_chunks(shape.stride).with_min_len(min_rows(shape.vocab));
    logits.zip(rows).for_each(|(logits, row)| row.read(&logits[..shape.vocab], scale));
    Ok(())
}

/// Checks every id.
pub(super) fn check_score_ids(op: &'static str, vocab: usize, score: &Score<&[i32]>) -> Result<()> {
    check_ids(op, "targets", score.targets, vocab)?;
    score.candidates.map_or(Ok(()), |candidates| check_ids(op, "candidates", candidates.ids, vocab))
}

/// Everything one row reads and writes besides its logits.
pub(super) struct ScoreRow<'a> {
    target: i32,
    candidates: &'a [i32],
    logprob: &'a mut f32,
    lse: &'a mut f32,
    entropy: Option<&'a mut f32>,
    candidate_logprobs: &'a mut [f32],
    top_ids: &'a mut [i32],
    top_logprobs: &'a mut [f32],
}

/// Hands each row its part of the arguments; lengths are checked by [`check_score`].
pub(super) fn split<'a>(
    rows: usize,
    score: Score<&'a [i32]>,
    out: ScoreOut<&'a mut [f32], &'a mut [i32]>,
) -> Vec<ScoreRow<'a>> {
    let (k, mut ids) = score.candidates.map_or((0, &[][..]), |c| (c.k, c.ids));
    let mut candidate_logprobs = out.candidates.unwrap_or_default();
    let (top_k, mut top_ids, mut top_logprobs) =
        out.top.map_or_else(Default::default, |top| (top.k, top.ids, top.logprobs));
    let mut entropy = out.entropy.map(|entropy| entropy.iter_mut());
    let scalars = score.targets.iter().zip(out.logprobs).zip(out.lse).take(rows);
    scalars
        .map(|((target, logprob), lse)| ScoreRow {
            target: *target,
            logprob,
            lse,
            entropy: entropy.as_mut().and_then(Iterator::next),
            candidates: ids.split_off(..k).expect("check_score compared the length"),
            candidate_logprobs: candidate_logprobs
                .split_off_mut(..k)
                .expect("check_score compared the length"),
            top_ids: top_ids.split_off_mut(..top_k).expect("check_score compared the length"),
            top_logprobs: top_logprobs.split_off_mut(..top_k).expect("check_score compared the length"),
        })
        .collect()
}

impl ScoreRow<'_> {
    pub(super) fn read<T: Float>(self, logits: &[T], scale: Scale) {
        let softmax = if self.top_ids.is_empty() {
            Softmax::of(logits, scale)
        } else {
            Softmax::with_top(logits, scale, Some(TopSlots::new(self.top_ids, self.top_logprobs)))
        };
        let taken = |id: i32| if id < 0 { 0.0 } else { softmax.logprob(logits[id as usize].to_f32()) as f32 };
        *self.logprob = taken(self.target);
        *self.lse = softmax.lse() as f32;
        if let Some(entropy) = self.entropy {
            *entropy = if self.target < 0 { 0.0 } else { softmax.entropy() as f32 };
        }
        for (logprob, id) in self.candidate_logprobs.iter_mut().zip(self.candidates) {
            *logprob = taken(*id);
        }
        for logprob in self.top_logprobs {
            *logprob = softmax.logprob(*logprob) as f32;
        }
    }
}

/// Gradient of log-probs and entropies to the logits; see [`crate::Backend::logprob_backward`].
pub(crate) fn logprob_backward<T: Float>(
    shape: LogitsShape,
    logits: Option<&[T]>,
    targets: &[i32],
    d_logprobs: &[f32],
    d_entropy: Option<&[f32]>,
    d_logits: &mut [T],
) -> Result<()> {
    const OP: &str = "logprob_backward";
    check_logits(OP, "d_logits", shape, d_logits.len())?;
    if let Some(logits) = logits {
        expect_len(OP, "logits", logits.len(), d_logits.len())?;
    }
    expect_len(OP, "targets", targets.len(), shape.rows)?;
    check_ids(OP, "targets", targets, shape.vocab)?;
    expect_len(OP, "d_logprobs", d_logprobs.len(), shape.rows)?;
    if let Some(d_entropy) = d_entropy {
        expect_len(OP, "d_entropy", d_entropy.len(), shape.rows)?;
    }
    let scale = Scale::new(shape.temperature);
    let rows = d_logits.par_chunks_mut(shape.stride).with_min_len(min_rows(shape.vocab));
    rows.enumerate().for_each(|(i, target)| {
        let source = logits.map(|logits| &logits[i * shape.stride..][..shape.vocab]);
        let d_entropy = d_entropy.map_or(0.0, |d| d[i]);
        row_backward(source, &mut target[..shape.vocab], targets[i], d_logprobs[i], d_entropy, scale);
    });
    Ok(())
}

/// `source` is `None` when `target` holds the logits.
pub(super) fn row_backward<T: Float>(
    source: Option<&[T]>,
    target: &mut [T],
    taken: i32,
    d_logprob: f32,
    d_entropy: f32,
    scale: Scale,
) {
    if taken < 0 || (d_logprob == 0.0 && d_entropy == 0.0) {
        target.fill(T::default());
        return;
    }
    let logits = source.unwrap_or(target);
    let softmax = Softmax::of(logits, scale);
    let logit = logits[taken as usize].to_f32();
    // d(entropy)/d(logit_j) = -p_j (log p_j + entropy), so an entropy gradient enters with the other sign.
    let (u, e) = (f64::from(d_logprob), -f64::from(d_entropy));
    softmax.write_gradient(source, target, u, e);
    target[taken as usize] = T::from_f32(softmax.gradient_at(logit, u, u, e) as f32);
}
