//! Operation 4: the language-model head, the row loss and both gradients, a chunk of rows at a time.
#![allow(unsafe_code)]

use super::copy_rows::copy_rows;
use super::linear_logprob::head_logits;
use super::product::product;
use super::row_loss::{Args, RowResults, check, in_place};
use crate::backend::{Backend, Float};
use crate::cuda::{Cuda, CudaView, CudaViewMut};
use crate::error::{Result, expect_len};
use crate::ops::{
    Head, HeadGradients, LinearShape, LogitsShape, Matmul, MatrixLayout, RowStat, check_linear,
};

/// Chunks of at most 1.25 GiB of `f32` logits, and of at most 4096 rows: the gradient of the weight is read and
/// written once a chunk, which large ones hide behind the products.
pub(in crate::cuda) fn chunked(rows: usize, width: usize, vocab: usize) -> LinearShape {
    const MOST_LOGITS: usize = 5 << 26;
    let fitting = (MOST_LOGITS / vocab.max(1)).clamp(256, 4096);
    LinearShape { chunk_rows: fitting.min(rows.max(1)), ..LinearShape::new(rows, width, vocab) }
}

pub(in crate::cuda) fn linear_loss<T: Float, W: Float>(
    cuda: &Cuda,
    shape: LinearShape,
    loss: Args<'_>,
    head: Head<CudaView<'_, T>, CudaView<'_, W>>,
    out: HeadGradients<CudaViewMut<'_, T>, CudaViewMut<'_, f32>, CudaViewMut<'_, RowStat>>,
) -> Result<()> {
    const OP: &str = "linear_loss";
    let Head { hidden, weight } = head;
    let HeadGradients { scratch, mut d_hidden, d_weight, mut stats } = out;
    check_linear(OP, &shape, &head, scratch.len())?;
    check(cuda, OP, (shape.rows, shape.vocab), &loss)?;
    expect_len(OP, "d_hidden", d_hidden.len(), hidden.len())?;
    let is_trained = !d_weight.is_empty();
    if is_trained {
        expect_len(OP, "d_weight", d_weight.len(), weight.len())?;
    }
    expect_len(OP, "stats", stats.len(), shape.rows)?;

    let LinearShape { width, vocab, chunk_rows, .. } = shape;
    cuda.fill(d_hidden.range(0..hidden.len()), 0.0)?;
    cuda.fill(stats.range(0..shape.rows), RowStat::default())?;
    let (mut logits, gathered) = scratch.split(chunk_rows * vocab);
    let mut live = cuda.uninitialized::<u32>(chunk_rows)?;
    let mut to_scatter = cuda.uninitialized::<f32>(chunk_rows * width)?;
    for chunk in active_rows(cuda, &loss)?.chunks(chunk_rows) {
        let count = chunk.len();
        let rows = cuda.upload(chunk)?;
        let rows = rows.view(0..count);
        // SAFETY: the rows are below the number of hidden states; `gathered` has `chunk_rows` rows.
        unsafe { copy_rows(cuda, (count, width), (hidden, Some(rows)), (&gathered, None))? };
        head_logits(cuda, count, &shape, gathered.shared(), weight, &mut logits)?;
        let chunk_shape = LogitsShape { temperature: shape.temperature, ..LogitsShape::dense(count, vocab) };
        let all_live = live.view_mut(0..count);
        let results = RowResults { stats: &stats, live: Some(&all_live) };
        in_place(cuda, chunk_shape, &loss, Some(rows), &logits, results)?;

        // Rows whose gradient is exactly 0 (clipped, no advantage) cost nothing further.
        let kept = Kept::new(&cuda.download(live.view(0..count))?);
        if kept.count == 0 {
            continue;
        }
        kept.move_rows(cuda, vocab, &logits)?;
        kept.move_rows(cuda, width, &gathered)?;
        let to_weight = Matmul {
            m: vocab,
            n: width,
            k: kept.count,
            a: MatrixLayout::transposed(vocab),
            b: MatrixLayout::rows(width),
            c_row: width,
            accumulate: true,
        };
        if is_trained {
            cuda.gemm(to_weight, logits.shared(), gathered.shared(), &d_weight)?;
        }
        let to_hidden = Matmul {
            m: kept.count,
            n: width,
            k: vocab,
            a: MatrixLayout::rows(vocab),
            b: MatrixLayout::rows(width),
            c_row: width,
            accumulate: false,
        };
        let gradients = to_scatter.view_mut(0..kept.count * width);
        product(cuda, to_hidden, logits.shared(), weight, &gradients)?;
        let places = cuda.upload(&kept.order(chunk))?;
        let places = Some(places.view(0..kept.count));
        // SAFETY: `gradients` has these rows, and the places are different rows of `d_hidden`.
        unsafe { copy_rows(cuda, (kept.count, width), (gradients.shared(), None), (&d_hidden, places))? };
    }
    Ok(())
}

/// The rows that take part in the loss. Waits for the device.
fn active_rows(cuda: &Cuda, loss: &Args<'_>) -> Result<Vec<u32>> {
    let (weights, targets) = (cuda.download(loss.weights)?, cuda.download(loss.targets)?);
    let rows = weights.iter().zip(&targets).zip(0u32..);
    Ok(rows.filter(|((weight, target), _)| **weight != 0.0 && **target >= 0).map(|(_, i)| i).collect())
}

/// How the rows of a chunk that have a gradient become its first rows: the last of them fill the places of those
/// that have none, so that no row is moved to where another still waits.
struct Kept {
    count: usize,
    from: Vec<u32>,
    to: Vec<u32>,
}

impl Kept {
    fn new(live: &[u32]) -> Self {
        let count = live.iter().filter(|live| **live != 0).count();
        let slots = |range: std::ops::Range<usize>, wanted: bool| {
            range.filter(|slot| (live[*slot] != 0) == wanted).map(|slot| slot as u32).collect()
        };
        Self { count, from: slots(count..live.len(), true), to: slots(0..count, false) }
    }

    fn move_rows<T: Float>(&self, cuda: &Cuda, width: usize, rows: &CudaViewMut<'_, T>) -> Result<()> {
        if self.from.is_empty() {
            return Ok(());
        }
        let (from, to) = (cuda.upload(&self.from)?, cuda.upload(&self.to)?);
        let (from, to) = (from.view(0..self.from.len()), to.view(0..self.to.len()));
        // SAFETY: all are rows of the chunk; those that are read lie behind those that are written.
        unsafe { copy_rows(cuda, (self.from.len(), width), (rows.shared(), Some(from)), (rows, Some(to))) }
    }

    /// What the chunk's first rows are after the move.
    fn order(&self, chunk: &[u32]) -> Vec<u32> {
        let mut order = chunk.to_vec();
        for (from, to) in self.from.iter().zip(&self.to) {
            order[*to as usize] = chunk[*from as usize];
        }
        order.truncate(self.count);
        order
    }
}
