//! The scalar terms of the taken token: their values and their derivatives by its log-prob.

use crate::ops::{ClipRange, Clipped, KlKind};

/// A term's value, its derivative by a log-prob, and whether a clip stopped the derivative.
pub(super) struct Term {
    pub(super) value: f64,
    pub(super) derivative: f64,
    pub(super) clipped: Clipped,
}

/// The clipped policy loss of one token.
pub(super) fn clipped_policy(logprob: f64, old: f64, advantage: f64, clip: ClipRange) -> Term {
    // A ratio beyond e^88 does not fit the f32 result; branches below select, so no infinity meets a zero.
    let ratio = (logprob - old).min(88.0).exp();
    // `min` passes NaN over, and a NaN log-prob must not look like a ratio of e^88.
    let ratio = if (logprob - old).is_nan() { f64::NAN } else { ratio };
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
