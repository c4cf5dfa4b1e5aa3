//! Causal grouped-query attention over ragged sequences, forward and backward.
//!
//! Rows of queries are taken in blocks; a block's scores against every earlier key are the only scratch. The
//! backward recomputes probabilities from the saved log-sum-exp (Dao et al. 2022).
#![allow(unsafe_code)]

use std::ops::Range;

use gemm::Parallelism;
use rayon::prelude::*;

use super::{
    Shared,
    dots::dot_body,
    matmul::{strided, strided_into},
    simd::{exp, multiversion, softmax},
};
use crate::error::{KernelError, Result, expect_len};
use crate::ops::{Matmul, MatrixLayout, QkvShape};

/// Query rows of a block.
const BLOCK: usize = 64;

/// What the forward left for the backward.
#[derive(Clone, Copy)]
pub(super) struct Saved<'a> {
    pub qk: &'a [f32],
    pub qkv: &'a [f32],
    pub out: &'a [f32],
    pub lse: &'a [f32],
}

/// Lengths of what the forward leaves for the backward.
#[derive(Clone, Copy)]
pub(crate) struct SavedLens {
    pub qk: usize,
    pub qkv: usize,
    pub out: usize,
    pub lse: usize,
}

impl Saved<'_> {
    fn lens(&self) -> SavedLens {
        SavedLens { qk: self.qk.len(), qkv: self.qkv.len(), out: self.out.len(), lse: self.lse.len() }
    }
}

/// Refuses what neither device can do.
pub(crate) fn check(
    op: &'static str,
    shape: QkvShape,
    sequences: &[Range<usize>],
    saved: SavedLens,
) -> Result<()> {
    shape.check(op)?;
    let tokens = sequences.last().map_or(0, |s| s.end);
    let mut next = 0;
    for sequence in sequences {
        if sequence.start != next || sequence.end < sequence.start {
            let what = format!("sequence {sequence:?} does not continue at {next}");
            return Err(KernelError::Argument { op, what });
        }
        next = sequence.end;
    }
    expect_len(op, "qk", saved.qk, tokens * shape.qk_width())?;
    expect_len(op, "qkv", saved.qkv, tokens * shape.qkv_width())?;
    expect_len(op, "out", saved.out, tokens * shape.out_width())?;
    expect_len(op, "lse", saved.lse, tokens * shape.heads)
}

pub(super) fn forward(
    shape: QkvShape,
    sequences: &[Range<usize>],
    qk: &[f32],
    qkv: &[f32],
    out: &mut [f32],
    lse: &mut [f32],
) -> Result<()> {
    check("attention", shape, sequences, Saved { qk, qkv, out, lse }.lens())?;
    let (out, lse) = (Shared::new(out), Shared::new(lse));
    (0..sequences.len() * shape.heads).into_par_iter().for_each(|task| {
        let (sequence, head) = (&sequences[task / shape.heads], task % shape.heads);
        if !sequence.is_empty() {
            head_forward(shape, sequence.clone(), head, qk, qkv, out, lse);
        }
    });
    Ok(())
}

fn head_forward(
    shape: QkvShape,
    sequence: Range<usize>,
    head: usize,
    qk: &[f32],
    qkv: &[f32],
    out: Shared,
    lse: Shared,
) {
    let QkvShape { heads, kv_heads, head_dim, .. } = shape;
    let (qk_row, qkv_row, out_row) = (shape.qk_width(), shape.qkv_width(), shape.out_width());
    let kv = head / (heads / kv_heads);
    let scale = 1.0 / (head_dim as f32).sqrt();
    let first = sequence.start;
    let len = sequence.len();
    let keys = &qk[first * qk_row + (heads + kv) * head_dim..];
    let values = &qkv[first * qkv_row + (heads + kv_heads + kv) * head_dim..];
    let mut scores = vec![0f32; BLOCK.min(len) * len];
    for from in (0..len).step_by(BLOCK) {
        let to = (from + BLOCK).min(len);
        let rows = to - from;
        let queries = &qk[(first + from) * qk_row + head * head_dim..];
        let product = Matmul {
            m: rows,
            n: to,
            k: head_dim,
            a: MatrixLayout::rows(qk_row),
            b: MatrixLayout::transposed(qk_row),
            c_row: to,
            accumulate: false,
        };
        strided(product, queries, keys, &mut scores, Parallelism::None);
        for row in 0..rows {
            let (seen, hidden) = scores[row * to..][..to].split_at_mut(from + row + 1);
            let sum = softmax(seen, scale);
            hidden.fill(0.0);
            // SAFETY: (token, head) belongs to this task alone.
            unsafe { lse.range((first + from + row) * heads + head, 1)[0] = sum };
        }
        let product = Matmul {
            m: rows,
            n: head_dim,
            k: to,
            a: MatrixLayout::rows(to),
            b: MatrixLayout::rows(qkv_row),
            c_row: out_row,
            accumulate: false,
        };
        let start = (first + from) * out_row + head * head_dim;
        // SAFETY: this head's columns of these rows are this task's alone.
        unsafe {
            let target = out.columns(start, rows, out_row, head_dim);
            strided_into(product, &scores, values, target, Parallelism::None);
        }
    }
}

pub(super) fn backward(
    shape: QkvShape,
    sequences: &[Range<usize>],
    saved: Saved<'_>,
    d_out: &[f32],
    d_qk: &mut [f32],
    d_qkv: &mut [f32],
) -> Result<()> {
    let op = "attention_backward";
    check(op, shape, sequences, saved.lens())?;
    expect_len(op, "d_out", d_out.len(), saved.out.len())?;
    expect_len(op, "d_qk", d_qk.len(), saved.qk.len())?;
    expect_len(op, "d_qkv", d_qkv.len(), saved.qkv.len())?;
    let (d_qk, d_qkv) = (Shared::new(d_qk), Shared::new(d_qkv));
    (0..sequences.len() * shape.kv_heads).into_par_iter().for_each(|task| {
        let (sequence, kv) = (&sequences[task / shape.kv_heads], task % shape.kv_heads);
        if !sequence.is_empty() {
            group_backward(shape, sequence.clone(), kv, saved, d_out, d_qk, d_qkv);
        }
    });
    Ok(())
}

/// One key-value head and the query heads that share it.
fn group_backward(
    shape: QkvShape,
    sequence: Range<usize>,
    kv: usize,
    saved: Saved<'_>,
    d_out: &[f32],
    d_qk: Shared,
    d_qkv: Shared,
) {
    let QkvShape { heads, kv_heads, head_dim, .. } = shape;
    let (qk_row, qkv_row, out_row) = (shape.qk_width(), shape.qkv_width(), shape.out_width());
    let group = heads / kv_heads;
    let scale = 1.0 / (head_dim as f32).sqrt();
    let (first, len) = (sequence.start, sequence.len());
    let key_at = (heads + kv) * head_dim;
    let value_at = (heads + kv_heads + kv) * head_dim;
    let keys = &saved.qk[first * qk_row + key_at..];
    let values = &saved.qkv[first * qkv_row + value_at..];
    // SAFETY (of all that is unsafe below): the columns of this key-value head, and of the query heads of its group, in
    // this sequence's rows belong to this task alone, and no range of them lives while a product writes.
    for token in first..first + len {
        unsafe {
            d_qk.range(token * qk_row + key_at, head_dim).fill(0.0);
            d_qkv.range(token * qkv_row + value_at, head_dim).fill(0.0);
        }
    }
    let mut probabilities = vec![0f32; BLOCK.min(len) * len];
    let mut d_scores = vec![0f32; BLOCK.min(len) * len];
    for head in kv * group..(kv + 1) * group {
        for from in (0..len).step_by(BLOCK) {
            let to = (from + BLOCK).min(len);
            let rows = to - from;
            let queries = &saved.qk[(first + from) * qk_row + head * head_dim..];
            let out = &saved.out[(first + from) * out_row + head * head_dim..];
            let d_out = &d_out[(first + from) * out_row + head * head_dim..];
            let score = Matmul {
                m: rows,
                n: to,
                k: head_dim,
                a: MatrixLayout::rows(qk_row),
                b: MatrixLayout::transposed(qk_row),
                c_row: to,
                accumulate: false,
            };
            strided(score, queries, keys, &mut probabilities, Parallelism::None);
            let d_probability =
                Matmul { a: MatrixLayout::rows(out_row), b: MatrixLayout::transposed(qkv_row), ..score };
            strided(d_probability, d_out, values, &mut d_scores, Parallelism::None);
            for row in 0..rows {
                let lse = saved.lse[(first + from + row) * heads + head];
                score_gradients(
                    &mut probabilities[row * to..][..to],
                    &mut d_scores[row * to..][..to],
                    from + row + 1,
                    &d_out[row * out_row..][..head_dim],
                    &out[row * out_row..][..head_dim],
                    lse,
                    scale,
                );
            }
            let to_keys = Matmul {
                m: to,
                n: head_dim,
                k: rows,
                a: MatrixLayout::transposed(to),
                b: MatrixLayout::rows(out_row),
                c_row: qkv_row,
                accumulate: true,
            };
            unsafe {
                let target = d_qkv.columns(first * qkv_row + value_at, to, qkv_row, head_dim);
                strided_into(to_keys, &probabilities, d_out, target, Parallelism::None);
            }
            let to_keys = Matmul { b: MatrixLayout::rows(qk_row), c_row: qk_row, ..to_keys };
            unsafe {
                let target = d_qk.columns(first * qk_row + key_at, to, qk_row, head_dim);
                strided_into(to_keys, &d_scores, queries, target, Parallelism::None);
            }
            let to_queries = Matmul {
                m: rows,
                n: head_dim,
                k: to,
                a: MatrixLayout::rows(to),
                b: MatrixLayout::rows(qk_row),
                c_row: qk_row,
                accumulate: false,
            };
            let start = (first + from) * qk_row + head * head_dim;
            unsafe {
                let target = d_qk.columns(start, rows, qk_row, head_dim);
                strided_into(to_queries, &d_scores, keys, target, Parallelism::None);
            }
        }
    }
}

multiversion! {
    /// Scores become probabilities; `d_scores` goes from dL/dp to dL/dscore; both are 0 beyond `seen`.
    fn score_gradients(
        scores: &mut [f32],
        d_scores: &mut [f32],
        seen: usize,
        d_out: &[f32],
        out: &[f32],
        lse: f32,
        scale: f32,
    ) {
        let delta = dot_body::<FMA>(d_out, out);
        let (p, p_hidden) = scores.split_at_mut(seen);
        let (d, d_hidden) = d_scores.split_at_mut(seen);
        for i in 0..seen {
            p[i] = exp::<FMA>(p[i] * scale - lse);
            d[i] = p[i] * (d[i] - delta) * scale;
        }
        p_hidden.fill(0.0);
        d_hidden.fill(0.0);
    }
}
