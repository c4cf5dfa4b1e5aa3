//! Random inputs for every kind of row loss.

use openclaw_kernels::Float;
use openclaw_kernels::ops::*;
use rand::{RngExt, SeedableRng, rngs::SmallRng};

use crate::device::{Device, Loss};

/// Vocabularies around every vector width and block, and real ones.
const VOCABS: [usize; 27] = [
    1, 2, 7, 8, 9, 31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 256, 257, 1000, 1023, 1024, 1025, 2049,
    32_000, 128_256, 129_280, 151_936, 152_064,
];

/// Vocabularies that a test on a device can afford: all, or those where the emulated kernels change.
pub fn vocabs(device: &Device) -> &'static [usize] {
    match device {
        Device::Cpu(_) => &VOCABS,
        Device::Cuda(_) if crate::device::gpu().is_some() => &VOCABS,
        Device::Cuda(_) => &[1, 2, 7, 8, 9, 31, 33, 63, 65, 127, 255, 1000, 1025, 2049, 151_936],
    }
}

/// Rows that a test of this vocabulary can afford, at most `most`.
pub fn rows_of(vocab: usize, most: usize) -> usize {
    if vocab > 10_000 { 2 } else { most }
}

pub struct Inputs {
    pub rows: usize,
    pub vocab: usize,
    pub k: usize,
    pub temperature: f32,
    /// Exact in bf16.
    pub logits: Vec<f32>,
    pub weights: Vec<f32>,
    pub targets: Vec<i32>,
    pub advantages: Vec<f32>,
    pub old: Vec<f32>,
    pub reference: Vec<f32>,
    pub importance: Vec<f32>,
    /// Ratio of each row's sample.
    pub ratios: Vec<f32>,
    pub ids: Vec<i32>,
    pub teacher: Vec<f32>,
    pub slot_advantages: Vec<f32>,
    pub slot_weights: Vec<f32>,
    pub slot_old: Vec<f32>,
}

impl Inputs {
    pub fn new(seed: u64, rows: usize, vocab: usize, temperature: f32) -> Self {
        let mut rng = SmallRng::seed_from_u64(!seed);
        let random = (0..rows * vocab).map(|_| half::bf16::from_f32(rng.random_range(-6.0..6.0)).to_f32());
        Self::around(seed, vocab, temperature, random.collect())
    }

    /// Inputs as they come with given logits: old, reference and teacher log-probs are near the logits' own.
    pub fn around(seed: u64, vocab: usize, temperature: f32, logits: Vec<f32>) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let (rows, k) = (logits.len() / vocab, 4.min(vocab));
        let mut uniform =
            |n: usize, low: f32, high: f32| (0..n).map(|_| rng.random_range(low..high)).collect::<Vec<f32>>();
        let near = |l: f64, noise: f32| (l as f32 + noise).min(0.0);
        let pick = uniform(rows, 0.0, vocab as f32);
        let targets: Vec<i32> = pick.iter().map(|x| (*x as usize).min(vocab - 1) as i32).collect();
        let (old_noise, ref_noise) = (uniform(rows, -0.6, 0.6), uniform(rows, -1.0, 1.0));
        let start = uniform(rows, 0.0, vocab as f32);
        let (slot_noise, teacher_noise) = (uniform(rows * k, -0.6, 0.6), uniform(rows * k, -1.5, -0.2));
        let (mut old, mut reference, mut ids) = (vec![], vec![], vec![]);
        let (mut teacher, mut slot_old) = (vec![], vec![]);
        for i in 0..rows {
            let row: Vec<f64> = logits[i * vocab..][..vocab].iter().map(|x| f64::from(*x)).collect();
            let l = super::definition::logprobs(&row, f64::from(temperature));
            old.push(near(l[targets[i] as usize], old_noise[i]));
            reference.push(near(l[targets[i] as usize], ref_noise[i]));
            for slot in 0..k {
                // In odd rows the taken token is a candidate.
                let first = if i % 2 == 1 { targets[i] as usize } else { start[i] as usize };
                let id = (first + slot * (vocab / k)) % vocab;
                ids.push(id as i32);
                slot_old.push(near(l[id], slot_noise[i * k + slot]));
                teacher.push((l[id] as f32 + teacher_noise[i * k + slot]).min(-1.8));
            }
        }
        if rows > 2 {
            ids[2 * k] = -1;
        }
        Self {
            weights: uniform(rows, 0.1, 0.9),
            advantages: uniform(rows, -2.0, 2.0),
            importance: uniform(rows, 0.2, 2.0),
            ratios: uniform(rows, 0.6, 1.5),
            slot_advantages: uniform(rows * k, -1.0, 1.0),
            slot_weights: uniform(rows * k, 0.1, 1.0),
            rows,
            vocab,
            k,
            temperature,
            logits,
            targets,
            old,
            reference,
            ids,
            teacher,
            slot_old,
        }
    }

    pub fn shape(&self) -> LogitsShape {
        LogitsShape { temperature: self.temperature, ..LogitsShape::dense(self.rows, self.vocab) }
    }

    pub fn logits_as<T: Float>(&self) -> Vec<T> {
        self.logits.iter().map(|x| T::from_f32(*x)).collect()
    }

    pub fn row_logits(&self, i: usize) -> Vec<f64> {
        self.logits[i * self.vocab..][..self.vocab].iter().map(|x| f64::from(*x)).collect()
    }

    pub fn policy(&self, dual: Option<f32>) -> TokenTerm<&[f32]> {
        let importance = dual.map(|_| &self.importance[..]);
        self.surrogate(Surrogate::Ppo { old_logprobs: &self.old }, dual, importance)
    }

    pub fn surrogate<'a>(
        &'a self,
        surrogate: Surrogate<&'a [f32]>,
        dual: Option<f32>,
        importance: Option<&'a [f32]>,
    ) -> TokenTerm<&'a [f32]> {
        let clip = ClipRange { low: 0.2, high: 0.28, dual };
        TokenTerm::Policy(PolicyTerm { surrogate, advantages: &self.advantages, importance, clip })
    }

    /// Losses with factors that count as constants: their gradients are not the slopes of their values.
    fn losses_with_constants(&self) -> [(&'static str, Loss<'_>); 3] {
        let cispo = Surrogate::Cispo { old_logprobs: &self.old[..] };
        let gspo = Surrogate::Gspo { ratios: &self.ratios[..] };
        let with = |token| RowLoss { token, ..self.with_kl(KlKind::K3) };
        [
            ("cispo", with(self.surrogate(cispo, None, Some(&self.importance)))),
            ("gspo", with(self.surrogate(gspo, None, None))),
            ("gspo with dual clip", with(self.surrogate(gspo, Some(1.3), Some(&self.importance)))),
        ]
    }

    fn candidate_term<'a>(
        &'a self,
        coef: f32,
        loss: CandidateLoss<&'a [f32]>,
    ) -> CandidateTerm<&'a [f32], &'a [i32]> {
        CandidateTerm { k: self.k, ids: &self.ids, coef, loss }
    }

    pub fn reverse_kl(&self, entropy_coef: f32) -> Loss<'_> {
        let loss = CandidateLoss::ReverseKl { teacher_logprobs: &self.teacher[..], entropy_coef };
        RowLoss {
            token: TokenTerm::None,
            candidates: Some(self.candidate_term(1.3, loss)),
            ..RowLoss::cross_entropy(&self.weights[..], &self.targets[..])
        }
    }

    pub fn hybrid(&self) -> Loss<'_> {
        let loss = CandidateLoss::Policy {
            advantages: &self.slot_advantages[..],
            weights: &self.slot_weights[..],
            old_logprobs: &self.slot_old[..],
            clip: ClipRange { low: 0.2, high: 0.28, dual: None },
        };
        RowLoss {
            token: self.policy(None),
            candidates: Some(self.candidate_term(0.7, loss)),
            ..self.with_kl(KlKind::LowVar)
        }
    }

    pub fn with_kl(&self, kind: KlKind) -> Loss<'_> {
        RowLoss {
            token: self.policy(Some(1.3)),
            kl: Some(KlTerm { kind, coef: 0.1, reference: &self.reference[..] }),
            entropy_coef: 0.01,
            ..RowLoss::cross_entropy(&self.weights[..], &self.targets[..])
        }
    }

    /// One loss of every kind, by name.
    pub fn losses(&self) -> Vec<(&'static str, Loss<'_>)> {
        let mut losses = self.differentiable_losses();
        losses.extend(self.losses_with_constants());
        losses
    }

    /// The losses whose gradients are the slopes of their values.
    pub fn differentiable_losses(&self) -> Vec<(&'static str, Loss<'_>)> {
        let cross_entropy = RowLoss::cross_entropy(&self.weights[..], &self.targets[..]);
        vec![
            ("cross-entropy", cross_entropy),
            ("policy", RowLoss { token: self.policy(None), ..cross_entropy }),
            ("policy with k1", self.with_kl(KlKind::K1)),
            ("policy with k2", self.with_kl(KlKind::K2)),
            ("policy with k3", self.with_kl(KlKind::K3)),
            ("policy with low-variance kl", self.with_kl(KlKind::LowVar)),
            ("reverse kl", self.reverse_kl(0.0)),
            ("reverse kl with entropy", self.reverse_kl(0.05)),
            ("hybrid", self.hybrid()),
        ]
    }
}

/// Absolute difference allowed for a gradient of size `g`, stored as `T`.
pub fn tolerance<T: 'static>(g: f64) -> f64 {
    let bf16 = std::any::TypeId::of::<T>() == std::any::TypeId::of::<half::bf16>();
    2e-6 + (2e-5 + if bf16 { 1.0 / 256.0 } else { 0.0 }) * g.abs()
}
