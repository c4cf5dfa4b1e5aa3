//! The optimizer's arithmetic on flat ranges.

use rayon::prelude::*;

use super::simd::multiversion;
use crate::error::{KernelError, Result, expect_len};
use crate::ops::AdamW;

const CHUNK: usize = 1 << 15;

/// Refuses what neither device can do.
pub(crate) fn check(step: AdamW, params: usize, grads: usize, first: usize, second: usize) -> Result<()> {
    if step.step == 0 {
        return Err(KernelError::Argument { op: "adamw", what: "step is 0, the first is 1".into() });
    }
    for (what, len) in [("grads", grads), ("first", first), ("second", second)] {
        expect_len("adamw", what, len, params)?;
    }
    Ok(())
}

/// What undoes that the moments start at 0. 1 - beta^step cancels in f32 while beta^step is near 1.
pub(crate) fn bias_corrections(step: AdamW) -> (f32, f32) {
    let correction = |beta: f32| (1.0 / (1.0 - f64::from(beta).powf(step.step.into()))) as f32;
    (correction(step.betas.0), correction(step.betas.1))
}

pub(super) fn step(
    step: AdamW,
    params: &mut [f32],
    grads: &[f32],
    first: &mut [f32],
    second: &mut [f32],
) -> Result<()> {
    check(step, params.len(), grads.len(), first.len(), second.len())?;
    params
        .par_chunks_mut(CHUNK)
        .zip(grads.par_chunks(CHUNK))
        .zip(first.par_chunks_mut(CHUNK))
        .zip(second.par_chunks_mut(CHUNK))
        .for_each(|(((p, g), m), v)| chunk(step, p, g, m, v));
    Ok(())
}

multiversion! {
    fn chunk(step: AdamW, params: &mut [f32], grads: &[f32], first: &mut [f32], second: &mut [f32]) {
        let (b1, b2) = step.betas;
        let (c1, c2) = bias_corrections(step);
        let decay = 1.0 - step.learning_rate * step.weight_decay;
        let _ = FMA;
        for i in 0..params.len() {
            let g = grads[i] * step.grad_scale;
            first[i] = b1 * first[i] + (1.0 - b1) * g;
            second[i] = b2 * second[i] + (1.0 - b2) * g * g;
            let update = first[i] * c1 / ((second[i] * c2).sqrt() + step.eps);
            params[i] = params[i] * decay - step.learning_rate * update;
        }
    }
}

pub(super) fn sum_squares(x: &[f32]) -> f64 {
    let parts: Vec<f64> = x.par_chunks(CHUNK).map(squares).collect();
    parts.iter().sum()
}

multiversion! {
    fn squares(x: &[f32]) -> f64 {
        let _ = FMA;
        let mut sums = [0f64; 16];
        let chunks = x.chunks_exact(16);
        let mut sum: f64 = chunks.remainder().iter().map(|v| *v as f64 * *v as f64).sum();
        for chunk in chunks {
            for i in 0..16 {
                sums[i] += chunk[i] as f64 * chunk[i] as f64;
            }
        }
        for v in sums {
            sum += v;
        }
        sum
    }
}
