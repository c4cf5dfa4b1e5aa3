//! Matrix products: the `gemm` crate, and a dot-product form for the few rows of a decoding step.
#![allow(unsafe_code)]

use gemm::Parallelism;
use rayon::prelude::*;

use super::{
    Shared,
    simd::{dot, dot4},
};
use crate::error::{KernelError, Result};
use crate::ops::{Matmul, MatrixLayout};

/// Up to this many rows, dot products beat packing the weights (measured: 3 times at 16 rows, equal at 64).
const FEW_ROWS: usize = 48;

/// Checks that each matrix has the elements its layout reaches, and that rows of `c` do not overlap.
pub(crate) fn check_lengths(shape: Matmul, a: usize, b: usize, c: usize) -> Result<()> {
    let Matmul { m, n, k, .. } = shape;
    let last = |rows: usize, cols: usize, l: MatrixLayout| match (rows, cols) {
        (0, _) | (_, 0) => 0,
        _ => (rows - 1) * l.row + (cols - 1) * l.col + 1,
    };
    for (what, found, expected) in [
        ("a", a, last(m, k, shape.a)),
        ("b", b, last(k, n, shape.b)),
        ("c", c, last(m, n, MatrixLayout::rows(shape.c_row))),
    ] {
        if found < expected {
            return Err(KernelError::Shape { op: "matmul", what, found, expected });
        }
    }
    if m > 1 && shape.c_row < n {
        let what = format!("rows of c have {n} columns and start every {}", shape.c_row);
        return Err(KernelError::Argument { op: "matmul", what });
    }
    Ok(())
}

pub(crate) fn matmul(shape: Matmul, a: &[f32], b: &[f32], c: &mut [f32]) -> Result<()> {
    let Matmul { m, n, k, .. } = shape;
    check_lengths(shape, a.len(), b.len(), c.len())?;
    if m == 0 || n == 0 {
        return Ok(());
    }
    if k == 0 {
        if !shape.accumulate {
            (0..m).for_each(|i| c[i * shape.c_row..][..n].fill(0.0));
        }
        return Ok(());
    }
    if m <= FEW_ROWS && shape.a.col == 1 && shape.b.row == 1 {
        few_rows(shape, a, b, c);
        return Ok(());
    }
    let threads = rayon::current_num_threads();
    let parallelism =
        if threads > 1 && m * n * k > 1 << 18 { Parallelism::Rayon(0) } else { Parallelism::None };
    strided(shape, a, b, c, parallelism);
    Ok(())
}

/// Any layout, on this thread or on the pool. Lengths are the caller's promise, as `matmul` checks them.
pub(super) fn strided(shape: Matmul, a: &[f32], b: &[f32], c: &mut [f32], parallelism: Parallelism) {
    debug_assert!(c.len() > (shape.m - 1) * shape.c_row + shape.n - 1);
    // SAFETY: `matmul` (or the caller) checked that every index the strides can reach is in bounds; `c` is
    // exclusive, so it aliases neither `a` nor `b`.
    unsafe { strided_into(shape, a, b, c.as_mut_ptr(), parallelism) }
}

/// As [`strided`], into columns of a buffer whose others belong to other tasks.
///
/// # Safety
/// The `shape.n` elements of each of the `shape.m` rows that start every `shape.c_row` at `c` must be in bounds and this
/// task's alone. No other element is touched.
pub(super) unsafe fn strided_into(
    shape: Matmul,
    a: &[f32],
    b: &[f32],
    c: *mut f32,
    parallelism: Parallelism,
) {
    // SAFETY: the caller's promise.
    unsafe {
        gemm::gemm(
            shape.m,
            shape.n,
            shape.k,
            c,
            1,
            shape.c_row as isize,
            shape.accumulate,
            a.as_ptr(),
            shape.a.col as isize,
            shape.a.row as isize,
            b.as_ptr(),
            shape.b.col as isize,
            shape.b.row as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}

fn few_rows(shape: Matmul, a: &[f32], b: &[f32], c: &mut [f32]) {
    let n = shape.n;
    let shared = Shared::new(c);
    let threads = rayon::current_num_threads();
    if threads == 1 || shape.m * n * shape.k < 1 << 16 {
        columns(shape, a, b, shared, 0, n);
        return;
    }
    let width = n.div_ceil(threads);
    (0..threads).into_par_iter().for_each(|t| {
        columns(shape, a, b, shared, (t * width).min(n), ((t + 1) * width).min(n));
    });
}

/// Columns `from..to` of `c`. Each element is one dot product in one order, whatever `m` is: four at a time, either
/// of four rows with a column or of a row with four columns.
fn columns(shape: Matmul, a: &[f32], b: &[f32], c: Shared, from: usize, to: usize) {
    let Matmul { m, k, c_row, .. } = shape;
    let row = |i: usize| &a[i * shape.a.row..][..k];
    let column = |j: usize| &b[j * shape.b.col..][..k];
    let write = |i: usize, j: usize, sum: f32| {
        // SAFETY: tasks own disjoint columns, and this range is dropped before the next one is made.
        let element = unsafe { c.range(i * c_row + j, 1) };
        element[0] = if shape.accumulate { element[0] + sum } else { sum };
    };
    let in_fours = m / 4 * 4;
    for j in from..to {
        for i in (0..in_fours).step_by(4) {
            let sums = dot4(column(j), row(i), row(i + 1), row(i + 2), row(i + 3));
            sums.into_iter().enumerate().for_each(|(p, sum)| write(i + p, j, sum));
        }
    }
    for i in in_fours..m {
        let columns_in_fours = from + (to - from) / 4 * 4;
        for j in (from..columns_in_fours).step_by(4) {
            let sums = dot4(row(i), column(j), column(j + 1), column(j + 2), column(j + 3));
            sums.into_iter().enumerate().for_each(|(q, sum)| write(i, j + q, sum));
        }
        (columns_in_fours..to).for_each(|j| write(i, j, dot(row(i), column(j))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(n: usize, seed: f32) -> Vec<f32> {
        (0..n).map(|i| ((i as f32 + seed) * 0.7123).sin()).collect()
    }

    #[test]
    fn every_layout_agrees_with_the_definition() {
        for (m, n, k) in [(1, 5, 33), (4, 7, 32), (7, 40, 64), (8, 3, 100), (9, 8, 65), (33, 17, 40)] {
            for (a_t, b_t) in [(false, false), (false, true), (true, false), (true, true)] {
                for accumulate in [false, true] {
                    let (a, b) = (values(m * k, 0.1), values(k * n, 0.5));
                    let layout = |t: bool, rows: usize, cols: usize| {
                        if t { MatrixLayout::transposed(rows) } else { MatrixLayout::rows(cols) }
                    };
                    let (la, lb) = (layout(a_t, m, k), layout(b_t, k, n));
                    let c_row = n + 3;
                    let mut c = values(m * c_row, 0.9);
                    let before = c.clone();
                    let shape = Matmul { m, n, k, a: la, b: lb, c_row, accumulate };
                    matmul(shape, &a, &b, &mut c).unwrap();
                    for i in 0..m {
                        for j in 0..c_row {
                            let at = i * c_row + j;
                            let mut expected = if accumulate || j >= n { before[at] as f64 } else { 0.0 };
                            if j < n {
                                for x in 0..k {
                                    let (p, q) = (a[i * la.row + x * la.col], b[x * lb.row + j * lb.col]);
                                    expected += p as f64 * q as f64;
                                }
                            }
                            assert!((c[at] as f64 - expected).abs() < 1e-4, "{m} {n} {k} {a_t} {b_t}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_row_of_a_decoding_step_does_not_depend_on_its_neighbours() {
        let (n, k) = (50, 96);
        let (a, b) = (values(8 * k, 0.2), values(n * k, 0.3));
        let shape = |m| Matmul {
            m,
            n,
            k,
            a: MatrixLayout::rows(k),
            b: MatrixLayout::transposed(k),
            c_row: n,
            accumulate: false,
        };
        let mut together = vec![0.0; 8 * n];
        matmul(shape(8), &a, &b, &mut together).unwrap();
        for i in 0..8 {
            let mut alone = vec![0.0; n];
            matmul(shape(1), &a[i * k..(i + 1) * k], &b, &mut alone).unwrap();
            assert_eq!(alone, together[i * n..(i + 1) * n]);
        }
    }

    #[test]
    fn a_short_argument_is_an_error() {
        let shape = Matmul {
            m: 2,
            n: 2,
            k: 2,
            a: MatrixLayout::rows(2),
            b: MatrixLayout::rows(2),
            c_row: 2,
            accumulate: false,
        };
        let error = matmul(shape, &[0.0; 4], &[0.0; 3], &mut [0.0; 4]).unwrap_err();
        assert_eq!(error.to_string(), "matmul: b has 3 elements, expected 4");
    }
}
