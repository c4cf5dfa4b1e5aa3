//! The optimizer's step.
#![allow(unsafe_code)]

use super::tables::aligned;
use crate::cpu::adamw::{bias_corrections, check};
use crate::cuda::{
    Cuda, CudaView, CudaViewMut,
    launch::{Arguments, Launch},
    manifest::Specialisation,
    modules::{Module, Source},
};
use crate::error::Result;
use crate::ops::AdamW;

const SOURCE: Source = Source { file: "adamw.cu", text: include_str!("../../../cuda/adamw.cu") };
const THREADS: u32 = 256;
/// Elements of one block, as in the source.
const CHUNK: usize = 2048;

/// As in the source.
#[derive(Clone, Copy, bytemuck::NoUninit)]
#[repr(C)]
struct Rates {
    b1: f32,
    b2: f32,
    c1: f32,
    c2: f32,
    eps: f32,
    decay: f32,
    rate: f32,
    grad_scale: f32,
}

pub(in crate::cuda) fn step(
    cuda: &Cuda,
    step: AdamW,
    params: CudaViewMut<'_, f32>,
    grads: CudaView<'_, f32>,
    first: CudaViewMut<'_, f32>,
    second: CudaViewMut<'_, f32>,
) -> Result<()> {
    check(step, params.len(), grads.len(), first.len(), second.len())?;
    let (c1, c2) = bias_corrections(step);
    let rates = Rates {
        b1: step.betas.0,
        b2: step.betas.1,
        c1,
        c2,
        eps: step.eps,
        decay: 1.0 - step.learning_rate * step.weight_decay,
        rate: step.learning_rate,
        grad_scale: step.grad_scale,
    };
    let addresses = [params.address(), grads.address(), first.address(), second.address()];
    let arguments = Arguments::new()
        .write(&params)
        .read(grads)
        .write(&first)
        .write(&second)
        .value(params.len() as u64)
        .value(aligned(CHUNK, addresses))
        .value(rates);
    let launch = Launch::new(params.len().div_ceil(CHUNK), THREADS);
    // SAFETY: blocks take their own chunk of ranges of equal length.
    unsafe { cuda.launch(Module::new(&SOURCE), "adamw", launch, &arguments) }
}

pub(in crate::cuda) fn manifest() -> Vec<Specialisation> {
    vec![Specialisation::new(Module::new(&SOURCE), "adamw").without_spills()]
}
