//! Single tensor operations behind one [`Backend`] trait.
//!
//! The CPU side ([`Cpu`]) is the specification: written to be read, and fast. Each operation is one file
//! and one method of the trait. Nothing here knows a model, an actor or tokio.

mod backend;
pub mod cpu;
pub mod cuda;
mod device;
mod error;
mod mapped_file;
pub mod ops;

pub use backend::{Backend, Element, Float};
pub use cpu::Cpu;
pub use cuda::Cuda;
pub use device::{Device, DeviceBuffer, DeviceView, DeviceViewMut, Place};
pub use error::{KernelError, Result};
pub use mapped_file::MappedFile;
