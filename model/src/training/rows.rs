//! The rows of a micro-batch, as the loss takes them.

use std::ops::Range;

use openclaw_kernels::{
    Backend, Float, KernelError,
    ops::{
        CandidateLoss, CandidateTerm, Clipped, Head, KlTerm, LinearShape, PolicyTerm, RowLoss, RowStat,
        Score, ScoreOut, Surrogate, TokenTerm, sequence_ratios,
    },
};

use super::{
    CandidateObjective, Objective, Result, Sums, SurrogateKind, TrainCandidate, TrainRow, TrainSequence,
};
use crate::transformer::Transformer;

/// The rows of a micro-batch on the device, field by field.
pub(super) struct DeviceRows<B: Backend> {
    pub count: usize,
    k: usize,
    pub selected: B::Buffer<u32>,
    targets: B::Buffer<i32>,
    weights: B::Buffer<f32>,
    advantages: B::Buffer<f32>,
    old_logprobs: B::Buffer<f32>,
    importance: B::Buffer<f32>,
    reference: B::Buffer<f32>,
    candidate_ids: B::Buffer<i32>,
    candidate_weights: B::Buffer<f32>,
    candidate_advantages: B::Buffer<f32>,
    candidate_old: B::Buffer<f32>,
    candidate_teacher: B::Buffer<f32>,
    host: Vec<(f32, f32)>,
    /// The rows of each sequence.
    samples: Vec<Range<usize>>,
}

impl<B: Backend> DeviceRows<B> {
    pub fn new(
        transformer: &Transformer<B>,
        batch: &[&TrainSequence],
        sequences: &[Range<usize>],
    ) -> Result<Self> {
        let b = &transformer.backend;
        let (mut selected, mut targets, mut rows) = (Vec::new(), Vec::new(), Vec::new());
        let mut samples = Vec::with_capacity(batch.len());
        for (sequence, range) in batch.iter().zip(sequences) {
            samples.push(rows.len()..rows.len() + sequence.rows.len());
            for row in &sequence.rows {
                if row.position == 0 || row.position >= sequence.ids.len() {
                    let what = format!("row at position {} of {} tokens", row.position, sequence.ids.len());
                    return Err(KernelError::Argument { op: "train", what });
                }
                selected.push((range.start + row.position - 1) as u32);
                targets.push(sequence.ids[row.position] as i32);
                rows.push(row);
            }
        }
        let k = rows.iter().map(|r| r.candidates.len()).max().unwrap_or(0);
        let each = |field: fn(&TrainRow) -> f32| -> Result<B::Buffer<f32>> {
            b.upload(&rows.iter().map(|r| field(r)).collect::<Vec<f32>>())
        };
        let padded = |field: fn(&TrainCandidate) -> f32| -> Result<B::Buffer<f32>> {
            let mut values = vec![0f32; rows.len() * k];
            for (row, values) in rows.iter().zip(values.chunks_mut(k.max(1))) {
                for (candidate, value) in row.candidates.iter().zip(values) {
                    *value = field(candidate);
                }
            }
            b.upload(&values)
        };
        let mut ids = vec![-1i32; rows.len() * k];
        for (row, ids) in rows.iter().zip(ids.chunks_mut(k.max(1))) {
            for (candidate, id) in row.candidates.iter().zip(ids) {
                *id = candidate.id as i32;
            }
        }
        Ok(Self {
            count: rows.len(),
            k,
            selected: b.upload(&selected)?,
            targets: b.upload(&targets)?,
            weights: each(|r| r.weight)?,
            advantages: each(|r| r.advantage)?,
            old_logprobs: each(|r| r.old_logprob)?,
            importance: each(|r| r.importance)?,
            reference: each(|r| r.reference_logprob)?,
            candidate_ids: b.upload(&ids)?,
            candidate_weights: padded(|c| c.weight)?,
            candidate_advantages: padded(|c| c.advantage)?,
            candidate_old: padded(|c| c.old_logprob)?,
            candidate_teacher: padded(|c| c.teacher_logprob)?,
            host: rows.iter().map(|r| (r.weight, r.old_logprob)).collect(),
            samples,
        })
    }

    /// The ratio of each row's sequence under the weights as they are: a forward pass of the head.
    pub fn sequence_ratios<W: Float>(
        &self,
        b: &B,
        shape: LinearShape,
        head: Head<B::View<'_, f32>, B::View<'_, W>>,
        scratch: &mut B::Buffer<f32>,
    ) -> Result<B::Buffer<f32>> {
        let all = 0..self.count;
        let (mut logprobs, mut lse) = (b.zeros(self.count)?, b.zeros(self.count)?);
        let out = ScoreOut {
            logprobs: b.view_mut(&mut logprobs, all.clone()),
            lse: b.view_mut(&mut lse, all.clone()),
            entropy: None,
            candidates: None,
            top: None,
        };
        let score = Score { targets: b.view(&self.targets, all.clone()), candidates: None };
        let len = b.len(scratch);
        b.linear_logprob(shape, score, head, b.view_mut(scratch, 0..len), out)?;
        let logprobs = b.download(b.view(&logprobs, all))?;
        let mask: Vec<f32> = self.host.iter().map(|(weight, _)| f32::from(*weight != 0.0)).collect();
        let old: Vec<f32> = self.host.iter().map(|(_, old)| *old).collect();
        b.upload(&sequence_ratios(&logprobs, &old, &mask, &self.samples)?)
    }

    /// The loss of every row; `ratios` are those of [`Self::sequence_ratios`], where the objective needs them.
    pub fn loss<'a>(
        &'a self,
        transformer: &Transformer<B>,
        objective: &Objective,
        ratios: Option<&'a B::Buffer<f32>>,
    ) -> RowLoss<B::View<'a, f32>, B::View<'a, i32>> {
        let b = &transformer.backend;
        let view = |buffer: &'a B::Buffer<f32>| b.view(buffer, 0..b.len(buffer));
        let targets = b.view(&self.targets, 0..self.count);
        let weights = view(&self.weights);
        let policy = match objective {
            Objective::CrossEntropy => return RowLoss::cross_entropy(weights, targets),
            Objective::Policy(policy) => policy,
        };
        let candidates = policy.candidates.filter(|_| self.k > 0).map(|candidates| {
            let (coef, loss) = match candidates {
                CandidateObjective::Policy { coef, clip } => (
                    coef,
                    CandidateLoss::Policy {
                        advantages: view(&self.candidate_advantages),
                        weights: view(&self.candidate_weights),
                        old_logprobs: view(&self.candidate_old),
                        clip,
                    },
                ),
                CandidateObjective::ReverseKl { coef } => {
                    let teacher_logprobs = view(&self.candidate_teacher);
                    (coef, CandidateLoss::ReverseKl { teacher_logprobs, entropy_coef: 0.0 })
                }
            };
            CandidateTerm { k: self.k, ids: b.view(&self.candidate_ids, 0..self.count * self.k), coef, loss }
        });
        let old_logprobs = view(&self.old_logprobs);
        let surrogate = match policy.surrogate {
            SurrogateKind::Ppo => Surrogate::Ppo { old_logprobs },
            SurrogateKind::Cispo => Surrogate::Cispo { old_logprobs },
            SurrogateKind::Gspo => {
                let ratios = view(ratios.expect("the trainer scores the sequences of a gspo objective"));
                Surrogate::Gspo { ratios }
            }
        };
        RowLoss {
            weights,
            targets,
            token: TokenTerm::Policy(PolicyTerm {
                surrogate,
                advantages: view(&self.advantages),
                importance: Some(view(&self.importance)),
                clip: policy.clip,
            }),
            kl: policy.kl.map(|(kind, coef)| KlTerm { kind, coef, reference: view(&self.reference) }),
            candidates,
            entropy_coef: policy.entropy_coef,
        }
    }

    pub fn add_stats(&self, stats: &[RowStat], objective: &Objective, sums: &mut Sums) {
        for (stat, (weight, old)) in stats.iter().zip(&self.host) {
            if *weight == 0.0 {
                continue;
            }
            sums.loss += f64::from(*weight) * f64::from(stat.loss);
            sums.policy_loss += f64::from(*weight) * f64::from(objective.policy_part(stat));
            let ratio = f64::from(stat.logprob - old).exp();
            sums.ratio += ratio;
            sums.max_ratio = sums.max_ratio.max(ratio);
            sums.entropy += f64::from(stat.entropy);
            sums.kl += f64::from(stat.kl);
            sums.policy_kl += f64::from(old - stat.logprob);
            sums.clipped += usize::from(stat.clipped() != Clipped::No);
            sums.rows += 1;
        }
    }
}
