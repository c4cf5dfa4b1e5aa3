//! Gathers, scatters and moves rows of a matrix.
#![allow(unsafe_code)]

use crate::backend::Float;
use crate::cuda::{
    Cuda, CudaView, CudaViewMut,
    launch::{Arguments, Launch},
    manifest::Specialisation,
    modules::{Module, Source},
};
use crate::error::Result;

const SOURCE: Source = Source { file: "copy_rows.cu", text: include_str!("../../../cuda/copy_rows.cu") };
const THREADS: u32 = 256;
/// What is copied at once, and its bytes.
const WORDS: [(&str, usize); 3] = [("uint4", 16), ("u32", 4), ("bf16", 2)];

fn module(word: &str) -> Module {
    Module::new(&SOURCE).define("WORD", word)
}

pub(in crate::cuda) fn manifest() -> Vec<Specialisation> {
    let of = |(word, _): &(&str, usize)| Specialisation::new(module(word), "copy_rows").without_spills();
    WORDS.iter().map(of).collect()
}

/// Copies `count` rows of `width` elements: row `from_rows[i]` of `from` (or `i`) to row `to_rows[i]` of `to` (or
/// `i`).
///
/// # Safety
/// Both have these rows, and no row is written that this call also reads or writes again.
pub(super) unsafe fn copy_rows<T: Float>(
    cuda: &Cuda,
    (count, width): (usize, usize),
    (from, from_rows): (CudaView<'_, T>, Option<CudaView<'_, u32>>),
    (to, to_rows): (&CudaViewMut<'_, T>, Option<CudaView<'_, u32>>),
) -> Result<()> {
    let row_bytes = width * size_of::<T>();
    let fits = |bytes: usize| {
        row_bytes.is_multiple_of(bytes) && (from.address() | to.address()).is_multiple_of(bytes as u64)
    };
    let (word, bytes) = *WORDS.iter().find(|(_, bytes)| fits(*bytes)).expect("an element has 2 or 4 bytes");
    let arguments = Arguments::new()
        .read(from)
        .read_or_null(from_rows)
        .write(to)
        .read_or_null(to_rows)
        .value((row_bytes / bytes) as u32);
    // SAFETY: one block per row, and the caller's promise.
    unsafe { cuda.launch(module(word), "copy_rows", Launch::new(count, THREADS), &arguments) }
}
