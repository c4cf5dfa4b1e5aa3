//! Matrix products: the `gemm` crate, and a dot-product form for the few rows of a decoding step.
#![allow(unsafe_code)]

use gemm::Parallelism;
use rayon::prelude::*;

use super::{
    Shared,
    dots::{reads, tile},
    simd::widen,
};
use crate::backend::Float;
use crate::error::{KernelError, Result};
use crate::ops::{Matmul, MatrixLayout};

/// Up to this many rows, dot products beat packing the weights (measured on two cores: at 16 rows three times, at 64 equal
/// or better).
const FEW_ROWS: usize = 64;

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

pub(crate) fn matmul<W: Float>(shape: Matmul, a: &[f32], b: &[W], c: &mut [f32]) -> Result<()> {
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
    if size_of::<W>() != size_of::<f32>() {
        strips(shape, a, b, c);
        return Ok(());
    }
    let b = bytemuck::cast_slice(b);
    if threads == 1 || m * n * k <= 1 << 18 {
        strided(shape, a, b, c, Parallelism::None);
        return Ok(());
    }
    spread(shape, a, b, c, threads);
    Ok(())
}

/// Each thread takes rows or columns of `c`, whichever there are more of, and a multiple of what a kernel computes at once.
/// The `gemm` crate's own sharing is up to half as fast where `n` is small beside `k` (measured).
fn spread(shape: Matmul, a: &[f32], b: &[f32], c: &mut [f32], threads: usize) {
    const AT_ONCE: usize = 16;
    let by_rows = shape.m > shape.n;
    let whole = if by_rows { shape.m } else { shape.n };
    let width = whole.div_ceil(threads).next_multiple_of(AT_ONCE);
    let shared = Shared::new(c);
    (0..whole.div_ceil(width)).into_par_iter().for_each(|task| {
        let (from, count) = (task * width, width.min(whole - task * width));
        let (part, a, b, first) = match by_rows {
            true => (Matmul { m: count, ..shape }, &a[from * shape.a.row..], b, from * shape.c_row),
            false => (Matmul { n: count, ..shape }, a, &b[from * shape.b.col..], from),
        };
        // SAFETY: tasks own disjoint rows or columns of `c`, whose lengths `matmul` checked.
        unsafe {
            strided_into(part, a, b, shared.columns(first, part.m, shape.c_row, part.n), Parallelism::None)
        };
    });
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

fn few_rows<W: Float>(shape: Matmul, a: &[f32], b: &[W], c: &mut [f32]) {
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

/// Columns `from..to` of `c`. Each element is one dot product in one order, whatever `m` is; tiles of rows and columns read
/// both less often.
fn columns<W: Float>(shape: Matmul, a: &[f32], b: &[W], c: Shared, from: usize, to: usize) {
    let (m, k) = (shape.m, shape.k);
    let mut wide = vec![0.0; if reads::<W>() { 0 } else { SOLE_ROW_COLUMNS * k }];
    let mut j = from;
    while j < to {
        let whole = if m == 1 { SOLE_ROW_COLUMNS } else { TILE_COLUMNS };
        let width = if to - j >= whole { whole } else { 1 };
        let column = |q: usize| &b[(j + q) * shape.b.col..][..k];
        if reads::<W>() {
            rows_of_columns(shape, a, column, width, j, c);
        } else {
            (0..width).for_each(|q| widen(column(q), &mut wide[q * k..][..k]));
            rows_of_columns(shape, a, |q: usize| &wide[q * k..][..k], width, j, c);
        }
        j += width;
    }
}

/// Of `width` columns from `j` on all rows in turn: a column comes from far away once.
fn rows_of_columns<'a, W: Float>(
    shape: Matmul,
    a: &[f32],
    column: impl Fn(usize) -> &'a [W] + Copy,
    width: usize,
    j: usize,
    c: Shared,
) {
    let Matmul { m, k, c_row, .. } = shape;
    let row = |i: usize| &a[i * shape.a.row..][..k];
    let mut i = 0;
    while i < m {
        let height = if m - i >= TILE_ROWS { TILE_ROWS } else { 1 };
        let mut put = |p: usize, q: usize, sum: f32| {
            // SAFETY: tasks own disjoint columns, and this range is dropped before the next one is made.
            let element = unsafe { c.range((i + p) * c_row + j + q, 1) };
            element[0] = if shape.accumulate { element[0] + sum } else { sum };
        };
        match (height, width) {
            (TILE_ROWS, TILE_COLUMNS) => {
                put_all(tile::<W, TILE_ROWS, TILE_COLUMNS>(several(row, i), several(column, 0)), &mut put)
            }
            (TILE_ROWS, _) => put_all(tile::<W, TILE_ROWS, 1>(several(row, i), [column(0)]), &mut put),
            (_, SOLE_ROW_COLUMNS) => {
                put_all(tile::<W, 1, SOLE_ROW_COLUMNS>([row(i)], several(column, 0)), &mut put)
            }
            (_, TILE_COLUMNS) => put_all(tile::<W, 1, TILE_COLUMNS>([row(i)], several(column, 0)), &mut put),
            _ => put_all(tile([row(i)], [column(0)]), &mut put),
        }
        i += height;
    }
}

/// Many rows with a `b` of another type: strips of its columns are widened in turn, and each is multiplied as
/// [`strided_into`] does.
fn strips<W: Float>(shape: Matmul, a: &[f32], b: &[W], c: &mut [f32]) {
    /// Numbers of a strip, which stay near while they are read; how many threads there are changes no sum.
    const STRIP: usize = 1 << 16;
    const AT_ONCE: usize = 16;
    let Matmul { n, k, .. } = shape;
    let width = (STRIP / k).next_multiple_of(AT_ONCE).clamp(3 * AT_ONCE, 32 * AT_ONCE);
    let shared = Shared::new(c);
    (0..n.div_ceil(width)).into_par_iter().for_each_init(Vec::new, |wide: &mut Vec<f32>, task| {
        let (from, count) = (task * width, width.min(n - task * width));
        wide.resize(count * k, 0.0);
        let layout = if shape.b.row == 1 {
            for (column, to) in (from..).zip(wide.chunks_exact_mut(k)) {
                widen(&b[column * shape.b.col..][..k], to);
            }
            MatrixLayout::transposed(k)
        } else {
            for (row, to) in wide.chunks_exact_mut(count).enumerate() {
                let start = row * shape.b.row + from * shape.b.col;
                match shape.b.col {
                    1 => widen(&b[start..][..count], to),
                    apart => {
                        let values = b[start..].iter().step_by(apart);
                        to.iter_mut().zip(values).for_each(|(to, value)| *to = value.to_f32());
                    }
                }
            }
            MatrixLayout::rows(count)
        };
        let part = Matmul { n: count, b: layout, ..shape };
        // SAFETY: tasks own disjoint columns of `c`, whose lengths `matmul` checked.
        unsafe {
            strided_into(part, a, wide, shared.columns(from, part.m, shape.c_row, count), Parallelism::None)
        };
    });
}

/// Rows and columns of a tile: with two registers for each sum as many as there are.
const TILE_ROWS: usize = 4;
const TILE_COLUMNS: usize = 3;
/// Columns beside a sole row: that many places of the memory are read at once.
const SOLE_ROW_COLUMNS: usize = 4;

fn several<'a, T, const N: usize>(of: impl Fn(usize) -> &'a [T], at: usize) -> [&'a [T]; N] {
    std::array::from_fn(|i| of(at + i))
}

fn put_all<const R: usize, const C: usize>(sums: [[f32; C]; R], put: &mut impl FnMut(usize, usize, f32)) {
    for (p, sums) in sums.into_iter().enumerate() {
        sums.into_iter().enumerate().for_each(|(q, sum)| put(p, q, sum));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(n: usize, seed: f32) -> Vec<f32> {
        (0..n).map(|i| ((i as f32 + seed) * 0.7123).sin()).collect()
    }

    fn layout(is_transposed: bool, rows: usize, columns: usize) -> MatrixLayout {
        if is_transposed { MatrixLayout::transposed(rows) } else { MatrixLayout::rows(columns) }
    }

    #[test]
    fn every_layout_agrees_with_the_definition() {
        for (m, n, k) in [(1, 5, 33), (4, 7, 32), (7, 40, 64), (8, 3, 100), (9, 8, 65), (33, 17, 40)] {
            for (a_t, b_t) in [(false, false), (false, true), (true, false), (true, true)] {
                for accumulate in [false, true] {
                    let (a, b) = (values(m * k, 0.1), values(k * n, 0.5));
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
    fn products_that_threads_share_agree_with_those_of_one() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        for (m, n, k) in [(130, 70, 65), (70, 130, 65), (65, 200, 64), (300, 17, 80)] {
            for (a_t, b_t) in [(false, false), (false, true), (true, false), (true, true)] {
                for accumulate in [false, true] {
                    let (a, b) = (values(m * k, 0.1), values(k * n, 0.5));
                    let (la, lb) = (layout(a_t, m, k), layout(b_t, k, n));
                    let shape = Matmul { m, n, k, a: la, b: lb, c_row: n + 3, accumulate };
                    let mut alone = values(m * (n + 3), 0.9);
                    let mut shared = alone.clone();
                    strided(shape, &a, &b, &mut alone, Parallelism::None);
                    pool.install(|| spread(shape, &a, &b, &mut shared, 3));
                    let far =
                        alone.iter().zip(&shared).find(|(alone, shared)| (*alone - *shared).abs() > 1e-4);
                    assert_eq!(far, None, "{m} {n} {k} {a_t} {b_t} {accumulate}");
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
