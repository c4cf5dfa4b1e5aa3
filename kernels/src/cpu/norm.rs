//! RMS normalisation (Zhang & Sennrich 2019) of rows.

use rayon::prelude::*;

use super::{dots::dot_body, simd::multiversion};
use crate::error::{Result, expect_len, expect_rows};

/// Rows of one task: fixed by the width, so that the order of sums never depends on the batch's threads.
pub(super) fn rows_per_task(width: usize) -> usize {
    (16_384 / width).max(1)
}

pub(super) fn forward(eps: f32, x: &[f32], weight: &[f32], out: &mut [f32]) -> Result<()> {
    let width = weight.len();
    expect_rows("rms_norm", "x", x.len(), width)?;
    expect_len("rms_norm", "out", out.len(), x.len())?;
    let task = rows_per_task(width) * width;
    if x.len() <= task {
        rows(eps, x, weight, out);
    } else {
        out.par_chunks_mut(task).zip(x.par_chunks(task)).for_each(|(out, x)| rows(eps, x, weight, out));
    }
    Ok(())
}

multiversion! {
    fn rows(eps: f32, x: &[f32], weight: &[f32], out: &mut [f32]) {
        let width = weight.len();
        for (out, x) in out.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
            let scale = 1.0 / (dot_body::<FMA>(x, x) / width as f32 + eps).sqrt();
            for i in 0..width {
                out[i] = x[i] * scale * weight[i];
            }
        }
    }
}

pub(super) fn backward(
    eps: f32,
    x: &[f32],
    weight: &[f32],
    d_out: &[f32],
    d_x: &mut [f32],
    d_weight: &mut [f32],
) -> Result<()> {
    let width = weight.len();
    expect_rows("rms_norm_backward", "x", x.len(), width)?;
    expect_len("rms_norm_backward", "d_x", d_x.len(), x.len())?;
    expect_len("rms_norm_backward", "d_out", d_out.len(), x.len())?;
    if !d_weight.is_empty() {
        expect_len("rms_norm_backward", "d_weight", d_weight.len(), width)?;
    }
    let task = rows_per_task(width) * width;
    let partial: Vec<Vec<f32>> = d_x
        .par_chunks_mut(task)
        .zip(x.par_chunks(task))
        .zip(d_out.par_chunks(task))
        .map(|((d_x, x), d_out)| {
            let mut d_weight = vec![0f32; width];
            rows_backward(eps, x, weight, d_out, d_x, &mut d_weight);
            d_weight
        })
        .collect();
    for part in partial {
        for (d, p) in d_weight.iter_mut().zip(part) {
            *d += p;
        }
    }
    Ok(())
}

multiversion! {
    fn rows_backward(eps: f32, x: &[f32], weight: &[f32], d_out: &[f32], d_x: &mut [f32], d_weight: &mut [f32]) {
        let width = weight.len();
        let mut weighted = vec![0f32; width];
        for ((d_x, x), d_out) in
            d_x.chunks_exact_mut(width).zip(x.chunks_exact(width)).zip(d_out.chunks_exact(width))
        {
            let scale = 1.0 / (dot_body::<FMA>(x, x) / width as f32 + eps).sqrt();
            for i in 0..width {
                weighted[i] = d_out[i] * weight[i];
                d_weight[i] += d_out[i] * x[i] * scale;
            }
            let along = dot_body::<FMA>(&weighted, x) * scale * scale * scale / width as f32;
            for i in 0..width {
                d_x[i] += weighted[i] * scale - x[i] * along;
            }
        }
    }
}
