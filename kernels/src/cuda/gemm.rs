//! Matrix products on the device, as BLAS knows them.

use super::{
    driver::Address,
    memory::{CudaView, CudaViewMut},
};
use crate::backend::Float;
use crate::cpu::matmul::check_lengths;
use crate::error::{KernelError, Result};
use crate::ops::{Matmul, MatrixLayout};

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
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }
}

/// A matrix that BLAS reads: it lies in columns `stride` apart, and is transposed first if `transposed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Factor {
    pub(super) transposed: bool,
    pub(super) stride: usize,
}

impl Factor {
    /// The transpose of a `rows` by `cols` matrix in our layout.
    fn transpose_of(layout: MatrixLayout, rows: usize, cols: usize) -> Option<Self> {
        let MatrixLayout { row, col } = layout;
        if col == 1 && (row >= cols || rows == 1) {
            Some(Self { transposed: false, stride: row.max(cols) })
        } else if row == 1 && (col >= rows || cols == 1) {
            Some(Self { transposed: true, stride: col.max(rows) })
        } else if rows == 1 && col > 0 {
            Some(Self { transposed: true, stride: col })
        } else if cols == 1 && row > 0 {
            Some(Self { transposed: false, stride: row })
        } else {
            None
        }
    }
    /// Our layout of the same elements.
    pub(super) fn layout(self) -> MatrixLayout {
        if self.transposed {
            MatrixLayout { row: 1, col: self.stride }
        } else {
            MatrixLayout { row: self.stride, col: 1 }
        }
    }
}

/// A product with `f32` sums, in terms of BLAS: columns are contiguous there, so it computes
/// `c^T [n, m] (+)= b^T [n, k] a^T [k, m]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gemm {
    pub(super) m: usize,
    pub(super) n: usize,
    pub(super) k: usize,
    pub(super) a: Factor,
    pub(super) b: Factor,
    pub(super) c_stride: usize,
    pub(super) accumulate: bool,
    pub(super) a_address: Address,
    pub(super) b_address: Address,
    pub(super) c_address: Address,
    /// Of both factors.
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
        let Matmul { m, n, k, .. } = shape;
        let factor = |what: &str, layout: MatrixLayout, rows: usize, cols: usize| {
            Factor::transpose_of(layout, rows, cols).ok_or_else(|| {
                let MatrixLayout { row, col } = layout;
                let what = format!("{what} has neither rows nor columns that are contiguous: {row}, {col}");
                KernelError::Argument { op: "matmul", what }
            })
        };
        let (a_layout, b_layout) = (factor("a", shape.a, m, k)?, factor("b", shape.b, k, n)?);
        Ok(Self {
            m,
            n,
            k,
            a: a_layout,
            b: b_layout,
            c_stride: shape.c_row.max(n),
            accumulate: shape.accumulate,
            a_address: a.address(),
            b_address: b.address(),
            c_address: c.address(),
            input: Dtype::of::<I>(),
            output: Dtype::of::<O>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_layout_that_blas_can_read_is_the_same_matrix_there() {
        for (rows, cols) in [(1, 1), (1, 4), (4, 1), (3, 5)] {
            for (row, col) in [(5, 1), (9, 1), (1, 4), (1, 7), (3, 2), (1, 1), (2, 1), (1, 2)] {
                let layout = MatrixLayout { row, col };
                let Some(factor) = Factor::transpose_of(layout, rows, cols) else {
                    assert!(rows > 1 && cols > 1, "{rows} x {cols} with strides {row}, {col}");
                    continue;
                };
                for (i, j) in (0..rows * cols).map(|e| (e / cols, e % cols)) {
                    let there = factor.layout();
                    assert_eq!(i * row + j * col, i * there.row + j * there.col, "{layout:?} {factor:?}");
                }
                let stored_rows = if factor.transposed { rows } else { cols };
                assert!(factor.stride >= stored_rows, "{layout:?} of {rows} x {cols}: {factor:?}");
            }
        }
    }
}
