//! Operation 4, forward only: scores hidden states through the head, a chunk of rows at a time.

use super::logprob::{check, read};
use super::product::product;
use crate::backend::Float;
use crate::cuda::{Cuda, CudaView, CudaViewMut};
use crate::error::Result;
use crate::ops::{
    Candidates, Head, LinearShape, LogitsShape, Matmul, MatrixLayout, Score, ScoreOut, TopK, check_linear,
};

pub(in crate::cuda) fn linear_logprob<T: Float, W: Float>(
    cuda: &Cuda,
    shape: LinearShape,
    score: Score<CudaView<'_, i32>>,
    head: Head<CudaView<'_, T>, CudaView<'_, W>>,
    mut scratch: CudaViewMut<'_, T>,
    mut out: ScoreOut<CudaViewMut<'_, f32>, CudaViewMut<'_, i32>>,
) -> Result<()> {
    check_linear("linear_logprob", &shape, &head, scratch.len())?;
    check(cuda, "linear_logprob", (shape.rows, shape.vocab), &score, &out)?;
    for first in (0..shape.rows).step_by(shape.chunk_rows) {
        let rows = first..shape.rows.min(first + shape.chunk_rows);
        let count = rows.len();
        let mut logits = scratch.range(0..count * shape.vocab);
        let hidden = head.hidden.range(first * shape.width..rows.end * shape.width);
        head_logits(cuda, count, &shape, hidden, head.weight, &mut logits)?;
        let slots = |k: usize| first * k..rows.end * k;
        let part = Score {
            targets: score.targets.range(rows.clone()),
            candidates: score.candidates.map(|c| Candidates { k: c.k, ids: c.ids.range(slots(c.k)) }),
        };
        let candidates = score.candidates.map_or(0, |candidates| candidates.k);
        let results = ScoreOut {
            logprobs: out.logprobs.range(rows.clone()),
            lse: out.lse.range(rows.clone()),
            entropy: out.entropy.as_mut().map(|entropy| entropy.range(rows.clone())),
            candidates: out.candidates.as_mut().map(|out| out.range(slots(candidates))),
            top: out.top.as_mut().map(|top| TopK {
                k: top.k,
                ids: top.ids.range(slots(top.k)),
                logprobs: top.logprobs.range(slots(top.k)),
            }),
        };
        let chunk = LogitsShape { temperature: shape.temperature, ..LogitsShape::dense(count, shape.vocab) };
        read(cuda, chunk, logits.shared(), part, results)?;
    }
    Ok(())
}

/// `logits [rows, vocab] = hidden [rows, width] weight^T`.
pub(super) fn head_logits<T: Float, W: Float>(
    cuda: &Cuda,
    rows: usize,
    shape: &LinearShape,
    hidden: CudaView<'_, T>,
    weight: CudaView<'_, W>,
    logits: &mut CudaViewMut<'_, T>,
) -> Result<()> {
    let shape = Matmul {
        m: rows,
        n: shape.vocab,
        k: shape.width,
        a: MatrixLayout::rows(shape.width),
        b: MatrixLayout::transposed(shape.width),
        c_row: shape.vocab,
        accumulate: false,
    };
    product(cuda, shape, hidden, weight, logits)
}
