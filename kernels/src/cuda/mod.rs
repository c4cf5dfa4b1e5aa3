//! CUDA: the same operations on a GPU, or on the emulation of one.
//!
//! Kernels are in `kernels/cuda/*.cu`, compiled when they are first used; `ops` has one file per operation that
//! checks the arguments, chooses the specialisation and launches it.

mod driver;
mod gemm;
mod launch;
pub mod libraries;
pub mod manifest;
mod memory;
mod modules;
mod nvrtc;
mod ops;
#[cfg(test)]
pub(crate) mod tests;

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    env,
    ops::Range,
    sync::{Arc, Mutex, OnceLock, PoisonError, Weak},
};

pub use driver::Properties;
pub use memory::{CudaBuffer, CudaView, CudaViewMut, MemoryUse};
pub use modules::{Module, Source, cache_folder};
pub use nvrtc::{Compiled, Nvrtc};
pub use ops::row_loss::RowLossControl;

use self::{
    driver::{
        Driver, Function,
        emulated::{self, Emulated},
        real::{self, Real},
    },
    gemm::Gemm,
    memory::Pool,
    modules::Cache,
};
use crate::backend::{Backend, Element, Float};
use crate::error::{Result, expect_len};
use crate::ops::*;

/// Where it is set, every launch is waited for, so that an error names the kernel that made it: a GPU reports a fault
/// at some later call.
pub const SYNC_VARIABLE: &str = "OPENCLAW_CUDA_SYNC";

/// A GPU. Clones share it, and everything is done in the order in which it was asked for.
#[derive(Clone)]
pub struct Cuda {
    inner: Arc<Inner>,
}

struct Inner {
    row_loss_control: OnceLock<RowLossControl>,
    /// Whether each launch is waited for; see [`SYNC_VARIABLE`].
    waits: bool,
    functions: Mutex<HashMap<(Module, &'static str), Function>>,
    tables: ops::tables::Tables,
    pool: Arc<Pool>,
    driver: Arc<dyn Driver>,
}

impl std::fmt::Debug for Cuda {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Cuda").field(&self.properties().device).finish()
    }
}

impl Cuda {
    /// The GPU with this number. Every call in a process gives the same device, so that work on memory that passes
    /// from one thread to another is done in order.
    pub fn new(ordinal: u32) -> Result<Self> {
        real::refuse_lost(ordinal)?;
        static OPEN: Mutex<BTreeMap<u32, Weak<Inner>>> = Mutex::new(BTreeMap::new());
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(inner) = open.get(&ordinal).and_then(Weak::upgrade) {
            return Ok(Self { inner });
        }
        let cuda = Self::with(Arc::new(Real::new(ordinal, Cache::new(cache_folder()))?));
        open.insert(ordinal, Arc::downgrade(&cuda.inner));
        Ok(cuda)
    }

    /// Whether there is a GPU with this number, and the libraries to use it; opens nothing.
    pub fn can_open(ordinal: u32) -> Result<()> {
        real::can_open(ordinal)
    }

    /// How many GPUs there are, and the version of CUDA that their driver is for (13000 is 13.0). An error says
    /// what is missing and where it was looked for.
    pub fn gpus() -> std::result::Result<(u32, i32), String> {
        real::gpus()
    }

    /// An emulated device of compute capability 9.0; needs a C++ compiler.
    pub fn emulated() -> Result<Self> {
        Self::emulated_as(90, 0, u64::MAX)
    }

    /// An emulated device of a compute capability (times ten) and size. `seed` decides in which order threads run.
    pub fn emulated_as(arch: u32, seed: u64, memory_bytes: u64) -> Result<Self> {
        emulated::can_compile()?;
        let driver = Emulated::new(arch, memory_bytes, seed, Cache::new(cache_folder()));
        Ok(Self::with(Arc::new(driver)))
    }

    fn with(driver: Arc<dyn Driver>) -> Self {
        let pool = Arc::new(Pool::new(driver.clone()));
        Self {
            inner: Arc::new(Inner {
                row_loss_control: OnceLock::new(),
                waits: env::var_os(SYNC_VARIABLE).is_some_and(|value| !value.is_empty()),
                functions: Mutex::default(),
                tables: Default::default(),
                pool,
                driver,
            }),
        }
    }

    /// What the device is.
    pub fn properties(&self) -> &Properties {
        self.inner.driver.properties()
    }
    /// What its memory is used for by this process.
    pub fn memory_use(&self) -> MemoryUse {
        self.inner.pool.usage()
    }
    /// From now on this process's buffers, and what is kept for later ones, take at most so much of its memory.
    pub fn limit_memory(&self, bytes: usize) {
        self.inner.pool.limit(bytes);
    }
    /// Waits for everything that was asked for.
    pub fn synchronize(&self) -> Result<()> {
        self.inner.driver.synchronize()
    }

    /// Milliseconds that the device takes for what `work` asks of it.
    pub fn millis<R>(&self, work: impl FnOnce() -> Result<R>) -> Result<(R, f32)> {
        let start = self.inner.driver.mark()?;
        let done = work()?;
        let end = self.inner.driver.mark()?;
        Ok((done, self.inner.driver.millis_between(start, end)?))
    }

    /// From now on this device's row losses have this layout, for measurements; the first call decides.
    pub fn control_row_loss(&self, control: RowLossControl) {
        let _ = self.inner.row_loss_control.set(control);
    }
    pub(crate) fn row_loss_control(&self) -> Option<RowLossControl> {
        self.inner.row_loss_control.get().copied()
    }

    /// A buffer whose elements hold anything: NaN on the emulation.
    pub(crate) fn uninitialized<T: Element>(&self, len: usize) -> Result<CudaBuffer<T>> {
        Ok(CudaBuffer::new(self.inner.pool.allocate(len * size_of::<T>())?, len))
    }

    /// The values of integers, to check or to sort: those that were uploaded are still on the host, others are
    /// waited for.
    pub(crate) fn values<'a, T: Element>(&self, view: CudaView<'a, T>) -> Result<Cow<'a, [T]>> {
        match view.remembered() {
            Some(host) => Ok(Cow::Borrowed(host)),
            None => Ok(Cow::Owned(self.download(view)?)),
        }
    }

    /// `c = a b` or `c += a b` with `f32` sums, of `f32` or of `bf16` matrices.
    #[allow(unsafe_code)]
    pub fn gemm<I: Float, O: Float>(
        &self,
        shape: Matmul,
        a: CudaView<'_, I>,
        b: CudaView<'_, I>,
        c: &CudaViewMut<'_, O>,
    ) -> Result<()> {
        let gemm = Gemm::new(shape, a, b, c)?;
        // SAFETY: `Gemm::new` checked that the views have what the shape reaches.
        unsafe { self.inner.driver.gemm(&gemm)? };
        if self.inner.waits { self.inner.driver.wait_for(&format!("a product, {shape:?},")) } else { Ok(()) }
    }
}

#[allow(unsafe_code)]
impl Backend for Cuda {
    type Buffer<T: Element> = CudaBuffer<T>;
    type View<'a, T: Element> = CudaView<'a, T>;
    type ViewMut<'a, T: Element> = CudaViewMut<'a, T>;

    fn scope<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        work()
    }

    fn zeros<T: Element>(&self, len: usize) -> Result<CudaBuffer<T>> {
        let mut buffer = self.uninitialized(len)?;
        let all = buffer.view_mut(0..len);
        if len > 0 {
            // SAFETY: the view has these bytes. All bits 0 is 0 in every element type.
            unsafe { self.inner.driver.fill(all.address(), 0, all.bytes())? };
        }
        Ok(buffer)
    }
    fn uninitialized<T: Element>(&self, len: usize) -> Result<CudaBuffer<T>> {
        // The device's own method of this name: the one of the trait is for other crates.
        Self::uninitialized(self, len)
    }
    fn upload<T: Element>(&self, host: &[T]) -> Result<CudaBuffer<T>> {
        let mut buffer = self.uninitialized(host.len())?;
        self.write(buffer.view_mut(0..host.len()), host)?;
        buffer.remember(host);
        Ok(buffer)
    }
    fn download<T: Element>(&self, view: CudaView<'_, T>) -> Result<Vec<T>> {
        let mut host = vec![T::default(); view.len()];
        if !host.is_empty() {
            // SAFETY: the view has as many bytes as `host`.
            unsafe { self.inner.driver.download(bytemuck::cast_slice_mut(&mut host), view.address())? };
        }
        Ok(host)
    }
    fn write<T: Element>(&self, target: CudaViewMut<'_, T>, host: &[T]) -> Result<()> {
        expect_len("write", "host", host.len(), target.len())?;
        if host.is_empty() {
            return Ok(());
        }
        // SAFETY: `target` has as many bytes as `host`.
        unsafe { self.inner.driver.upload(target.address(), bytemuck::cast_slice(host)) }
    }
    fn copy<T: Element>(&self, target: CudaViewMut<'_, T>, source: CudaView<'_, T>) -> Result<()> {
        expect_len("copy", "source", source.len(), target.len())?;
        if source.is_empty() {
            return Ok(());
        }
        // SAFETY: equal lengths; `target` is exclusive, so they do not overlap.
        unsafe { self.inner.driver.copy(target.address(), source.address(), source.bytes()) }
    }
    fn fill<T: Element>(&self, target: CudaViewMut<'_, T>, value: T) -> Result<()> {
        ops::fill::fill(self, target, value)
    }
    fn len<T: Element>(&self, buffer: &CudaBuffer<T>) -> usize {
        buffer.len()
    }
    fn view<'a, T: Element>(&self, buffer: &'a CudaBuffer<T>, range: Range<usize>) -> CudaView<'a, T> {
        buffer.view(range)
    }
    fn view_mut<'a, T: Element>(
        &self,
        buffer: &'a mut CudaBuffer<T>,
        range: Range<usize>,
    ) -> CudaViewMut<'a, T> {
        buffer.view_mut(range)
    }

    fn matmul<W: Float>(
        &self,
        shape: Matmul,
        a: CudaView<'_, f32>,
        b: CudaView<'_, W>,
        c: CudaViewMut<'_, f32>,
    ) -> Result<()> {
        ops::product::product(self, shape, a, b, &c)
    }
    fn embedding<W: Float>(
        &self,
        width: usize,
        ids: CudaView<'_, u32>,
        table: CudaView<'_, W>,
        out: CudaViewMut<'_, f32>,
    ) -> Result<()> {
        ops::embedding::forward(self, width, ids, table, out)
    }
    fn embedding_backward(
        &self,
        width: usize,
        ids: CudaView<'_, u32>,
        d_out: CudaView<'_, f32>,
        d_table: CudaViewMut<'_, f32>,
    ) -> Result<()> {
        ops::embedding::backward(self, width, ids, d_out, d_table)
    }
    fn rms_norm(
        &self,
        eps: f32,
        x: CudaView<'_, f32>,
        weight: CudaView<'_, f32>,
        out: CudaViewMut<'_, f32>,
    ) -> Result<()> {
        ops::norm::forward(self, eps, x, weight, out)
    }
    fn rms_norm_backward(
        &self,
        eps: f32,
        x: CudaView<'_, f32>,
        weight: CudaView<'_, f32>,
        d_out: CudaView<'_, f32>,
        d_x: CudaViewMut<'_, f32>,
        d_weight: CudaViewMut<'_, f32>,
    ) -> Result<()> {
        ops::norm::backward(self, eps, x, weight, d_out, d_x, d_weight)
    }
    fn qk_norm_rope(
        &self,
        shape: QkvShape,
        qkv: CudaView<'_, f32>,
        positions: CudaView<'_, u32>,
        rope: RopeTable<CudaView<'_, f32>>,
        q_weight: CudaView<'_, f32>,
        k_weight: CudaView<'_, f32>,
        qk: CudaViewMut<'_, f32>,
    ) -> Result<()> {
        ops::rope::forward(self, shape, qkv, positions, rope, (q_weight, k_weight), qk)
    }
    fn qk_norm_rope_backward(
        &self,
        shape: QkvShape,
        qkv: CudaView<'_, f32>,
        positions: CudaView<'_, u32>,
        rope: RopeTable<CudaView<'_, f32>>,
        q_weight: CudaView<'_, f32>,
        k_weight: CudaView<'_, f32>,
        d_qk: CudaView<'_, f32>,
        d_qkv: CudaViewMut<'_, f32>,
        d_q_weight: CudaViewMut<'_, f32>,
        d_k_weight: CudaViewMut<'_, f32>,
    ) -> Result<()> {
        let (weights, d_weights) = ((q_weight, k_weight), (d_q_weight, d_k_weight));
        ops::rope::backward(self, shape, qkv, positions, rope, weights, d_qk, d_qkv, d_weights)
    }
    fn attention(
        &self,
        shape: QkvShape,
        sequences: &[Range<usize>],
        qk: CudaView<'_, f32>,
        qkv: CudaView<'_, f32>,
        out: CudaViewMut<'_, f32>,
        lse: CudaViewMut<'_, f32>,
    ) -> Result<()> {
        ops::attention::forward(self, shape, sequences, qk, qkv, out, lse)
    }
    fn attention_backward(
        &self,
        shape: QkvShape,
        sequences: &[Range<usize>],
        qk: CudaView<'_, f32>,
        qkv: CudaView<'_, f32>,
        out: CudaView<'_, f32>,
        lse: CudaView<'_, f32>,
        d_out: CudaView<'_, f32>,
        d_qk: CudaViewMut<'_, f32>,
        d_qkv: CudaViewMut<'_, f32>,
    ) -> Result<()> {
        let saved = ops::attention::Saved { qk, qkv, out, lse };
        ops::attention::backward(self, shape, sequences, saved, d_out, d_qk, d_qkv)
    }
    fn paged_store(
        &self,
        shape: PagedShape,
        slots: CudaView<'_, u32>,
        qk: CudaView<'_, f32>,
        qkv: CudaView<'_, f32>,
        pool: CudaViewMut<'_, f32>,
    ) -> Result<()> {
        ops::paged::store(self, shape, slots, qk, qkv, pool)
    }
    fn paged_attention(
        &self,
        shape: PagedShape,
        segments: &[PagedSegment],
        block_tables: CudaView<'_, u32>,
        qk: CudaView<'_, f32>,
        pool: CudaView<'_, f32>,
        out: CudaViewMut<'_, f32>,
    ) -> Result<()> {
        ops::paged::attention(self, shape, segments, block_tables, qk, pool, out)
    }
    fn swiglu(&self, width: usize, gate_up: CudaView<'_, f32>, out: CudaViewMut<'_, f32>) -> Result<()> {
        ops::swiglu::forward(self, width, gate_up, out)
    }
    fn swiglu_backward(
        &self,
        width: usize,
        gate_up: CudaView<'_, f32>,
        d_out: CudaView<'_, f32>,
        d_gate_up: CudaViewMut<'_, f32>,
    ) -> Result<()> {
        ops::swiglu::backward(self, width, gate_up, d_out, d_gate_up)
    }
    fn adamw(
        &self,
        step: AdamW,
        params: CudaViewMut<'_, f32>,
        grads: CudaView<'_, f32>,
        first: CudaViewMut<'_, f32>,
        second: CudaViewMut<'_, f32>,
    ) -> Result<()> {
        ops::adamw::step(self, step, params, grads, first, second)
    }
    fn sum_squares(&self, x: CudaView<'_, f32>) -> Result<f64> {
        ops::sum_squares::sum_squares(self, x)
    }
    fn logprob<T: Float>(
        &self,
        shape: LogitsShape,
        logits: CudaView<'_, T>,
        score: Score<CudaView<'_, i32>>,
        out: ScoreOut<CudaViewMut<'_, f32>, CudaViewMut<'_, i32>>,
    ) -> Result<()> {
        ops::logprob::logprob(self, shape, logits, score, out)
    }
    fn logprob_backward<T: Float>(
        &self,
        shape: LogitsShape,
        logits: Option<CudaView<'_, T>>,
        targets: CudaView<'_, i32>,
        d_logprobs: CudaView<'_, f32>,
        d_entropy: Option<CudaView<'_, f32>>,
        d_logits: CudaViewMut<'_, T>,
    ) -> Result<()> {
        ops::row_loss::logprob_backward(self, shape, logits, targets, d_logprobs, d_entropy, d_logits)
    }
    fn logprob_gap<T: Float>(
        &self,
        shape: LogitsShape,
        student: CudaView<'_, T>,
        teacher: CudaView<'_, T>,
        targets: CudaView<'_, i32>,
        out: GapOut<CudaViewMut<'_, f32>>,
    ) -> Result<()> {
        ops::logprob_gap::logprob_gap(self, shape, student, teacher, targets, out)
    }
    fn logprob_gap_backward<T: Float>(
        &self,
        shape: LogitsShape,
        side: GapSide,
        logits: Option<CudaView<'_, T>>,
        targets: CudaView<'_, i32>,
        d_gap: CudaView<'_, f32>,
        d_logits: CudaViewMut<'_, T>,
    ) -> Result<()> {
        ops::row_loss::logprob_gap_backward(self, shape, side, logits, targets, d_gap, d_logits)
    }
    fn row_loss<T: Float>(
        &self,
        shape: LogitsShape,
        loss: RowLoss<CudaView<'_, f32>, CudaView<'_, i32>>,
        logits: Option<CudaView<'_, T>>,
        d_logits: CudaViewMut<'_, T>,
        stats: CudaViewMut<'_, RowStat>,
    ) -> Result<()> {
        ops::row_loss::row_loss(self, shape, loss, logits, d_logits, stats)
    }
    fn linear_shape(&self, rows: usize, width: usize, vocab: usize) -> LinearShape {
        ops::linear_loss::chunked(rows, width, vocab)
    }
    fn linear_loss<T: Float, W: Float>(
        &self,
        shape: LinearShape,
        loss: RowLoss<CudaView<'_, f32>, CudaView<'_, i32>>,
        head: Head<CudaView<'_, T>, CudaView<'_, W>>,
        out: HeadGradients<CudaViewMut<'_, T>, CudaViewMut<'_, f32>, CudaViewMut<'_, RowStat>>,
    ) -> Result<()> {
        ops::linear_loss::linear_loss(self, shape, loss, head, out)
    }
    fn linear_logprob<T: Float, W: Float>(
        &self,
        shape: LinearShape,
        score: Score<CudaView<'_, i32>>,
        head: Head<CudaView<'_, T>, CudaView<'_, W>>,
        scratch: CudaViewMut<'_, T>,
        out: ScoreOut<CudaViewMut<'_, f32>, CudaViewMut<'_, i32>>,
    ) -> Result<()> {
        ops::linear_logprob::linear_logprob(self, shape, score, head, scratch, out)
    }
}
