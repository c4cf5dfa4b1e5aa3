//! Random tensors, closeness relative to a tensor's largest element, and gradients by central differences.

use openclaw_kernels::{Result, ops::QkvShape};
use rand::{RngExt, SeedableRng, rngs::SmallRng};

/// Coordinates of a large tensor whose slope is measured one by one.
const SAMPLES: usize = 12;
/// Error allowed where a gradient of terms of size 1 cancels to nothing.
const ROUNDING: f64 = 2e-7;

pub struct Random(SmallRng);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(SmallRng::seed_from_u64(seed))
    }

    pub fn values(&mut self, n: usize, size: f32) -> Vec<f32> {
        (0..n).map(|_| self.0.random_range(-size..size)).collect()
    }

    pub fn below(&mut self, n: usize) -> usize {
        self.0.random_range(0..n)
    }

    pub fn shuffled(&mut self, n: usize) -> Vec<u32> {
        let mut order: Vec<u32> = (0..n as u32).collect();
        for i in (1..n).rev() {
            order.swap(i, self.below(i + 1));
        }
        order
    }
}

pub fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|x| f64::from(*x)).collect()
}

pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The message with which an operation refuses its arguments.
pub fn refusal(result: Result<()>) -> String {
    result.expect_err("the arguments are wrong").to_string()
}

pub fn qkv_shape(heads: usize, kv_heads: usize, head_dim: usize) -> QkvShape {
    QkvShape { heads, kv_heads, head_dim, eps: 1e-6, normed: true }
}

fn size(x: impl Iterator<Item = f64>) -> f64 {
    x.fold(0.0, |max, x| max.max(x.abs()))
}

pub fn assert_close(what: &str, found: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let allowed = tolerance * size(expected.iter().copied());
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(*found) - expected).abs();
        assert!(error <= allowed, "{what} [{i}]: {found}, expected {expected} within {allowed:e}");
    }
}

/// Compares `gradient` with the slopes of `loss` at `x`: along a random direction that touches every element, and
/// along single elements (all of a small tensor).
pub fn assert_gradient(what: &str, gradient: &[f32], x: &[f32], loss: impl Fn(&[f64]) -> f64) {
    assert_eq!(gradient.len(), x.len(), "{what}");
    let (gradient, x, step) = (wide(gradient), wide(x), 1e-5);
    let slope = |direction: &[f64]| {
        let at = |t: f64| x.iter().zip(direction).map(|(x, d)| x + t * d).collect::<Vec<f64>>();
        (loss(&at(step)) - loss(&at(-step))) / (2.0 * step)
    };
    let tolerance = 2e-5;
    let mut random = Random::new(x.len() as u64);

    let direction = wide(&random.values(x.len(), 1.0));
    let (found, expected) = (dot(&gradient, &direction), slope(&direction));
    let length = dot(&gradient, &gradient).sqrt();
    let close = (found - expected).abs() <= tolerance * length + ROUNDING * (x.len() as f64).sqrt();
    assert!(close, "{what} along a direction: {found}, slope {expected}, length {length}");

    let chosen: Vec<usize> = match x.len() {
        n if n <= 4 * SAMPLES => (0..n).collect(),
        n => (0..SAMPLES).map(|_| random.below(n)).collect(),
    };
    let slopes = chosen.iter().map(|i| {
        let mut direction = vec![0.0; x.len()];
        direction[*i] = 1.0;
        slope(&direction)
    });
    let slopes: Vec<f64> = slopes.collect();
    let allowed = tolerance * size(gradient.iter().chain(&slopes).copied()) + ROUNDING;
    for (i, slope) in chosen.into_iter().zip(slopes) {
        let close = (gradient[i] - slope).abs() <= allowed;
        assert!(close, "{what} [{i}]: {}, slope {slope} within {allowed:e}", gradient[i]);
    }
}
