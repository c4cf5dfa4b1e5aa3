//! Numbers for the steps, and short names for whole buffers.

use openclaw_kernels::{Backend, Cuda, Element, Float, Result};

/// Numbers in [-1, 1) that look random and are the same everywhere.
pub fn numbers(len: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

/// The same in a type that may be narrower.
pub fn rounded<T: Float>(values: &[f32]) -> Vec<T> {
    values.iter().map(|x| T::from_f32(*x)).collect()
}

/// All of a buffer.
pub fn all<'a, B: Backend, T: Element>(b: &B, buffer: &'a B::Buffer<T>) -> B::View<'a, T> {
    b.view(buffer, 0..b.len(buffer))
}

/// All of a buffer, to be written.
pub fn all_mut<'a, B: Backend, T: Element>(b: &B, buffer: &'a mut B::Buffer<T>) -> B::ViewMut<'a, T> {
    let len = b.len(buffer);
    b.view_mut(buffer, 0..len)
}

/// A buffer on the host, as `f32`.
pub fn host<B: Backend, T: Float>(b: &B, buffer: &B::Buffer<T>) -> Result<Vec<f32>> {
    Ok(b.download(all(b, buffer))?.iter().map(|x| x.to_f32()).collect())
}

/// `len` elements that repeat `piece`, copied on the device: making them on the host would take longer than what is
/// timed.
pub fn repeated<T: Element>(cuda: &Cuda, piece: &[T], len: usize) -> Result<<Cuda as Backend>::Buffer<T>> {
    let source = cuda.upload(piece)?;
    let mut buffer = Backend::uninitialized::<T>(cuda, len)?;
    for at in (0..len).step_by(piece.len()) {
        let count = piece.len().min(len - at);
        cuda.copy(buffer.view_mut(at..at + count), source.view(0..count))?;
    }
    Ok(buffer)
}
