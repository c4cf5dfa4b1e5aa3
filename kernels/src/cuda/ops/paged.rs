//! The paged key-value pool: storing new tokens and attending over a sequence's pages.
#![allow(unsafe_code)]

use super::{
    attention::{
        DOWN, Heads, Item, WHOLE, exponent_scale, launch, module, padded_dim, tile_rows, upload_items,
    },
    tables::{aligned, word},
};
use crate::cpu::paged::{check_attention, check_store};
use crate::cuda::{
    Cuda, CudaView, CudaViewMut,
    launch::{Arguments, Launch},
    manifest::Specialisation,
    modules::{Module, Source},
};
use crate::error::Result;
use crate::ops::{PagedSegment, PagedShape};

pub(in crate::cuda) const STORE: Source =
    Source { file: "paged_store.cu", text: include_str!("../../../cuda/paged_store.cu") };
/// Keys that one block takes of a segment of one tile; a segment of more tiles has enough blocks with more keys.
const KEYS_PER_BLOCK: usize = 512;

pub(in crate::cuda) fn store(
    cuda: &Cuda,
    shape: PagedShape,
    slots: CudaView<'_, u32>,
    qk: CudaView<'_, f32>,
    qkv: CudaView<'_, f32>,
    pool: CudaViewMut<'_, f32>,
) -> Result<()> {
    check_store(shape, &cuda.values(slots)?, qk.len(), qkv.len(), pool.len())?;
    let dim = shape.qkv.head_dim;
    let arguments = Arguments::new()
        .read(slots)
        .read(qk)
        .read(qkv)
        .write(&pool)
        .value(word(shape.qkv.heads))
        .value(word(shape.qkv.kv_heads))
        .value(word(dim))
        .value(word(shape.block_size))
        .value(aligned(dim, [qk.address(), qkv.address(), pool.address()]));
    let threads = (2 * shape.qkv.kv_heads * dim.div_ceil(4)).next_multiple_of(32).min(256);
    // SAFETY: `check_store` saw a row of `qk` and `qkv` for each slot, and the slot in the pool.
    unsafe {
        cuda.launch(Module::new(&STORE), "paged_store", Launch::new(slots.len(), word(threads)), &arguments)
    }
}

/// Tiles of one kind and what is left to merge after them.
#[derive(Default)]
struct Tiles {
    items: Vec<Item>,
    merges: Vec<Item>,
    parts: usize,
}

impl Tiles {
    /// Adds a segment in tiles of `rows`. How its keys are split follows from the segment alone.
    fn add(&mut self, segment: &PagedSegment, group: usize, rows: usize) {
        let all = segment.new * group;
        let keys_per_block = KEYS_PER_BLOCK * all.div_ceil(rows);
        for first in (0..all).step_by(rows) {
            let keys = segment.past + ((first + rows).min(all) - 1) / group + 1;
            let item = Item {
                row: segment.row,
                tokens: segment.new,
                past: segment.past,
                table: segment.table,
                first,
                keys: 0..keys,
                part: WHOLE,
            };
            if keys <= keys_per_block {
                self.items.push(item);
                continue;
            }
            let before = self.parts;
            for from in (0..keys).step_by(keys_per_block) {
                let keys = from..(from + keys_per_block).min(keys);
                self.items.push(Item { keys, part: word(self.parts), ..item.clone() });
                self.parts += 1;
            }
            self.merges.push(Item { keys: before..self.parts, ..item });
        }
    }
}

pub(in crate::cuda) fn attention(
    cuda: &Cuda,
    shape: PagedShape,
    segments: &[PagedSegment],
    block_tables: CudaView<'_, u32>,
    qk: CudaView<'_, f32>,
    pool: CudaView<'_, f32>,
    out: CudaViewMut<'_, f32>,
) -> Result<()> {
    check_attention(shape, segments, &cuda.values(block_tables)?, qk.len(), pool.len(), out.len())?;
    let (qkv, group) = (shape.qkv, shape.qkv.heads / shape.qkv.kv_heads);
    let padded = padded_dim("paged_attention", qkv)?;
    let (mut decode, mut prefill) = (Tiles::default(), Tiles::default());
    for segment in segments {
        if segment.new * group <= DOWN {
            decode.add(segment, group, DOWN);
        } else {
            prefill.add(segment, group, tile_rows(padded));
        }
    }
    let heads = Heads::new(qkv, [qk.address(), pool.address(), out.address()]);
    let kinds = [
        (decode, DOWN, "paged_decode", "merge_decode"),
        (prefill, tile_rows(padded), "paged_prefill", "merge_prefill"),
    ];
    for (tiles, rows, kernel, merge) in kinds {
        if tiles.items.is_empty() {
            continue;
        }
        let grid = launch(tiles.items.len(), qkv, padded, 1, rows);
        let items = upload_items(cuda, tiles.items, |item| item.keys.len())?;
        let parts_len = tiles.parts * qkv.kv_heads * rows * (padded + 4);
        let mut parts = cuda.uninitialized::<f32>(parts_len)?;
        let parts_mut = parts.view_mut(0..parts_len);
        let arguments = Arguments::new()
            .read(items.view(0..items.len()))
            .read(block_tables)
            .read(qk)
            .read(pool)
            .write(&out)
            .write(&parts_mut)
            .value(heads)
            .value(word(shape.block_size))
            .float(exponent_scale(qkv));
        // SAFETY: `check_attention` saw each segment's rows, and its blocks in the pool; there is a part for each
        // item that has one.
        unsafe { cuda.launch(module(padded), kernel, grid, &arguments)? };
        if tiles.merges.is_empty() {
            continue;
        }
        let grid = Launch { shared_bytes: 0, ..launch(tiles.merges.len(), qkv, padded, 1, rows) };
        let merges = upload_items(cuda, tiles.merges, |item| item.keys.len())?;
        let arguments = Arguments::new()
            .read(merges.view(0..merges.len()))
            .read(parts.view(0..parts_len))
            .write(&out)
            .value(heads);
        // SAFETY: every merge joins parts written just before.
        unsafe { cuda.launch(module(padded), merge, grid, &arguments)? };
    }
    Ok(())
}

pub(in crate::cuda) fn manifest() -> Vec<Specialisation> {
    vec![Specialisation::new(Module::new(&STORE), "paged_store").without_spills()]
}
