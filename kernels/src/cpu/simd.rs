//! Loops compiled three times (AVX-512, AVX2 with FMA, portable) and chosen at run time.
#![allow(unsafe_code)]

use crate::backend::Float;

/// `a * b + c`, fused where the instruction exists. A bare `f32::mul_add` without the target feature is a
/// library call, so the choice is made at compile time of each version.
#[inline(always)]
pub(crate) fn madd<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// Defines a function whose body is compiled for each instruction set. The body may use the constant `FMA`.
macro_rules! multiversion {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident : $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        #[allow(unsafe_code, clippy::too_many_arguments)]
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            #[allow(clippy::too_many_arguments, clippy::extra_unused_type_parameters)]
            fn body<const FMA: bool>($($arg: $ty),*) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma")]
                fn v4($($arg: $ty),*) $(-> $ret)? { body::<true>($($arg),*) }
                #[target_feature(enable = "avx2,fma")]
                fn v3($($arg: $ty),*) $(-> $ret)? { body::<true>($($arg),*) }
                match $crate::cpu::simd::level() {
                    // SAFETY: `level` saw these features on this machine.
                    2 => return unsafe { v4($($arg),*) },
                    // SAFETY: as above.
                    1 => return unsafe { v3($($arg),*) },
                    _ => {}
                }
            }
            body::<false>($($arg),*)
        }
    };
}
pub(crate) use multiversion;

/// Copies numbers as `f32`; those of `bf16` are widened, exactly.
#[inline]
pub(crate) fn widen<W: Float>(from: &[W], to: &mut [f32]) {
    match size_of::<W>() {
        4 => to.copy_from_slice(bytemuck::cast_slice(from)),
        _ => widen_bf16(bytemuck::cast_slice(from), to),
    }
}

multiversion! {
    fn widen_bf16(from: &[u16], to: &mut [f32]) {
        for (to, from) in to.iter_mut().zip(from) {
            *to = f32::from_bits(u32::from(*from) << 16);
        }
    }
}

/// 2: AVX-512, 1: AVX2 and FMA, 0: neither. `OPENCLAW_SIMD=avx2|portable` lowers it, for tests and measurements.
#[inline]
pub(crate) fn level() -> u8 {
    use std::sync::atomic::{AtomicU8, Ordering};
    static LEVEL: AtomicU8 = AtomicU8::new(u8::MAX);
    match LEVEL.load(Ordering::Relaxed) {
        u8::MAX => {
            let level = detect();
            LEVEL.store(level, Ordering::Relaxed);
            level
        }
        level => level,
    }
}

#[cfg(target_arch = "x86_64")]
fn detect() -> u8 {
    let found = if is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("fma")
    {
        2
    } else if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        1
    } else {
        0
    };
    match std::env::var("OPENCLAW_SIMD").as_deref() {
        Ok("portable") => 0,
        Ok("avx2") => found.min(1),
        _ => found,
    }
}
#[cfg(not(target_arch = "x86_64"))]
fn detect() -> u8 {
    0
}

/// e^x to 2 ulp for x in [-87, 88], clamped outside: a degree-6 polynomial after reduction by ln 2 (Cephes).
#[inline(always)]
pub(crate) fn exp<const FMA: bool>(x: f32) -> f32 {
    let x = x.clamp(-87.0, 88.0);
    // Adding 1.5 * 2^23 rounds to the nearest integer, which then stands in the lowest bits.
    let magic = x * std::f32::consts::LOG2_E + 12_582_912.0;
    let n = magic - 12_582_912.0;
    let r = madd::<FMA>(n, -0.693_359_4, x);
    let r = madd::<FMA>(n, 2.121_944_4e-4, r);
    let p = madd::<FMA>(1.987_569_1e-4, r, 1.398_199_9e-3);
    let p = madd::<FMA>(p, r, 8.333_452e-3);
    let p = madd::<FMA>(p, r, 4.166_579_6e-2);
    let p = madd::<FMA>(p, r, 1.666_666_5e-1);
    let p = madd::<FMA>(p, r, 0.5);
    let e = madd::<FMA>(p * r, r, r + 1.0);
    // n is in [-126, 127] after the clamp; a NaN makes some power of two here, and stays in `e`.
    e * f32::from_bits(magic.to_bits().wrapping_add(127) << 23)
}

multiversion! {
    /// Turns scores into probabilities of `softmax(scale * x)`; returns the log-sum-exp.
    pub(crate) fn softmax(x: &mut [f32], scale: f32) -> f32 {
        let mut maxima = [f32::NEG_INFINITY; 16];
        let chunks = x.chunks_exact(16);
        let mut max = f32::NEG_INFINITY;
        for v in chunks.remainder() {
            max = if *v > max { *v } else { max };
        }
        for chunk in chunks {
            for i in 0..16 {
                maxima[i] = if chunk[i] > maxima[i] { chunk[i] } else { maxima[i] };
            }
        }
        for v in maxima {
            max = if v > max { v } else { max };
        }
        let max = max * scale;
        let mut sums = [0f32; 16];
        let mut chunks = x.chunks_exact_mut(16);
        for chunk in &mut chunks {
            for i in 0..16 {
                chunk[i] = exp::<FMA>(chunk[i] * scale - max);
                sums[i] += chunk[i];
            }
        }
        let mut sum = 0f32;
        for v in chunks.into_remainder() {
            *v = exp::<FMA>(*v * scale - max);
            sum += *v;
        }
        for v in sums {
            sum += v;
        }
        let inverse = 1.0 / sum;
        for v in x.iter_mut() {
            *v *= inverse;
        }
        max + sum.ln()
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn exp_is_accurate() {
        let mut worst = 0f64;
        for i in -8600..8700 {
            let x = i as f32 / 100.0;
            for y in [super::exp::<false>(x), super::exp::<true>(x)] {
                worst = worst.max((y as f64 / (x as f64).exp() - 1.0).abs());
            }
        }
        assert!(worst < 3e-7, "{worst:e}");
        assert!(super::exp::<false>(f32::NAN).is_nan() && super::exp::<true>(f32::NAN).is_nan());
    }

    #[test]
    fn softmax_agrees_with_f64() {
        for n in [1, 7, 31, 32, 33, 100] {
            let a: Vec<f32> = (0..n).map(|i| (i as f32 * 0.37).sin()).collect();
            let mut p = a.clone();
            let lse = super::softmax(&mut p, 2.0);
            let exact = a.iter().map(|x| (*x as f64 * 2.0).exp()).sum::<f64>().ln();
            assert!((lse as f64 - exact).abs() < 1e-5 && (p.iter().sum::<f32>() - 1.0).abs() < 1e-5);
        }
    }
}
