//! The loops over logits, on blocks of a row that fit the first-level cache: in 512-bit vectors where the processor
//! has them, else as the compiler makes them.
#![allow(unsafe_code)]

use std::any::TypeId;

use half::bf16;

#[cfg(target_arch = "x86_64")]
use super::avx512;
use crate::backend::Float;
#[cfg(target_arch = "x86_64")]
use crate::cpu::simd::level;
use crate::cpu::simd::{madd, multiversion};

/// Logits per block. Partial sums are `f32` inside a block and `f64` across blocks, so results depend on the
/// vocabulary and on nothing else.
pub(super) const BLOCK: usize = 1024;
const LANES: usize = 32;
/// `2^f` on [-0.5, 0.5], from the factor of `f^5` to that of `f`: minimax with the value and the slope of `2^f` at 0.
/// The polynomial's own error is 1.1e-7.
pub(super) const EXP2: [f32; 5] =
    [1.330_026_4e-3, 9.669_708e-3, 5.550_56e-2, 2.402_228_1e-1, std::f32::consts::LN_2];

/// `2^t` for `t` up to 127, relative error 2e-7; 0 below -126.5. NaN stays NaN.
#[inline(always)]
fn exp2<const FMA: bool>(t: f32) -> f32 {
    // Adding 1.5 * 2^23 leaves the nearest integer in the low bits of the sum.
    let shifted = t + 12_582_912.0;
    let f = t - (shifted - 12_582_912.0);
    let p = madd::<FMA>(EXP2[0], f, EXP2[1]);
    let p = madd::<FMA>(p, f, EXP2[2]);
    let p = madd::<FMA>(p, f, EXP2[3]);
    let p = madd::<FMA>(p, f, EXP2[4]);
    let p = madd::<FMA>(p, f, 1.0);
    p * f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23))
}

/// Distance from the offset in powers of two, within the range of [`exp2`]. The floor keeps `t * 2^t` finite for a
/// logit of `-inf`, and its power is exactly 0. The comparisons are written so that NaN passes.
#[inline(always)]
fn exponent(x: f32, offset: f32, scale: f32) -> f32 {
    let t = (x - offset) * scale;
    let t = if t < -127.0 { -127.0 } else { t };
    if t > 127.0 { 127.0 } else { t }
}

/// The largest logit of a block; NaN is passed over.
pub(super) fn maximum<T: Float>(block: &[T]) -> f32 {
    widened(block, maximum_of)
}

/// `sum 2^t` and `sum t 2^t` of a block, with `t = (x - offset) * scale`. Where a `t` is beyond 127 the sums are
/// wrong, but the first is above 2^126.
pub(super) fn sums<T: Float>(block: &[T], offset: f32, scale: f32) -> (f32, f32) {
    #[cfg(target_arch = "x86_64")]
    if level() == 2 {
        // SAFETY: the level tells of the features.
        return unsafe {
            match as_bf16(block) {
                Some(block) => avx512::sums(block, offset, scale),
                None => avx512::sums(bytemuck::cast_slice::<T, f32>(block), offset, scale),
            }
        };
    }
    widened(block, |block| sums_of(block, offset, scale))
}

/// `target = 2^t (a + b t)` with `t = (x - offset) * scale`, where `x` is `source` or `target` itself.
pub(super) fn gradient<T: Float>(
    source: Option<&[T]>,
    target: &mut [T],
    offset: f32,
    scale: f32,
    a: f32,
    b: f32,
) {
    #[cfg(target_arch = "x86_64")]
    if level() == 2 {
        let source_bf16 = source.and_then(as_bf16);
        let source_f32 = source.filter(|_| same::<T, f32>()).map(bytemuck::cast_slice::<T, f32>);
        // SAFETY: the level tells of the features.
        return unsafe {
            if same::<T, bf16>() {
                avx512::gradient(
                    source_bf16,
                    bytemuck::cast_slice_mut::<T, bf16>(target),
                    offset,
                    scale,
                    a,
                    b,
                )
            } else {
                avx512::gradient(source_f32, bytemuck::cast_slice_mut::<T, f32>(target), offset, scale, a, b)
            }
        };
    }
    for (index, target) in target.chunks_mut(BLOCK).enumerate() {
        if let Some(source) = source {
            target.copy_from_slice(&source[index * BLOCK..][..target.len()]);
        }
        if same::<T, f32>() {
            gradient_of(bytemuck::cast_slice_mut(target), offset, scale, a, b);
        } else {
            let mut buffer = [0f32; BLOCK];
            let buffer = &mut buffer[..target.len()];
            widen(bytemuck::cast_slice(target), buffer);
            gradient_of(buffer, offset, scale, a, b);
            narrow(buffer, bytemuck::cast_slice_mut(target));
        }
    }
}

/// Whether two types are one.
pub(super) fn same<T: 'static, U: 'static>() -> bool {
    TypeId::of::<T>() == TypeId::of::<U>()
}

fn as_bf16<T: Float>(x: &[T]) -> Option<&[bf16]> {
    same::<T, bf16>().then(|| bytemuck::cast_slice(x))
}

/// Calls `work` with the block as `f32`.
pub(super) fn widened<T: Float, R>(block: &[T], work: impl FnOnce(&[f32]) -> R) -> R {
    match as_bf16(block) {
        None => work(bytemuck::cast_slice(block)),
        Some(block) => {
            let mut buffer = [0f32; BLOCK];
            widen(block, &mut buffer[..block.len()]);
            work(&buffer[..block.len()])
        }
    }
}

multiversion! {
    fn maximum_of(x: &[f32]) -> f32 {
        let mut maxima = [f32::NEG_INFINITY; LANES];
        let mut chunks = x.chunks_exact(LANES);
        for chunk in &mut chunks {
            for i in 0..LANES {
                maxima[i] = if chunk[i] > maxima[i] { chunk[i] } else { maxima[i] };
            }
        }
        let mut max = f32::NEG_INFINITY;
        for v in maxima.iter().chain(chunks.remainder()) {
            max = if *v > max { *v } else { max };
        }
        max
    }
}

multiversion! {
    fn sums_of(x: &[f32], offset: f32, scale: f32) -> (f32, f32) {
        let (mut plain, mut weighted) = ([0f32; LANES], [0f32; LANES]);
        let mut chunks = x.chunks_exact(LANES);
        for chunk in &mut chunks {
            for i in 0..LANES {
                let t = exponent(chunk[i], offset, scale);
                let e = exp2::<FMA>(t);
                plain[i] += e;
                weighted[i] = madd::<FMA>(e, t, weighted[i]);
            }
        }
        let rest = chunks.remainder();
        for i in 0..rest.len() {
            let t = exponent(rest[i], offset, scale);
            let e = exp2::<FMA>(t);
            plain[i] += e;
            weighted[i] = madd::<FMA>(e, t, weighted[i]);
        }
        let mut width = LANES / 2;
        while width > 0 {
            for i in 0..width {
                plain[i] += plain[i + width];
                weighted[i] += weighted[i + width];
            }
            width /= 2;
        }
        (plain[0], weighted[0])
    }
}

multiversion! {
    fn gradient_of(x: &mut [f32], offset: f32, scale: f32, a: f32, b: f32) {
        let mut chunks = x.chunks_exact_mut(LANES);
        for chunk in &mut chunks {
            for v in chunk {
                let t = exponent(*v, offset, scale);
                *v = exp2::<FMA>(t) * madd::<FMA>(b, t, a);
            }
        }
        for v in chunks.into_remainder() {
            let t = exponent(*v, offset, scale);
            *v = exp2::<FMA>(t) * madd::<FMA>(b, t, a);
        }
    }
}

multiversion! {
    /// Index of the first element at or after `from` that exceeds `threshold`, or the length.
    pub(super) fn first_above(x: &[f32], from: usize, threshold: f32) -> usize {
        let mut at = from;
        for chunk in x[from..].chunks_exact(LANES) {
            let mut above = [0u32; LANES];
            for i in 0..LANES {
                above[i] = u32::from(chunk[i] > threshold);
            }
            if above.iter().fold(0, |any, one| any | one) != 0 {
                break;
            }
            at += LANES;
        }
        x[at..].iter().position(|v| *v > threshold).map_or(x.len(), |offset| at + offset)
    }
}

multiversion! {
    fn widen(from: &[bf16], to: &mut [f32]) {
        for (to, from) in to.iter_mut().zip(from) {
            *to = f32::from_bits(u32::from(from.to_bits()) << 16);
        }
    }
}

multiversion! {
    /// Rounds to nearest, ties to even.
    fn narrow(from: &[f32], to: &mut [bf16]) {
        for (to, from) in to.iter_mut().zip(from) {
            let bits = from.to_bits();
            let rounded = (bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16) as u16;
            // Rounding could carry a NaN's payload into the sign; keep it a NaN.
            let nan = (bits >> 16) as u16 | 0x40;
            *to = bf16::from_bits(if from.is_nan() { nan } else { rounded });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_of_two_are_accurate_and_vanish_at_the_floor() {
        for i in 0..120_000 {
            let t = -(i as f32) / 1000.0;
            let exact = f64::from(t).exp2();
            for power in [exp2::<false>(t), exp2::<true>(t)] {
                assert!((f64::from(power) / exact - 1.0).abs() < 2e-7, "2^{t} is not {power:e}");
            }
        }
        assert_eq!((exp2::<true>(0.0), exp2::<true>(-1.0), exp2::<true>(-127.0)), (1.0, 0.5, 0.0));
        assert!(exp2::<true>(f32::NAN).is_nan());
    }

    #[test]
    fn narrowing_rounds_as_half_does() {
        let ties = (0..64u32).map(|i| f32::from_bits(0x3f80_0000 + (i << 13)));
        let odd =
            [f32::NAN, f32::from_bits(0x7fff_ffff), f32::INFINITY, f32::NEG_INFINITY, f32::MAX, -0.0, 1e-40];
        let values: Vec<f32> = ties.chain(odd).collect();
        let mut found = vec![bf16::ZERO; values.len()];
        narrow(&values, &mut found);
        for (value, found) in values.iter().zip(&found) {
            let expected = bf16::from_f32(*value);
            let same = found.to_bits() == expected.to_bits() || (found.is_nan() && expected.is_nan());
            assert!(same, "{value:?} became {found:?}, not {expected:?}");
        }
        let mut back = vec![0f32; values.len()];
        widen(&found, &mut back);
        assert!(back.iter().zip(&found).all(|(b, f)| b.to_bits() == f.to_f32().to_bits() || b.is_nan()));
    }
}
