//! Matrix products on the device.

use super::{
    driver::Address,
    memory::{CudaView, CudaViewMut},
};
use crate::backend::Float;
use crate::cpu::matmul::check_lengths;
use crate::error::Result;
use crate::ops::Matmul;

/// The type of a matrix's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Dtype {
    F32,
    Bf16,
}

impl Dtype {
    fn of<T: Float>() -> Self {
        if size_of::<T>() == 2 { Self::Bf16 } else { Self::F32 }
    }
}

/// A product with `f32` sums: both factors have one type.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gemm {
    pub(super) shape: Matmul,
    pub(super) a: Address,
    pub(super) b: Address,
    pub(super) c: Address,
    pub(super) input: Dtype,
    pub(super) output: Dtype,
}

impl Gemm {
    /// Checks that the views have what the shape reaches.
    pub(crate) fn new<I: Float, O: Float>(
        shape: Matmul,
        a: CudaView<'_, I>,
        b: CudaView<'_, I>,
        c: &CudaViewMut<'_, O>,
    ) -> Result<Self> {
        check_lengths(shape, a.len(), b.len(), c.len())?;
        let (a, b, c) = (a.address(), b.address(), c.address());
        Ok(Self { shape, a, b, c, input: Dtype::of::<I>(), output: Dtype::of::<O>() })
    }
}
