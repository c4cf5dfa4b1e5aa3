//! Weights of rows that turn a sum over rows into a mean.

use std::ops::Range;

use crate::error::{KernelError, Result};

/// The mean over samples of each sample's mean over its unmasked tokens: `mask / (S * max(sum mask, 1))`.
///
/// `samples` are the row ranges of the `S` samples, a sample without an unmasked token included. Rows outside
/// every sample get weight 0.
pub fn sample_mean_weights(mask: &[f32], samples: &[Range<usize>]) -> Result<Vec<f32>> {
    let mut weights = vec![0.0; mask.len()];
    for sample in samples {
        let Some(tokens) = mask.get(sample.clone()) else {
            let what = format!("sample {sample:?} leaves the {} rows of the mask", mask.len());
            return Err(KernelError::Argument { op: "sample_mean_weights", what });
        };
        let total = samples.len() as f64 * sum(tokens).max(1.0);
        for (weight, m) in weights[sample.clone()].iter_mut().zip(tokens) {
            *weight = (f64::from(*m) / total) as f32;
        }
    }
    Ok(weights)
}

/// The mean over all unmasked tokens: `mask / max(sum mask, 1)`.
pub fn token_mean_weights(mask: &[f32]) -> Vec<f32> {
    let total = sum(mask).max(1.0);
    mask.iter().map(|m| (f64::from(*m) / total) as f32).collect()
}

fn sum(mask: &[f32]) -> f64 {
    mask.iter().map(|m| f64::from(*m)).sum()
}
