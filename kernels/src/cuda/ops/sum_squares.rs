//! The sum of squares of a gradient.
#![allow(unsafe_code)]

use super::tables::aligned;
use crate::backend::Backend;
use crate::cuda::{
    Cuda, CudaView,
    launch::{Arguments, Launch},
    manifest::Specialisation,
    modules::{Module, Source},
};
use crate::error::Result;

const SOURCE: Source = Source { file: "sum_squares.cu", text: include_str!("../../../cuda/sum_squares.cu") };
const THREADS: u32 = 256;
/// Elements of one block, as in the source.
const CHUNK: usize = 1 << 15;

pub(in crate::cuda) fn sum_squares(cuda: &Cuda, x: CudaView<'_, f32>) -> Result<f64> {
    let chunks = x.len().div_ceil(CHUNK);
    // An f64 is two words: a buffer holds elements, and f64 is none.
    let mut sums = cuda.uninitialized::<u32>(2 * chunks)?;
    let all = sums.view_mut(0..2 * chunks);
    let aligned = aligned(CHUNK, [x.address()]);
    let arguments = Arguments::new().read(x).write(&all).value(x.len() as u64).value(aligned);
    // SAFETY: a block for each chunk of `x`, which stops at its end and writes one f64.
    unsafe { cuda.launch(Module::new(&SOURCE), "sum_squares", Launch::new(chunks, THREADS), &arguments)? };
    let words = cuda.download(sums.view(0..2 * chunks))?;
    let sum = |pair: &[u32]| f64::from_bits(u64::from(pair[0]) | u64::from(pair[1]) << 32);
    Ok(words.chunks_exact(2).map(sum).sum())
}

pub(in crate::cuda) fn manifest() -> Vec<Specialisation> {
    ["sum_squares"].map(|kernel| Specialisation::new(Module::new(&SOURCE), kernel).without_spills()).into()
}
