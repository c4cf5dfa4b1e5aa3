//! Matrix products of what a model computes with the weights that it has: BLAS multiplies numbers of one type.
#![allow(unsafe_code)]

use crate::backend::Float;
use crate::cuda::{
    Cuda, CudaView, CudaViewMut,
    launch::{Arguments, Launch},
    manifest::Specialisation,
    modules::{Module, Source},
};
use crate::error::{KernelError, Result};
use crate::ops::Matmul;

const SOURCE: Source = Source { file: "convert.cu", text: include_str!("../../../cuda/convert.cu") };
const THREADS: u32 = 256;

/// The view, if its elements are of the other type.
pub(super) fn same<T: Float, U: Float>(view: CudaView<'_, T>) -> Option<CudaView<'_, U>> {
    // SAFETY: the same memory, which is borrowed as long, of elements of the same size: `Float` has one type of each.
    (size_of::<T>() == size_of::<U>()).then(|| unsafe { CudaView::from_raw(view.address(), view.len()) })
}

/// `c = a b` or `c += a b` with `f32` sums. Where `b` is of `bf16`, `a` is rounded to it first.
pub(in crate::cuda) fn product<A: Float, W: Float, O: Float>(
    cuda: &Cuda,
    shape: Matmul,
    a: CudaView<'_, A>,
    b: CudaView<'_, W>,
    c: &CudaViewMut<'_, O>,
) -> Result<()> {
    if let Some(b) = same::<W, A>(b) {
        return cuda.gemm(shape, a, b, c);
    }
    if size_of::<A>() < size_of::<W>() {
        let what = "a has numbers of bf16 and b of f32".to_owned();
        return Err(KernelError::Argument { op: "matmul", what });
    }
    let mut rounded = cuda.uninitialized::<W>(a.len())?;
    converted(cuda, a, &rounded.view_mut(0..a.len()))?;
    cuda.gemm(shape, rounded.view(0..a.len()), b, c)
}

/// Writes each number in the other type.
pub(super) fn converted<F: Float, T: Float>(
    cuda: &Cuda,
    from: CudaView<'_, F>,
    to: &CudaViewMut<'_, T>,
) -> Result<()> {
    if from.is_empty() {
        return Ok(());
    }
    let launch = Launch::new(from.len().div_ceil(THREADS as usize), THREADS);
    let arguments = Arguments::new().read(from).write(to).value(from.len() as u64);
    // SAFETY: one thread for each element, of which both have as many.
    unsafe { cuda.launch(module(name::<F>(), name::<T>()), "convert", launch, &arguments) }
}

fn name<T: Float>() -> &'static str {
    if size_of::<T>() == 2 { "bf16" } else { "float" }
}

fn module(from: &str, to: &str) -> Module {
    Module::new(&SOURCE).define("FROM", from).define("TO", to)
}

pub(in crate::cuda) fn manifest() -> Vec<Specialisation> {
    [("float", "bf16"), ("bf16", "float")]
        .map(|(from, to)| Specialisation::new(module(from, to), "convert").without_spills())
        .into()
}
