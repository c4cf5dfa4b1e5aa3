//! Operation 3: the row loss and its gradient, one reading and one writing pass.

use rayon::prelude::*;

use super::candidates::{Entry, candidate_loss, slots};
use super::softmax::{Scale, Softmax};
use super::token::{clipped_policy, kl_estimate, ratio, weighted_logprob};
use super::{check_ids, min_rows};
use crate::backend::Float;
use crate::error::{Result, expect_len};
use crate::ops::{
    Clipped, LogitsShape, RowLoss, RowStat, Surrogate, TokenTerm, check_logits, check_row_loss,
};

/// The arguments as the CPU sees them.
pub(super) type Args<'a> = RowLoss<&'a [f32], &'a [i32]>;

pub(crate) fn row_loss<T: Float>(
    shape: LogitsShape,
    loss: Args<'_>,
    logits: Option<&[T]>,
    d_logits: &mut [T],
    stats: &mut [RowStat],
) -> Result<()> {
    check_logits("row_loss", "d_logits", shape, d_logits.len())?;
    if let Some(logits) = logits {
        expect_len("row_loss", "logits", logits.len(), d_logits.len())?;
    }
    check_row_loss("row_loss", shape.rows, &loss)?;
    check_row_ids("row_loss", shape.rows, shape.vocab, &loss)?;
    expect_len("row_loss", "stats", stats.len(), shape.rows)?;
    let scale = Scale::new(shape.temperature);
    let rows = d_logits.par_chunks_mut(shape.stride).with_min_len(min_rows(shape.vocab));
    rows.zip(stats).enumerate().for_each_init(Vec::new, |entries, (i, (target, stat))| {
        let source = logits.map(|logits| &logits[i * shape.stride..][..shape.vocab]);
        let target = &mut target[..shape.vocab];
        *stat = if is_active(&loss, i) {
            row(&loss, i, source, target, scale, entries).0
        } else {
            target.fill(T::default());
            RowStat::default()
        };
    });
    Ok(())
}

/// Whether a row takes part in the loss at all.
pub(super) fn is_active(loss: &Args<'_>, i: usize) -> bool {
    loss.weights[i] != 0.0 && loss.targets[i] >= 0
}

/// Checks the ids of the rows that are read.
pub(super) fn check_row_ids(op: &'static str, rows: usize, vocab: usize, loss: &Args<'_>) -> Result<()> {
    for i in (0..rows).filter(|i| is_active(loss, *i)) {
        check_ids(op, "targets", &loss.targets[i..=i], vocab)?;
        if let Some(candidates) = &loss.candidates {
            check_ids(op, "candidates", &candidates.ids[i * candidates.k..][..candidates.k], vocab)?;
        }
    }
    Ok(())
}

/// Loss of row `i` and its gradient to the logits in `source`, or in `target` itself. The flag tells whether any
/// of it differs from 0.
pub(super) fn row<T: Float>(
    loss: &Args<'_>,
    i: usize,
    source: Option<&[T]>,
    target: &mut [T],
    scale: Scale,
    entries: &mut Vec<Entry>,
) -> (RowStat, bool) {
    let taken = find_entries(loss, i, source.unwrap_or(target), entries);
    // What remains without the entries sums to the tail without cancellation.
    let rest = match source {
        Some(logits) => Softmax::without(logits, scale, entries.iter().map(|entry| entry.id)),
        None => {
            entries.iter().for_each(|entry| target[entry.id] = T::from_f32(f32::NEG_INFINITY));
            Softmax::of(target, scale)
        }
    };
    let mut softmax = rest;
    entries.iter().for_each(|entry| softmax.add(entry.logit));
    entries.iter_mut().for_each(|entry| entry.logprob = softmax.logprob(entry.logit));

    let logprob = entries[taken].logprob;
    let entropy = softmax.entropy();
    let mut stat = RowStat { logprob: logprob as f32, entropy: entropy as f32, ..RowStat::default() };
    let mut total = -f64::from(loss.entropy_coef) * entropy;

    if let Some(term) = &loss.candidates {
        let taken_is_extra = entries[taken].slot.is_none();
        let extra = if taken_is_extra { softmax.probability(entries[taken].logit) } else { 0.0 };
        let (value, beside) = candidate_loss(term, entries, softmax.share(&rest) + extra);
        stat.candidates = value as f32;
        total += f64::from(term.coef) * value + beside;
    }
    let (value, derivative, clipped) = taken_token(loss, i, logprob);
    stat.clip = clipped as u32;
    total += value;
    entries[taken].derivative += derivative;
    if let Some(kl) = &loss.kl {
        let (value, derivative) = kl_estimate(kl.kind, logprob, f64::from(kl.reference[i]));
        stat.kl = value as f32;
        total += f64::from(kl.coef) * value;
        entries[taken].derivative += f64::from(kl.coef) * derivative;
    }
    stat.loss = total as f32;

    let weight = f64::from(loss.weights[i]);
    let entropy_weight = weight * f64::from(loss.entropy_coef);
    if entropy_weight == 0.0 && entries.iter().all(|entry| entry.derivative == 0.0) {
        target.fill(T::default());
        return (stat, false);
    }
    let sum = weight * entries.iter().map(|entry| entry.derivative).sum::<f64>();
    softmax.write_gradient(source, target, sum, entropy_weight);
    for entry in entries {
        let own = weight * entry.derivative;
        let gradient = softmax.gradient_at(entry.logit, own, sum, entropy_weight);
        target[entry.id] = T::from_f32(gradient as f32);
    }
    (stat, true)
}

/// Collects the logits that the loss names, each once. Returns the taken token's index.
fn find_entries<T: Float>(loss: &Args<'_>, i: usize, logits: &[T], entries: &mut Vec<Entry>) -> usize {
    entries.clear();
    let mut take = |id: usize, slot: Option<usize>| match entries.iter().position(|entry| entry.id == id) {
        Some(index) => index,
        None => {
            entries.push(Entry { id, logit: logits[id].to_f32(), logprob: 0.0, derivative: 0.0, slot });
            entries.len() - 1
        }
    };
    for (slot, id) in loss.candidates.iter().flat_map(|term| slots(term, i)) {
        take(id, Some(slot));
    }
    take(loss.targets[i] as usize, None)
}

/// Value and derivative of the taken token's term.
fn taken_token(loss: &Args<'_>, i: usize, logprob: f64) -> (f64, f64, Clipped) {
    match &loss.token {
        TokenTerm::None => (0.0, 0.0, Clipped::No),
        TokenTerm::CrossEntropy => (-logprob, -1.0, Clipped::No),
        TokenTerm::Policy(policy) => {
            let (advantage, clip) = (f64::from(policy.advantages[i]), policy.clip);
            let to_old = |old: &[f32]| ratio(logprob, f64::from(old[i]));
            let term = match policy.surrogate {
                Surrogate::Ppo { old_logprobs } => clipped_policy(to_old(old_logprobs), advantage, clip),
                Surrogate::Cispo { old_logprobs } => {
                    weighted_logprob(logprob, to_old(old_logprobs), advantage, clip)
                }
                Surrogate::Gspo { ratios } => clipped_policy(f64::from(ratios[i]), advantage, clip),
            };
            let importance = policy.importance.map_or(1.0, |weights| f64::from(weights[i]));
            (importance * term.value, importance * term.derivative, term.clipped)
        }
    }
}
