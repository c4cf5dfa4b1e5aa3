//! The loss operations on host memory, on every device: the CPU, and CUDA as it is emulated.

#[path = "../opened/mod.rs"]
mod opened;

pub use opened::gpu;

use openclaw_kernels::ops::*;
use openclaw_kernels::{Backend, Cpu, Cuda, Element, Float, Result};

/// Row losses and scores with their inputs on the host.
pub type Loss<'a> = RowLoss<&'a [f32], &'a [i32]>;
pub type Scored<'a> = ScoreOut<&'a mut [f32], &'a mut [i32]>;

pub enum Device {
    Cpu(Cpu),
    Cuda(Cuda),
}

/// Makes tests of claims, functions of a device. CUDA of compute capability 9.0 has clusters, 8.0 has none.
macro_rules! on_every_device {
    ($($claim:ident),+ $(,)?) => {
        mod on_cpu {
            $(#[test]
            fn $claim() {
                super::$claim(&crate::device::Device::cpu());
            })+
        }
        mod on_cuda {
            $(#[test]
            fn $claim() {
                if let Some(device) = crate::device::Device::emulated(90) {
                    super::$claim(&device);
                }
            })+
        }
        mod on_cuda_without_clusters {
            $(#[test]
            fn $claim() {
                if let Some(device) = crate::device::Device::emulated(80) {
                    super::$claim(&device);
                }
            })+
        }
    };
}

/// Calls the generic function of this name with the device's backend.
macro_rules! dispatch {
    ($device:expr, $name:ident($($argument:expr),*)) => {
        match $device {
            Device::Cpu(cpu) => $name(cpu, $($argument),*),
            Device::Cuda(cuda) => $name(cuda, $($argument),*),
        }
    };
}

impl Device {
    pub fn cpu() -> Self {
        Self::Cpu(Cpu::new("losses", 2).expect("two threads start"))
    }

    /// CUDA as it is emulated, `None` where no compiler can make it; or the GPU of `OPENCLAW_TEST_DEVICE`, which
    /// has one architecture and takes the place of the first alone.
    pub fn emulated(arch: u32) -> Option<Self> {
        if let Some(cuda) = gpu() {
            return (arch == 90).then_some(Self::Cuda(cuda));
        }
        Cuda::emulated_as(arch, 7, u64::MAX)
            .inspect_err(|error| {
                assert!(std::env::var_os("OPENCLAW_REQUIRE_ALL").is_none(), "{error}");
                eprintln!("skipped: {error}");
            })
            .ok()
            .map(Self::Cuda)
    }

    pub fn logprob<T: Float>(
        &self,
        shape: LogitsShape,
        logits: &[T],
        score: Score<&[i32]>,
        out: Scored<'_>,
    ) -> Result<()> {
        dispatch!(self, logprob(shape, logits, score, out))
    }
    pub fn logprob_backward<T: Float>(
        &self,
        shape: LogitsShape,
        logits: Option<&[T]>,
        targets: &[i32],
        d_logprobs: &[f32],
        d_entropy: Option<&[f32]>,
        d_logits: &mut [T],
    ) -> Result<()> {
        dispatch!(self, logprob_backward(shape, logits, targets, d_logprobs, d_entropy, d_logits))
    }
    pub fn logprob_gap<T: Float>(
        &self,
        shape: LogitsShape,
        student: &[T],
        teacher: &[T],
        targets: &[i32],
        out: GapOut<&mut [f32]>,
    ) -> Result<()> {
        dispatch!(self, logprob_gap(shape, student, teacher, targets, out))
    }
    pub fn logprob_gap_backward<T: Float>(
        &self,
        shape: LogitsShape,
        side: GapSide,
        logits: Option<&[T]>,
        targets: &[i32],
        d_gap: &[f32],
        d_logits: &mut [T],
    ) -> Result<()> {
        dispatch!(self, logprob_gap_backward(shape, side, logits, targets, d_gap, d_logits))
    }
    pub fn row_loss<T: Float>(
        &self,
        shape: LogitsShape,
        loss: Loss<'_>,
        logits: Option<&[T]>,
        d_logits: &mut [T],
        stats: &mut [RowStat],
    ) -> Result<()> {
        dispatch!(self, row_loss(shape, loss, logits, d_logits, stats))
    }
    pub fn linear_loss<T: Float, W: Float>(
        &self,
        shape: LinearShape,
        loss: Loss<'_>,
        head: Head<&[T], &[W]>,
        out: HeadGradients<&mut [T], &mut [f32], &mut [RowStat]>,
    ) -> Result<()> {
        dispatch!(self, linear_loss(shape, loss, head, out))
    }
    pub fn linear_logprob<T: Float, W: Float>(
        &self,
        shape: LinearShape,
        score: Score<&[i32]>,
        head: Head<&[T], &[W]>,
        scratch: &mut [T],
        out: Scored<'_>,
    ) -> Result<()> {
        dispatch!(self, linear_logprob(shape, score, head, scratch, out))
    }
}

/// Elements before and after an output, whose bytes nobody may change.
const GUARD: usize = 64;

/// An output on the device, with guards.
struct Output<'a, B: Backend, T: Element> {
    buffer: B::Buffer<T>,
    host: &'a mut [T],
}

fn guard<T: Element>() -> Vec<T> {
    vec![bytemuck::pod_read_unaligned(&[0xa5; 64][..size_of::<T>()]); GUARD]
}

impl<'a, B: Backend, T: Element> Output<'a, B, T> {
    fn new(b: &B, host: &'a mut [T]) -> Result<Self> {
        let buffer = b.upload(&[&guard::<T>()[..], host, &guard::<T>()].concat())?;
        Ok(Self { buffer, host })
    }
    fn view(&mut self, b: &B) -> B::ViewMut<'_, T> {
        b.view_mut(&mut self.buffer, GUARD..GUARD + self.host.len())
    }
    fn fetch(self, b: &B) -> Result<()> {
        let len = self.host.len();
        let all = b.download(b.view(&self.buffer, 0..len + 2 * GUARD))?;
        let (before, rest) = all.split_at(GUARD);
        let (result, after) = rest.split_at(len);
        let bytes = |x: &[T]| bytemuck::cast_slice::<T, u8>(x).to_vec();
        assert_eq!(bytes(before), bytes(&guard::<T>()), "written before an output");
        assert_eq!(bytes(after), bytes(&guard::<T>()), "written after an output");
        self.host.copy_from_slice(result);
        Ok(())
    }
}

/// Logits on the device that nobody may change, as far from a multiple of 16 bytes as they are on the host.
struct Source<'a, B: Backend, T: Element> {
    buffer: B::Buffer<T>,
    host: &'a [T],
    start: usize,
}

impl<'a, B: Backend, T: Element> Source<'a, B, T> {
    fn new(b: &B, host: &'a [T]) -> Result<Self> {
        let start = host.as_ptr() as usize % 16 / size_of::<T>();
        Ok(Self { buffer: b.upload(&[&guard()[..start], host].concat())?, host, start })
    }
    fn view(&self, b: &B) -> B::View<'_, T> {
        b.view(&self.buffer, self.start..self.start + self.host.len())
    }
    fn is_unchanged(&self, b: &B) -> Result<()> {
        let found = b.download(self.view(b))?;
        assert_eq!(bytemuck::cast_slice::<T, u8>(&found), bytemuck::cast_slice::<T, u8>(self.host));
        Ok(())
    }
}

fn all<'a, B: Backend, T: Element>(b: &B, buffer: &'a B::Buffer<T>) -> B::View<'a, T> {
    b.view(buffer, 0..b.len(buffer))
}

/// The loss with every view replaced.
fn map<'a, F, I, G, J>(
    loss: &'a RowLoss<F, I>,
    f: impl Fn(&'a F) -> G,
    i: impl Fn(&'a I) -> J,
) -> RowLoss<G, J> {
    RowLoss {
        weights: f(&loss.weights),
        targets: i(&loss.targets),
        token: match &loss.token {
            TokenTerm::None => TokenTerm::None,
            TokenTerm::CrossEntropy => TokenTerm::CrossEntropy,
            TokenTerm::Policy(policy) => TokenTerm::Policy(PolicyTerm {
                surrogate: match &policy.surrogate {
                    Surrogate::Ppo { old_logprobs } => Surrogate::Ppo { old_logprobs: f(old_logprobs) },
                    Surrogate::Cispo { old_logprobs } => Surrogate::Cispo { old_logprobs: f(old_logprobs) },
                    Surrogate::Gspo { ratios } => Surrogate::Gspo { ratios: f(ratios) },
                },
                advantages: f(&policy.advantages),
                importance: policy.importance.as_ref().map(&f),
                clip: policy.clip,
            }),
        },
        kl: loss.kl.as_ref().map(|kl| KlTerm { kind: kl.kind, coef: kl.coef, reference: f(&kl.reference) }),
        candidates: loss.candidates.as_ref().map(|term| CandidateTerm {
            k: term.k,
            ids: i(&term.ids),
            coef: term.coef,
            loss: match &term.loss {
                CandidateLoss::ReverseKl { teacher_logprobs, entropy_coef } => CandidateLoss::ReverseKl {
                    teacher_logprobs: f(teacher_logprobs),
                    entropy_coef: *entropy_coef,
                },
                CandidateLoss::Policy { advantages, weights, old_logprobs, clip } => CandidateLoss::Policy {
                    advantages: f(advantages),
                    weights: f(weights),
                    old_logprobs: f(old_logprobs),
                    clip: *clip,
                },
            },
        }),
        entropy_coef: loss.entropy_coef,
    }
}

type DeviceLoss<B> = RowLoss<<B as Backend>::Buffer<f32>, <B as Backend>::Buffer<i32>>;

fn upload<B: Backend>(b: &B, loss: &Loss<'_>) -> DeviceLoss<B> {
    map(loss, |f| b.upload(f).expect("memory is enough"), |i| b.upload(i).expect("memory is enough"))
}

fn views<'a, B: Backend>(b: &B, loss: &'a DeviceLoss<B>) -> RowLoss<B::View<'a, f32>, B::View<'a, i32>> {
    map(loss, |f| all(b, f), |i| all(b, i))
}

fn logprob<B: Backend, T: Float>(
    b: &B,
    shape: LogitsShape,
    logits: &[T],
    score: Score<&[i32]>,
    out: Scored<'_>,
) -> Result<()> {
    let logits = b.upload(logits)?;
    scored(b, score, out, |score, out| b.logprob(shape, all(b, &logits), score, out))
}

/// Runs a score with its ids and outputs on the device.
fn scored<B: Backend>(
    b: &B,
    score: Score<&[i32]>,
    out: Scored<'_>,
    run: impl FnOnce(Score<B::View<'_, i32>>, ScoreOut<B::ViewMut<'_, f32>, B::ViewMut<'_, i32>>) -> Result<()>,
) -> Result<()> {
    let targets = b.upload(score.targets)?;
    let candidates = score.candidates.map(|candidates| (candidates.k, b.upload(candidates.ids)));
    let candidates = candidates.map(|(k, ids)| ids.map(|ids| (k, ids))).transpose()?;
    let score = Score {
        targets: all(b, &targets),
        candidates: candidates.as_ref().map(|(k, ids)| Candidates { k: *k, ids: all(b, ids) }),
    };
    let (mut logprobs, mut lse) = (Output::new(b, out.logprobs)?, Output::new(b, out.lse)?);
    let mut entropy = out.entropy.map(|entropy| Output::new(b, entropy)).transpose()?;
    let mut slots = out.candidates.map(|slots| Output::new(b, slots)).transpose()?;
    let mut top = match out.top {
        Some(top) => Some((top.k, Output::new(b, top.ids)?, Output::new(b, top.logprobs)?)),
        None => None,
    };
    let views = ScoreOut {
        logprobs: logprobs.view(b),
        lse: lse.view(b),
        entropy: entropy.as_mut().map(|entropy| entropy.view(b)),
        candidates: slots.as_mut().map(|slots| slots.view(b)),
        top: top.as_mut().map(|(k, ids, logprobs)| TopK {
            k: *k,
            ids: ids.view(b),
            logprobs: logprobs.view(b),
        }),
    };
    run(score, views)?;
    logprobs.fetch(b)?;
    lse.fetch(b)?;
    for output in [entropy, slots].into_iter().flatten() {
        output.fetch(b)?;
    }
    if let Some((_, ids, logprobs)) = top {
        ids.fetch(b)?;
        logprobs.fetch(b)?;
    }
    Ok(())
}

fn logprob_backward<B: Backend, T: Float>(
    b: &B,
    shape: LogitsShape,
    logits: Option<&[T]>,
    targets: &[i32],
    d_logprobs: &[f32],
    d_entropy: Option<&[f32]>,
    d_logits: &mut [T],
) -> Result<()> {
    let logits = logits.map(|logits| b.upload(logits)).transpose()?;
    let (targets, d_logprobs) = (b.upload(targets)?, b.upload(d_logprobs)?);
    let d_entropy = d_entropy.map(|d| b.upload(d)).transpose()?;
    let mut out = Output::new(b, d_logits)?;
    b.logprob_backward(
        shape,
        logits.as_ref().map(|logits| all(b, logits)),
        all(b, &targets),
        all(b, &d_logprobs),
        d_entropy.as_ref().map(|d| all(b, d)),
        out.view(b),
    )?;
    out.fetch(b)
}

fn logprob_gap<B: Backend, T: Float>(
    b: &B,
    shape: LogitsShape,
    student: &[T],
    teacher: &[T],
    targets: &[i32],
    out: GapOut<&mut [f32]>,
) -> Result<()> {
    let (student, teacher, targets) = (b.upload(student)?, b.upload(teacher)?, b.upload(targets)?);
    let mut s = Output::new(b, out.student)?;
    let (mut t, mut gap) = (Output::new(b, out.teacher)?, Output::new(b, out.gap)?);
    let out = GapOut { student: s.view(b), teacher: t.view(b), gap: gap.view(b) };
    b.logprob_gap(shape, all(b, &student), all(b, &teacher), all(b, &targets), out)?;
    s.fetch(b)?;
    t.fetch(b)?;
    gap.fetch(b)
}

fn logprob_gap_backward<B: Backend, T: Float>(
    b: &B,
    shape: LogitsShape,
    side: GapSide,
    logits: Option<&[T]>,
    targets: &[i32],
    d_gap: &[f32],
    d_logits: &mut [T],
) -> Result<()> {
    let logits = logits.map(|logits| b.upload(logits)).transpose()?;
    let (targets, d_gap) = (b.upload(targets)?, b.upload(d_gap)?);
    let mut out = Output::new(b, d_logits)?;
    let logits = logits.as_ref().map(|logits| all(b, logits));
    b.logprob_gap_backward(shape, side, logits, all(b, &targets), all(b, &d_gap), out.view(b))?;
    out.fetch(b)
}

fn row_loss<B: Backend, T: Float>(
    b: &B,
    shape: LogitsShape,
    loss: Loss<'_>,
    logits: Option<&[T]>,
    d_logits: &mut [T],
    stats: &mut [RowStat],
) -> Result<()> {
    let loss = upload(b, &loss);
    let source = logits.map(|logits| Source::new(b, logits)).transpose()?;
    let (mut gradient, mut stats) = (Output::new(b, d_logits)?, Output::new(b, stats)?);
    let logits = source.as_ref().map(|source| source.view(b));
    b.row_loss(shape, views(b, &loss), logits, gradient.view(b), stats.view(b))?;
    source.map_or(Ok(()), |source| source.is_unchanged(b))?;
    gradient.fetch(b)?;
    stats.fetch(b)
}

fn linear_loss<B: Backend, T: Float, W: Float>(
    b: &B,
    shape: LinearShape,
    loss: Loss<'_>,
    head: Head<&[T], &[W]>,
    out: HeadGradients<&mut [T], &mut [f32], &mut [RowStat]>,
) -> Result<()> {
    let loss = upload(b, &loss);
    let (hidden, weight) = (b.upload(head.hidden)?, b.upload(head.weight)?);
    let (mut scratch, mut d_hidden) = (Output::new(b, out.scratch)?, Output::new(b, out.d_hidden)?);
    let (mut d_weight, mut stats) = (Output::new(b, out.d_weight)?, Output::new(b, out.stats)?);
    let out = HeadGradients {
        scratch: scratch.view(b),
        d_hidden: d_hidden.view(b),
        d_weight: d_weight.view(b),
        stats: stats.view(b),
    };
    b.linear_loss(shape, views(b, &loss), Head { hidden: all(b, &hidden), weight: all(b, &weight) }, out)?;
    scratch.fetch(b)?;
    d_hidden.fetch(b)?;
    d_weight.fetch(b)?;
    stats.fetch(b)
}

fn linear_logprob<B: Backend, T: Float, W: Float>(
    b: &B,
    shape: LinearShape,
    score: Score<&[i32]>,
    head: Head<&[T], &[W]>,
    scratch: &mut [T],
    out: Scored<'_>,
) -> Result<()> {
    let (hidden, weight) = (b.upload(head.hidden)?, b.upload(head.weight)?);
    let mut scratch = Output::new(b, scratch)?;
    let head = Head { hidden: all(b, &hidden), weight: all(b, &weight) };
    scored(b, score, out, |score, out| b.linear_logprob(shape, score, head, scratch.view(b), out))?;
    scratch.fetch(b)
}
