//! What tasks write beside one another, in shapes that Miri can walk through. Only it sees an overlap; without it these
//! tests hold the tasks' results against those of one thread.

use std::ops::Range;

use super::{Cpu, attention, matmul::matmul, paged};
use crate::{
    backend::Backend,
    ops::{Matmul, MatrixLayout, PagedSegment, PagedShape, QkvShape},
};

const SHAPE: QkvShape = QkvShape { heads: 4, kv_heads: 2, head_dim: 2, eps: 1e-6, normed: true };
const SEQUENCES: [Range<usize>; 2] = [0..2, 2..5];
const TOKENS: usize = 5;

fn values(len: usize, seed: f32) -> Vec<f32> {
    (0..len).map(|i| ((i as f32 + seed) * 0.7123).sin()).collect()
}

/// What an operation makes on several threads, and on one.
#[track_caller]
fn is_the_same_on_one_thread<T: PartialEq + std::fmt::Debug + Send>(work: impl Fn() -> T + Send + Sync) {
    let on = |threads| Cpu::new("miri", threads).unwrap().scope(&work);
    let on_several = on(3);
    // Miri takes minutes, and has seen what it can.
    if !cfg!(miri) {
        assert_eq!(on_several, on(1));
    }
}

#[test]
fn heads_of_attention_write_beside_one_another() {
    let (qk, qkv) = (values(TOKENS * SHAPE.qk_width(), 0.1), values(TOKENS * SHAPE.qkv_width(), 0.5));
    is_the_same_on_one_thread(|| {
        let (mut out, mut lse) = (vec![0.0; TOKENS * SHAPE.out_width()], vec![0.0; TOKENS * SHAPE.heads]);
        attention::forward(SHAPE, &SEQUENCES, &qk, &qkv, &mut out, &mut lse).unwrap();
        let saved = attention::Saved { qk: &qk, qkv: &qkv, out: &out, lse: &lse };
        let d_out = values(out.len(), 0.9);
        let (mut d_qk, mut d_qkv) = (vec![0.0; qk.len()], vec![0.0; qkv.len()]);
        attention::backward(SHAPE, &SEQUENCES, saved, &d_out, &mut d_qk, &mut d_qkv).unwrap();
        (out, lse, d_qk, d_qkv)
    });
}

#[test]
fn heads_of_a_prompts_pages_write_beside_one_another() {
    // Without Miri, a past so long that the tasks are spread over threads.
    let (past, block_size) = (if cfg!(miri) { 6_usize } else { 2046 }, 4);
    let shape = PagedShape { qkv: SHAPE, block_size };
    let table = Vec::from_iter(0..(past + 2).div_ceil(block_size) as u32);
    let segments = [
        PagedSegment { row: 0, new: 2, past, table: 0 },
        PagedSegment { row: 2, new: 2, past, table: 0 },
        PagedSegment { row: 4, new: 1, past: 3, table: 1 },
    ];
    let qk = values(TOKENS * SHAPE.qk_width(), 0.2);
    let pool = values(table.len() * shape.block_len(), 0.4);
    is_the_same_on_one_thread(|| {
        let mut out = vec![0.0; TOKENS * SHAPE.out_width()];
        paged::attention(shape, &segments, &table, &qk, &pool, &mut out).unwrap();
        out
    });
}

#[test]
fn columns_of_a_decoding_steps_product_are_written_beside_one_another() {
    let (m, n, k) = (2, 32, 1 << 10);
    let (a, b) = (values(m * k, 0.3), values(n * k, 0.6));
    let (rows, columns) = (MatrixLayout::rows(k), MatrixLayout::transposed(k));
    let shape = Matmul { m, n, k, a: rows, b: columns, c_row: n + 1, accumulate: false };
    is_the_same_on_one_thread(|| {
        let mut c = vec![0.0; m * (n + 1)];
        matmul(shape, &a, &b, &mut c).unwrap();
        c
    });
}
