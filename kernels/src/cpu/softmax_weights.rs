//! The vectorised part of drawing a token on the host: one row of logits to weights that sum to a known mass.

use crate::cpu::simd::{exp, multiversion};

const LANES: usize = 32;
/// Partial sums are `f32` inside a block and `f64` across blocks.
const BLOCK: usize = 1024;

/// Weights of a row's ids before normalisation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SoftmaxMass {
    /// The largest logit, whose weight is 1.
    pub max: f32,
    /// Sum of all weights.
    pub mass: f64,
}

/// Fills `weights` with `exp((logit - max) / temperature)` as exactly as `f32` holds the exponent; 0 below e^-87. None when the logits hold
/// no distribution: a NaN, an infinity, or nothing above minus infinity.
pub fn softmax_weights(logits: &[f32], temperature: f32, weights: &mut Vec<f32>) -> Option<SoftmaxMass> {
    let max = maximum(logits);
    if !max.is_finite() {
        return None;
    }
    weights.resize(logits.len(), 0.0);
    let scale = temperature.recip();
    let blocks = logits.chunks(BLOCK).zip(weights.chunks_mut(BLOCK));
    let mass = blocks.map(|(x, out)| f64::from(exponentials(x, max, scale, out))).sum();
    Some(SoftmaxMass { max, mass })
}

multiversion! {
    /// The largest element; NaN if there is one.
    fn maximum(x: &[f32]) -> f32 {
        let mut maxima = [f32::NEG_INFINITY; LANES];
        let mut invalid = [false; LANES];
        let mut chunks = x.chunks_exact(LANES);
        for chunk in &mut chunks {
            for i in 0..LANES {
                maxima[i] = if chunk[i] > maxima[i] { chunk[i] } else { maxima[i] };
                invalid[i] |= chunk[i].is_nan();
            }
        }
        let rest = chunks.remainder();
        if invalid.contains(&true) || rest.iter().any(|v| v.is_nan()) {
            return f32::NAN;
        }
        maxima.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max)
    }
}

multiversion! {
    fn exponentials(x: &[f32], max: f32, scale: f32, out: &mut [f32]) -> f32 {
        let mut sums = [0f32; LANES];
        let mut x_chunks = x.chunks_exact(LANES);
        let mut out_chunks = out.chunks_exact_mut(LANES);
        for (x, out) in (&mut x_chunks).zip(&mut out_chunks) {
            for i in 0..LANES {
                out[i] = weight::<FMA>(x[i], max, scale);
                sums[i] += out[i];
            }
        }
        let mut sum = sums.iter().sum::<f32>();
        for (x, out) in x_chunks.remainder().iter().zip(out_chunks.into_remainder()) {
            *out = weight::<FMA>(*x, max, scale);
            sum += *out;
        }
        sum
    }
}

#[inline(always)]
fn weight<const FMA: bool>(x: f32, max: f32, scale: f32) -> f32 {
    let t = (x - max) * scale;
    // A masked logit must weigh nothing at all, or it could be drawn.
    if t < -87.0 { 0.0 } else { exp::<FMA>(t) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_and_mass_are_those_of_the_softmax() {
        for vocab in [1, 7, 32, 33, 1000, 5000] {
            for temperature in [0.3f32, 1.0, 2.5] {
                let logits: Vec<f32> = (0..vocab).map(|id| ((id * 37 % 101) as f32 - 50.0) * 0.2).collect();
                let mut weights = vec![9.0; 3];
                let found = softmax_weights(&logits, temperature, &mut weights).unwrap();
                let max = logits.iter().copied().fold(f32::MIN, f32::max);
                let exact: Vec<f64> =
                    logits.iter().map(|&x| (f64::from(x - max) / f64::from(temperature)).exp()).collect();
                assert_eq!((found.max, weights.len()), (max, vocab));
                let mass: f64 = exact.iter().sum();
                assert!((found.mass / mass - 1.0).abs() < 2e-6, "{found:?}, expected {mass}");
                for (weight, exact) in weights.iter().zip(exact) {
                    assert!(
                        (f64::from(*weight) - exact).abs() <= 1e-5 * exact + 1e-37,
                        "{weight}, expected {exact}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_masked_logit_weighs_nothing() {
        let mut weights = Vec::new();
        let found = softmax_weights(&[f32::NEG_INFINITY, 2.0, -1e30], 1e-30, &mut weights).unwrap();
        assert_eq!((found, weights), (SoftmaxMass { max: 2.0, mass: 1.0 }, vec![0.0, 1.0, 0.0]));
    }

    #[test]
    fn no_distribution_is_none() {
        for at in [0, 31, 32, 40] {
            for bad in [f32::NAN, f32::INFINITY] {
                let mut logits = vec![0.0; 41];
                logits[at] = bad;
                assert_eq!(softmax_weights(&logits, 1.0, &mut Vec::new()), None, "{bad} at {at}");
            }
        }
        assert_eq!(softmax_weights(&[f32::NEG_INFINITY; 40], 1.0, &mut Vec::new()), None);
        assert_eq!(softmax_weights(&[], 1.0, &mut Vec::new()), None);
    }
}
