//! A device that is chosen when the program runs: the CPU or a GPU, each as its own backend.

mod check;
mod on;

use std::{borrow::Cow, fmt, ops::Range};

use self::on::On;
use crate::backend::{Backend, Element, Float};
use crate::cpu::Cpu;
use crate::cuda::{Cuda, CudaBuffer, CudaView, CudaViewMut};
use crate::error::{KernelError, Result};
use crate::ops::*;

/// Which device to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The CPU.
    Cpu,
    /// The GPU with this number.
    Cuda(u32),
}

impl Place {
    /// The first GPU, if it computes what the CPU computes; else the CPU, and why.
    ///
    /// A GPU that is lost later is not replaced by the CPU: weights and optimizer state are in its memory, and only
    /// a new process can open it again.
    pub fn auto() -> (Self, Option<String>) {
        match Cuda::new(0).and_then(|cuda| check::computes(&cuda, &cuda.properties().device)) {
            Ok(()) => (Self::Cuda(0), None),
            Err(error) => (Self::Cpu, Some(error.to_string())),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
        }
    }
}

/// The CPU or a GPU.
#[derive(Clone, Debug)]
pub enum Device {
    /// The CPU, on threads of its own.
    Cpu(Cpu),
    /// A GPU, shared by all that use it.
    Cuda(Cuda),
}

impl Device {
    /// Opens a device; `threads`, named after `name`, are for the CPU.
    pub fn new(place: Place, name: &str, threads: usize) -> Result<Self> {
        match place {
            Place::Cpu => Ok(Self::Cpu(Cpu::new(name, threads)?)),
            Place::Cuda(ordinal) => Ok(Self::Cuda(Cuda::new(ordinal)?)),
        }
    }

    fn elsewhere(&self, op: &'static str) -> KernelError {
        let name = match self {
            Self::Cpu(_) => "cpu",
            Self::Cuda(cuda) => &cuda.properties().device,
        };
        KernelError::Argument { op, what: format!("an argument is not on {name}") }
    }
}

/// Memory of a [`Device`].
pub enum DeviceBuffer<T> {
    /// Host memory.
    Cpu(Vec<T>),
    /// A GPU's.
    Cuda(CudaBuffer<T>),
}

/// A shared range of a [`DeviceBuffer`].
#[derive(Debug)]
pub enum DeviceView<'a, T> {
    /// Of host memory.
    Cpu(&'a [T]),
    /// Of a GPU's.
    Cuda(CudaView<'a, T>),
}

impl<T> Clone for DeviceView<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for DeviceView<'_, T> {}

/// An exclusive range of a [`DeviceBuffer`].
#[derive(Debug)]
pub enum DeviceViewMut<'a, T> {
    /// Of host memory.
    Cpu(&'a mut [T]),
    /// Of a GPU's.
    Cuda(CudaViewMut<'a, T>),
}

/// Operations that ask the chosen backend; a view of the other one is an error.
macro_rules! ask {
    ($(fn $op:ident $(<$($t:ident),+>)? ($($argument:ident: $type:ty),* $(,)?) -> $given:ty;)+) => {
        $(#[allow(clippy::too_many_arguments)]
        fn $op $(<$($t: Float),+>)? (&self, $($argument: $type),*) -> Result<$given> {
            let elsewhere = || self.elsewhere(stringify!($op));
            match self {
                Self::Cpu(cpu) => cpu.$op($(On::<Cpu>::on($argument).ok_or_else(elsewhere)?),*),
                Self::Cuda(cuda) => cuda.$op($(On::<Cuda>::on($argument).ok_or_else(elsewhere)?),*),
            }
        })+
    };
}

impl Backend for Device {
    type Buffer<T: Element> = DeviceBuffer<T>;
    type View<'a, T: Element> = DeviceView<'a, T>;
    type ViewMut<'a, T: Element> = DeviceViewMut<'a, T>;

    fn scope<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        match self {
            Self::Cpu(cpu) => cpu.scope(work),
            Self::Cuda(cuda) => cuda.scope(work),
        }
    }

    fn zeros<T: Element>(&self, len: usize) -> Result<DeviceBuffer<T>> {
        Ok(match self {
            Self::Cpu(cpu) => DeviceBuffer::Cpu(cpu.zeros(len)?),
            Self::Cuda(cuda) => DeviceBuffer::Cuda(cuda.zeros(len)?),
        })
    }
    fn uninitialized<T: Element>(&self, len: usize) -> Result<DeviceBuffer<T>> {
        Ok(match self {
            Self::Cpu(cpu) => DeviceBuffer::Cpu(cpu.uninitialized(len)?),
            Self::Cuda(cuda) => DeviceBuffer::Cuda(Backend::uninitialized(cuda, len)?),
        })
    }
    fn upload<T: Element>(&self, host: &[T]) -> Result<DeviceBuffer<T>> {
        Ok(match self {
            Self::Cpu(cpu) => DeviceBuffer::Cpu(cpu.upload(host)?),
            Self::Cuda(cuda) => DeviceBuffer::Cuda(cuda.upload(host)?),
        })
    }
    fn adopt<T: Element>(&self, host: Vec<T>) -> Result<DeviceBuffer<T>> {
        Ok(match self {
            Self::Cpu(cpu) => DeviceBuffer::Cpu(cpu.adopt(host)?),
            Self::Cuda(cuda) => DeviceBuffer::Cuda(cuda.adopt(host)?),
        })
    }
    fn read<'a, T: Element + 'a>(&self, view: DeviceView<'a, T>) -> Result<Cow<'a, [T]>> {
        match (self, view) {
            (Self::Cpu(cpu), DeviceView::Cpu(view)) => cpu.read(view),
            (Self::Cuda(cuda), DeviceView::Cuda(view)) => Backend::read(cuda, view),
            _ => Err(self.elsewhere("read")),
        }
    }
    fn host_view<'a, T: Element>(&self, host: &'a [T]) -> Option<DeviceView<'a, T>> {
        match self {
            Self::Cpu(cpu) => cpu.host_view(host).map(DeviceView::Cpu),
            Self::Cuda(_) => None,
        }
    }
    fn download<T: Element>(&self, view: DeviceView<'_, T>) -> Result<Vec<T>> {
        match (self, view) {
            (Self::Cpu(cpu), DeviceView::Cpu(view)) => cpu.download(view),
            (Self::Cuda(cuda), DeviceView::Cuda(view)) => cuda.download(view),
            _ => Err(self.elsewhere("download")),
        }
    }
    fn write<T: Element>(&self, target: DeviceViewMut<'_, T>, host: &[T]) -> Result<()> {
        match (self, target) {
            (Self::Cpu(cpu), DeviceViewMut::Cpu(target)) => cpu.write(target, host),
            (Self::Cuda(cuda), DeviceViewMut::Cuda(target)) => cuda.write(target, host),
            _ => Err(self.elsewhere("write")),
        }
    }
    fn copy<T: Element>(&self, target: DeviceViewMut<'_, T>, source: DeviceView<'_, T>) -> Result<()> {
        match (self, target, source) {
            (Self::Cpu(cpu), DeviceViewMut::Cpu(target), DeviceView::Cpu(source)) => cpu.copy(target, source),
            (Self::Cuda(cuda), DeviceViewMut::Cuda(target), DeviceView::Cuda(source)) => {
                cuda.copy(target, source)
            }
            _ => Err(self.elsewhere("copy")),
        }
    }
    fn fill<T: Element>(&self, target: DeviceViewMut<'_, T>, value: T) -> Result<()> {
        match (self, target) {
            (Self::Cpu(cpu), DeviceViewMut::Cpu(target)) => cpu.fill(target, value),
            (Self::Cuda(cuda), DeviceViewMut::Cuda(target)) => cuda.fill(target, value),
            _ => Err(self.elsewhere("fill")),
        }
    }
    fn len<T: Element>(&self, buffer: &DeviceBuffer<T>) -> usize {
        match buffer {
            DeviceBuffer::Cpu(buffer) => buffer.len(),
            DeviceBuffer::Cuda(buffer) => buffer.len(),
        }
    }
    fn view<'a, T: Element>(&self, buffer: &'a DeviceBuffer<T>, range: Range<usize>) -> DeviceView<'a, T> {
        match buffer {
            DeviceBuffer::Cpu(buffer) => DeviceView::Cpu(&buffer[range]),
            DeviceBuffer::Cuda(buffer) => DeviceView::Cuda(buffer.view(range)),
        }
    }
    fn view_mut<'a, T: Element>(
        &self,
        buffer: &'a mut DeviceBuffer<T>,
        range: Range<usize>,
    ) -> DeviceViewMut<'a, T> {
        match buffer {
            DeviceBuffer::Cpu(buffer) => DeviceViewMut::Cpu(&mut buffer[range]),
            DeviceBuffer::Cuda(buffer) => DeviceViewMut::Cuda(buffer.view_mut(range)),
        }
    }

    fn linear_shape(&self, rows: usize, width: usize, vocab: usize) -> LinearShape {
        match self {
            Self::Cpu(cpu) => cpu.linear_shape(rows, width, vocab),
            Self::Cuda(cuda) => cuda.linear_shape(rows, width, vocab),
        }
    }

    ask! {
        fn matmul<W>(shape: Matmul, a: DeviceView<'_, f32>, b: DeviceView<'_, W>, c: DeviceViewMut<'_, f32>) -> ();
        fn embedding<W>(width: usize, ids: DeviceView<'_, u32>, table: DeviceView<'_, W>, out: DeviceViewMut<'_, f32>) -> ();
        fn embedding_backward(width: usize, ids: DeviceView<'_, u32>, d_out: DeviceView<'_, f32>, d_table: DeviceViewMut<'_, f32>) -> ();
        fn rms_norm(eps: f32, x: DeviceView<'_, f32>, weight: DeviceView<'_, f32>, out: DeviceViewMut<'_, f32>) -> ();
        fn rms_norm_backward(eps: f32, x: DeviceView<'_, f32>, weight: DeviceView<'_, f32>, d_out: DeviceView<'_, f32>, d_x: DeviceViewMut<'_, f32>, d_weight: DeviceViewMut<'_, f32>) -> ();
        fn qk_norm_rope(shape: QkvShape, qkv: DeviceView<'_, f32>, positions: DeviceView<'_, u32>, rope: RopeTable<DeviceView<'_, f32>>, q_weight: DeviceView<'_, f32>, k_weight: DeviceView<'_, f32>, qk: DeviceViewMut<'_, f32>) -> ();
        fn qk_norm_rope_backward(shape: QkvShape, qkv: DeviceView<'_, f32>, positions: DeviceView<'_, u32>, rope: RopeTable<DeviceView<'_, f32>>, q_weight: DeviceView<'_, f32>, k_weight: DeviceView<'_, f32>, d_qk: DeviceView<'_, f32>, d_qkv: DeviceViewMut<'_, f32>, d_q_weight: DeviceViewMut<'_, f32>, d_k_weight: DeviceViewMut<'_, f32>) -> ();
        fn attention(shape: QkvShape, sequences: &[Range<usize>], qk: DeviceView<'_, f32>, qkv: DeviceView<'_, f32>, out: DeviceViewMut<'_, f32>, lse: DeviceViewMut<'_, f32>) -> ();
        fn attention_backward(shape: QkvShape, sequences: &[Range<usize>], qk: DeviceView<'_, f32>, qkv: DeviceView<'_, f32>, out: DeviceView<'_, f32>, lse: DeviceView<'_, f32>, d_out: DeviceView<'_, f32>, d_qk: DeviceViewMut<'_, f32>, d_qkv: DeviceViewMut<'_, f32>) -> ();
        fn paged_store(shape: PagedShape, slots: DeviceView<'_, u32>, qk: DeviceView<'_, f32>, qkv: DeviceView<'_, f32>, pool: DeviceViewMut<'_, f32>) -> ();
        fn paged_attention(shape: PagedShape, segments: &[PagedSegment], block_tables: DeviceView<'_, u32>, qk: DeviceView<'_, f32>, pool: DeviceView<'_, f32>, out: DeviceViewMut<'_, f32>) -> ();
        fn swiglu(width: usize, gate_up: DeviceView<'_, f32>, out: DeviceViewMut<'_, f32>) -> ();
        fn swiglu_backward(width: usize, gate_up: DeviceView<'_, f32>, d_out: DeviceView<'_, f32>, d_gate_up: DeviceViewMut<'_, f32>) -> ();
        fn adamw(step: AdamW, params: DeviceViewMut<'_, f32>, grads: DeviceView<'_, f32>, first: DeviceViewMut<'_, f32>, second: DeviceViewMut<'_, f32>) -> ();
        fn sum_squares(x: DeviceView<'_, f32>) -> f64;
        fn logprob<T>(shape: LogitsShape, logits: DeviceView<'_, T>, score: Score<DeviceView<'_, i32>>, out: ScoreOut<DeviceViewMut<'_, f32>, DeviceViewMut<'_, i32>>) -> ();
        fn logprob_backward<T>(shape: LogitsShape, logits: Option<DeviceView<'_, T>>, targets: DeviceView<'_, i32>, d_logprobs: DeviceView<'_, f32>, d_entropy: Option<DeviceView<'_, f32>>, d_logits: DeviceViewMut<'_, T>) -> ();
        fn logprob_gap<T>(shape: LogitsShape, student: DeviceView<'_, T>, teacher: DeviceView<'_, T>, targets: DeviceView<'_, i32>, out: GapOut<DeviceViewMut<'_, f32>>) -> ();
        fn logprob_gap_backward<T>(shape: LogitsShape, side: GapSide, logits: Option<DeviceView<'_, T>>, targets: DeviceView<'_, i32>, d_gap: DeviceView<'_, f32>, d_logits: DeviceViewMut<'_, T>) -> ();
        fn row_loss<T>(shape: LogitsShape, loss: RowLoss<DeviceView<'_, f32>, DeviceView<'_, i32>>, logits: Option<DeviceView<'_, T>>, d_logits: DeviceViewMut<'_, T>, stats: DeviceViewMut<'_, RowStat>) -> ();
        fn linear_loss<T, W>(shape: LinearShape, loss: RowLoss<DeviceView<'_, f32>, DeviceView<'_, i32>>, head: Head<DeviceView<'_, T>, DeviceView<'_, W>>, out: HeadGradients<DeviceViewMut<'_, T>, DeviceViewMut<'_, f32>, DeviceViewMut<'_, RowStat>>) -> ();
        fn linear_logprob<T, W>(shape: LinearShape, score: Score<DeviceView<'_, i32>>, head: Head<DeviceView<'_, T>, DeviceView<'_, W>>, scratch: DeviceViewMut<'_, T>, out: ScoreOut<DeviceViewMut<'_, f32>, DeviceViewMut<'_, i32>>) -> ();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::tests::emulated_or_skip;

    #[test]
    fn a_view_of_another_device_is_refused_by_name() {
        let cpu = Device::new(Place::Cpu, "device", 1).expect("one thread starts");
        let Some(cuda) = emulated_or_skip().map(Device::Cuda) else { return };
        let (mut here, there) = (cpu.zeros::<f32>(4).unwrap(), cuda.zeros::<f32>(8).unwrap());
        let told = cpu.swiglu(4, cuda.view(&there, 0..8), cpu.view_mut(&mut here, 0..4));
        assert_eq!(told.unwrap_err().to_string(), "swiglu: an argument is not on cpu");
        let told = cuda.download(cpu.view(&here, 0..4)).unwrap_err().to_string();
        assert_eq!(told, "download: an argument is not on emulated");
    }

    #[test]
    fn the_choice_is_a_gpu_only_where_one_computes() {
        match Place::auto() {
            (Place::Cuda(0), None) => assert!(Cuda::new(0).is_ok()),
            (Place::Cpu, Some(why)) => assert!(why.starts_with("cuda:0: ") && !why.contains('\n'), "{why}"),
            other => panic!("{other:?}"),
        }
    }
}
