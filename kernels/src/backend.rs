//! The trait that a device implements: memory, then one method per operation.

use std::{borrow::Cow, ops::Range};

use crate::error::Result;
use crate::ops::*;

/// A value that can live in device memory.
pub trait Element: bytemuck::Pod + Send + Sync + Default + std::fmt::Debug {}
impl Element for f32 {}
impl Element for half::bf16 {}
impl Element for u32 {}
impl Element for i32 {}

/// A floating-point [`Element`]: logits may be `f32` or `bf16`; arithmetic is always `f32`.
pub trait Float: Element {
    /// Widens to `f32`, exactly.
    fn to_f32(self) -> f32;
    /// Rounds to nearest, ties to even.
    fn from_f32(value: f32) -> Self;
}
impl Float for f32 {
    fn to_f32(self) -> f32 {
        self
    }
    fn from_f32(value: f32) -> Self {
        value
    }
}
impl Float for half::bf16 {
    fn to_f32(self) -> f32 {
        half::bf16::to_f32(self)
    }
    fn from_f32(value: f32) -> Self {
        half::bf16::from_f32(value)
    }
}

/// A device: its memory and its operations.
///
/// On the CPU a buffer is a `Vec` and a view a slice; on CUDA they are device memory and ranges of it, ordered
/// by the backend's stream. Every operation may return before the device has finished it; [`Backend::download`]
/// waits. Matrices are row-major; shapes are in each operation's argument struct.
pub trait Backend: Clone + Send + Sync + 'static {
    /// Owned device memory.
    type Buffer<T: Element>: Send + Sync;
    /// A shared range of a buffer.
    type View<'a, T: Element>: Copy + Send + Sync;
    /// An exclusive range of a buffer.
    type ViewMut<'a, T: Element>: Send;

    /// Runs `work` where this backend's operations are cheapest to issue (the CPU's thread pool).
    fn scope<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R;

    /// `len` zeroed elements.
    fn zeros<T: Element>(&self, len: usize) -> Result<Self::Buffer<T>>;
    /// `len` elements for an operation to overwrite; until then they may hold anything.
    fn uninitialized<T: Element>(&self, len: usize) -> Result<Self::Buffer<T>> {
        self.zeros(len)
    }
    /// A copy of host memory.
    fn upload<T: Element>(&self, host: &[T]) -> Result<Self::Buffer<T>>;
    /// Host memory that becomes device memory: where the two are the same nothing is copied.
    fn adopt<T: Element>(&self, host: Vec<T>) -> Result<Self::Buffer<T>> {
        self.upload(&host)
    }
    /// Host memory as it lies, where the device reads that; `None` where it has memory of its own.
    fn host_view<'a, T: Element>(&self, _host: &'a [T]) -> Option<Self::View<'a, T>> {
        None
    }
    /// What is there on the host, without a copy where the host is the device; waits for it.
    fn read<'a, T: Element + 'a>(&self, view: Self::View<'a, T>) -> Result<Cow<'a, [T]>> {
        self.download(view).map(Cow::Owned)
    }
    /// A copy on the host; waits for the device.
    fn download<T: Element>(&self, view: Self::View<'_, T>) -> Result<Vec<T>>;
    /// Copies host memory over `target`.
    fn write<T: Element>(&self, target: Self::ViewMut<'_, T>, host: &[T]) -> Result<()>;
    /// Copies `source` over `target`.
    fn copy<T: Element>(&self, target: Self::ViewMut<'_, T>, source: Self::View<'_, T>) -> Result<()>;
    /// Sets every element.
    fn fill<T: Element>(&self, target: Self::ViewMut<'_, T>, value: T) -> Result<()>;
    /// Number of elements.
    fn len<T: Element>(&self, buffer: &Self::Buffer<T>) -> usize;
    /// A shared range. Panics when it is out of bounds.
    fn view<'a, T: Element>(&self, buffer: &'a Self::Buffer<T>, range: Range<usize>) -> Self::View<'a, T>;
    /// An exclusive range. Panics when it is out of bounds.
    fn view_mut<'a, T: Element>(
        &self,
        buffer: &'a mut Self::Buffer<T>,
        range: Range<usize>,
    ) -> Self::ViewMut<'a, T>;

    /// `c = a b` or `c += a b`, with `f32` sums; see [`Matmul`]. A `b` of `bf16` is widened as it is read on the CPU, which is
    /// exact; a GPU's own products are of `bf16` alone, so that `a` is rounded there.
    fn matmul<W: Float>(
        &self,
        shape: Matmul,
        a: Self::View<'_, f32>,
        b: Self::View<'_, W>,
        c: Self::ViewMut<'_, f32>,
    ) -> Result<()>;
    /// Gathers rows of `table [vocab, width]` for `ids [tokens]` into `out [tokens, width]`.
    fn embedding<W: Float>(
        &self,
        width: usize,
        ids: Self::View<'_, u32>,
        table: Self::View<'_, W>,
        out: Self::ViewMut<'_, f32>,
    ) -> Result<()>;
    /// Adds `d_out [tokens, width]` to the rows of `d_table` named by `ids`, in token order.
    fn embedding_backward(
        &self,
        width: usize,
        ids: Self::View<'_, u32>,
        d_out: Self::View<'_, f32>,
        d_table: Self::ViewMut<'_, f32>,
    ) -> Result<()>;
    /// `out = x / rms(x) * weight` for every row of `weight.len()` elements.
    fn rms_norm(
        &self,
        eps: f32,
        x: Self::View<'_, f32>,
        weight: Self::View<'_, f32>,
        out: Self::ViewMut<'_, f32>,
    ) -> Result<()>;
    /// Adds the gradient of [`Backend::rms_norm`] to `d_x` and `d_weight`, which is empty where the weight is frozen.
    fn rms_norm_backward(
        &self,
        eps: f32,
        x: Self::View<'_, f32>,
        weight: Self::View<'_, f32>,
        d_out: Self::View<'_, f32>,
        d_x: Self::ViewMut<'_, f32>,
        d_weight: Self::ViewMut<'_, f32>,
    ) -> Result<()>;
    /// Per-head RMS norm, where the shape says so, and rotary embedding of the query and key part of `qkv`; see [`QkvShape`].
    #[allow(clippy::too_many_arguments)]
    fn qk_norm_rope(
        &self,
        shape: QkvShape,
        qkv: Self::View<'_, f32>,
        positions: Self::View<'_, u32>,
        rope: RopeTable<Self::View<'_, f32>>,
        q_weight: Self::View<'_, f32>,
        k_weight: Self::View<'_, f32>,
        qk: Self::ViewMut<'_, f32>,
    ) -> Result<()>;
    /// Writes the query and key part of `d_qkv` from `d_qk`; adds to both weight gradients.
    #[allow(clippy::too_many_arguments)]
    fn qk_norm_rope_backward(
        &self,
        shape: QkvShape,
        qkv: Self::View<'_, f32>,
        positions: Self::View<'_, u32>,
        rope: RopeTable<Self::View<'_, f32>>,
        q_weight: Self::View<'_, f32>,
        k_weight: Self::View<'_, f32>,
        d_qk: Self::View<'_, f32>,
        d_qkv: Self::ViewMut<'_, f32>,
        d_q_weight: Self::ViewMut<'_, f32>,
        d_k_weight: Self::ViewMut<'_, f32>,
    ) -> Result<()>;
    /// Causal attention inside each sequence of a ragged batch; also returns log-sum-exp per (token, head).
    fn attention(
        &self,
        shape: QkvShape,
        sequences: &[Range<usize>],
        qk: Self::View<'_, f32>,
        qkv: Self::View<'_, f32>,
        out: Self::ViewMut<'_, f32>,
        lse: Self::ViewMut<'_, f32>,
    ) -> Result<()>;
    /// Writes `d_qk` and the value part of `d_qkv`, recomputing probabilities from `lse`.
    #[allow(clippy::too_many_arguments)]
    fn attention_backward(
        &self,
        shape: QkvShape,
        sequences: &[Range<usize>],
        qk: Self::View<'_, f32>,
        qkv: Self::View<'_, f32>,
        out: Self::View<'_, f32>,
        lse: Self::View<'_, f32>,
        d_out: Self::View<'_, f32>,
        d_qk: Self::ViewMut<'_, f32>,
        d_qkv: Self::ViewMut<'_, f32>,
    ) -> Result<()>;
    /// Stores each token's key and value in its slot of a paged pool; see [`PagedShape`].
    fn paged_store(
        &self,
        shape: PagedShape,
        slots: Self::View<'_, u32>,
        qk: Self::View<'_, f32>,
        qkv: Self::View<'_, f32>,
        pool: Self::ViewMut<'_, f32>,
    ) -> Result<()>;
    /// Attention of new tokens over their sequence's pages, their own keys included.
    fn paged_attention(
        &self,
        shape: PagedShape,
        segments: &[PagedSegment],
        block_tables: Self::View<'_, u32>,
        qk: Self::View<'_, f32>,
        pool: Self::View<'_, f32>,
        out: Self::ViewMut<'_, f32>,
    ) -> Result<()>;
    /// `out = silu(gate) * up` where a row of `gate_up` is `[gate | up]`, each `width` long.
    fn swiglu(&self, width: usize, gate_up: Self::View<'_, f32>, out: Self::ViewMut<'_, f32>) -> Result<()>;
    /// Gradient of [`Backend::swiglu`] to `gate_up`.
    fn swiglu_backward(
        &self,
        width: usize,
        gate_up: Self::View<'_, f32>,
        d_out: Self::View<'_, f32>,
        d_gate_up: Self::ViewMut<'_, f32>,
    ) -> Result<()>;
    /// One AdamW step over a flat parameter range; see [`AdamW`].
    fn adamw(
        &self,
        step: AdamW,
        params: Self::ViewMut<'_, f32>,
        grads: Self::View<'_, f32>,
        first: Self::ViewMut<'_, f32>,
        second: Self::ViewMut<'_, f32>,
    ) -> Result<()>;
    /// Sum of squares, in `f64`, in a fixed order.
    fn sum_squares(&self, x: Self::View<'_, f32>) -> Result<f64>;

    /// Log-probs, log-sum-exps and more of `logits` in one read; see [`Score`] and [`ScoreOut`].
    fn logprob<T: Float>(
        &self,
        shape: LogitsShape,
        logits: Self::View<'_, T>,
        score: Score<Self::View<'_, i32>>,
        out: ScoreOut<Self::ViewMut<'_, f32>, Self::ViewMut<'_, i32>>,
    ) -> Result<()>;
    /// Gradient of log-probs and entropies to the logits, over `d_logits`, whose padding is left alone. Without
    /// `logits` it works in place: `d_logits` holds them. A row with a negative target gets 0.
    fn logprob_backward<T: Float>(
        &self,
        shape: LogitsShape,
        logits: Option<Self::View<'_, T>>,
        targets: Self::View<'_, i32>,
        d_logprobs: Self::View<'_, f32>,
        d_entropy: Option<Self::View<'_, f32>>,
        d_logits: Self::ViewMut<'_, T>,
    ) -> Result<()>;
    /// Teacher minus student log-prob of the taken tokens; rows with a negative target are not read and give 0.
    fn logprob_gap<T: Float>(
        &self,
        shape: LogitsShape,
        student: Self::View<'_, T>,
        teacher: Self::View<'_, T>,
        targets: Self::View<'_, i32>,
        out: GapOut<Self::ViewMut<'_, f32>>,
    ) -> Result<()>;
    /// Gradient of [`Backend::logprob_gap`] to one side's logits, in place without `logits`.
    fn logprob_gap_backward<T: Float>(
        &self,
        shape: LogitsShape,
        side: GapSide,
        logits: Option<Self::View<'_, T>>,
        targets: Self::View<'_, i32>,
        d_gap: Self::View<'_, f32>,
        d_logits: Self::ViewMut<'_, T>,
    ) -> Result<()>;
    /// Gradient of [`RowLoss`] to the logits, over `d_logits`, whose padding is left alone, and a report of each
    /// row. Without `logits` it works in place: `d_logits` holds them; both ways give the same bits. Ignored rows
    /// are not read and get 0. Every loss is a choice of terms: clipped policy, cross-entropy, top-k
    /// distillation, per-vocabulary policy.
    fn row_loss<T: Float>(
        &self,
        shape: LogitsShape,
        loss: RowLoss<Self::View<'_, f32>, Self::View<'_, i32>>,
        logits: Option<Self::View<'_, T>>,
        d_logits: Self::ViewMut<'_, T>,
        stats: Self::ViewMut<'_, RowStat>,
    ) -> Result<()>;
    /// The head over so many rows at temperature 1, in chunks of which this device makes the best.
    fn linear_shape(&self, rows: usize, width: usize, vocab: usize) -> LinearShape {
        LinearShape::new(rows, width, vocab)
    }
    /// [`Backend::row_loss`] of `hidden weight^T` without storing all logits: overwrites `d_hidden`, adds to
    /// `d_weight`. Rows without a gradient are skipped.
    ///
    /// A chunk's logits and their gradients have the hidden states' type; both gradients of the head are `f32`.
    fn linear_loss<T: Float, W: Float>(
        &self,
        shape: LinearShape,
        loss: RowLoss<Self::View<'_, f32>, Self::View<'_, i32>>,
        head: Head<Self::View<'_, T>, Self::View<'_, W>>,
        out: HeadGradients<Self::ViewMut<'_, T>, Self::ViewMut<'_, f32>, Self::ViewMut<'_, RowStat>>,
    ) -> Result<()>;
    /// [`Backend::logprob`] of `hidden weight^T` without storing all logits.
    fn linear_logprob<T: Float, W: Float>(
        &self,
        shape: LinearShape,
        score: Score<Self::View<'_, i32>>,
        head: Head<Self::View<'_, T>, Self::View<'_, W>>,
        scratch: Self::ViewMut<'_, T>,
        out: ScoreOut<Self::ViewMut<'_, f32>, Self::ViewMut<'_, i32>>,
    ) -> Result<()>;
}
