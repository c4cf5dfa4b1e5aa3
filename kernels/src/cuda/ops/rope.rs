//! Per-head norm and rotation of queries and keys.
#![allow(unsafe_code)]

use super::{
    attention::padded_dim,
    norm::add_column_sums,
    tables::{aligned, word},
};
use crate::cpu::rope::check;
use crate::cuda::{
    Cuda, CudaView, CudaViewMut,
    launch::{Arguments, Launch},
    manifest::Specialisation,
    modules::{Module, Source},
};
use crate::error::{Result, expect_len};
use crate::ops::{QkvShape, RopeTable};

pub(in crate::cuda) const SOURCE: Source =
    Source { file: "rope.cu", text: include_str!("../../../cuda/rope.cu") };
const THREADS: usize = 256;
/// Tokens whose share of the weights' gradients one block sums, as in the source.
const TOKENS_PER_BLOCK: usize = 16;

/// Threads that share a head: each has four columns of either half.
fn lanes(shape: QkvShape) -> usize {
    (shape.head_dim / 2).div_ceil(4).next_power_of_two()
}

pub(in crate::cuda) fn forward(
    cuda: &Cuda,
    shape: QkvShape,
    qkv: CudaView<'_, f32>,
    positions: CudaView<'_, u32>,
    rope: RopeTable<CudaView<'_, f32>>,
    weights: (CudaView<'_, f32>, CudaView<'_, f32>),
    qk: CudaViewMut<'_, f32>,
) -> Result<()> {
    let op = "qk_norm_rope";
    let table = (rope.cos.len(), rope.sin.len());
    let lens = (weights.0.len(), weights.1.len());
    check(op, shape, qkv.len(), &cuda.values(positions)?, table, lens, qk.len())?;
    padded_dim(op, shape)?;
    let lanes = lanes(shape);
    let heads = shape.heads + shape.kv_heads;
    let inputs = [qkv, rope.cos, rope.sin, weights.0, weights.1].map(|view| view.address());
    let arguments = Arguments::new()
        .read(qkv)
        .read(positions)
        .read(rope.cos)
        .read(rope.sin)
        .read(weights.0)
        .read(weights.1)
        .write(&qk)
        .value(word(shape.heads))
        .value(word(shape.kv_heads))
        .value(word(shape.head_dim))
        .value(word(lanes))
        .value(aligned(shape.head_dim / 2, inputs.into_iter().chain([qk.address()])))
        .float(shape.eps)
        .value(u32::from(shape.normed));
    let launch = Launch::new(positions.len() * heads.div_ceil(THREADS / lanes), word(THREADS));
    // SAFETY: `check` saw a row of `qkv` and `qk` for each position, and the position in the table.
    unsafe { cuda.launch(Module::new(&SOURCE), op, launch, &arguments) }
}

#[allow(clippy::too_many_arguments)]
pub(in crate::cuda) fn backward(
    cuda: &Cuda,
    shape: QkvShape,
    qkv: CudaView<'_, f32>,
    positions: CudaView<'_, u32>,
    rope: RopeTable<CudaView<'_, f32>>,
    weights: (CudaView<'_, f32>, CudaView<'_, f32>),
    d_qk: CudaView<'_, f32>,
    d_qkv: CudaViewMut<'_, f32>,
    (d_q_weight, d_k_weight): (CudaViewMut<'_, f32>, CudaViewMut<'_, f32>),
) -> Result<()> {
    let (op, dim) = ("qk_norm_rope_backward", shape.head_dim);
    let table = (rope.cos.len(), rope.sin.len());
    let lens = (weights.0.len(), weights.1.len());
    check(op, shape, qkv.len(), &cuda.values(positions)?, table, lens, d_qk.len())?;
    expect_len(op, "d_qkv", d_qkv.len(), qkv.len())?;
    expect_len(op, "d_q_weight", d_q_weight.len(), shape.norm_width())?;
    expect_len(op, "d_k_weight", d_k_weight.len(), shape.norm_width())?;
    padded_dim(op, shape)?;
    let lanes = lanes(shape);
    let blocks = positions.len().div_ceil(TOKENS_PER_BLOCK);
    let mut partial = cuda.uninitialized::<f32>(blocks * 2 * dim)?;
    let sums = partial.view_mut(0..blocks * 2 * dim);
    let inputs = [qkv, rope.cos, rope.sin, weights.0, weights.1, d_qk].map(|view| view.address());
    let arguments = Arguments::new()
        .read(qkv)
        .read(positions)
        .read(rope.cos)
        .read(rope.sin)
        .read(weights.0)
        .read(weights.1)
        .read(d_qk)
        .write(&d_qkv)
        .write(&sums)
        .value(word(positions.len()))
        .value(word(shape.heads))
        .value(word(shape.kv_heads))
        .value(word(dim))
        .value(word(lanes))
        .value(aligned(dim / 2, inputs.into_iter().chain([d_qkv.address()])))
        .float(shape.eps)
        .value(u32::from(shape.normed));
    let shared_bytes = THREADS / lanes * 2 * dim * size_of::<f32>();
    let launch = Launch::new(blocks, word(THREADS)).shared(word(shared_bytes));
    // SAFETY: as above; a block writes its tokens' queries and keys and its own row of the sums.
    unsafe { cuda.launch(Module::new(&SOURCE), op, launch, &arguments)? };
    if !shape.normed {
        return Ok(());
    }
    let sums = partial.view(0..blocks * 2 * dim);
    add_column_sums(cuda, sums, 2 * dim, 0, d_q_weight)?;
    add_column_sums(cuda, sums, 2 * dim, dim, d_k_weight)
}

pub(in crate::cuda) fn manifest() -> Vec<Specialisation> {
    ["qk_norm_rope", "qk_norm_rope_backward"]
        .map(|kernel| Specialisation::new(Module::new(&SOURCE), kernel).without_spills())
        .into()
}
