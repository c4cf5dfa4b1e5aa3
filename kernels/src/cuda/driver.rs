//! What a device must do, and the two that do it: a GPU through its driver, and the emulation on the CPU.

#![allow(unsafe_code)]

mod cublas;
pub(super) mod emulated;
pub(super) mod real;
#[cfg(test)]
mod stand_in;

use super::gemm::Gemm;
use super::launch::{Arguments, Launch};
use crate::error::Result;

/// A place in device memory.
pub(crate) type Address = u64;

/// A loaded kernel, as its driver knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Function(pub(super) usize);

/// A moment in the order of work.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mark {
    Event(usize),
    Instant(std::time::Instant),
}

/// What a device is.
#[derive(Clone, Debug)]
pub struct Properties {
    /// `cuda:0`, or what an emulated device is called.
    pub device: String,
    /// The maker's name.
    pub name: String,
    /// Compute capability, ten times: 80, 90, 100.
    pub arch: u32,
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// All memory, in bytes.
    pub memory_bytes: u64,
    /// Shared memory that a block can ask for, in bytes.
    pub shared_bytes: u32,
}

/// A device. Work is queued and done in order; only `download` and `synchronize` wait.
///
/// An error may belong to earlier work. [`crate::KernelError::DeviceLost`] repeats for ever.
pub(crate) trait Driver: Send + Sync {
    fn properties(&self) -> &Properties;

    /// Allocates; `None` when there is not enough memory.
    fn allocate(&self, bytes: usize) -> Result<Option<Address>>;
    /// Frees what `allocate` gave, after all queued work.
    ///
    /// # Safety
    /// Nothing uses the memory later.
    unsafe fn free(&self, address: Address);
    /// Bytes that `allocate` can still give, about.
    fn free_bytes(&self) -> Result<u64>;
    /// Tells that the first `bytes` of an allocation are now a buffer with no content.
    fn claim(&self, _allocation: Address, _bytes: usize) {}

    /// Copies from the host, which may change `host` after the return.
    ///
    /// # Safety
    /// `target` has that many bytes.
    unsafe fn upload(&self, target: Address, host: &[u8]) -> Result<()>;
    /// Copies to the host and waits.
    ///
    /// # Safety
    /// `source` has that many bytes.
    unsafe fn download(&self, host: &mut [u8], source: Address) -> Result<()>;
    /// Copies on the device.
    ///
    /// # Safety
    /// Both have that many bytes, and they do not overlap.
    unsafe fn copy(&self, target: Address, source: Address, bytes: usize) -> Result<()>;
    /// Sets bytes.
    ///
    /// # Safety
    /// `target` has that many bytes.
    unsafe fn fill(&self, target: Address, byte: u8, bytes: usize) -> Result<()>;

    /// Compiles (or finds compiled) `source` with `defines`, loads it and gives the kernel called `name`.
    fn function(&self, module: &super::modules::Module, name: &str) -> Result<Function>;
    /// Queues a kernel.
    ///
    /// # Safety
    /// With these arguments the kernel stays inside the memory it is given.
    unsafe fn launch(&self, function: Function, launch: Launch, arguments: &Arguments) -> Result<()>;
    /// Queues a matrix product.
    ///
    /// # Safety
    /// The operands have the elements that the shape reaches.
    unsafe fn gemm(&self, gemm: &Gemm) -> Result<()>;
    /// Marks the moment when everything queued before is done.
    fn mark(&self) -> Result<Mark>;
    /// Waits for two marks, which it uses up, and gives the time between them.
    fn millis_between(&self, start: Mark, end: Mark) -> Result<f32>;
    /// Waits for everything queued; an error of it is told as that of `work`.
    fn wait_for(&self, work: &str) -> Result<()>;
    /// Waits for everything queued.
    fn synchronize(&self) -> Result<()> {
        self.wait_for("a kernel")
    }
}
