//! Every kernel in the specialisations that are used: what CI compiles and `doctor` counts.

use rayon::prelude::*;

use super::{
    modules::{Cache, Module, cache_folder},
    nvrtc::Nvrtc,
    ops,
};
use crate::error::Result;

/// Compute capabilities (times ten) that every kernel is compiled for.
pub const ARCHS: [u32; 3] = [80, 90, 100];

/// A kernel of a module, and what is promised of its machine code.
#[derive(Clone, Debug)]
pub struct Specialisation {
    /// The source and its macros.
    pub module: Module,
    /// The kernel's name.
    pub kernel: &'static str,
    /// The first compute capability that has it.
    pub first_arch: u32,
    /// The last one.
    pub last_arch: u32,
    /// Whether all its variables stay in registers.
    pub no_spills: bool,
    /// How many of its instructions that load from global memory load less than 16 bytes, at most.
    pub narrow_loads: Option<usize>,
}

impl Specialisation {
    /// Promises nothing, on every architecture.
    pub(super) fn new(module: Module, kernel: &'static str) -> Self {
        Self { module, kernel, first_arch: 0, last_arch: u32::MAX, no_spills: false, narrow_loads: None }
    }
    /// Only from this compute capability on.
    pub(super) fn since_arch(self, arch: u32) -> Self {
        Self { first_arch: arch, ..self }
    }
    /// Only up to this compute capability.
    pub(super) fn until_arch(self, arch: u32) -> Self {
        Self { last_arch: arch, ..self }
    }
    /// Promises that nothing spills.
    pub(super) fn without_spills(self) -> Self {
        Self { no_spills: true, ..self }
    }
    /// Promises that at most `narrow` load instructions are not of 16 bytes.
    pub(super) fn with_wide_loads(self, narrow: usize) -> Self {
        Self { narrow_loads: Some(narrow), ..self }
    }
    /// Whether this architecture has it.
    pub fn is_for(&self, arch: u32) -> bool {
        (self.first_arch..=self.last_arch).contains(&arch)
    }
}

/// Compiles every kernel that an architecture has, or finds it compiled in [`super::cache_folder`]; their number.
pub fn compile_all(nvrtc: Nvrtc, arch: u32) -> Result<usize> {
    let cache = Cache::new(cache_folder());
    let kernels: Vec<_> = specialisations().into_iter().filter(|kernel| kernel.is_for(arch)).collect();
    // Kernels of one module wait for its one compilation.
    kernels.par_iter().try_for_each(|kernel| nvrtc.cubin(&cache, &kernel.module, arch).map(drop))?;
    Ok(kernels.len())
}

/// All of them.
pub fn specialisations() -> Vec<Specialisation> {
    [
        ops::adamw::manifest(),
        ops::attention::manifest(),
        ops::copy_rows::manifest(),
        ops::embedding::manifest(),
        ops::fill::manifest(),
        ops::product::manifest(),
        ops::logprob::manifest(),
        ops::logprob_gap::manifest(),
        ops::norm::manifest(),
        ops::paged::manifest(),
        ops::rope::manifest(),
        ops::row_loss::manifest(),
        ops::rows::manifest(),
        ops::sum_squares::manifest(),
        ops::swiglu::manifest(),
    ]
    .concat()
}
