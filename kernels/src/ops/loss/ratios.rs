//! How much likelier a whole sample has become.

use std::ops::Range;

use crate::error::{KernelError, Result, expect_len};

/// `exp` of the mean of `log p - old` over each sample's unmasked tokens, in every row of the sample: what
/// [`super::Surrogate::Gspo`] reads. At most `e^88`, which still fits.
///
/// `samples` are the row ranges of the samples. Masked rows are not read; a row of no sample and the rows of a
/// sample without an unmasked token have ratio 1. Tokens count by their mask, as in [`super::sample_mean_weights`].
pub fn sequence_ratios(
    logprobs: &[f32],
    old_logprobs: &[f32],
    mask: &[f32],
    samples: &[Range<usize>],
) -> Result<Vec<f32>> {
    const OP: &str = "sequence_ratios";
    expect_len(OP, "log-probs", logprobs.len(), mask.len())?;
    expect_len(OP, "old log-probs", old_logprobs.len(), mask.len())?;
    let mut ratios = vec![1.0; mask.len()];
    for sample in samples {
        let Some(rows) = ratios.get_mut(sample.clone()) else {
            let what = format!("sample {sample:?} leaves the {} rows of the mask", mask.len());
            return Err(KernelError::Argument { op: OP, what });
        };
        let (mut sum, mut tokens) = (0.0, 0.0);
        for i in sample.clone().filter(|i| mask[*i] != 0.0) {
            sum += f64::from(mask[i]) * (f64::from(logprobs[i]) - f64::from(old_logprobs[i]));
            tokens += f64::from(mask[i]);
        }
        let mean = sum / f64::max(tokens, 1.0);
        // Not `min`: it would turn a NaN log-prob into the largest ratio.
        rows.fill(if mean > 88.0 { 88f64.exp() } else { mean.exp() } as f32);
    }
    Ok(ratios)
}
