//! The gated activation.
#![allow(unsafe_code)]

use super::tables::{aligned, rows_in_tiles, word};
use crate::cuda::{
    Cuda, CudaView, CudaViewMut,
    launch::Arguments,
    manifest::Specialisation,
    modules::{Module, Source},
};
use crate::error::{Result, expect_len, expect_rows};

const SOURCE: Source = Source { file: "swiglu.cu", text: include_str!("../../../cuda/swiglu.cu") };

pub(in crate::cuda) fn forward(
    cuda: &Cuda,
    width: usize,
    gate_up: CudaView<'_, f32>,
    out: CudaViewMut<'_, f32>,
) -> Result<()> {
    expect_rows("swiglu", "out", out.len(), width)?;
    expect_len("swiglu", "gate_up", gate_up.len(), 2 * out.len())?;
    let (launch, tiles) = rows_in_tiles(out.len() / width, width);
    let arguments = Arguments::new()
        .read(gate_up)
        .write(&out)
        .value(word(width))
        .value(tiles)
        .value(aligned(width, [gate_up.address(), out.address()]));
    // SAFETY: blocks for every row of `out`, which has one twice as wide in `gate_up`.
    unsafe { cuda.launch(Module::new(&SOURCE), "swiglu", launch, &arguments) }
}

pub(in crate::cuda) fn backward(
    cuda: &Cuda,
    width: usize,
    gate_up: CudaView<'_, f32>,
    d_out: CudaView<'_, f32>,
    d_gate_up: CudaViewMut<'_, f32>,
) -> Result<()> {
    expect_rows("swiglu_backward", "d_out", d_out.len(), width)?;
    expect_len("swiglu_backward", "gate_up", gate_up.len(), 2 * d_out.len())?;
    expect_len("swiglu_backward", "d_gate_up", d_gate_up.len(), gate_up.len())?;
    let (launch, tiles) = rows_in_tiles(d_out.len() / width, width);
    let arguments = Arguments::new()
        .read(gate_up)
        .read(d_out)
        .write(&d_gate_up)
        .value(word(width))
        .value(tiles)
        .value(aligned(width, [gate_up.address(), d_out.address(), d_gate_up.address()]));
    // SAFETY: blocks for every row of `d_out`, which has one twice as wide in `gate_up` and `d_gate_up`.
    unsafe { cuda.launch(Module::new(&SOURCE), "swiglu_backward", launch, &arguments) }
}

pub(in crate::cuda) fn manifest() -> Vec<Specialisation> {
    ["swiglu", "swiglu_backward"]
        .map(|kernel| Specialisation::new(Module::new(&SOURCE), kernel).without_spills())
        .into()
}
