//! Device memory: buffers, ranges of them, and a pool that keeps what was freed for the next buffer.
//!
//! Everything on a device is queued in one order, so memory can be given to a new buffer as soon as the old one is
//! dropped: work on the old one is done first.
#![allow(unsafe_code)]

use std::{
    any::TypeId,
    collections::BTreeMap,
    marker::PhantomData,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::driver::{Address, Driver};
use crate::backend::Element;
use crate::error::{KernelError, Result};

/// Where a buffer of no bytes is: aligned, and never accessed.
const NOWHERE: Address = 256;
const SMALLEST: usize = 512;

/// The size of an allocation for so many bytes: eight steps to a doubling, so at most an eighth is spare.
fn size_class(bytes: usize) -> usize {
    if bytes <= 8 * SMALLEST {
        return bytes.next_multiple_of(SMALLEST);
    }
    let step = 1 << (bytes.ilog2() - 3);
    bytes.next_multiple_of(step)
}

/// What a device's memory is used for, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// In buffers.
    pub live_bytes: usize,
    /// The most that was in buffers at any time.
    pub peak_bytes: usize,
    /// Kept for later buffers.
    pub kept_bytes: usize,
    /// Allocations asked of the device.
    pub allocations: u64,
    /// Buffers served from what was kept.
    pub reuses: u64,
}

#[derive(Default)]
struct State {
    limit_bytes: Option<usize>,
    kept: BTreeMap<usize, Vec<Address>>,
    usage: MemoryUse,
}

/// The pool of one device.
pub(super) struct Pool {
    driver: Arc<dyn Driver>,
    state: Mutex<State>,
}

impl Pool {
    pub(super) fn new(driver: Arc<dyn Driver>) -> Self {
        Self { driver, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on buffers and what is kept for them take at most so much.
    pub(super) fn limit(&self, bytes: usize) {
        self.state().limit_bytes = Some(bytes);
    }

    pub(super) fn usage(&self) -> MemoryUse {
        self.state().usage
    }

    /// Memory for `bytes`, with no content.
    pub(super) fn allocate(self: &Arc<Self>, bytes: usize) -> Result<Block> {
        if bytes == 0 {
            return Ok(Block { pool: self.clone(), address: NOWHERE, class: 0 });
        }
        let class = size_class(bytes);
        let mut state = self.state();
        let kept = state.kept.get_mut(&class).and_then(Vec::pop);
        let address = match kept {
            Some(address) => {
                state.usage.kept_bytes -= class;
                state.usage.reuses += 1;
                address
            }
            None => self.grow(&mut state, bytes, class)?,
        };
        state.usage.live_bytes += class;
        state.usage.peak_bytes = state.usage.peak_bytes.max(state.usage.live_bytes);
        self.driver.claim(address, bytes);
        Ok(Block { pool: self.clone(), address, class })
    }

    fn grow(&self, state: &mut State, bytes: usize, class: usize) -> Result<Address> {
        let limit = state.limit_bytes.unwrap_or(usize::MAX);
        let fits = |state: &State| state.usage.live_bytes + state.usage.kept_bytes + class <= limit;
        if !fits(state) {
            self.release(state);
        }
        let mut found = if fits(state) { self.driver.allocate(class)? } else { None };
        if found.is_none() && state.usage.kept_bytes > 0 {
            self.release(state);
            found = self.driver.allocate(class)?;
        }
        let Some(address) = found else {
            let room = limit.saturating_sub(state.usage.live_bytes) as u64;
            let free = self.driver.free_bytes()?.min(room);
            let what = format!(
                "out of memory: {bytes} bytes asked, {free} free, {} in buffers",
                state.usage.live_bytes
            );
            return Err(KernelError::Device { device: self.driver.properties().device.clone(), what });
        };
        state.usage.allocations += 1;
        Ok(address)
    }

    /// Gives back to the device what no buffer uses.
    fn release(&self, state: &mut State) {
        for address in std::mem::take(&mut state.kept).into_values().flatten() {
            // SAFETY: no buffer has this memory: it was in the pool, which forgets it here.
            unsafe { self.driver.free(address) };
        }
        state.usage.kept_bytes = 0;
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let state = std::mem::take(&mut *self.state());
        let mut state = state;
        self.release(&mut state);
    }
}

/// Memory that goes back to its pool.
pub(super) struct Block {
    pool: Arc<Pool>,
    address: Address,
    class: usize,
}

impl Drop for Block {
    fn drop(&mut self) {
        if self.class > 0 {
            let mut state = self.pool.state();
            state.usage.live_bytes -= self.class;
            state.usage.kept_bytes += self.class;
            state.kept.entry(self.class).or_default().push(self.address);
        }
    }
}

/// Elements in device memory.
pub struct CudaBuffer<T> {
    block: Block,
    len: usize,
    /// What was uploaded, of integers that nothing has written since: operations check ids and sort by them, and
    /// need not wait for the device to do so.
    host: Option<Vec<T>>,
}

impl<T: Element> CudaBuffer<T> {
    pub(super) fn new(block: Block, len: usize) -> Self {
        Self { block, len, host: None }
    }
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
    fn place(&self, range: &Range<usize>) -> Address {
        assert!(
            range.start <= range.end && range.end <= self.len,
            "range {range:?} of a buffer of {} elements",
            self.len
        );
        self.block.address + (range.start * size_of::<T>()) as u64
    }
    /// Keeps what it was just filled with, if that is integers.
    pub(super) fn remember(&mut self, host: &[T]) {
        let integers = [TypeId::of::<u32>(), TypeId::of::<i32>()];
        self.host = integers.contains(&TypeId::of::<T>()).then(|| host.to_vec());
    }
    /// A shared range. Panics when it is out of bounds.
    pub fn view(&self, range: Range<usize>) -> CudaView<'_, T> {
        let host = self.host.as_ref().map(|host| &host[range.clone()]);
        CudaView { address: self.place(&range), len: range.len(), host }
    }
    /// An exclusive range. Panics when it is out of bounds.
    pub fn view_mut(&mut self, range: Range<usize>) -> CudaViewMut<'_, T> {
        self.host = None;
        CudaViewMut { address: self.place(&range), len: range.len(), buffer: PhantomData }
    }
}

/// A shared range of a [`CudaBuffer`].
#[derive(Debug)]
pub struct CudaView<'a, T> {
    address: Address,
    len: usize,
    host: Option<&'a [T]>,
}

impl<T> Clone for CudaView<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for CudaView<'_, T> {}

impl<'a, T: Element> CudaView<'a, T> {
    /// Memory that somebody else allocated, in the device's primary context.
    ///
    /// # Safety
    /// `len` elements are at `address` for as long as the view lives, and nobody writes them without the device's
    /// stream being waited for.
    #[allow(unsafe_code)]
    pub unsafe fn from_raw(address: u64, len: usize) -> Self {
        Self { address, len, host: None }
    }
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
    pub(crate) fn address(&self) -> Address {
        self.address
    }
    pub(crate) fn bytes(&self) -> usize {
        self.len * size_of::<T>()
    }
    /// Its elements on the host, where the buffer still has them.
    pub(crate) fn remembered(&self) -> Option<&'a [T]> {
        self.host
    }
    /// A part of it. Panics when it is out of bounds.
    pub(crate) fn range(&self, range: Range<usize>) -> CudaView<'a, T> {
        assert!(
            range.start <= range.end && range.end <= self.len,
            "range {range:?} of {} elements",
            self.len
        );
        let address = self.address + (range.start * size_of::<T>()) as u64;
        CudaView { address, len: range.len(), host: self.host.map(|host| &host[range]) }
    }
}

/// An exclusive range of a [`CudaBuffer`].
#[derive(Debug)]
pub struct CudaViewMut<'a, T> {
    address: Address,
    len: usize,
    buffer: PhantomData<&'a mut T>,
}

impl<'a, T: Element> CudaViewMut<'a, T> {
    /// Memory that somebody else allocated, in the device's primary context.
    ///
    /// # Safety
    /// `len` elements are at `address` for as long as the view lives, and nobody else touches them without the
    /// device's stream being waited for.
    #[allow(unsafe_code)]
    pub unsafe fn from_raw(address: u64, len: usize) -> Self {
        Self { address, len, buffer: PhantomData }
    }
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
    pub(crate) fn address(&self) -> Address {
        self.address
    }
    pub(crate) fn bytes(&self) -> usize {
        self.len * size_of::<T>()
    }
    /// The same range, shared while it is borrowed: for an operation in place.
    pub(crate) fn shared(&self) -> CudaView<'_, T> {
        CudaView { address: self.address, len: self.len, host: None }
    }
    /// A part of it, exclusive while it is borrowed. Panics when it is out of bounds.
    pub(crate) fn range(&mut self, range: Range<usize>) -> CudaViewMut<'_, T> {
        let CudaView { address, len, .. } = self.shared().range(range);
        CudaViewMut { address, len, buffer: PhantomData }
    }
    /// The elements before `at` and the others. Panics when it is out of bounds.
    pub(crate) fn split(mut self, at: usize) -> (Self, Self) {
        let len = self.len;
        let (first, second) = (self.range(0..at).address, self.range(at..len).address);
        let part = |address, len| CudaViewMut { address, len, buffer: PhantomData };
        (part(first, at), part(second, len - at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::{driver::emulated::Emulated, modules::Cache};

    fn pool(memory_bytes: u64, limit_bytes: Option<usize>) -> Arc<Pool> {
        let driver = Emulated::new(90, memory_bytes, 0, Cache::new(std::env::temp_dir()));
        let pool = Pool::new(Arc::new(driver));
        limit_bytes.into_iter().for_each(|bytes| pool.limit(bytes));
        Arc::new(pool)
    }

    #[test]
    fn classes_are_aligned_and_waste_at_most_an_eighth() {
        let mut last = 0;
        for bytes in (1..70_000).chain((0..40).map(|i| (1 << 20) + i * 77_777)) {
            let class = size_class(bytes);
            assert!(class >= bytes && class.is_multiple_of(512) && class >= last, "{bytes}: {class}");
            assert!(class <= 512 || class - bytes < 512.max(class / 8 + 1), "{bytes}: {class}");
            assert_eq!(size_class(class), class);
            last = class;
        }
    }

    #[test]
    fn buffers_never_overlap_and_everything_comes_back() {
        let pool = pool(u64::MAX, None);
        let (mut live, mut random) = (Vec::<(Block, usize)>::new(), 12345usize);
        for _ in 0..2000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let pick = random >> 33;
            if pick % 3 == 0 && !live.is_empty() {
                live.swap_remove(pick % live.len());
            } else {
                let bytes = pick % 9000;
                let block = pool.allocate(bytes).expect("there is memory");
                for (other, size) in live.iter().filter(|(_, size)| *size > 0 && bytes > 0) {
                    let apart = block.address + bytes as u64 <= other.address
                        || other.address + *size as u64 <= block.address;
                    assert!(apart, "{bytes} bytes at {} overlap {size} at {}", block.address, other.address);
                }
                live.push((block, bytes));
            }
            let expected: usize =
                live.iter().filter(|(_, size)| *size > 0).map(|(_, size)| size_class(*size)).sum();
            assert_eq!(pool.usage().live_bytes, expected);
        }
        drop(live);
        let usage = pool.usage();
        assert_eq!(usage.live_bytes, 0);
        assert!(usage.reuses > 600 && usage.peak_bytes <= usage.kept_bytes, "{usage:?}");
    }

    #[test]
    fn memory_is_used_again_for_its_class_alone() {
        let pool = pool(u64::MAX, None);
        let first = pool.allocate(1000).expect("there is memory");
        let address = first.address;
        drop(first);
        let other = pool.allocate(3000).expect("there is memory");
        assert_ne!(other.address, address);
        assert_eq!(pool.allocate(1024).expect("there is memory").address, address);
    }

    #[test]
    fn what_is_kept_makes_room_before_memory_runs_out() {
        for pool in [pool(1 << 20, None), pool(u64::MAX, Some(1 << 20))] {
            let kept: Vec<_> = (0..4).map(|_| pool.allocate(200 << 10).expect("there is memory")).collect();
            drop(kept);
            assert!(pool.usage().kept_bytes > 800 << 10);
            let large = pool.allocate(900 << 10).expect("there is memory when nothing is kept");
            assert_eq!(pool.usage().kept_bytes, 0);
            let Err(error) = pool.allocate(200 << 10) else { panic!("there is no memory") };
            let (free, used) = ((1 << 20) - size_class(900 << 10), size_class(900 << 10));
            let expected =
                format!("emulated: out of memory: 204800 bytes asked, {free} free, {used} in buffers");
            assert_eq!(error.to_string(), expected);
            drop(large);
            pool.allocate(200 << 10).expect("there is memory again");
        }
    }
}
