//! The loss operations behind a C interface, so that `kernels/compare.py` calls them and PyTorch in one process, on
//! the same tensors. Build it with `cargo build --release -p openclaw-kernels --example peer`.
#![allow(unsafe_code, missing_docs, clippy::missing_safety_doc, clippy::print_stderr)]

use std::ffi::c_void;
use std::slice;
use std::sync::OnceLock;

use half::bf16;
use openclaw_kernels::cuda::{CudaView, CudaViewMut};
use openclaw_kernels::ops::*;
use openclaw_kernels::{Backend, Cpu, Cuda, Element, Float, Result};

mod floors;

static CPU: OnceLock<Cpu> = OnceLock::new();
static CUDA: OnceLock<Cuda> = OnceLock::new();

/// The arguments of every operation; each reads the fields it needs. Pointers are to the device's memory, matrices
/// are dense, `dtype` is that of logits: 0 for f32, 1 for bf16.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Call {
    /// 0: the CPU. 1: what [`peer_open_cuda`] opened.
    device: i32,
    dtype: i32,
    rows: usize,
    vocab: usize,
    /// Candidates per row.
    k: usize,
    /// Width of hidden states.
    width: usize,
    /// Rows of logits that the head keeps at a time.
    chunk_rows: usize,
    /// `[rows, vocab]`, replaced by the gradient where there is one.
    logits: *mut c_void,
    /// `[rows, vocab]`: the teacher's logits, or logits that are kept. May be null where `logits` is replaced.
    source: *const c_void,
    targets: *const i32,
    weights: *const f32,
    advantages: *const f32,
    old_logprobs: *const f32,
    /// `[rows, k]`
    ids: *const i32,
    /// `[rows, k]`
    teacher_logprobs: *const f32,
    /// `[rows, width]`
    hidden: *const f32,
    /// `[vocab, width]`
    head: *const f32,
    entropy_coef: f32,
    logprobs: *mut f32,
    lse: *mut f32,
    /// May be null.
    entropy: *mut f32,
    gap: *mut f32,
    stats: *mut RowStat,
    d_hidden: *mut f32,
    d_head: *mut f32,
    scratch: *mut f32,
    /// How long the GPU took, in milliseconds.
    millis: f32,
}

// SAFETY: a call is read by the one operation it is handed to.
unsafe impl Sync for Call {}

/// Raw memory as a backend sees it.
trait Memory: Backend {
    /// # Safety
    /// `pointer` holds `len` elements that nobody writes while the call runs.
    unsafe fn shared<'a, T: Element>(&self, pointer: *const T, len: usize) -> Self::View<'a, T>;
    /// # Safety
    /// `pointer` holds `len` elements that nobody else touches while the call runs.
    unsafe fn exclusive<'a, T: Element>(&self, pointer: *mut T, len: usize) -> Self::ViewMut<'a, T>;
}

impl Memory for Cpu {
    unsafe fn shared<'a, T: Element>(&self, pointer: *const T, len: usize) -> &'a [T] {
        // SAFETY: the caller's promise.
        unsafe { slice::from_raw_parts(pointer, len) }
    }
    unsafe fn exclusive<'a, T: Element>(&self, pointer: *mut T, len: usize) -> &'a mut [T] {
        // SAFETY: the caller's promise.
        unsafe { slice::from_raw_parts_mut(pointer, len) }
    }
}

impl Memory for Cuda {
    unsafe fn shared<'a, T: Element>(&self, pointer: *const T, len: usize) -> CudaView<'a, T> {
        // SAFETY: the caller's promise.
        unsafe { CudaView::from_raw(pointer.expose_provenance() as u64, len) }
    }
    unsafe fn exclusive<'a, T: Element>(&self, pointer: *mut T, len: usize) -> CudaViewMut<'a, T> {
        // SAFETY: the caller's promise.
        unsafe { CudaViewMut::from_raw(pointer.expose_provenance() as u64, len) }
    }
}

/// Opens the GPU with this number, or an emulated one if it is negative, once. Returns its compute capability times
/// ten, or 0 after printing why there is none.
#[unsafe(no_mangle)]
pub extern "C" fn peer_open_cuda(ordinal: i32) -> u32 {
    if CUDA.get().is_none() {
        match u32::try_from(ordinal).map_or_else(|_| Cuda::emulated(), Cuda::new) {
            Ok(cuda) => _ = CUDA.set(cuda),
            Err(error) => eprintln!("{error}"),
        }
    }
    CUDA.get().map_or(0, |cuda| cuda.properties().arch)
}

/// Starts the thread pool, once. Returns the instruction set: 2 AVX-512, 1 AVX2, 0 portable.
#[unsafe(no_mangle)]
pub extern "C" fn peer_open(threads: usize) -> i32 {
    let cpu = CPU.get_or_init(|| Cpu::new("peer", threads).expect("threads start"));
    ["portable", "avx2", "avx512"]
        .iter()
        .position(|name| *name == cpu.instructions())
        .map_or(-1, |i| i as i32)
}

fn cpu() -> &'static Cpu {
    CPU.get().expect("peer_open comes first")
}

/// Runs `work` and waits for it.
fn timed(call: &mut Call, work: impl FnOnce(&Cuda, &Call) -> Result<()>) -> Result<()> {
    let cuda = CUDA.get().expect("peer_open_cuda comes first");
    let ((), millis) = cuda.millis(|| work(cuda, call))?;
    call.millis = millis;
    cuda.synchronize()
}

/// Exports `$operation` as `$name(&Call)`, which returns 0, or 1 after printing why. It waits for the device.
macro_rules! export {
    ($($name:ident: $operation:ident),* $(,)?) => {$(
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(call: &mut Call) -> i32 {
            // SAFETY: the caller states its pointers' lengths in the call, here and below.
            let on_cpu = |call: &Call| cpu().scope(|| unsafe {
                match call.dtype {
                    0 => $operation::<_, f32>(cpu(), call),
                    _ => $operation::<_, bf16>(cpu(), call),
                }
            });
            // SAFETY: as above.
            let on_cuda = |cuda: &Cuda, call: &Call| unsafe {
                match call.dtype {
                    0 => $operation::<_, f32>(cuda, call),
                    _ => $operation::<_, bf16>(cuda, call),
                }
            };
            let result = if call.device == 0 { on_cpu(call) } else { timed(call, on_cuda) };
            result.map_or_else(|error| { eprintln!("{error}"); 1 }, |()| 0)
        }
    )*};
}
export!(
    peer_logprob: logprob,
    peer_logprob_backward: logprob_backward,
    peer_gap: gap,
    peer_policy: policy,
    peer_distill: distill,
    peer_head_policy: head_policy,
);

// Every pointer of `call` that an operation below uses holds as many elements as its documentation states: that is
// what each asks of its caller.

unsafe fn logprob<B: Memory, T: Float>(b: &B, call: &Call) -> Result<()> {
    // SAFETY: the caller's promise.
    unsafe {
        let score = Score { targets: b.shared(call.targets, call.rows), candidates: None };
        let out = ScoreOut {
            logprobs: b.exclusive(call.logprobs, call.rows),
            lse: b.exclusive(call.lse, call.rows),
            entropy: (!call.entropy.is_null()).then(|| b.exclusive(call.entropy, call.rows)),
            candidates: None,
            top: None,
        };
        b.logprob(call.shape(), b.shared(call.logits.cast::<T>(), call.len()), score, out)
    }
}

unsafe fn logprob_backward<B: Memory, T: Float>(b: &B, call: &Call) -> Result<()> {
    // SAFETY: the caller's promise.
    unsafe {
        let targets = b.shared(call.targets, call.rows);
        let d_logprobs = b.shared(call.advantages, call.rows);
        b.logprob_backward(
            call.shape(),
            call.kept(b),
            targets,
            d_logprobs,
            None,
            b.exclusive(call.logits.cast::<T>(), call.len()),
        )
    }
}

unsafe fn gap<B: Memory, T: Float>(b: &B, call: &Call) -> Result<()> {
    // SAFETY: the caller's promise.
    unsafe {
        let out = GapOut {
            student: b.exclusive(call.logprobs, call.rows),
            teacher: b.exclusive(call.lse, call.rows),
            gap: b.exclusive(call.gap, call.rows),
        };
        let (student, teacher) = (call.logits.cast::<T>(), call.source.cast::<T>());
        let targets = b.shared(call.targets, call.rows);
        b.logprob_gap(
            call.shape(),
            b.shared(student, call.len()),
            b.shared(teacher, call.len()),
            targets,
            out,
        )
    }
}

unsafe fn policy<B: Memory, T: Float>(b: &B, call: &Call) -> Result<()> {
    // SAFETY: the caller's promise.
    unsafe {
        let loss = call.policy(b);
        b.row_loss(
            call.shape(),
            loss,
            call.kept(b),
            b.exclusive(call.logits.cast::<T>(), call.len()),
            b.exclusive(call.stats, call.rows),
        )
    }
}

unsafe fn distill<B: Memory, T: Float>(b: &B, call: &Call) -> Result<()> {
    // SAFETY: the caller's promise.
    unsafe {
        let teacher_logprobs = b.shared(call.teacher_logprobs, call.rows * call.k);
        let candidates = CandidateTerm {
            k: call.k,
            ids: b.shared(call.ids, call.rows * call.k),
            coef: 1.0,
            loss: CandidateLoss::ReverseKl { teacher_logprobs, entropy_coef: 0.0 },
        };
        let loss = RowLoss { token: TokenTerm::None, candidates: Some(candidates), ..call.policy(b) };
        b.row_loss(
            call.shape(),
            loss,
            call.kept(b),
            b.exclusive(call.logits.cast::<T>(), call.len()),
            b.exclusive(call.stats, call.rows),
        )
    }
}

/// Hidden states and head are f32 whatever `T` is.
#[allow(clippy::extra_unused_type_parameters)] // the export calls every operation alike
unsafe fn head_policy<B: Memory, T: Float>(b: &B, call: &Call) -> Result<()> {
    let shape =
        LinearShape { chunk_rows: call.chunk_rows, ..LinearShape::new(call.rows, call.width, call.vocab) };
    let (hidden, head) = (call.rows * call.width, call.vocab * call.width);
    // SAFETY: the caller's promise.
    unsafe {
        let out = HeadGradients {
            scratch: b.exclusive(call.scratch, shape.scratch_len()),
            d_hidden: b.exclusive(call.d_hidden, hidden),
            d_weight: b.exclusive(call.d_head, head),
            stats: b.exclusive(call.stats, call.rows),
        };
        let head = Head { hidden: b.shared(call.hidden, hidden), weight: b.shared(call.head, head) };
        b.linear_loss(shape, call.policy(b), head, out)
    }
}

impl Call {
    fn shape(&self) -> LogitsShape {
        LogitsShape::dense(self.rows, self.vocab)
    }

    fn len(&self) -> usize {
        self.rows * self.vocab
    }

    /// The logits that are kept, if the gradient does not replace them.
    unsafe fn kept<'a, B: Memory, T: Float>(&self, b: &B) -> Option<B::View<'a, T>> {
        // SAFETY: the caller's promise.
        (!self.source.is_null()).then(|| unsafe { b.shared(self.source.cast::<T>(), self.len()) })
    }

    /// PPO with the clip that the comparison uses, and an entropy bonus where it is asked for.
    unsafe fn policy<'a, B: Memory>(&self, b: &B) -> RowLoss<B::View<'a, f32>, B::View<'a, i32>> {
        // SAFETY: the caller's promise.
        unsafe {
            let policy = PolicyTerm {
                surrogate: Surrogate::Ppo { old_logprobs: b.shared(self.old_logprobs, self.rows) },
                advantages: b.shared(self.advantages, self.rows),
                importance: None,
                clip: ClipRange { low: 0.2, high: 0.28, dual: None },
            };
            RowLoss {
                token: TokenTerm::Policy(policy),
                entropy_coef: self.entropy_coef,
                ..RowLoss::cross_entropy(b.shared(self.weights, self.rows), b.shared(self.targets, self.rows))
            }
        }
    }
}
