//! Per-head RMS norm of queries and keys (Qwen3; other families have none), then rotary position embedding (Su et al.
//! 2021, half-split).

use rayon::prelude::*;

use super::{dots::dot_body, simd::multiversion};
use crate::error::{KernelError, Result, expect_len};
use crate::ops::{QkvShape, RopeTable};

/// Refuses what neither device can do. Of everything but the positions it takes the lengths.
pub(crate) fn check(
    op: &'static str,
    shape: QkvShape,
    qkv: usize,
    positions: &[u32],
    (cos, sin): (usize, usize),
    (q_weight, k_weight): (usize, usize),
    qk: usize,
) -> Result<()> {
    shape.check(op)?;
    expect_len(op, "q_weight", q_weight, shape.norm_width())?;
    expect_len(op, "k_weight", k_weight, shape.norm_width())?;
    expect_len(op, "sin", sin, cos)?;
    expect_len(op, "qkv", qkv, positions.len() * shape.qkv_width())?;
    expect_len(op, "qk", qk, positions.len() * shape.qk_width())?;
    let known = cos / (shape.head_dim / 2);
    match positions.iter().find(|p| **p as usize >= known) {
        Some(p) => {
            Err(KernelError::Argument { op, what: format!("position {p} is beyond the {known} tabled") })
        }
        None => Ok(()),
    }
}

pub(super) fn forward(
    shape: QkvShape,
    qkv: &[f32],
    positions: &[u32],
    rope: RopeTable<&[f32]>,
    q_weight: &[f32],
    k_weight: &[f32],
    qk: &mut [f32],
) -> Result<()> {
    let (table, weights) = ((rope.cos.len(), rope.sin.len()), (q_weight.len(), k_weight.len()));
    check("qk_norm_rope", shape, qkv.len(), positions, table, weights, qk.len())?;
    let task = |qk: &mut [f32], qkv: &[f32], positions: &[u32]| {
        for ((qk, qkv), position) in
            qk.chunks_exact_mut(shape.qk_width()).zip(qkv.chunks_exact(shape.qkv_width())).zip(positions)
        {
            row(shape, qkv, *position as usize, rope.cos, rope.sin, q_weight, k_weight, qk);
        }
    };
    let rows = super::norm::rows_per_task(shape.qkv_width());
    if positions.len() <= rows {
        task(qk, qkv, positions);
    } else {
        qk.par_chunks_mut(rows * shape.qk_width())
            .zip(qkv.par_chunks(rows * shape.qkv_width()))
            .zip(positions.par_chunks(rows))
            .for_each(|((qk, qkv), positions)| task(qk, qkv, positions));
    }
    Ok(())
}

multiversion! {
    fn row(
        shape: QkvShape,
        qkv: &[f32],
        position: usize,
        cos: &[f32],
        sin: &[f32],
        q_weight: &[f32],
        k_weight: &[f32],
        qk: &mut [f32],
    ) {
        let (dim, half) = (shape.head_dim, shape.head_dim / 2);
        let (cos, sin) = (&cos[position * half..][..half], &sin[position * half..][..half]);
        for head in 0..shape.heads + shape.kv_heads {
            let weight = if head < shape.heads { q_weight } else { k_weight };
            let (x, out) = (&qkv[head * dim..][..dim], &mut qk[head * dim..][..dim]);
            if !shape.normed {
                for i in 0..half {
                    out[i] = x[i] * cos[i] - x[i + half] * sin[i];
                    out[i + half] = x[i + half] * cos[i] + x[i] * sin[i];
                }
                continue;
            }
            let scale = 1.0 / (dot_body::<FMA>(x, x) / dim as f32 + shape.eps).sqrt();
            for i in 0..half {
                let (a, b) = (x[i] * scale * weight[i], x[i + half] * scale * weight[i + half]);
                out[i] = a * cos[i] - b * sin[i];
                out[i + half] = b * cos[i] + a * sin[i];
            }
        }
    }
}

#[allow(clippy::too_many_arguments)]
pub(super) fn backward(
    shape: QkvShape,
    qkv: &[f32],
    positions: &[u32],
    rope: RopeTable<&[f32]>,
    (q_weight, k_weight): (&[f32], &[f32]),
    d_qk: &[f32],
    d_qkv: &mut [f32],
    (d_q_weight, d_k_weight): (&mut [f32], &mut [f32]),
) -> Result<()> {
    let op = "qk_norm_rope_backward";
    let (table, weights) = ((rope.cos.len(), rope.sin.len()), (q_weight.len(), k_weight.len()));
    check(op, shape, qkv.len(), positions, table, weights, d_qk.len())?;
    expect_len(op, "d_qkv", d_qkv.len(), qkv.len())?;
    expect_len(op, "d_q_weight", d_q_weight.len(), shape.norm_width())?;
    expect_len(op, "d_k_weight", d_k_weight.len(), shape.norm_width())?;
    let rows = super::norm::rows_per_task(shape.qkv_width());
    let partial: Vec<[Vec<f32>; 2]> = d_qkv
        .par_chunks_mut(rows * shape.qkv_width())
        .zip(qkv.par_chunks(rows * shape.qkv_width()))
        .zip(d_qk.par_chunks(rows * shape.qk_width()))
        .zip(positions.par_chunks(rows))
        .map(|(((d_qkv, qkv), d_qk), positions)| {
            let mut d_weights = [vec![0f32; shape.norm_width()], vec![0f32; shape.norm_width()]];
            let rows = d_qkv.chunks_exact_mut(shape.qkv_width()).zip(qkv.chunks_exact(shape.qkv_width()));
            for ((d_qkv, qkv), (d_qk, position)) in
                rows.zip(d_qk.chunks_exact(shape.qk_width()).zip(positions))
            {
                let [dq, dk] = &mut d_weights;
                let at = *position as usize;
                row_backward(shape, qkv, at, rope.cos, rope.sin, q_weight, k_weight, d_qk, d_qkv, dq, dk);
            }
            d_weights
        })
        .collect();
    for [q, k] in partial {
        for (d, p) in d_q_weight.iter_mut().zip(q) {
            *d += p;
        }
        for (d, p) in d_k_weight.iter_mut().zip(k) {
            *d += p;
        }
    }
    Ok(())
}

multiversion! {
    fn row_backward(
        shape: QkvShape,
        qkv: &[f32],
        position: usize,
        cos: &[f32],
        sin: &[f32],
        q_weight: &[f32],
        k_weight: &[f32],
        d_qk: &[f32],
        d_qkv: &mut [f32],
        d_q_weight: &mut [f32],
        d_k_weight: &mut [f32],
    ) {
        let (dim, half) = (shape.head_dim, shape.head_dim / 2);
        let (cos, sin) = (&cos[position * half..][..half], &sin[position * half..][..half]);
        for head in 0..shape.heads + shape.kv_heads {
            let (weight, d_weight) = if head < shape.heads {
                (q_weight, &mut *d_q_weight)
            } else {
                (k_weight, &mut *d_k_weight)
            };
            let (x, d) = (&qkv[head * dim..][..dim], &mut d_qkv[head * dim..][..dim]);
            let g = &d_qk[head * dim..][..dim];
            for i in 0..half {
                d[i] = g[i] * cos[i] + g[i + half] * sin[i];
                d[i + half] = g[i + half] * cos[i] - g[i] * sin[i];
            }
            if !shape.normed {
                continue;
            }
            let scale = 1.0 / (dot_body::<FMA>(x, x) / dim as f32 + shape.eps).sqrt();
            for i in 0..dim {
                d_weight[i] += d[i] * x[i] * scale;
                d[i] *= weight[i];
            }
            let along = dot_body::<FMA>(d, x) * scale * scale * scale / dim as f32;
            for i in 0..dim {
                d[i] = d[i] * scale - x[i] * along;
            }
        }
    }
}
