//! The scalar terms of the taken token: their values and their derivatives by its log-prob.

use crate::ops::{ClipRange, Clipped, KlKind};

/// A term's value, its derivative by a log-prob, and whether a clip stopped the derivative.
pub(super) struct Term {
    pub(super) value: f64,
    pub(super) derivative: f64,
    pub(super) clipped: Clipped,
}

/// How much likelier a token has become. NaN stays NaN; a ratio beyond e^88 would not fit the f32 result.
pub(super) fn ratio(logprob: f64, old: f64) -> f64 {
    let d = logprob - old;
    if d > 88.0 { 88f64.exp() } else { d.exp() }
}

/// The weighted log-prob of one token: its ratio, clipped, is a constant factor.
pub(super) fn weighted_logprob(logprob: f64, ratio: f64, advantage: f64, clip: ClipRange) -> Term {
    let bounded = ratio.clamp(1.0 - f64::from(clip.low), 1.0 + f64::from(clip.high));
    let derivative = -bounded * advantage;
    // A token without an advantage has no loss, whatever its log-prob.
    let value = if derivative == 0.0 { 0.0 } else { derivative * logprob };
    Term { value, derivative, clipped: if bounded == ratio { Clipped::No } else { Clipped::Range } }
}

/// The clipped policy loss of one ratio; its derivative is by the logarithm of the ratio.
pub(super) fn clipped_policy(ratio: f64, advantage: f64, clip: ClipRange) -> Term {
    let (low, high) = (1.0 - f64::from(clip.low), 1.0 + f64::from(clip.high));
    let free = -ratio * advantage;
    let bounded = -ratio.clamp(low, high) * advantage;
    let mut term = if bounded > free {
        Term { value: bounded, derivative: 0.0, clipped: Clipped::Range }
    } else {
        Term { value: free, derivative: free, clipped: Clipped::No }
    };
    if let Some(dual) = clip.dual
        && advantage < 0.0
        && term.value > -f64::from(dual) * advantage
    {
        term = Term { value: -f64::from(dual) * advantage, derivative: 0.0, clipped: Clipped::Dual };
    }
    term
}

/// An estimate of KL(policy | reference) and its derivative by the policy's log-prob.
pub(super) fn kl_estimate(kind: KlKind, logprob: f64, reference: f64) -> (f64, f64) {
    let d = logprob - reference;
    let power = if d < -80.0 { 80f64.exp() } else { (-d).exp() };
    let k3 = (power - 1.0 + d, 1.0 - power);
    match kind {
        KlKind::K1 => (d, 1.0),
        KlKind::K2 => (0.5 * d * d, d),
        KlKind::K3 => k3,
        KlKind::LowVar if k3.0 > 10.0 => (10.0, 0.0),
        KlKind::LowVar => k3,
    }
}
