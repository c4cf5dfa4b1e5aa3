//! Dot products. Each is summed in one order per length, whatever is computed beside it: 32 partial sums, of which
//! number `i` takes the elements `i`, `i + 32`, `i + 64` and so on, and a tree over these.
#![allow(unsafe_code)]

use super::simd::{madd, multiversion};
use crate::backend::Float;

/// Partial sums of a dot product.
const LANES: usize = 32;

/// Adds the partial sums as a tree: a chain of 32 additions would take longer than a short dot product itself.
#[inline(always)]
fn tree_sum(sums: &[f32; LANES]) -> f32 {
    let mut sixteen = [0f32; 16];
    for i in 0..16 {
        sixteen[i] = sums[i] + sums[i + 16];
    }
    let mut eight = [0f32; 8];
    for i in 0..8 {
        eight[i] = sixteen[i] + sixteen[i + 8];
    }
    let four = [eight[0] + eight[4], eight[1] + eight[5], eight[2] + eight[6], eight[3] + eight[7]];
    (four[0] + four[2]) + (four[1] + four[3])
}

/// The body of [`dot`], for loops that are compiled for an instruction set themselves.
#[inline(always)]
pub(crate) fn dot_body<const FMA: bool>(a: &[f32], b: &[f32]) -> f32 {
    let n = a.len().min(b.len());
    let (a, b) = (&a[..n], &b[..n]);
    let mut sums = [0f32; LANES];
    let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest = a_chunks.remainder().iter().zip(b_chunks.remainder());
    for (x, y) in a_chunks.zip(b_chunks) {
        for i in 0..LANES {
            sums[i] = madd::<FMA>(x[i], y[i], sums[i]);
        }
    }
    for (sum, (x, y)) in sums.iter_mut().zip(rest) {
        *sum = madd::<FMA>(*x, *y, *sum);
    }
    // Else the compiler works back from the last additions and keeps two partial sums a register: 2.5 times slower.
    tree_sum(&std::hint::black_box(sums))
}

multiversion! {
    /// Sum of products.
    fn dot_of_each(a: &[f32], b: &[f32]) -> f32 {
        dot_body::<FMA>(a, b)
    }
}

multiversion! {
    /// Four of them with one read of `w`.
    fn four_dots(w: &[f32], a: &[f32], b: &[f32], c: &[f32], d: &[f32]) -> [f32; 4] {
        let n = w.len();
        let others = [&a[..n], &b[..n], &c[..n], &d[..n]];
        let mut sums = [[0f32; LANES]; 4];
        let mut at = 0;
        while at < n {
            let end = (at + LANES).min(n);
            let w = &w[at..end];
            for (sums, other) in sums.iter_mut().zip(others) {
                let other = &other[at..end];
                if let (Ok(w), Ok(other)) = (<&[f32; LANES]>::try_from(w), <&[f32; LANES]>::try_from(other)) {
                    for i in 0..LANES {
                        sums[i] = madd::<FMA>(w[i], other[i], sums[i]);
                    }
                } else {
                    for (sum, (x, y)) in sums.iter_mut().zip(w.iter().zip(other)) {
                        *sum = madd::<FMA>(*x, *y, *sum);
                    }
                }
            }
            at = end;
        }
        sums.map(|sums| tree_sum(&std::hint::black_box(sums)))
    }
}

/// Sum of products.
#[inline]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    tile([a], [b])[0][0]
}

/// Whether [`tile`] reads such columns as they are; others are to be widened first.
#[inline]
pub(crate) fn reads<W: Float>() -> bool {
    size_of::<W>() == size_of::<f32>() || (cfg!(target_arch = "x86_64") && super::simd::level() == 2)
}

/// The dot product of each of `rows` with each of `columns`, all as long as the shortest. Columns of `bf16` give what they give
/// widened, to the bit.
#[inline]
pub(crate) fn tile<W: Float, const R: usize, const C: usize>(
    rows: [&[f32]; R],
    columns: [&[W]; C],
) -> [[f32; C]; R] {
    let lengths = rows.iter().map(|row| row.len()).chain(columns.iter().map(|column| column.len()));
    let n = lengths.min().unwrap_or(0);
    let (rows, columns) = (rows.map(|row| &row[..n]), columns.map(|column| &column[..n]));
    #[cfg(target_arch = "x86_64")]
    if super::simd::level() == 2 {
        // SAFETY: `level` saw AVX-512 on this machine, and all are `n` long.
        return unsafe { avx512::tile(n, rows, columns) };
    }
    // `reads` says so of `f32` alone.
    let columns: [&[f32]; C] = columns.map(bytemuck::cast_slice);
    // What is read once for four.
    if let [a, b, c, d] = rows[..] {
        let by_column = columns.map(|column| four_dots(column, a, b, c, d));
        return std::array::from_fn(|r| by_column.map(|sums| sums[r]));
    }
    if let [a, b, c, d] = columns[..] {
        return rows.map(|row| {
            let sums = four_dots(row, a, b, c, d);
            std::array::from_fn(|c| sums[c])
        });
    }
    rows.map(|row| columns.map(|column| dot_of_each(row, column)))
}

#[cfg(target_arch = "x86_64")]
#[allow(clippy::needless_range_loop)] // counted loops are what the compiler unrolls into registers
mod avx512 {
    use std::arch::x86_64::*;

    use super::{Float, LANES};

    /// As many products as registers hold: two for each sum, one for each column and one for the row at hand.
    ///
    /// # Safety
    /// The machine has AVX-512 F, VL, BW and DQ, and each slice is `n` long.
    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma")]
    pub(super) unsafe fn tile<W: Float, const R: usize, const C: usize>(
        n: usize,
        rows: [&[f32]; R],
        columns: [&[W]; C],
    ) -> [[f32; C]; R] {
        let (mut low, mut high) = ([[_mm512_setzero_ps(); C]; R], [[_mm512_setzero_ps(); C]; R]);
        let whole = n / LANES * LANES;
        let mut at = 0;
        while at < whole {
            // SAFETY: `at + 32` is at most `n`.
            unsafe {
                add(u16::MAX, at, &rows, &columns, &mut low);
                add(u16::MAX, at + 16, &rows, &columns, &mut high);
            }
            at += LANES;
        }
        for (at, sums) in [(whole, &mut low), (whole + 16, &mut high)] {
            if at < n {
                // SAFETY: the mask leaves out what lies behind `n`.
                unsafe { add(u16::MAX >> 16usize.saturating_sub(n - at), at, &rows, &columns, sums) };
            }
        }
        let mut out = [[0.0; C]; R];
        for r in 0..R {
            for c in 0..C {
                out[r][c] = tree_sum(_mm512_add_ps(low[r][c], high[r][c]));
            }
        }
        out
    }

    /// Adds the products of the 16 elements from `at` on that the mask has.
    ///
    /// # Safety
    /// The machine has AVX-512 F, and each slice has those elements.
    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma")]
    #[inline]
    unsafe fn add<W: Float, const R: usize, const C: usize>(
        mask: u16,
        at: usize,
        rows: &[&[f32]; R],
        columns: &[&[W]; C],
        sums: &mut [[__m512; C]; R],
    ) {
        let mut values = [_mm512_setzero_ps(); C];
        for c in 0..C {
            let from = columns[c].as_ptr();
            if R == 1 {
                // Of columns that lie one after another those that come next: a sole row waits for memory alone.
                _mm_prefetch::<_MM_HINT_T1>(from.wrapping_add(at + C * columns[c].len()).cast());
            }
            // SAFETY: the caller's promise.
            values[c] = unsafe { load(mask, from.add(at)) };
        }
        for r in 0..R {
            // SAFETY: the caller's promise.
            let row = unsafe { load(mask, rows[r].as_ptr().add(at)) };
            for c in 0..C {
                sums[r][c] = _mm512_fmadd_ps(row, values[c], sums[r][c]);
            }
        }
    }

    /// Those of 16 numbers that the mask has, as `f32`: `bf16` is its upper half.
    ///
    /// # Safety
    /// The machine has AVX-512 F, BW and VL, and they are there.
    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma")]
    #[inline]
    unsafe fn load<W: Float>(mask: u16, from: *const W) -> __m512 {
        // SAFETY: the caller's promise, of numbers of that size.
        unsafe {
            if size_of::<W>() == 2 {
                let halves = _mm256_maskz_loadu_epi16(mask, from.cast());
                _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(halves)))
            } else {
                _mm512_maskz_loadu_ps(mask, from.cast())
            }
        }
    }

    /// Of the sums of both halves, as [`super::tree_sum`] goes on.
    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma")]
    #[inline]
    fn tree_sum(sixteen: __m512) -> f32 {
        let eight = _mm256_add_ps(_mm512_castps512_ps256(sixteen), _mm512_extractf32x8_ps::<1>(sixteen));
        let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(n: usize, step: f32) -> Vec<f32> {
        (0..n).map(|i| (i as f32 * step).sin()).collect()
    }

    #[test]
    fn a_dot_product_agrees_with_f64_and_is_the_same_alone_and_in_a_tile() {
        for n in [0, 1, 7, 15, 16, 17, 31, 32, 33, 48, 100, 576] {
            let [a, b, c, d] = [0.37, 0.11, 0.53, 0.29].map(|step| values(n, step));
            let exact: f64 = a.iter().zip(&b).map(|(x, y)| *x as f64 * *y as f64).sum();
            assert!((dot(&a, &b) as f64 - exact).abs() < 1e-4, "{n}");
            assert_eq!(dot(&a, &b), dot_of_each(&a, &b), "{n}: the order is the same in each version");
            assert_eq!(dot(&a, &b), dot(&b, &a));
            assert_eq!(four_dots(&a, &b, &c, &d, &a), [&b, &c, &d, &a].map(|other| dot(&a, other)), "{n}");
            let rows = [&a[..], &b, &c, &d];
            for (row, sums) in rows.iter().zip(tile(rows, [&d, &a, &b])) {
                assert_eq!(sums, [dot(row, &d), dot(row, &a), dot(row, &b)], "{n}");
            }
        }
    }
}
