//! How a kernel is called: its grid and its arguments.

use std::{ffi::c_void, sync::PoisonError};

use super::{
    Cuda,
    memory::{CudaView, CudaViewMut},
    modules::Module,
};
use crate::backend::Element;
use crate::error::{KernelError, Result};

impl Cuda {
    /// Launches the kernel `name` of `module`.
    ///
    /// # Safety
    /// With these arguments the kernel stays inside the views among them.
    #[allow(unsafe_code)]
    pub(crate) unsafe fn launch(
        &self,
        module: Module,
        name: &'static str,
        launch: Launch,
        arguments: &Arguments,
    ) -> Result<()> {
        if launch.grid == 0 {
            return Ok(());
        }
        let key = (module, name);
        let known = self.inner.functions.lock().unwrap_or_else(PoisonError::into_inner).get(&key).copied();
        let function = match known {
            Some(function) => function,
            None => {
                let function = self.inner.driver.function(&key.0, name)?;
                let mut functions = self.inner.functions.lock().unwrap_or_else(PoisonError::into_inner);
                functions.insert(key.clone(), function);
                function
            }
        };
        // SAFETY: the caller's promise.
        let launched = unsafe { self.inner.driver.launch(function, launch, arguments) };
        let (module, name) = (&key.0, key.1);
        match launched {
            Err(KernelError::Device { device, what }) => {
                Err(KernelError::Device { device, what: format!("{name} of {}: {what}", module.label()) })
            }
            Ok(()) if self.inner.waits => {
                self.inner.driver.wait_for(&format!("{name} of {}, {launch:?}", module.label()))
            }
            told => told,
        }
    }
}

/// Blocks, threads in each, blocks in a cluster (1 without clusters), and dynamic shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Launch {
    pub(crate) grid: u32,
    pub(crate) block: u32,
    pub(crate) cluster: u32,
    pub(crate) shared_bytes: u32,
}

impl Launch {
    /// `grid` blocks of `block` threads. A grid of 0 launches nothing.
    pub(crate) fn new(grid: usize, block: u32) -> Self {
        let grid = u32::try_from(grid).expect("a grid has less than 2^32 blocks");
        Self { grid, block, cluster: 1, shared_bytes: 0 }
    }
    /// In clusters of so many blocks, which divide the grid; needs compute capability 9.0.
    pub(crate) fn clusters_of(self, blocks: u32) -> Self {
        Self { cluster: blocks, ..self }
    }
    /// With dynamic shared memory in every block.
    pub(crate) fn shared(self, bytes: u32) -> Self {
        Self { shared_bytes: bytes, ..self }
    }
}

/// What an argument is, as `emulation.h` checks it against the kernel's parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Kind {
    Value = 0,
    Float = 1,
    Read = 2,
    Write = 3,
}

/// Largest argument, in words of 8 bytes.
const WORDS: usize = 12;

/// One argument; `bytes` are its own or those of the elements it points to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Argument {
    words: [u64; WORDS],
    pub(super) kind: Kind,
    pub(super) bytes: u32,
}

impl Argument {
    pub(super) fn value(&self) -> *const c_void {
        self.words.as_ptr().cast()
    }
    /// The address of a pointer.
    pub(super) fn address(&self) -> Option<u64> {
        matches!(self.kind, Kind::Read | Kind::Write).then_some(self.words[0])
    }
}

/// A kernel's arguments, in the order of its parameters.
#[derive(Clone, Debug, Default)]
pub(crate) struct Arguments(Vec<Argument>);

impl Arguments {
    pub(crate) fn new() -> Self {
        Self(Vec::with_capacity(16))
    }
    fn push(mut self, value: &[u8], kind: Kind, bytes: usize) -> Self {
        let mut words = [0; WORDS];
        bytemuck::bytes_of_mut(&mut words)[..value.len()].copy_from_slice(value);
        self.0.push(Argument { words, kind, bytes: bytes as u32 });
        self
    }
    /// A pointer to const.
    pub(crate) fn read<T: Element>(self, view: CudaView<'_, T>) -> Self {
        self.push(&view.address().to_ne_bytes(), Kind::Read, size_of::<T>())
    }
    /// A pointer to const, null without a view.
    pub(crate) fn read_or_null<T: Element>(self, view: Option<CudaView<'_, T>>) -> Self {
        let address = view.map_or(0, |view| view.address());
        self.push(&address.to_ne_bytes(), Kind::Read, size_of::<T>())
    }
    /// A pointer.
    pub(crate) fn write<T: Element>(self, view: &CudaViewMut<'_, T>) -> Self {
        self.push(&view.address().to_ne_bytes(), Kind::Write, size_of::<T>())
    }
    /// A pointer, null without a view.
    pub(crate) fn write_or_null<T: Element>(self, view: Option<&CudaViewMut<'_, T>>) -> Self {
        let address = view.map_or(0, |view| view.address());
        self.push(&address.to_ne_bytes(), Kind::Write, size_of::<T>())
    }
    /// An integer (`u32`, `u64`, `i32`) or a struct of the kernel's own, by value.
    pub(crate) fn value<T: bytemuck::NoUninit>(self, value: T) -> Self {
        self.push(bytemuck::bytes_of(&value), Kind::Value, size_of::<T>())
    }
    /// A float.
    pub(crate) fn float(self, value: f32) -> Self {
        self.push(&value.to_ne_bytes(), Kind::Float, size_of::<f32>())
    }
    pub(super) fn as_slice(&self) -> &[Argument] {
        &self.0
    }
}
