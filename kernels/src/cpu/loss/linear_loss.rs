//! Operation 4: the language-model head, the row loss and both gradients, a chunk of rows at a time.

use rayon::prelude::*;

use super::head_type::{rounded, widened, working_memory};
use super::min_rows;
use super::row_loss::{Args, check_row_ids, is_active, row};
use super::softmax::Scale;
use crate::backend::Float;
use crate::cpu::matmul::matmul;
use crate::error::{Result, expect_len};
use crate::ops::{
    Head, HeadGradients, LinearShape, Matmul, MatrixLayout, RowStat, check_linear, check_row_loss,
};

pub(crate) fn linear_loss<T: Float, W: Float>(
    shape: LinearShape,
    loss: Args<'_>,
    head: Head<&[T], &[W]>,
    out: HeadGradients<&mut [T], &mut [f32], &mut [RowStat]>,
) -> Result<()> {
    const OP: &str = "linear_loss";
    let Head { hidden, weight } = head;
    let HeadGradients { scratch, d_hidden, d_weight, stats } = out;
    check_linear(OP, &shape, &head, scratch.len())?;
    check_row_loss(OP, shape.rows, &loss)?;
    check_row_ids(OP, shape.rows, shape.vocab, &loss)?;
    expect_len(OP, "d_hidden", d_hidden.len(), hidden.len())?;
    let is_trained = !d_weight.is_empty();
    if is_trained {
        expect_len(OP, "d_weight", d_weight.len(), weight.len())?;
    }
    expect_len(OP, "stats", stats.len(), shape.rows)?;

    let LinearShape { width, vocab, .. } = shape;
    let scale = Scale::new(shape.temperature);
    let (hidden, mut own) = (widened(hidden), Vec::new());
    let scratch = working_memory(scratch, &mut own);
    let (logits, gathered) = scratch.split_at_mut(shape.chunk_rows * vocab);
    d_hidden.fill(0.0);
    stats.fill(RowStat::default());
    let active: Vec<usize> = (0..shape.rows).filter(|i| is_active(&loss, *i)).collect();
    for chunk in active.chunks(shape.chunk_rows) {
        for (slot, i) in chunk.iter().enumerate() {
            gathered[slot * width..][..width].copy_from_slice(&hidden[i * width..][..width]);
        }
        head_logits(chunk.len(), &shape, gathered, weight, logits)?;
        let rows = logits.par_chunks_mut(vocab).zip(chunk).with_min_len(min_rows(vocab));
        let of_row = |(entries, buffer): &mut (Vec<_>, Vec<T>), (logits, i): (&mut [f32], &usize)| {
            rounded(logits, buffer, |logits| row(&loss, *i, None, logits, scale, entries))
        };
        let results: Vec<(RowStat, bool)> = rows.map_init(Default::default, of_row).collect();

        // Rows whose gradient is exactly 0 (clipped, no advantage) cost nothing further.
        let mut live = Vec::with_capacity(chunk.len());
        for (slot, (i, (stat, has_gradient))) in chunk.iter().zip(results).enumerate() {
            stats[*i] = stat;
            if has_gradient {
                let to = live.len();
                if to != slot {
                    logits.copy_within(slot * vocab..(slot + 1) * vocab, to * vocab);
                    gathered.copy_within(slot * width..(slot + 1) * width, to * width);
                }
                live.push(*i);
            }
        }
        if live.is_empty() {
            continue;
        }
        let rows = live.len();
        let to_weight = Matmul {
            m: vocab,
            n: width,
            k: rows,
            a: MatrixLayout::transposed(vocab),
            b: MatrixLayout::rows(width),
            c_row: width,
            accumulate: true,
        };
        if is_trained {
            matmul(to_weight, logits, gathered, d_weight)?;
        }
        let to_hidden = Matmul {
            m: rows,
            n: width,
            k: vocab,
            a: MatrixLayout::rows(vocab),
            b: MatrixLayout::rows(width),
            c_row: width,
            accumulate: false,
        };
        // The gathered hidden states are used up: their place takes the gradient.
        matmul(to_hidden, logits, weight, gathered)?;
        for (slot, i) in live.iter().enumerate() {
            d_hidden[i * width..][..width].copy_from_slice(&gathered[slot * width..][..width]);
        }
    }
    Ok(())
}

/// `logits [rows, vocab] = hidden [rows, width] weight^T`.
pub(super) fn head_logits<W: Float>(
    rows: usize,
    shape: &LinearShape,
    hidden: &[f32],
    weight: &[W],
    logits: &mut [f32],
) -> Result<()> {
    let LinearShape { width, vocab, .. } = *shape;
    let product = Matmul {
        m: rows,
        n: vocab,
        k: width,
        a: MatrixLayout::rows(width),
        b: MatrixLayout::transposed(width),
        c_row: vocab,
        accumulate: false,
    };
    matmul(product, hidden, weight, logits)
}
