//! The CPU: the specification of every operation, on slices, spread over a thread pool of its own.

pub(crate) mod adamw;
pub(crate) mod attention;
mod dots;
pub(crate) mod embedding;
mod loss;
pub(crate) mod matmul;
#[cfg(test)]
mod miri;
mod norm;
pub(crate) mod paged;
pub(crate) mod rope;
pub(crate) mod simd;
mod softmax_weights;
mod swiglu;

use std::{borrow::Cow, ops::Range, sync::Arc};

pub use softmax_weights::{SoftmaxMass, softmax_weights};

use crate::backend::{Backend, Element, Float};
use crate::error::{KernelError, Result, expect_len};
use crate::ops::*;

/// A CPU backend with a thread pool of a fixed size. Clones share the pool.
#[derive(Clone, Debug)]
pub struct Cpu {
    pool: Arc<rayon::ThreadPool>,
}

impl Cpu {
    /// A backend whose operations use `threads` threads (at least one), named after `name`.
    pub fn new(name: &str, threads: usize) -> Result<Self> {
        let name = name.to_owned();
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads.max(1))
            .thread_name(move |i| format!("{name}-{i}"))
            .build()
            .map_err(|e| KernelError::Device { device: "cpu".into(), what: e.to_string() })?;
        Ok(Self { pool: Arc::new(pool) })
    }

    /// The instruction set in use: `avx512`, `avx2` or `portable`.
    pub fn instructions(&self) -> &'static str {
        ["portable", "avx2", "avx512"][usize::from(simd::level())]
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }
}

/// A pointer that tasks share while each writes its own part. A part whose elements are neighbours is a [`range`]; one
/// that is columns of several rows is written through [`columns`], as slices of it would overlap those of other tasks.
/// Miri watches over it, where a toolchain has it: `MIRIFLAGS="-Zmiri-tree-borrows -Zmiri-permissive-provenance
/// -Zmiri-ignore-leaks" cargo +nightly miri test -p openclaw-kernels --lib cpu::miri` (rayon's own queues need the flags).
///
/// [`range`]: Self::range
/// [`columns`]: Self::columns
#[derive(Clone, Copy)]
pub(crate) struct Shared(*mut f32, usize);

#[allow(unsafe_code)]
// SAFETY: every user of `Shared` hands disjoint ranges to its tasks, as `range` demands.
unsafe impl Send for Shared {}
#[allow(unsafe_code)]
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    pub(crate) fn new(slice: &mut [f32]) -> Self {
        Self(slice.as_mut_ptr(), slice.len())
    }

    /// The `len` elements from `start`.
    ///
    /// # Safety
    /// No two live ranges of one buffer may overlap, and the buffer must outlive them.
    #[allow(unsafe_code)]
    pub(crate) unsafe fn range<'a>(self, start: usize, len: usize) -> &'a mut [f32] {
        assert!(start + len <= self.1, "range {start}+{len} of {}", self.1);
        // SAFETY: in bounds as just checked; disjointness is the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(start), len) }
    }

    /// Where the columns begin that a strided product writes: `width` of them, in `rows` rows that start every `row`
    /// elements.
    ///
    /// # Safety
    /// No live range of the buffer, and no columns that another task writes, may hold any of these elements, and the
    /// buffer must outlive what is done with the pointer. What lies between the columns is others'.
    #[allow(unsafe_code)]
    pub(crate) unsafe fn columns(self, start: usize, rows: usize, row: usize, width: usize) -> *mut f32 {
        let end = start + (rows - 1) * row + width;
        assert!(end <= self.1, "columns {start}..{end} of {}", self.1);
        // SAFETY: in bounds as just checked.
        unsafe { self.0.add(start) }
    }
}

impl Backend for Cpu {
    type Buffer<T: Element> = Vec<T>;
    type View<'a, T: Element> = &'a [T];
    type ViewMut<'a, T: Element> = &'a mut [T];

    fn scope<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.pool.install(work)
    }

    fn zeros<T: Element>(&self, len: usize) -> Result<Vec<T>> {
        Ok(vec![T::default(); len])
    }
    fn upload<T: Element>(&self, host: &[T]) -> Result<Vec<T>> {
        Ok(host.to_vec())
    }
    fn adopt<T: Element>(&self, host: Vec<T>) -> Result<Vec<T>> {
        Ok(host)
    }
    fn read<'a, T: Element + 'a>(&self, view: &'a [T]) -> Result<Cow<'a, [T]>> {
        Ok(Cow::Borrowed(view))
    }
    fn host_view<'a, T: Element>(&self, host: &'a [T]) -> Option<&'a [T]> {
        Some(host)
    }
    fn download<T: Element>(&self, view: &[T]) -> Result<Vec<T>> {
        Ok(view.to_vec())
    }
    fn write<T: Element>(&self, target: &mut [T], host: &[T]) -> Result<()> {
        expect_len("write", "host", host.len(), target.len())?;
        target.copy_from_slice(host);
        Ok(())
    }
    fn copy<T: Element>(&self, target: &mut [T], source: &[T]) -> Result<()> {
        self.write(target, source)
    }
    fn fill<T: Element>(&self, target: &mut [T], value: T) -> Result<()> {
        target.fill(value);
        Ok(())
    }
    fn len<T: Element>(&self, buffer: &Vec<T>) -> usize {
        buffer.len()
    }
    fn view<'a, T: Element>(&self, buffer: &'a Vec<T>, range: Range<usize>) -> &'a [T] {
        &buffer[range]
    }
    fn view_mut<'a, T: Element>(&self, buffer: &'a mut Vec<T>, range: Range<usize>) -> &'a mut [T] {
        &mut buffer[range]
    }

    fn matmul<W: Float>(&self, shape: Matmul, a: &[f32], b: &[W], c: &mut [f32]) -> Result<()> {
        matmul::matmul(shape, a, b, c)
    }
    fn embedding<W: Float>(&self, width: usize, ids: &[u32], table: &[W], out: &mut [f32]) -> Result<()> {
        embedding::forward(width, ids, table, out)
    }
    fn embedding_backward(
        &self,
        width: usize,
        ids: &[u32],
        d_out: &[f32],
        d_table: &mut [f32],
    ) -> Result<()> {
        embedding::backward(width, ids, d_out, d_table)
    }
    fn rms_norm(&self, eps: f32, x: &[f32], weight: &[f32], out: &mut [f32]) -> Result<()> {
        norm::forward(eps, x, weight, out)
    }
    fn rms_norm_backward(
        &self,
        eps: f32,
        x: &[f32],
        weight: &[f32],
        d_out: &[f32],
        d_x: &mut [f32],
        d_weight: &mut [f32],
    ) -> Result<()> {
        norm::backward(eps, x, weight, d_out, d_x, d_weight)
    }
    fn qk_norm_rope(
        &self,
        shape: QkvShape,
        qkv: &[f32],
        positions: &[u32],
        rope: RopeTable<&[f32]>,
        q_weight: &[f32],
        k_weight: &[f32],
        qk: &mut [f32],
    ) -> Result<()> {
        rope::forward(shape, qkv, positions, rope, q_weight, k_weight, qk)
    }
    fn qk_norm_rope_backward(
        &self,
        shape: QkvShape,
        qkv: &[f32],
        positions: &[u32],
        rope: RopeTable<&[f32]>,
        q_weight: &[f32],
        k_weight: &[f32],
        d_qk: &[f32],
        d_qkv: &mut [f32],
        d_q_weight: &mut [f32],
        d_k_weight: &mut [f32],
    ) -> Result<()> {
        let weights = (q_weight, k_weight);
        rope::backward(shape, qkv, positions, rope, weights, d_qk, d_qkv, (d_q_weight, d_k_weight))
    }
    fn attention(
        &self,
        shape: QkvShape,
        sequences: &[Range<usize>],
        qk: &[f32],
        qkv: &[f32],
        out: &mut [f32],
        lse: &mut [f32],
    ) -> Result<()> {
        attention::forward(shape, sequences, qk, qkv, out, lse)
    }
    fn attention_backward(
        &self,
        shape: QkvShape,
        sequences: &[Range<usize>],
        qk: &[f32],
        qkv: &[f32],
        out: &[f32],
        lse: &[f32],
        d_out: &[f32],
        d_qk: &mut [f32],
        d_qkv: &mut [f32],
    ) -> Result<()> {
        let saved = attention::Saved { qk, qkv, out, lse };
        attention::backward(shape, sequences, saved, d_out, d_qk, d_qkv)
    }
    fn paged_store(
        &self,
        shape: PagedShape,
        slots: &[u32],
        qk: &[f32],
        qkv: &[f32],
        pool: &mut [f32],
    ) -> Result<()> {
        paged::store(shape, slots, qk, qkv, pool)
    }
    fn paged_attention(
        &self,
        shape: PagedShape,
        segments: &[PagedSegment],
        block_tables: &[u32],
        qk: &[f32],
        pool: &[f32],
        out: &mut [f32],
    ) -> Result<()> {
        paged::attention(shape, segments, block_tables, qk, pool, out)
    }
    fn swiglu(&self, width: usize, gate_up: &[f32], out: &mut [f32]) -> Result<()> {
        swiglu::forward(width, gate_up, out)
    }
    fn swiglu_backward(
        &self,
        width: usize,
        gate_up: &[f32],
        d_out: &[f32],
        d_gate_up: &mut [f32],
    ) -> Result<()> {
        swiglu::backward(width, gate_up, d_out, d_gate_up)
    }
    fn adamw(
        &self,
        step: AdamW,
        params: &mut [f32],
        grads: &[f32],
        first: &mut [f32],
        second: &mut [f32],
    ) -> Result<()> {
        adamw::step(step, params, grads, first, second)
    }
    fn sum_squares(&self, x: &[f32]) -> Result<f64> {
        Ok(adamw::sum_squares(x))
    }

    fn logprob<T: Float>(
        &self,
        shape: LogitsShape,
        logits: &[T],
        score: Score<&[i32]>,
        out: ScoreOut<&mut [f32], &mut [i32]>,
    ) -> Result<()> {
        loss::logprob(shape, logits, score, out)
    }
    fn logprob_backward<T: Float>(
        &self,
        shape: LogitsShape,
        logits: Option<&[T]>,
        targets: &[i32],
        d_logprobs: &[f32],
        d_entropy: Option<&[f32]>,
        d_logits: &mut [T],
    ) -> Result<()> {
        loss::logprob_backward(shape, logits, targets, d_logprobs, d_entropy, d_logits)
    }
    fn logprob_gap<T: Float>(
        &self,
        shape: LogitsShape,
        student: &[T],
        teacher: &[T],
        targets: &[i32],
        out: GapOut<&mut [f32]>,
    ) -> Result<()> {
        loss::logprob_gap(shape, student, teacher, targets, out)
    }
    fn logprob_gap_backward<T: Float>(
        &self,
        shape: LogitsShape,
        side: GapSide,
        logits: Option<&[T]>,
        targets: &[i32],
        d_gap: &[f32],
        d_logits: &mut [T],
    ) -> Result<()> {
        loss::logprob_gap_backward(shape, side, logits, targets, d_gap, d_logits)
    }
    fn row_loss<T: Float>(
        &self,
        shape: LogitsShape,
        loss: RowLoss<&[f32], &[i32]>,
        logits: Option<&[T]>,
        d_logits: &mut [T],
        stats: &mut [RowStat],
    ) -> Result<()> {
        loss::row_loss(shape, loss, logits, d_logits, stats)
    }
    fn linear_loss<T: Float, W: Float>(
        &self,
        shape: LinearShape,
        loss: RowLoss<&[f32], &[i32]>,
        head: Head<&[T], &[W]>,
        out: HeadGradients<&mut [T], &mut [f32], &mut [RowStat]>,
    ) -> Result<()> {
        loss::linear_loss(shape, loss, head, out)
    }
    fn linear_logprob<T: Float, W: Float>(
        &self,
        shape: LinearShape,
        score: Score<&[i32]>,
        head: Head<&[T], &[W]>,
        scratch: &mut [T],
        out: ScoreOut<&mut [f32], &mut [i32]>,
    ) -> Result<()> {
        loss::linear_logprob(shape, score, head, scratch, out)
    }
}
