//! GSPO over whole samples, and what CISPO holds constant.

use std::ops::Range;

use openclaw_kernels::ops::*;

use crate::cases::Inputs;
use crate::definition;
use crate::device::Device;

on_every_device! {
    gspo_rows_sum_to_the_sequence_objective_and_its_gradient,
    gspo_clips_whole_samples,
    cispo_weighs_every_log_prob_by_its_clipped_ratio,
}

const CLIP: ClipRange = ClipRange { low: 0.05, high: 0.08, dual: None };

/// Samples of several lengths with masked tokens, one sample without any other.
struct Samples {
    inputs: Inputs,
    mask: Vec<f32>,
    ranges: Vec<Range<usize>>,
}

impl Samples {
    fn new() -> Self {
        let ranges = vec![0..3, 3..9, 9..10, 10..12, 12..16];
        let mut mask = vec![1.0; 16];
        for i in [1, 4, 5, 10, 11] {
            mask[i] = 0.0;
        }
        let mut inputs = Inputs::new(31, 16, 11, 0.9);
        // One advantage per sample, and ratios inside, above and below the clip, by either sign.
        for (sample, (advantage, drift)) in
            ranges.iter().zip([(1.5, -0.08f32), (0.7, 0.3), (-1.2, -0.4), (1.0, 0.0), (-0.8, 0.35)])
        {
            for i in sample.clone() {
                let l = definition::logprobs(&inputs.row_logits(i), f64::from(inputs.temperature));
                inputs.advantages[i] = advantage;
                // The drift differs between tokens; only its mean over the sample counts.
                let wave = if (i - sample.start) % 2 == 0 { 0.1 } else { -0.1 };
                inputs.old[i] = l[inputs.targets[i] as usize] as f32 - drift - wave;
            }
        }
        inputs.weights = sample_mean_weights(&mask, &ranges).expect("the samples fit the mask");
        Self { inputs, mask, ranges }
    }

    /// `1/S sum_i max(-s_i A_i, -clip(s_i) A_i)`, as published.
    fn objective(&self, logits: &[f64], clip: ClipRange) -> f64 {
        let Inputs { vocab, temperature, targets, old, advantages, .. } = &self.inputs;
        let mut total = 0.0;
        for sample in &self.ranges {
            let tokens: Vec<usize> = sample.clone().filter(|i| self.mask[*i] != 0.0).collect();
            let mean = tokens.iter().map(|i| {
                let row = definition::logprobs(&logits[i * vocab..][..*vocab], f64::from(*temperature));
                (row[targets[*i] as usize] - f64::from(old[*i])) / tokens.len() as f64
            });
            if !tokens.is_empty() {
                total += definition::clipped(mean.sum::<f64>().exp(), advantages[sample.start], clip).0;
            }
        }
        total / self.ranges.len() as f64
    }

    fn shape(&self) -> LogitsShape {
        self.inputs.shape()
    }

    /// The operations: scores, ratios, losses and gradients.
    fn run(&self, device: &Device, clip: ClipRange) -> (Vec<f32>, Vec<f32>, Vec<RowStat>) {
        let inputs = &self.inputs;
        let (mut logprobs, mut lse) = (vec![9.0; inputs.rows], vec![9.0; inputs.rows]);
        let score = Score { targets: &inputs.targets[..], candidates: None };
        let out = ScoreOut {
            logprobs: &mut logprobs[..],
            lse: &mut lse[..],
            entropy: None,
            candidates: None,
            top: None,
        };
        device.logprob(self.shape(), &inputs.logits, score, out).expect("valid arguments");
        for i in (0..inputs.rows).filter(|i| self.mask[*i] == 0.0) {
            logprobs[i] = f32::NAN;
        }
        let ratios =
            sequence_ratios(&logprobs, &inputs.old, &self.mask, &self.ranges).expect("lengths agree");
        let policy = PolicyTerm {
            surrogate: Surrogate::Gspo { ratios: &ratios[..] },
            advantages: &inputs.advantages[..],
            importance: None,
            clip,
        };
        let loss = RowLoss {
            token: TokenTerm::Policy(policy),
            ..RowLoss::cross_entropy(&inputs.weights[..], &inputs.targets[..])
        };
        let (mut gradient, mut stats) = (inputs.logits.clone(), vec![RowStat::default(); inputs.rows]);
        device.row_loss(self.shape(), loss, None, &mut gradient, &mut stats).expect("valid arguments");
        (ratios, gradient, stats)
    }
}

fn gspo_rows_sum_to_the_sequence_objective_and_its_gradient(device: &Device) {
    for clip in [CLIP, ClipRange { dual: Some(1.2), ..CLIP }, ClipRange { low: 0.9, high: 9.0, dual: None }] {
        let samples = Samples::new();
        let (_, gradient, stats) = samples.run(device, clip);
        let mut logits: Vec<f64> = samples.inputs.logits.iter().map(|x| f64::from(*x)).collect();
        let total: f64 = stats
            .iter()
            .zip(&samples.inputs.weights)
            .map(|(stat, weight)| f64::from(stat.loss) * f64::from(*weight))
            .sum();
        let expected = samples.objective(&logits, clip);
        assert!((total - expected).abs() < 1e-6, "{total} {expected}");
        let mut largest = 0f64;
        for j in 0..logits.len() {
            let (x, step) = (logits[j], 1e-5);
            logits[j] = x + step;
            let above = samples.objective(&logits, clip);
            logits[j] = x - step;
            let below = samples.objective(&logits, clip);
            logits[j] = x;
            let slope = (above - below) / (2.0 * step);
            let error = (slope - f64::from(gradient[j])).abs();
            assert!(error < 1e-6, "{clip:?} [{j}]: {slope} {}", gradient[j]);
            largest = largest.max(slope.abs());
        }
        assert!(largest > 1e-3, "nothing was compared");
    }
}

fn gspo_clips_whole_samples(device: &Device) {
    let samples = Samples::new();
    let (ratios, gradient, stats) = samples.run(device, CLIP);
    let clipped: Vec<u32> = stats.iter().map(|stat| stat.clip).collect();
    // A > 0 above and A < 0 below the range are clipped, A < 0 above it is not; masked rows report nothing.
    assert_eq!(clipped, [0, 0, 0, 1, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0]);
    for sample in &samples.ranges {
        assert!(ratios[sample.clone()].iter().all(|s| *s == ratios[sample.start]));
    }
    assert!(ratios[3] > 1.08 && ratios[9] < 0.95 && ratios[10] == 1.0, "{ratios:?}");
    assert!(gradient[3 * 11..10 * 11].iter().all(|g| *g == 0.0), "a clipped sample has no gradient");
    // At a tie the un-clipped gradient flows.
    let edge = definition::clipped(1.0, 1.0, ClipRange { low: 0.2, high: 0.0, dual: None });
    assert_eq!(edge, (-1.0, -1.0));
    let inputs = Inputs { ratios: vec![1.0; 2], advantages: vec![1.0, -1.0], ..Inputs::new(32, 2, 9, 1.0) };
    let surrogate = Surrogate::Gspo { ratios: &inputs.ratios[..] };
    let clip = ClipRange { low: 0.0, high: 0.0, dual: None };
    let token = TokenTerm::Policy(PolicyTerm {
        surrogate,
        advantages: &inputs.advantages[..],
        importance: None,
        clip,
    });
    let loss = RowLoss { token, ..inputs.losses()[0].1 };
    let (mut gradient, mut stats) = (inputs.logits.clone(), vec![RowStat::default(); 2]);
    device.row_loss(inputs.shape(), loss, None, &mut gradient, &mut stats).expect("valid arguments");
    assert!(gradient.chunks(9).all(|row| row.iter().any(|g| *g != 0.0)));
    assert!(stats.iter().all(|stat| stat.clipped() == Clipped::No));
}

#[test]
fn ratios_of_samples_are_checked_and_stay_finite() {
    let samples = [0..2, 2..3, 3..4];
    let ratios = |logprobs: &[f32]| sequence_ratios(logprobs, &[-500.0; 4], &[1.0; 4], &samples);
    let found = ratios(&[-1.0, -499.0, f32::NAN, -500.5]).expect("lengths agree");
    assert!(found[0].is_finite() && found[0] > 1e38 && found[0] == found[1]);
    assert!(found[2].is_nan() && (found[3] - (-0.5f32).exp()).abs() < 1e-6);
    let error = ratios(&[0.0; 3]).expect_err("a length differs").to_string();
    assert!(error.contains("log-probs has 3 elements, expected 4"), "{error}");
    let error = sequence_ratios(&[0.0; 2], &[0.0; 2], &[1.0; 2], &[0..1, 1..5])
        .expect_err("a sample leaves the mask");
    assert!(error.to_string().contains("1..5 leaves the 2 rows"), "{error}");
}

fn cispo_weighs_every_log_prob_by_its_clipped_ratio(device: &Device) {
    let old = [-1.0f32, -9.0, -0.01, -2.0];
    let advantages = [1.0, -1.0, 0.5, 0.0];
    let inputs = Inputs {
        advantages: advantages.to_vec(),
        old: old.to_vec(),
        importance: vec![0.5, 1.0, 2.0, 1.0],
        ..Inputs::new(33, 4, 7, 1.1)
    };
    let surrogate = Surrogate::Cispo { old_logprobs: &inputs.old[..] };
    let token = inputs.surrogate(surrogate, None, Some(&inputs.importance));
    let loss = RowLoss { token, ..inputs.losses()[0].1 };
    let (mut gradient, mut stats) = (inputs.logits.clone(), vec![RowStat::default(); 4]);
    device.row_loss(inputs.shape(), loss, None, &mut gradient, &mut stats).expect("valid arguments");
    let temperature = f64::from(inputs.temperature);
    for i in 0..4 {
        let mut row = inputs.row_logits(i);
        let taken = inputs.targets[i] as usize;
        let logprob = |row: &[f64]| definition::logprobs(row, temperature)[taken];
        let ratio = (logprob(&row) - f64::from(old[i])).exp();
        let constant = ratio.clamp(1.0 - f64::from(0.2f32), 1.0 + f64::from(0.28f32));
        let scale = -constant * f64::from(advantages[i]) * f64::from(inputs.importance[i]);
        assert_eq!(stats[i].clipped() == Clipped::No, constant == ratio);
        assert!((f64::from(stats[i].loss) - scale * logprob(&row)).abs() < 1e-5, "row {i}");
        for j in 0..7 {
            let (x, step) = (row[j], 1e-6);
            row[j] = x + step;
            let above = logprob(&row);
            row[j] = x - step;
            let below = logprob(&row);
            row[j] = x;
            let slope = f64::from(inputs.weights[i]) * scale * (above - below) / (2.0 * step);
            let found = f64::from(gradient[i * 7 + j]);
            assert!((slope - found).abs() < 1e-6, "[{i}, {j}]: {slope} {found}");
        }
    }
    assert!(stats.iter().any(|s| s.clipped() == Clipped::Range && s.loss != 0.0));
    let token = inputs.surrogate(surrogate, Some(3.0), None);
    let error = device.row_loss(inputs.shape(), RowLoss { token, ..loss }, None, &mut gradient, &mut stats);
    assert!(error.expect_err("cispo has no dual clip").to_string().contains("no dual clip, 3 given"));
}
