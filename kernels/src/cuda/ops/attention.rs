//! Causal attention over ragged sequences, forward and backward.
#![allow(unsafe_code)]

use std::ops::Range;

use super::tables::{aligned, table, word};
use crate::cpu::attention::{SavedLens, check};
use crate::cuda::{
    Cuda, CudaBuffer, CudaView, CudaViewMut,
    launch::{Arguments, Launch},
    manifest::Specialisation,
    modules::{Module, Source},
};
use crate::error::{KernelError, Result, expect_len};
use crate::ops::QkvShape;

const SOURCE: Source = Source { file: "attention.cu", text: include_str!("../../../cuda/attention.cu") };
/// Widths of a head that the kernels are compiled for.
pub(in crate::cuda) const PADDED_DIMS: [usize; 4] = [32, 64, 128, 256];
const THREADS: u32 = 128;
/// Rows of a tile for each row of a thread.
pub(super) const DOWN: usize = 16;
/// Rows streamed past a tile, as in the source.
const STREAM: usize = 32;
/// The part of an item whose result is complete.
pub(super) const WHOLE: u32 = u32::MAX;

/// What one block works on; see the source.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub row: usize,
    pub tokens: usize,
    pub past: usize,
    pub table: usize,
    pub first: usize,
    pub keys: Range<usize>,
    pub part: u32,
}

/// Heads and widths, as the kernels take them.
#[derive(Clone, Copy, bytemuck::NoUninit)]
#[repr(C)]
pub(super) struct Heads {
    heads: u32,
    kv_heads: u32,
    dim: u32,
    aligned: u32,
}

impl Heads {
    pub(super) fn new(shape: QkvShape, addresses: impl IntoIterator<Item = u64>) -> Self {
        Self {
            heads: word(shape.heads),
            kv_heads: word(shape.kv_heads),
            dim: word(shape.head_dim),
            aligned: aligned(shape.head_dim, addresses),
        }
    }
}

/// The compiled width that a head fits in.
pub(super) fn padded_dim(op: &'static str, shape: QkvShape) -> Result<usize> {
    let most = PADDED_DIMS[PADDED_DIMS.len() - 1];
    PADDED_DIMS.into_iter().find(|dim| *dim >= shape.head_dim).ok_or_else(|| {
        let what = format!("head_dim {} is more than {most}, the most on CUDA", shape.head_dim);
        KernelError::Argument { op, what }
    })
}

/// The specialisation for heads of this padded width.
pub(in crate::cuda) fn module(padded: usize) -> Module {
    Module::new(&SOURCE).define("DIM", padded)
}

/// Rows of a full tile.
pub(super) fn tile_rows(padded: usize) -> usize {
    if padded > 128 { 2 * DOWN } else { 4 * DOWN }
}

/// A launch over `items` and key-value heads, with `own` tiles of `rows` in shared memory beside the stream's two.
pub(super) fn launch(items: usize, shape: QkvShape, padded: usize, own: usize, rows: usize) -> Launch {
    let elements = (own * rows + 2 * STREAM) * (padded + 4) + rows * (STREAM + 4);
    Launch::new(items * shape.kv_heads, THREADS).shared(word(elements * size_of::<f32>()))
}

/// Turns a product of a query and a key into an exponent of 2.
pub(super) fn exponent_scale(shape: QkvShape) -> f32 {
    std::f32::consts::LOG2_E / (shape.head_dim as f32).sqrt()
}

/// Items on the device, those with the most work first: what is left at the end is small.
pub(super) fn upload_items(
    cuda: &Cuda,
    mut items: Vec<Item>,
    work: impl Fn(&Item) -> usize,
) -> Result<std::sync::Arc<CudaBuffer<u32>>> {
    items.sort_by_key(|item| std::cmp::Reverse(work(item)));
    let words = items.iter().flat_map(|i| {
        let counts = [i.row, i.tokens, i.past, i.table, i.first, i.keys.start, i.keys.end].map(word);
        counts.into_iter().chain([i.part])
    });
    table(cuda, &words.collect::<Vec<u32>>())
}

/// Tiles of query rows; a token has a row for each head that shares a key-value head.
fn query_tiles(shape: QkvShape, sequences: &[Range<usize>], rows: usize) -> Vec<Item> {
    let group = shape.heads / shape.kv_heads;
    let tiles = sequences.iter().flat_map(|sequence| {
        let all = sequence.len() * group;
        (0..all).step_by(rows).map(move |first| Item {
            row: sequence.start,
            tokens: sequence.len(),
            past: 0,
            table: 0,
            first,
            keys: 0..((first + rows).min(all) - 1) / group + 1,
            part: WHOLE,
        })
    });
    tiles.collect()
}

pub(in crate::cuda) fn forward(
    cuda: &Cuda,
    shape: QkvShape,
    sequences: &[Range<usize>],
    qk: CudaView<'_, f32>,
    qkv: CudaView<'_, f32>,
    out: CudaViewMut<'_, f32>,
    lse: CudaViewMut<'_, f32>,
) -> Result<()> {
    let op = "attention";
    let lens = SavedLens { qk: qk.len(), qkv: qkv.len(), out: out.len(), lse: lse.len() };
    check(op, shape, sequences, lens)?;
    let padded = padded_dim(op, shape)?;
    let rows = tile_rows(padded);
    let tiles = query_tiles(shape, sequences, rows);
    let launch = launch(tiles.len(), shape, padded, 1, rows);
    let items = upload_items(cuda, tiles, |item| item.keys.len())?;
    let arguments = Arguments::new()
        .read(items.view(0..items.len()))
        .read(qk)
        .read(qkv)
        .write(&out)
        .write(&lse)
        .value(Heads::new(shape, [qk.address(), qkv.address(), out.address()]))
        .float(exponent_scale(shape));
    // SAFETY: `check` saw rows for every token; items name tokens of their own sequence.
    unsafe { cuda.launch(module(padded), op, launch, &arguments) }
}

/// What the forward left for the backward.
#[derive(Clone, Copy)]
pub(in crate::cuda) struct Saved<'a> {
    pub qk: CudaView<'a, f32>,
    pub qkv: CudaView<'a, f32>,
    pub out: CudaView<'a, f32>,
    pub lse: CudaView<'a, f32>,
}

pub(in crate::cuda) fn backward(
    cuda: &Cuda,
    shape: QkvShape,
    sequences: &[Range<usize>],
    saved: Saved<'_>,
    d_out: CudaView<'_, f32>,
    d_qk: CudaViewMut<'_, f32>,
    d_qkv: CudaViewMut<'_, f32>,
) -> Result<()> {
    let op = "attention_backward";
    let Saved { qk, qkv, out, lse } = saved;
    let lens = SavedLens { qk: qk.len(), qkv: qkv.len(), out: out.len(), lse: lse.len() };
    check(op, shape, sequences, lens)?;
    expect_len(op, "d_out", d_out.len(), out.len())?;
    expect_len(op, "d_qk", d_qk.len(), qk.len())?;
    expect_len(op, "d_qkv", d_qkv.len(), qkv.len())?;
    let padded = padded_dim(op, shape)?;
    let (module, rows) = (module(padded), tile_rows(padded));

    let mut deltas = cuda.uninitialized::<f32>(lse.len())?;
    let deltas_mut = deltas.view_mut(0..lse.len());
    let arguments = Arguments::new()
        .read(out)
        .read(d_out)
        .write(&deltas_mut)
        .value(Heads::new(shape, [out.address(), d_out.address()]))
        .value(lse.len() as u64);
    let tiles_bytes = word(2 * STREAM * (padded + 4) * size_of::<f32>());
    let blocks = Launch::new(lse.len().div_ceil(STREAM), THREADS).shared(tiles_bytes);
    // SAFETY: `out` and `d_out` have a row of `head_dim` for each element of `lse` and the deltas.
    unsafe { cuda.launch(module.clone(), "attention_deltas", blocks, &arguments)? };
    let deltas = deltas.view(0..lse.len());

    let addresses = [qk, qkv, d_out].map(|view| view.address());
    let heads = Heads::new(shape, addresses.into_iter().chain([d_qk.address(), d_qkv.address()]));
    let read = |items: &CudaBuffer<u32>| {
        let items = Arguments::new().read(items.view(0..items.len()));
        items.read(qk).read(qkv).read(lse).read(d_out).read(deltas).write(&d_qk)
    };
    let tiles = query_tiles(shape, sequences, rows);
    let grid = launch(tiles.len(), shape, padded, 2, rows);
    let items = upload_items(cuda, tiles, |item| item.keys.len())?;
    let arguments = read(&items).value(heads).float(exponent_scale(shape));
    // SAFETY: `check` saw rows for every token; items name tokens of their own sequence.
    unsafe { cuda.launch(module.clone(), "attention_d_queries", grid, &arguments)? };

    let tiles: Vec<Item> = sequences
        .iter()
        .flat_map(|sequence| {
            (0..sequence.len()).step_by(rows).map(move |first| Item {
                row: sequence.start,
                tokens: sequence.len(),
                past: 0,
                table: 0,
                first,
                keys: 0..sequence.len(),
                part: WHOLE,
            })
        })
        .collect();
    let grid = launch(tiles.len(), shape, padded, 2, rows);
    let items = upload_items(cuda, tiles, |item| item.tokens - item.first)?;
    let arguments = read(&items).write(&d_qkv).value(heads).float(exponent_scale(shape));
    // SAFETY: as above.
    unsafe { cuda.launch(module, "attention_d_keys", grid, &arguments) }
}

/// The kernels of this file and of `paged`, which share a source.
pub(in crate::cuda) fn manifest() -> Vec<Specialisation> {
    let kernels = [
        "attention",
        "attention_deltas",
        "attention_d_queries",
        "attention_d_keys",
        "paged_prefill",
        "paged_decode",
        "merge_prefill",
        "merge_decode",
    ];
    let of = |padded| kernels.map(|kernel| Specialisation::new(module(padded), kernel).without_spills());
    PADDED_DIMS.into_iter().flat_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tile_fits_in_the_shared_memory_of_sm_80() {
        for padded in PADDED_DIMS {
            let shape = QkvShape { heads: 1, kv_heads: 1, head_dim: padded, eps: 0.0, normed: true };
            let largest = launch(1, shape, padded, 2, tile_rows(padded)).shared_bytes;
            assert!(largest + 1024 <= 163 << 10, "{padded}: {largest} bytes");
        }
    }
}
