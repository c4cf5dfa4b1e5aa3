//! RMS normalisation of rows.
#![allow(unsafe_code)]

use super::tables::{aligned, threads_for, word};
use crate::cuda::{
    Cuda, CudaView, CudaViewMut,
    launch::{Arguments, Launch},
    manifest::Specialisation,
    modules::{Module, Source},
};
use crate::error::{KernelError, Result, expect_len, expect_rows};

pub(in crate::cuda) const SOURCE: Source =
    Source { file: "norm.cu", text: include_str!("../../../cuda/norm.cu") };
const COLUMN_SUMS: Source =
    Source { file: "column_sums.cu", text: include_str!("../../../cuda/column_sums.cu") };
/// Rows whose share of the weight's gradient one block sums.
const ROWS_PER_BLOCK: usize = 16;

/// The specialisation for a block of so many threads.
pub(in crate::cuda) fn module(threads: u32) -> Module {
    Module::new(&SOURCE).define("BLOCK", threads)
}

pub(in crate::cuda) fn forward(
    cuda: &Cuda,
    eps: f32,
    x: CudaView<'_, f32>,
    weight: CudaView<'_, f32>,
    out: CudaViewMut<'_, f32>,
) -> Result<()> {
    let width = weight.len();
    let rows = expect_rows("rms_norm", "x", x.len(), width)?;
    expect_len("rms_norm", "out", out.len(), x.len())?;
    let threads = threads_for(width);
    let arguments = Arguments::new()
        .read(x)
        .read(weight)
        .write(&out)
        .float(eps)
        .value(word(width))
        .value(aligned(width, [x.address(), weight.address(), out.address()]));
    // SAFETY: a block for each row of `x` and `out`.
    unsafe { cuda.launch(module(threads), "rms_norm", Launch::new(rows, threads), &arguments) }
}

pub(in crate::cuda) fn backward(
    cuda: &Cuda,
    eps: f32,
    x: CudaView<'_, f32>,
    weight: CudaView<'_, f32>,
    d_out: CudaView<'_, f32>,
    d_x: CudaViewMut<'_, f32>,
    d_weight: CudaViewMut<'_, f32>,
) -> Result<()> {
    let (op, width) = ("rms_norm_backward", weight.len());
    let rows = expect_rows(op, "x", x.len(), width)?;
    expect_len(op, "d_x", d_x.len(), x.len())?;
    expect_len(op, "d_out", d_out.len(), x.len())?;
    let is_trained = !d_weight.is_empty();
    if is_trained {
        expect_len(op, "d_weight", d_weight.len(), width)?;
    }
    let threads = threads_for(width);
    let shared_bytes = width.next_multiple_of(4) * size_of::<f32>();
    // The sum over a block has a little of it too.
    let most = cuda.properties().shared_bytes as usize - 1024;
    if shared_bytes > most {
        let what =
            format!("rows of {width} are wider than the {} that a block can hold", most / size_of::<f32>());
        return Err(KernelError::Argument { op, what });
    }
    let blocks = rows.div_ceil(ROWS_PER_BLOCK);
    let mut partial = cuda.uninitialized::<f32>(blocks * width)?;
    let sums = partial.view_mut(0..blocks * width);
    let addresses = [x.address(), weight.address(), d_out.address(), d_x.address(), sums.address()];
    let arguments = Arguments::new()
        .read(x)
        .read(weight)
        .read(d_out)
        .write(&d_x)
        .write(&sums)
        .float(eps)
        .value(word(rows))
        .value(word(ROWS_PER_BLOCK))
        .value(word(width))
        .value(aligned(width, addresses));
    let launch = Launch::new(blocks, threads).shared(word(shared_bytes));
    // SAFETY: blocks take their own rows of tensors of equal length and their own row of the sums.
    unsafe { cuda.launch(module(threads), "rms_norm_backward", launch, &arguments)? };
    if !is_trained {
        return Ok(());
    }
    add_column_sums(cuda, partial.view(0..blocks * width), width, 0, d_weight)
}

/// Adds to `target` the sums of the columns of `matrix` from `first` on; its rows are `stride` wide.
pub(super) fn add_column_sums(
    cuda: &Cuda,
    matrix: CudaView<'_, f32>,
    stride: usize,
    first: usize,
    target: CudaViewMut<'_, f32>,
) -> Result<()> {
    let rows = matrix.len() / stride;
    if rows == 0 {
        return Ok(());
    }
    let arguments = Arguments::new()
        .read(matrix.range(first..matrix.len()))
        .write(&target)
        .value(word(rows))
        .value(word(stride))
        .value(word(target.len()));
    let launch = Launch::new(target.len().div_ceil(32), 512);
    // SAFETY: every caller's columns `first..first + target.len()` are within the stride.
    unsafe { cuda.launch(Module::new(&COLUMN_SUMS), "column_sums", launch, &arguments) }
}

pub(in crate::cuda) fn manifest() -> Vec<Specialisation> {
    let mut all = vec![Specialisation::new(Module::new(&COLUMN_SUMS), "column_sums").without_spills()];
    for threads in [32, 64, 128, 256] {
        for kernel in ["rms_norm", "rms_norm_backward"] {
            all.push(Specialisation::new(module(threads), kernel).without_spills());
        }
    }
    all
}
