//! The paged key-value pool: storing new tokens and attending over a sequence's pages (Kwon et al. 2023).
#![allow(unsafe_code)]

use gemm::Parallelism;
use rayon::prelude::*;

use super::{
    Shared,
    dots::{dot, tile},
    matmul::{strided, strided_into},
    simd::{madd, multiversion, softmax},
};
use crate::error::{KernelError, Result, expect_len, expect_rows};
use crate::ops::{Matmul, MatrixLayout, PagedSegment, PagedShape};

/// Query rows of a block of a prefill chunk.
const BLOCK: usize = 64;
/// Scores times columns from which the work is spread over threads. Miri looks at little work on several.
const SPREAD: usize = if cfg!(miri) { 0 } else { 1 << 16 };

impl PagedShape {
    /// Number of blocks in a pool of `len` elements.
    fn blocks(&self, op: &'static str, len: usize) -> Result<usize> {
        self.qkv.check(op)?;
        expect_rows(op, "pool", len, self.block_len())
    }

    /// Elements of one block of one layer.
    pub fn block_len(&self) -> usize {
        2 * self.qkv.kv_heads * self.block_size * self.qkv.head_dim
    }

    /// Where head `kv` of keys (`part` 0) or values (1) starts in `block`.
    fn start(&self, block: usize, part: usize, kv: usize) -> usize {
        block * self.block_len() + (part * self.qkv.kv_heads + kv) * self.block_size * self.qkv.head_dim
    }
}

/// Refuses what neither device can do. Of everything but the slots it takes the lengths.
pub(crate) fn check_store(
    shape: PagedShape,
    slots: &[u32],
    qk: usize,
    qkv: usize,
    pool: usize,
) -> Result<()> {
    expect_len("paged_store", "qk", qk, slots.len() * shape.qkv.qk_width())?;
    expect_len("paged_store", "qkv", qkv, slots.len() * shape.qkv.qkv_width())?;
    let capacity = shape.blocks("paged_store", pool)? * shape.block_size;
    if let Some(slot) = slots.iter().find(|slot| **slot as usize >= capacity) {
        let what = format!("slot {slot} is outside a pool of {capacity}");
        return Err(KernelError::Argument { op: "paged_store", what });
    }
    Ok(())
}

pub(super) fn store(
    shape: PagedShape,
    slots: &[u32],
    qk: &[f32],
    qkv: &[f32],
    pool: &mut [f32],
) -> Result<()> {
    let (heads, kv_heads, dim) = (shape.qkv.heads, shape.qkv.kv_heads, shape.qkv.head_dim);
    check_store(shape, slots, qk.len(), qkv.len(), pool.len())?;
    for ((slot, qk), qkv) in
        slots.iter().zip(qk.chunks_exact(shape.qkv.qk_width())).zip(qkv.chunks_exact(shape.qkv.qkv_width()))
    {
        let (block, offset) = (*slot as usize / shape.block_size, *slot as usize % shape.block_size);
        for kv in 0..kv_heads {
            let key = &qk[(heads + kv) * dim..][..dim];
            let value = &qkv[(heads + kv_heads + kv) * dim..][..dim];
            pool[shape.start(block, 0, kv) + offset * dim..][..dim].copy_from_slice(key);
            pool[shape.start(block, 1, kv) + offset * dim..][..dim].copy_from_slice(value);
        }
    }
    Ok(())
}

/// Refuses what neither device can do. Of the tensors it takes the lengths.
pub(crate) fn check_attention(
    shape: PagedShape,
    segments: &[PagedSegment],
    block_tables: &[u32],
    qk: usize,
    pool: usize,
    out: usize,
) -> Result<()> {
    let op = "paged_attention";
    let blocks = shape.blocks(op, pool)?;
    let mut next = 0;
    for s in segments {
        // Tasks write their segment's rows without a lock.
        if s.row < next {
            let what = format!("segment {s:?} overlaps the rows before {next}");
            return Err(KernelError::Argument { op, what });
        }
        next = s.row + s.new;
        let pages = (s.past + s.new).div_ceil(shape.block_size);
        let Some(table) = block_tables.get(s.table..s.table + pages) else {
            return Err(KernelError::Argument {
                op,
                what: format!("no block table of {pages} at {}", s.table),
            });
        };
        // The maximum of thousands, for every layer of a step: unlike a search it is many comparisons at once.
        if let Some(block) = table.iter().copied().max().filter(|block| *block as usize >= blocks) {
            return Err(KernelError::Argument { op, what: format!("block {block} of a pool of {blocks}") });
        }
        let rows = s.row + s.new;
        if qk < rows * shape.qkv.qk_width() || out < rows * shape.qkv.out_width() {
            return Err(KernelError::Argument { op, what: format!("segment {s:?} is outside the step") });
        }
    }
    Ok(())
}

pub(super) fn attention(
    shape: PagedShape,
    segments: &[PagedSegment],
    block_tables: &[u32],
    qk: &[f32],
    pool: &[f32],
    out: &mut [f32],
) -> Result<()> {
    check_attention(shape, segments, block_tables, qk.len(), pool.len(), out.len())?;
    let kv_heads = shape.qkv.kv_heads;
    let shared = Shared::new(out);
    let task = |task: usize| {
        let (segment, kv) = (&segments[task / kv_heads], task % kv_heads);
        let pages = (segment.past + segment.new).div_ceil(shape.block_size);
        let table = &block_tables[segment.table..][..pages];
        if segment.new == 1 {
            decode(shape, segment, table, kv, qk, pool, shared);
        } else {
            prefill(shape, segment, table, kv, qk, pool, shared);
        }
    };
    let work: usize = segments.iter().map(|s| s.new * (s.past + s.new)).sum();
    let tasks = segments.len() * kv_heads;
    if rayon::current_num_threads() == 1 || work * shape.qkv.out_width() < SPREAD {
        (0..tasks).for_each(task);
    } else {
        (0..tasks).into_par_iter().for_each(task);
    }
    Ok(())
}

/// One new token: dot products over the pages, in place.
fn decode(
    shape: PagedShape,
    segment: &PagedSegment,
    table: &[u32],
    kv: usize,
    qk: &[f32],
    pool: &[f32],
    out: Shared,
) {
    let (dim, group) = (shape.qkv.head_dim, shape.qkv.heads / shape.qkv.kv_heads);
    let scale = 1.0 / (dim as f32).sqrt();
    let len = segment.past + 1;
    let mut scores = vec![0f32; len];
    for head in kv * group..(kv + 1) * group {
        let query = &qk[segment.row * shape.qkv.qk_width() + head * dim..][..dim];
        for (page, scores) in table.iter().zip(scores.chunks_mut(shape.block_size)) {
            let keys = &pool[shape.start(*page as usize, 0, kv)..][..scores.len() * dim];
            let in_fours = scores.len() / 4 * 4;
            for (scores, keys) in scores.chunks_exact_mut(4).zip(keys.chunks_exact(4 * dim)) {
                let key = |i: usize| &keys[i * dim..][..dim];
                scores.copy_from_slice(&tile([query], [key(0), key(1), key(2), key(3)])[0]);
            }
            for (score, key) in scores[in_fours..].iter_mut().zip(keys[in_fours * dim..].chunks_exact(dim)) {
                *score = dot(query, key);
            }
        }
        softmax(&mut scores, scale);
        // SAFETY: this row's columns of this head belong to this task alone.
        let target = unsafe { out.range(segment.row * shape.qkv.out_width() + head * dim, dim) };
        target.fill(0.0);
        for (page, weights) in table.iter().zip(scores.chunks(shape.block_size)) {
            let values = &pool[shape.start(*page as usize, 1, kv)..][..weights.len() * dim];
            weighted_sum(weights, values, target);
        }
    }
}

multiversion! {
    fn weighted_sum(weights: &[f32], rows: &[f32], out: &mut [f32]) {
        let dim = out.len();
        let in_fours = weights.len() / 4 * 4;
        // Four rows for each time that `out` is read and written.
        for (w, rows) in weights.chunks_exact(4).zip(rows.chunks_exact(4 * dim)) {
            let (a, rest) = rows.split_at(dim);
            let (b, rest) = rest.split_at(dim);
            let (c, d) = rest.split_at(dim);
            for i in 0..dim {
                let two = madd::<FMA>(w[1], b[i], madd::<FMA>(w[0], a[i], out[i]));
                out[i] = madd::<FMA>(w[3], d[i], madd::<FMA>(w[2], c[i], two));
            }
        }
        for (weight, row) in weights[in_fours..].iter().zip(rows[in_fours * dim..].chunks_exact(dim)) {
            for i in 0..dim {
                out[i] = madd::<FMA>(*weight, row[i], out[i]);
            }
        }
    }
}

/// Several new tokens: the pages are gathered once, then blocks of rows are matrix products.
fn prefill(
    shape: PagedShape,
    segment: &PagedSegment,
    table: &[u32],
    kv: usize,
    qk: &[f32],
    pool: &[f32],
    out: Shared,
) {
    let (dim, group) = (shape.qkv.head_dim, shape.qkv.heads / shape.qkv.kv_heads);
    let scale = 1.0 / (dim as f32).sqrt();
    let len = segment.past + segment.new;
    let gather = |part: usize| {
        let mut rows = Vec::with_capacity(table.len() * shape.block_size * dim);
        for page in table {
            rows.extend_from_slice(&pool[shape.start(*page as usize, part, kv)..][..shape.block_size * dim]);
        }
        rows.truncate(len * dim);
        rows
    };
    let (keys, values) = (gather(0), gather(1));
    let mut scores = vec![0f32; BLOCK.min(segment.new) * len];
    for head in kv * group..(kv + 1) * group {
        for from in (0..segment.new).step_by(BLOCK) {
            let to = (from + BLOCK).min(segment.new);
            let (rows, seen) = (to - from, segment.past + to);
            let queries = &qk[(segment.row + from) * shape.qkv.qk_width() + head * dim..];
            let product = Matmul {
                m: rows,
                n: seen,
                k: dim,
                a: MatrixLayout::rows(shape.qkv.qk_width()),
                b: MatrixLayout::transposed(dim),
                c_row: seen,
                accumulate: false,
            };
            strided(product, queries, &keys, &mut scores, Parallelism::None);
            for row in 0..rows {
                let (visible, hidden) =
                    scores[row * seen..][..seen].split_at_mut(segment.past + from + row + 1);
                softmax(visible, scale);
                hidden.fill(0.0);
            }
            let out_row = shape.qkv.out_width();
            let product = Matmul {
                m: rows,
                n: dim,
                k: seen,
                a: MatrixLayout::rows(seen),
                b: MatrixLayout::rows(dim),
                c_row: out_row,
                accumulate: false,
            };
            let start = (segment.row + from) * out_row + head * dim;
            // SAFETY: these rows' columns of this head belong to this task alone.
            unsafe {
                let target = out.columns(start, rows, out_row, dim);
                strided_into(product, &scores, &values, target, Parallelism::None);
            }
        }
    }
}
