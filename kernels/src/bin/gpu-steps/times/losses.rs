//! The loss operations on rows of the vocabulary of Qwen3, in bf16.

use half::bf16;
use openclaw_kernels::cuda::{CudaBuffer, RowLossControl};
use openclaw_kernels::ops::*;
use openclaw_kernels::{Backend, Cuda, Result};

use super::{Timer, Work};
use crate::numbers::{all, all_mut, numbers, repeated, rounded};

/// Ids of the distillation.
const K: usize = 50;
/// Rows that are made on the host.
const PIECE: usize = 32;

/// Logits and what their losses need.
struct Inputs<'a> {
    cuda: &'a Cuda,
    shape: LogitsShape,
    clean: CudaBuffer<bf16>,
    targets: CudaBuffer<i32>,
    weights: CudaBuffer<f32>,
    advantages: CudaBuffer<f32>,
    old: CudaBuffer<f32>,
}

type Loss<'a> = RowLoss<<Cuda as Backend>::View<'a, f32>, <Cuda as Backend>::View<'a, i32>>;

impl<'a> Inputs<'a> {
    fn new(timer: &Timer<'a>) -> Result<Self> {
        let cuda = timer.cuda;
        let (mut rows, vocab) = timer.size((8192, 151_936), (6, 1003));
        // Three matrices of logits fit beside what others have.
        while !timer.small && 2 * rows * vocab * 5 > cuda.properties().memory_bytes as usize {
            rows /= 2;
        }
        let piece: Vec<f32> = numbers(PIECE * vocab, 7).iter().map(|x| 8.0 * x).collect();
        let targets: Vec<i32> = (0..rows).map(|i| (i * 7919 % vocab) as i32).collect();
        Ok(Self {
            cuda,
            shape: LogitsShape::dense(rows, vocab),
            clean: repeated(cuda, &rounded::<bf16>(&piece), rows * vocab)?,
            targets: cuda.upload(&targets)?,
            weights: cuda.upload(&vec![1.0 / rows as f32; rows])?,
            advantages: cuda.upload(&numbers(rows, 8))?,
            old: cuda.upload(&vec![-(vocab as f32).ln(); rows])?,
        })
    }

    /// Bytes of the logits.
    fn bytes(&self) -> usize {
        2 * self.clean.len()
    }

    fn name(&self, what: &str) -> String {
        format!("{what}, T {}, V {}, bf16", self.shape.rows, self.shape.vocab)
    }

    fn plain(&self) -> Loss<'_> {
        RowLoss::cross_entropy(all(self.cuda, &self.weights), all(self.cuda, &self.targets))
    }

    fn policy(&self, entropy_coef: f32) -> Loss<'_> {
        let policy = PolicyTerm {
            surrogate: Surrogate::Ppo { old_logprobs: all(self.cuda, &self.old) },
            advantages: all(self.cuda, &self.advantages),
            importance: None,
            clip: ClipRange { low: 0.2, high: 0.28, dual: None },
        };
        RowLoss { token: TokenTerm::Policy(policy), entropy_coef, ..self.plain() }
    }

    /// The gradient in place of a copy of the logits.
    fn in_place(&self, timer: &Timer<'_>, what: &str, loss: Loss<'_>) -> Result<()> {
        let cuda = self.cuda;
        let work = std::cell::RefCell::new(Backend::uninitialized::<bf16>(cuda, self.clean.len())?);
        let mut stats = cuda.zeros::<RowStat>(self.shape.rows)?;
        timer.time(
            &self.name(what),
            Work::Bytes(2 * self.bytes()),
            || cuda.copy(all_mut(cuda, &mut work.borrow_mut()), all(cuda, &self.clean)),
            || {
                let mut work = work.borrow_mut();
                let stats = all_mut(cuda, &mut stats);
                cuda.row_loss(self.shape, loss, None, all_mut(cuda, &mut work), stats)
            },
        )
    }
}

pub fn logprob(timer: &Timer<'_>) -> Result<()> {
    let inputs = Inputs::new(timer)?;
    let (cuda, rows) = (timer.cuda, inputs.shape.rows);
    let (mut logprobs, mut lse, mut entropy) =
        (cuda.zeros::<f32>(rows)?, cuda.zeros::<f32>(rows)?, cuda.zeros::<f32>(rows)?);
    for (what, with_entropy) in [("log-prob", false), ("log-prob with entropy", true)] {
        timer.time(
            &inputs.name(what),
            Work::Bytes(inputs.bytes()),
            || Ok(()),
            || {
                let out = ScoreOut {
                    logprobs: all_mut(cuda, &mut logprobs),
                    lse: all_mut(cuda, &mut lse),
                    entropy: with_entropy.then(|| all_mut(cuda, &mut entropy)),
                    candidates: None,
                    top: None,
                };
                let score = Score { targets: all(cuda, &inputs.targets), candidates: None };
                cuda.logprob(inputs.shape, all(cuda, &inputs.clean), score, out)
            },
        )?;
    }
    Ok(())
}

pub fn gap(timer: &Timer<'_>) -> Result<()> {
    let inputs = Inputs::new(timer)?;
    let (cuda, rows) = (timer.cuda, inputs.shape.rows);
    let mut teacher = Backend::uninitialized::<bf16>(cuda, inputs.clean.len())?;
    cuda.copy(all_mut(cuda, &mut teacher), all(cuda, &inputs.clean))?;
    let (mut s, mut t, mut gap) =
        (cuda.zeros::<f32>(rows)?, cuda.zeros::<f32>(rows)?, cuda.zeros::<f32>(rows)?);
    timer.time(
        &inputs.name("gap"),
        Work::Bytes(2 * inputs.bytes()),
        || Ok(()),
        || {
            let out = GapOut {
                student: all_mut(cuda, &mut s),
                teacher: all_mut(cuda, &mut t),
                gap: all_mut(cuda, &mut gap),
            };
            let (student, teacher) = (all(cuda, &inputs.clean), all(cuda, &teacher));
            cuda.logprob_gap(inputs.shape, student, teacher, all(cuda, &inputs.targets), out)
        },
    )
}

/// The policy loss, in the usual layout or in that of a control.
pub fn policy(timer: &Timer<'_>, control: Option<&str>) -> Result<()> {
    match control {
        Some("control-resident") => timer.cuda.control_row_loss(RowLossControl::FourResident),
        Some("control-twice-1024") => {
            timer.cuda.control_row_loss(RowLossControl::ReadTwice { threads: 1024 })
        }
        Some("control-twice-512") => timer.cuda.control_row_loss(RowLossControl::ReadTwice { threads: 512 }),
        _ => {}
    }
    let inputs = Inputs::new(timer)?;
    let what = control.map_or_else(|| "policy loss".to_owned(), |control| format!("policy loss, {control}"));
    inputs.in_place(timer, &what, inputs.policy(0.0))?;
    inputs.in_place(timer, &format!("{what}, entropy bonus"), inputs.policy(0.01))
}

pub fn distill(timer: &Timer<'_>) -> Result<()> {
    let inputs = Inputs::new(timer)?;
    let (cuda, LogitsShape { rows, vocab, .. }) = (timer.cuda, inputs.shape);
    let ids: Vec<i32> =
        (0..rows * K).map(|i| ((i / K * 7919 + i % K * (vocab / K)) % vocab) as i32).collect();
    let ids = cuda.upload(&ids)?;
    let teacher = cuda.upload(&vec![-(K as f32 + 1.0).ln(); rows * K])?;
    let candidates = CandidateTerm {
        k: K,
        ids: all(cuda, &ids),
        coef: 1.0,
        loss: CandidateLoss::ReverseKl { teacher_logprobs: all(cuda, &teacher), entropy_coef: 0.0 },
    };
    let loss = RowLoss { token: TokenTerm::None, candidates: Some(candidates), ..inputs.plain() };
    inputs.in_place(timer, "distillation, K 50", loss)
}
