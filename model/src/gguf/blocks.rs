//! How tensors are stored: plainly, or in blocks that share a scale (ggml's quantizations).

use half::{bf16, f16};
use rayon::prelude::*;

/// A way of storing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BlockType {
    F32,
    F16,
    Bf16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q4K,
    Q5K,
    Q6K,
}

/// Elements of a block of the K kinds.
const LONG: usize = 256;
/// Elements of a block of the others.
const SHORT: usize = 32;

/// ggml's names, by number.
const NAMES: [&str; 31] = [
    "F32", "F16", "Q4_0", "Q4_1", "Q4_2", "Q4_3", "Q5_0", "Q5_1", "Q8_0", "Q8_1", "Q2_K", "Q3_K", "Q4_K",
    "Q5_K", "Q6_K", "Q8_K", "IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ1_S", "IQ4_NL", "IQ3_S", "IQ2_S", "IQ4_XS",
    "I8", "I16", "I32", "I64", "F64", "IQ1_M", "BF16",
];

impl BlockType {
    /// The one that a file means by this number, if it is read.
    pub fn of(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            6 => Self::Q5_0,
            7 => Self::Q5_1,
            8 => Self::Q8_0,
            12 => Self::Q4K,
            13 => Self::Q5K,
            14 => Self::Q6K,
            30 => Self::Bf16,
            _ => return None,
        })
    }

    /// What a number is called, read or not.
    pub fn name_of(number: u32) -> String {
        NAMES.get(number as usize).map_or_else(|| format!("type {number}"), |name| (*name).to_owned())
    }

    /// Elements of a block.
    pub fn elements(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => SHORT,
            Self::Q4K | Self::Q5K | Self::Q6K => LONG,
        }
    }

    /// Bytes of a block.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Q4_0 => 2 + 16,
            Self::Q4_1 => 4 + 16,
            Self::Q5_0 => 2 + 4 + 16,
            Self::Q5_1 => 4 + 4 + 16,
            Self::Q8_0 => 2 + 32,
            Self::Q4K => 4 + 12 + 128,
            Self::Q5K => 4 + 12 + 32 + 128,
            Self::Q6K => 128 + 64 + 16 + 2,
        }
    }

    /// The values of whole blocks.
    pub fn values(self, bytes: &[u8]) -> Vec<f32> {
        let (elements, size) = (self.elements(), self.bytes());
        let mut values = vec![0.0; bytes.len() / size * elements];
        // So many that a task is worth its start.
        let at_once = 4096 / elements;
        values.par_chunks_mut(at_once * elements).zip(bytes.par_chunks(at_once * size)).for_each(
            |(values, bytes)| {
                for (out, block) in values.chunks_exact_mut(elements).zip(bytes.chunks_exact(size)) {
                    self.block(block, out);
                }
            },
        );
        values
    }

    fn block(self, b: &[u8], out: &mut [f32]) {
        match self {
            Self::F32 => out[0] = f32::from_le_bytes([b[0], b[1], b[2], b[3]]),
            Self::F16 => out[0] = half_at(b, 0),
            Self::Bf16 => out[0] = bf16::from_le_bytes([b[0], b[1]]).to_f32(),
            Self::Q4_0 => nibbles(&b[2..], out, |q, _| half_at(b, 0) * (f32::from(q) - 8.0)),
            Self::Q4_1 => nibbles(&b[4..], out, |q, _| half_at(b, 0) * f32::from(q) + half_at(b, 2)),
            Self::Q5_0 => {
                let high = u32::from_le_bytes([b[2], b[3], b[4], b[5]]);
                nibbles(&b[6..], out, |q, at| half_at(b, 0) * (fifth(q, high, at) - 16.0));
            }
            Self::Q5_1 => {
                let high = u32::from_le_bytes([b[4], b[5], b[6], b[7]]);
                nibbles(&b[8..], out, |q, at| half_at(b, 0) * fifth(q, high, at) + half_at(b, 2));
            }
            Self::Q8_0 => {
                let scale = half_at(b, 0);
                out.iter_mut().zip(&b[2..]).for_each(|(out, q)| *out = scale * f32::from(*q as i8));
            }
            Self::Q4K => long(b, &b[16..], out, |_, _| 0),
            Self::Q5K => long(b, &b[48..], out, |part, at| (b[16 + at] >> part & 1) << 4),
            Self::Q6K => six(b, out),
        }
    }
}

fn half_at(b: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([b[at], b[at + 1]]).to_f32()
}

/// Low halves of bytes are the first half of a block, high ones the second.
fn nibbles(q: &[u8], out: &mut [f32], value: impl Fn(u8, usize) -> f32) {
    for (at, q) in q[..SHORT / 2].iter().enumerate() {
        out[at] = value(q & 15, at);
        out[at + SHORT / 2] = value(q >> 4, at + SHORT / 2);
    }
}

/// With the fifth bit, which lies apart.
fn fifth(q: u8, high: u32, at: usize) -> f32 {
    f32::from(q | ((high >> at & 1) << 4) as u8)
}

/// Eight parts of 32, each with a scale and an offset of six bits, packed into twelve bytes.
fn long(b: &[u8], q: &[u8], out: &mut [f32], high: impl Fn(usize, usize) -> u8) {
    let (scale, offset) = (half_at(b, 0), half_at(b, 2));
    let packed = &b[4..16];
    for (part, out) in out.chunks_exact_mut(SHORT).enumerate() {
        let (s, m) = match part {
            0..4 => (packed[part] & 63, packed[part + 4] & 63),
            _ => (
                packed[part + 4] & 15 | packed[part - 4] >> 6 << 4,
                packed[part + 4] >> 4 | packed[part] >> 6 << 4,
            ),
        };
        let (scale, offset) = (scale * f32::from(s), offset * f32::from(m));
        // Two parts share their bytes.
        for (at, out) in out.iter_mut().enumerate() {
            let byte = q[part / 2 * SHORT + at];
            let low = if part % 2 == 0 { byte & 15 } else { byte >> 4 };
            *out = scale * f32::from(low | high(part, at)) - offset;
        }
    }
}

/// Sixteen parts of 16 with a scale each; four low bits and two high ones lie apart.
fn six(b: &[u8], out: &mut [f32]) {
    let (low, high, scales, scale) = (&b[..128], &b[128..192], &b[192..208], half_at(b, 208));
    for (at, out) in out.iter_mut().enumerate() {
        let (half, quarter, l) = (at / 128, at % 128 / 32, at % 32);
        let byte = low[half * 64 + quarter % 2 * 32 + l];
        let low = if quarter < 2 { byte & 15 } else { byte >> 4 };
        let high = high[half * 32 + l] >> (2 * quarter) & 3;
        let part = f32::from(scales[half * 8 + quarter * 2 + l / 16] as i8);
        *out = scale * part * (f32::from(low | high << 4) - 32.0);
    }
}
