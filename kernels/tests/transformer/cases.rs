//! Random tensors, closeness relative to a tensor's largest element, and gradients by central differences.

use openclaw_kernels::{Backend, Cpu, Cuda, Element, Result, ops::QkvShape};
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

/// Runs `work` on a pool of so many threads.
pub fn on<R: Send>(threads: usize, work: impl FnOnce(&Cpu) -> R + Send) -> R {
    let cpu = Cpu::new("transformer", threads).expect("threads start");
    cpu.scope(|| work(&cpu))
}

/// What `work` gives on one thread; panics unless it is the same bit for bit on two and on three.
pub fn on_any_threads(work: impl Fn(&Cpu) -> Vec<Vec<f32>> + Sync) -> Vec<Vec<f32>> {
    let one = on(1, &work);
    for threads in [2, 3] {
        let many = on(threads, &work);
        for (i, (one, many)) in one.iter().zip(&many).enumerate() {
            assert!(bits(one) == bits(many), "result {i} depends on whether there are {threads} threads");
        }
    }
    one
}

/// A backend with the settings that must not change a result.
pub trait Variants: Backend {
    fn variants() -> Vec<Self>;
}

/// Numbers of threads.
impl Variants for Cpu {
    fn variants() -> Vec<Self> {
        [1, 2, 3].map(|threads| Cpu::new("transformer", threads).expect("threads start")).into()
    }
}

/// Orders in which the emulation runs a kernel's threads.
impl Variants for Cuda {
    fn variants() -> Vec<Self> {
        [0, 1].map(|seed| Cuda::emulated_as(90, seed, u64::MAX).expect("it is emulated")).into()
    }
}

/// What `work` gives on a backend; panics unless it is the same bit for bit on each of its variants.
pub fn on_every<B: Variants>(work: impl Fn(&B) -> Result<Vec<Vec<f32>>> + Sync) -> Vec<Vec<f32>> {
    let results: Vec<_> =
        B::variants().iter().map(|b| b.scope(|| work(b)).expect("valid arguments")).collect();
    for other in &results[1..] {
        for (i, (one, other)) in results[0].iter().zip(other).enumerate() {
            assert!(bits(one) == bits(other), "result {i} depends on the variant");
        }
    }
    results.into_iter().next().expect("there is a variant")
}

/// The message with which every backend refuses the arguments that `work` gives it.
pub fn refusal_on<B: Variants>(work: impl Fn(&B) -> Result<()> + Sync) -> String {
    refusal(B::variants()[0].scope(|| work(&B::variants()[0])))
}

/// All of a buffer.
pub fn all<'a, B: Backend, T: Element>(b: &B, buffer: &'a B::Buffer<T>) -> B::View<'a, T> {
    b.view(buffer, 0..b.len(buffer))
}

/// All of a buffer, to be written.
pub fn all_mut<'a, B: Backend, T: Element>(b: &B, buffer: &'a mut B::Buffer<T>) -> B::ViewMut<'a, T> {
    let len = b.len(buffer);
    b.view_mut(buffer, 0..len)
}

/// A buffer whose every element must be overwritten.
pub fn unwritten<B: Backend>(b: &B, len: usize) -> Result<B::Buffer<f32>> {
    b.upload(&vec![f32::NAN; len])
}

/// Whether the emulation cannot run here; says why, and fails where everything must run.
pub fn no_emulation() -> bool {
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "g++".into());
    let found = std::process::Command::new(&compiler).arg("--version").output().is_ok();
    assert!(found || std::env::var_os("OPENCLAW_REQUIRE_ALL").is_none(), "there is no {compiler}");
    if !found {
        eprintln!("skipped: there is no {compiler} to emulate CUDA with");
    }
    !found
}

/// Makes tests of claims, functions that are generic over a backend: one on the CPU and one on emulated CUDA.
macro_rules! on_backends {
    ($($claim:ident),+ $(,)?) => {
        mod cpu {
            $(#[test]
            fn $claim() {
                super::$claim::<openclaw_kernels::Cpu>();
            })+
        }
        mod cuda {
            $(#[test]
            fn $claim() {
                if !crate::cases::no_emulation() {
                    super::$claim::<openclaw_kernels::Cuda>();
                }
            })+
        }
    };
}
pub(crate) use on_backends;

pub fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
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
    QkvShape { heads, kv_heads, head_dim, eps: 1e-6 }
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
