//! Small tables that kernels read beside their tensors: which tile is whose. Every layer of a step passes the same
//! ones, so the last few stay on the device and are found again by their content.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use crate::backend::Backend;
use crate::cuda::{Cuda, CudaBuffer, launch::Launch};
use crate::error::Result;

/// A step has up to four, and several engines may take turns on a device.
const KEPT: usize = 32;

/// The tables used last, newest at the end.
#[derive(Default)]
pub(in crate::cuda) struct Tables(Mutex<VecDeque<Arc<CudaBuffer<u32>>>>);

/// `words` on the device.
pub(super) fn table(cuda: &Cuda, words: &[u32]) -> Result<Arc<CudaBuffer<u32>>> {
    let mut kept = cuda.inner.tables.0.lock().unwrap_or_else(PoisonError::into_inner);
    let same = |table: &Arc<CudaBuffer<u32>>| table.view(0..table.len()).remembered() == Some(words);
    let found = match kept.iter().position(same) {
        Some(at) => kept.remove(at).expect("position() found it"),
        None => Arc::new(cuda.upload(words)?),
    };
    if kept.len() == KEPT {
        kept.pop_front();
    }
    kept.push_back(found.clone());
    Ok(found)
}

/// A count as kernels take it.
pub(super) fn word(count: usize) -> u32 {
    u32::try_from(count).expect("tokens, rows and widths of one call are far below 2^32")
}

/// Whether 16 bytes can be read at every multiple of `unit` elements from each address.
pub(super) fn aligned(unit: usize, addresses: impl IntoIterator<Item = u64>) -> u32 {
    u32::from(unit.is_multiple_of(4) && addresses.into_iter().all(|address| address.is_multiple_of(16)))
}

/// Threads that take four elements each of a row, one block's at most.
pub(super) fn threads_for(width: usize) -> u32 {
    word(width.div_ceil(4).next_power_of_two().clamp(32, 256))
}

/// A launch in which every row has blocks of [`threads_for`] threads, and how many blocks it has.
pub(super) fn rows_in_tiles(rows: usize, width: usize) -> (Launch, u32) {
    let threads = threads_for(width);
    let tiles = width.div_ceil(4 * threads as usize);
    (Launch::new(rows * tiles, threads), word(tiles))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::tests::emulated_or_skip;

    #[test]
    fn a_table_that_comes_again_is_uploaded_once() {
        let Some(cuda) = emulated_or_skip() else { return };
        let first = table(&cuda, &[1, 2, 3]).expect("it fits");
        let buffers = |cuda: &Cuda| cuda.memory_use().allocations + cuda.memory_use().reuses;
        let before = buffers(&cuda);
        for layer in 0..28 {
            let again = table(&cuda, &[1, 2, 3]).expect("it fits");
            assert!(Arc::ptr_eq(&first, &again), "layer {layer}");
        }
        assert_eq!(buffers(&cuda), before);
        let other = table(&cuda, &[1, 2, 4]).expect("it fits");
        assert_eq!(cuda.download(other.view(0..3)).expect("it is there"), [1, 2, 4]);
        for i in 0..KEPT as u32 {
            table(&cuda, &[i]).expect("it fits");
        }
        let again = table(&cuda, &[1, 2, 3]).expect("it fits");
        assert!(!Arc::ptr_eq(&first, &again), "tables are kept for ever");
        assert_eq!(cuda.download(again.view(0..3)).expect("it is there"), [1, 2, 3]);
    }

    #[test]
    fn integers_are_on_the_host_until_something_may_write_them() {
        let Some(cuda) = emulated_or_skip() else { return };
        let mut ids = cuda.upload(&[5u32, 6, 7]).expect("it fits");
        assert_eq!(ids.view(1..3).remembered(), Some(&[6, 7][..]));
        assert_eq!(ids.view(0..3).range(1..2).remembered(), Some(&[6][..]));
        let target = ids.view_mut(2..3);
        cuda.write(target, &[9]).expect("the lengths agree");
        assert_eq!(ids.view(0..3).remembered(), None);
        assert_eq!(*cuda.values(ids.view(1..3)).expect("it is there"), [6, 9]);
        assert_eq!(cuda.upload(&[1f32]).expect("it fits").view(0..1).remembered(), None);
    }
}
