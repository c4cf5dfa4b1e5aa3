//! Operation 5 and its relative: losses over several tokens of a row, by their log-probs.

use super::token::{clipped_policy, ratio};
use crate::ops::{CandidateLoss, CandidateTerm};

/// The largest log of the mass of all candidates that leaves the tail bin a gradient.
const LOG_MASS_LIMIT: f64 = -1e-7;

/// One token of a row whose log-prob enters the loss.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) id: usize,
    pub(super) logit: f32,
    pub(super) logprob: f64,
    /// Derivative of the row's loss by `logprob`.
    pub(super) derivative: f64,
    /// Where the candidate's inputs are in the views; `None` for a taken token that is no candidate.
    pub(super) slot: Option<usize>,
}

/// The slots of row `i` whose inputs may be read.
pub(super) fn slots(term: &CandidateTerm<&[f32], &[i32]>, i: usize) -> impl Iterator<Item = (usize, usize)> {
    let weights = match &term.loss {
        CandidateLoss::Policy { weights, .. } => Some(*weights),
        CandidateLoss::ReverseKl { .. } => None,
    };
    let row = i * term.k..(i + 1) * term.k;
    let ids = &term.ids[row.clone()];
    row.zip(ids)
        .filter(move |(slot, id)| **id >= 0 && weights.is_none_or(|w| w[*slot] != 0.0))
        .map(|(slot, id)| (slot, *id as usize))
}

/// Adds the term's derivatives to the entries. Returns its value, and what it adds to the loss beside
/// `coef * value`. `tail` is the probability of all tokens that are not candidates.
pub(super) fn candidate_loss(
    term: &CandidateTerm<&[f32], &[i32]>,
    entries: &mut [Entry],
    tail: f64,
) -> (f64, f64) {
    let coef = f64::from(term.coef);
    match term.loss {
        CandidateLoss::Policy { advantages, weights, old_logprobs, clip } => {
            let mut value = 0.0;
            for entry in entries {
                let Some(slot) = entry.slot else { continue };
                let weight = f64::from(weights[slot]);
                let (old, advantage) = (f64::from(old_logprobs[slot]), f64::from(advantages[slot]));
                let one = clipped_policy(ratio(entry.logprob, old), advantage, clip);
                value += weight * one.value;
                entry.derivative += coef * weight * one.derivative;
            }
            (value, 0.0)
        }
        CandidateLoss::ReverseKl { teacher_logprobs, entropy_coef } => {
            reverse_kl(entries, teacher_logprobs, tail, coef, coef * f64::from(entropy_coef))
        }
    }
}

/// Value of the KL, and minus its weighted entropy.
fn reverse_kl(entries: &mut [Entry], teacher: &[f32], tail: f64, coef: f64, entropy_coef: f64) -> (f64, f64) {
    let mass: f64 = entries.iter().filter_map(|e| e.slot).map(|slot| f64::from(teacher[slot]).exp()).sum();
    let teacher_tail = (-mass.ln().min(LOG_MASS_LIMIT).exp_m1()).ln();
    // The tail is a sum over the other tokens, not 1 minus the candidates: it keeps its digits when it is tiny.
    let smallest = -LOG_MASS_LIMIT.exp_m1();
    let open = tail > smallest || tail.is_nan();
    let tail = if open { tail } else { smallest };
    let log_tail = tail.ln();
    let (mut kl, mut entropy) = (tail * (log_tail - teacher_tail), -tail * log_tail);
    for entry in entries {
        let Some(slot) = entry.slot else { continue };
        let p = entry.logprob.exp();
        if p == 0.0 {
            continue;
        }
        let difference = entry.logprob - f64::from(teacher[slot]);
        kl += p * difference;
        entropy -= p * entry.logprob;
        // A candidate's mass comes out of the tail, unless the tail is held at its limit.
        let (by_kl, by_entropy) = if open {
            (difference - (log_tail - teacher_tail), log_tail - entry.logprob)
        } else {
            (difference + 1.0, -entry.logprob - 1.0)
        };
        entry.derivative += p * (coef * by_kl - entropy_coef * by_entropy);
    }
    (kl, -entropy_coef * entropy)
}
