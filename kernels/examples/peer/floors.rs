//! The floors of the CPU: reading, changing in place and copying, as fast as this machine's threads do it.

use std::slice;

use openclaw_kernels::Backend;
use rayon::prelude::*;

/// Elements of a task: a few rows.
const CHUNK: usize = 1 << 18;

/// Sums `len` floats.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peer_floor_read(x: *const f32, len: usize) -> f32 {
    // SAFETY: the caller states the length of its array.
    let x = unsafe { slice::from_raw_parts(x, len) };
    super::cpu().scope(|| x.par_chunks(CHUNK).map(sum).sum())
}

/// Negates `len` floats where they are.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peer_floor_in_place(x: *mut f32, len: usize) {
    // SAFETY: the caller states the length of its array, which nobody else uses meanwhile.
    let x = unsafe { slice::from_raw_parts_mut(x, len) };
    super::cpu().scope(|| x.par_chunks_mut(CHUNK).for_each(negate));
}

/// Copies `len` floats, past the cache where the processor can.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peer_floor_copy(from: *const f32, to: *mut f32, len: usize) {
    // SAFETY: the caller states the length of its arrays, of which nobody else uses the second meanwhile.
    let (from, to) = unsafe { (slice::from_raw_parts(from, len), slice::from_raw_parts_mut(to, len)) };
    super::cpu().scope(|| {
        to.par_chunks_mut(CHUNK).zip(from.par_chunks(CHUNK)).for_each(|(to, from)| stream(from, to));
    });
}

#[cfg(target_arch = "x86_64")]
mod wide {
    use std::arch::x86_64::*;

    /// Fetched ahead as the operations do: each line in time, and one line of each page of 4 KiB much earlier. A plain
    /// loop is up to 30 % slower, and would make a floor that is none.
    #[target_feature(enable = "avx512f")]
    fn fetch(lines: &[f32], bytes: usize) {
        _mm_prefetch::<_MM_HINT_T0>(lines.as_ptr().wrapping_byte_add(bytes).cast());
    }
    const LINE_AHEAD: usize = 16 << 10;
    const PAGE_AHEAD: usize = 64 << 10;
    const PAGE: usize = 1024;

    #[target_feature(enable = "avx512f")]
    pub fn sum(x: &[f32]) -> f32 {
        let mut sums = [_mm512_setzero_ps(); 4];
        for page in x.chunks(PAGE) {
            fetch(page, PAGE_AHEAD);
            for lines in page.chunks_exact(64) {
                for (sum, line) in sums.iter_mut().zip(lines.chunks_exact(16)) {
                    fetch(line, LINE_AHEAD);
                    // SAFETY: a line is 16 floats.
                    *sum = _mm512_add_ps(*sum, unsafe { _mm512_loadu_ps(line.as_ptr()) });
                }
            }
        }
        sums.iter().map(|sum| _mm512_reduce_add_ps(*sum)).sum()
    }

    #[target_feature(enable = "avx512f")]
    pub fn negate(x: &mut [f32]) {
        for page in x.chunks_mut(PAGE) {
            fetch(page, PAGE_AHEAD);
            for line in page.chunks_exact_mut(16) {
                fetch(line, LINE_AHEAD);
                // SAFETY: a line is 16 floats.
                unsafe {
                    let v = _mm512_sub_ps(_mm512_setzero_ps(), _mm512_loadu_ps(line.as_ptr()));
                    _mm512_storeu_ps(line.as_mut_ptr(), v);
                }
            }
        }
    }

    #[target_feature(enable = "avx512f")]
    pub fn stream(from: &[f32], to: &mut [f32]) {
        let head = to.as_ptr().align_offset(64).min(to.len());
        to[..head].copy_from_slice(&from[..head]);
        let (from, to) = (&from[head..], &mut to[head..]);
        let whole = to.len() / 16 * 16;
        for (to, from) in to.chunks_mut(PAGE).zip(from.chunks(PAGE)) {
            fetch(from, PAGE_AHEAD);
            fetch(to, PAGE_AHEAD);
            for (to, from) in to.chunks_exact_mut(16).zip(from.chunks_exact(16)) {
                fetch(from, LINE_AHEAD);
                // SAFETY: both lines are 16 floats, and `to` starts on a multiple of 64 bytes.
                unsafe { _mm512_stream_ps(to.as_mut_ptr(), _mm512_loadu_ps(from.as_ptr())) };
            }
        }
        to[whole..].copy_from_slice(&from[whole..]);
        _mm_sfence();
    }
}

fn sum(x: &[f32]) -> f32 {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") {
        // SAFETY: just detected.
        return unsafe { wide::sum(x) };
    }
    x.iter().sum()
}

fn negate(x: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") {
        // SAFETY: just detected.
        return unsafe { wide::negate(x) };
    }
    x.iter_mut().for_each(|x| *x = -*x);
}

fn stream(from: &[f32], to: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") {
        // SAFETY: just detected.
        return unsafe { wide::stream(from, to) };
    }
    to.copy_from_slice(from);
}
