//! What the operations on rows of logits share: how logits become exponents, how a kernel is specialised for a
//! row, and the check of ids.
#![allow(unsafe_code)]

use crate::backend::{Backend, Float};
use crate::cuda::{
    Cuda, CudaView,
    launch::{Arguments, Launch},
    manifest::Specialisation,
    modules::{Module, Source},
};
use crate::error::Result;
use crate::ops::{Length, unknown_id};

impl<T: crate::Element> Length for CudaView<'_, T> {
    fn length(&self) -> usize {
        self.len()
    }
}
impl<T: crate::Element> Length for crate::cuda::CudaViewMut<'_, T> {
    fn length(&self) -> usize {
        self.len()
    }
}

const IDS: Source = Source { file: "ids.cu", text: include_str!("../../../cuda/ids.cu") };

pub(in crate::cuda) fn manifest() -> Vec<Specialisation> {
    vec![Specialisation::new(Module::new(&IDS), "first_unknown_id").without_spills()]
}

/// Threads of a block that reads a row, or a cluster's part of one.
pub(super) const THREADS: u32 = 256;
const VECTOR_BYTES: usize = 16;

/// As `Scale` in `softmax.cuh`. `base2` is rounded; the other factors come from the rounded value, so that its
/// rounding cancels in log-probs however far the logits are from 0.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(super) struct Scale {
    nats: f64,
    inverse_temperature: f64,
    base2: f32,
    padding: u32,
}

impl Scale {
    pub(super) fn new(temperature: f32) -> Self {
        let temperature = f64::from(temperature);
        let base2 = (std::f64::consts::LOG2_E / temperature) as f32;
        let nats = 1.0 / (f64::from(base2) * temperature);
        Self { nats, inverse_temperature: 1.0 / temperature, base2, padding: 0 }
    }
}

/// Logits in a vector of 16 bytes.
pub(super) fn vector_width<T: Float>() -> usize {
    VECTOR_BYTES / size_of::<T>()
}

/// Whether every row of logits at `address` begins at a multiple of 16 bytes.
pub(super) fn is_aligned<T: Float>(address: u64, stride: usize) -> bool {
    address.is_multiple_of(VECTOR_BYTES as u64) && (stride * size_of::<T>()).is_multiple_of(VECTOR_BYTES)
}

/// A source that begins with `softmax.cuh`, specialised for a type and a block.
pub(super) fn module<T: Float>(source: &'static Source, aligned: bool, threads: u32) -> Module {
    let bf16 = u32::from(size_of::<T>() == 2);
    Module::new(source).define("BF16", bf16).define("ALIGNED", u32::from(aligned)).define("BLOCK", threads)
}

/// Ids in rows of `k`, and what they are called.
pub(super) struct Ids<'a> {
    pub(super) what: &'static str,
    pub(super) ids: CudaView<'a, i32>,
    pub(super) k: usize,
}

/// The rows whose ids are looked at: those with a weight and a target.
#[derive(Clone, Copy)]
pub(super) struct Active<'a> {
    pub(super) weights: CudaView<'a, f32>,
    pub(super) targets: CudaView<'a, i32>,
}

/// Checks that every id is below `vocab`; negative ones mean "none". Waits for the device.
pub(super) fn check_ids(
    cuda: &Cuda,
    op: &'static str,
    vocab: usize,
    all: &[Ids<'_>],
    active: Option<Active<'_>>,
) -> Result<()> {
    let blocks = |ids: &Ids<'_>| ids.ids.len().div_ceil(1 << 12).min(256);
    let total = all.iter().map(blocks).sum::<usize>();
    if total == 0 {
        return Ok(());
    }
    // A position is a u64, of two words: a buffer holds elements, and u64 is none.
    let mut first = cuda.uninitialized::<u32>(2 * total)?;
    let mut at = 0;
    for ids in all {
        let positions = first.view_mut(2 * at..2 * (at + blocks(ids)));
        let arguments = Arguments::new()
            .read(ids.ids)
            .value(ids.ids.len() as u64)
            .value(ids.k as u32)
            .value(vocab as u32)
            .read_or_null(active.map(|active| active.weights))
            .read_or_null(active.map(|active| active.targets))
            .write(&positions);
        let launch = Launch::new(blocks(ids), 256);
        // SAFETY: reads `ids` to its end, an element of `active` for each `k` of them, and writes a u64 per block.
        unsafe { cuda.launch(Module::new(&IDS), "first_unknown_id", launch, &arguments)? };
        at += blocks(ids);
    }
    let words = cuda.download(first.view(0..2 * total))?;
    let mut positions = words.chunks_exact(2).map(|pair| u64::from(pair[0]) | u64::from(pair[1]) << 32);
    for ids in all {
        let found = positions.by_ref().take(blocks(ids)).min().unwrap_or(u64::MAX);
        if found != u64::MAX {
            let at = found as usize;
            let id = cuda.download(ids.ids.range(at..at + 1))?[0];
            return Err(unknown_id(op, ids.what, id, vocab));
        }
    }
    Ok(())
}
