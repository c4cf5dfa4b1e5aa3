//! The operations of a transformer in the shapes of Qwen3-4B.

use std::cell::RefCell;

use half::bf16;
use openclaw_kernels::ops::*;
use openclaw_kernels::{Backend, Cuda, Float, Result};

use super::{Timer, Work};
use crate::matrices::adamw_step;
use crate::numbers::{all, all_mut, numbers, repeated, rounded};

/// Elements that are made on the host.
const PIECE: usize = 1 << 20;

fn filled(cuda: &Cuda, len: usize, seed: u32) -> Result<<Cuda as Backend>::Buffer<f32>> {
    repeated(cuda, &numbers(PIECE.min(len), seed), len)
}

fn heads(timer: &Timer<'_>) -> QkvShape {
    let (heads, kv_heads) = timer.size((32, 8), (2, 1));
    QkvShape { heads, kv_heads, head_dim: 128, eps: 1e-6, normed: true }
}

pub fn attention(timer: &Timer<'_>) -> Result<()> {
    let (cuda, shape) = (timer.cuda, heads(timer));
    for (count, len) in timer.size([(1, 8192), (8, 1024)], [(1, 10), (2, 5)]) {
        let tokens = count * len;
        let sequences: Vec<_> = (0..count).map(|i| i * len..(i + 1) * len).collect();
        let (qk, qkv) =
            (filled(cuda, tokens * shape.qk_width(), 1)?, filled(cuda, tokens * shape.qkv_width(), 2)?);
        let (mut out, mut lse) =
            (cuda.zeros::<f32>(tokens * shape.out_width())?, cuda.zeros::<f32>(tokens * shape.heads)?);
        let (qk, qkv) = (all(cuda, &qk), all(cuda, &qkv));
        // Two products over the half of the scores that a causal mask leaves.
        let forward = 2.0 * (count * len * len * shape.out_width()) as f64;
        timer.time(
            &format!("attention forward, {count} x {len}"),
            Work::Operations(forward),
            || Ok(()),
            || cuda.attention(shape, &sequences, qk, qkv, all_mut(cuda, &mut out), all_mut(cuda, &mut lse)),
        )?;
        let d_out = filled(cuda, tokens * shape.out_width(), 3)?;
        let (mut d_qk, mut d_qkv) =
            (cuda.zeros::<f32>(tokens * shape.qk_width())?, cuda.zeros::<f32>(tokens * shape.qkv_width())?);
        let (out, lse, d_out) = (all(cuda, &out), all(cuda, &lse), all(cuda, &d_out));
        timer.time(
            &format!("attention backward, {count} x {len}"),
            Work::Operations(2.5 * forward),
            || Ok(()),
            || {
                let (d_qk, d_qkv) = (all_mut(cuda, &mut d_qk), all_mut(cuda, &mut d_qkv));
                cuda.attention_backward(shape, &sequences, qk, qkv, out, lse, d_out, d_qk, d_qkv)
            },
        )?;
    }
    Ok(())
}

pub fn paged_decode(timer: &Timer<'_>) -> Result<()> {
    let cuda = timer.cuda;
    let shape = PagedShape { qkv: heads(timer), block_size: 16 };
    let QkvShape { kv_heads, head_dim, .. } = shape.qkv;
    let past: usize = timer.size(2048, 20);
    let blocks = (past + 1).div_ceil(shape.block_size);
    for count in timer.size([1, 64], [1, 2]) {
        let pool = filled(cuda, count * blocks * 2 * kv_heads * shape.block_size * head_dim, 1)?;
        let qk = filled(cuda, count * shape.qkv.qk_width(), 2)?;
        let tables = cuda.upload(&(0..(count * blocks) as u32).rev().collect::<Vec<u32>>())?;
        let segments: Vec<PagedSegment> =
            (0..count).map(|i| PagedSegment { row: i, new: 1, past, table: i * blocks }).collect();
        let mut out = cuda.zeros::<f32>(count * shape.qkv.out_width())?;
        let (tables, qk, pool) = (all(cuda, &tables), all(cuda, &qk), all(cuda, &pool));
        timer.time(
            &format!("paged decode, {count} x {past}, one layer"),
            Work::Bytes(count * past * 2 * kv_heads * head_dim * size_of::<f32>()),
            || Ok(()),
            || cuda.paged_attention(shape, &segments, tables, qk, pool, all_mut(cuda, &mut out)),
        )?;
    }
    Ok(())
}

pub fn gemm(timer: &Timer<'_>) -> Result<()> {
    // 64 is the last number of rows whose algorithm is chosen for few, and 65 the first of the other.
    let rows: &[usize] = timer.size(&[1, 64, 65, 2048][..], &[1, 3]);
    let full: &[(&str, usize, usize)] = &[
        ("qkv", 6144, 2560),
        ("attention out", 2560, 4096),
        ("gate and up", 19_456, 2560),
        ("down", 2560, 9728),
        ("head", 151_936, 2560),
    ];
    for (what, n, k) in timer.size(full, &[("small", 16, 8)]) {
        products::<f32>(timer, &format!("{what}, f32"), (*n, *k), rows)?;
        products::<bf16>(timer, &format!("{what}, bf16"), (*n, *k), rows)?;
    }
    Ok(())
}

fn products<T: Float>(timer: &Timer<'_>, what: &str, (n, k): (usize, usize), rows: &[usize]) -> Result<()> {
    let cuda = timer.cuda;
    let weight = repeated(cuda, &rounded::<T>(&numbers(PIECE.min(n * k), 1)), n * k)?;
    for &m in rows {
        let x = repeated(cuda, &rounded::<T>(&numbers(PIECE.min(m * k), 2)), m * k)?;
        let mut out = Backend::uninitialized::<T>(cuda, m * n)?;
        let (a, b) = (MatrixLayout::rows(k), MatrixLayout::transposed(k));
        let shape = Matmul { m, n, k, a, b, c_row: n, accumulate: false };
        timer.time(
            &format!("product {what}, m {m}, n {n}, k {k}"),
            Work::Operations(2.0 * (m * n * k) as f64),
            || Ok(()),
            || cuda.gemm(shape, all(cuda, &x), all(cuda, &weight), &all_mut(cuda, &mut out)),
        )?;
    }
    Ok(())
}

pub fn adamw(timer: &Timer<'_>) -> Result<()> {
    let (cuda, len) = (timer.cuda, timer.size(1 << 28, 3000));
    let (params, grads) = (RefCell::new(filled(cuda, len, 1)?), filled(cuda, len, 2)?);
    let (mut first, mut second) = (cuda.zeros::<f32>(len)?, cuda.zeros::<f32>(len)?);
    timer.time(
        &format!("AdamW, {len} parameters"),
        // Four are read and three written.
        Work::Bytes(7 * len * size_of::<f32>()),
        || Ok(()),
        || {
            let mut params = params.borrow_mut();
            let (first, second) = (all_mut(cuda, &mut first), all_mut(cuda, &mut second));
            cuda.adamw(adamw_step(), all_mut(cuda, &mut params), all(cuda, &grads), first, second)
        },
    )?;
    let read = Work::Bytes(len * size_of::<f32>());
    timer.time(
        &format!("sum of squares, {len} elements"),
        read,
        || Ok(()),
        || cuda.sum_squares(all(cuda, &grads)).map(drop),
    )
}
