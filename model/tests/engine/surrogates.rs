//! The surrogates of a training step, on a model small enough for finite differences.

use openclaw_kernels::{
    Cpu,
    ops::{ClipRange, KlKind},
};
use openclaw_model::{
    AdamWConfig, ModelConfig, Objective, PolicyObjective, ScoreRequest, SurrogateKind, TrainRow,
    TrainSequence, Trainer, Transformer, Weights, random_weights,
};

fn config() -> ModelConfig {
    ModelConfig {
        family: Default::default(),
        vocab_size: 24,
        hidden_size: 16,
        intermediate_size: 24,
        layers: 1,
        heads: 2,
        kv_heads: 1,
        head_dim: 8,
        rms_norm_eps: 1e-6,
        rope_theta: 10_000.0,
        rope_scaling: None,
        max_positions: 64,
        tied: true,
    }
}

fn transformer() -> Transformer<Cpu> {
    Transformer::new(config(), Cpu::new("surrogates", 1).unwrap()).unwrap()
}

/// Log-probs of all tokens but the first.
fn logprobs(transformer: &Transformer<Cpu>, flat: &[f32], ids: &[u32]) -> Vec<f32> {
    let weights = Weights::from_host(transformer, flat).unwrap();
    let request = ScoreRequest { ids: ids.to_vec(), start: 1, temperature: 1.0, ..Default::default() };
    transformer.score(&weights, &request).unwrap().logprobs
}

/// Two sequences of unequal length, whose mean log-prob has moved by `drifts` since they were drawn.
fn batch(transformer: &Transformer<Cpu>, flat: &[f32], drifts: [f32; 2]) -> Vec<TrainSequence> {
    let draws: [Vec<u32>; 2] = [vec![1, 5, 9, 2, 20, 11], vec![3, 8, 17]];
    let advantages = [0.8, -1.3];
    let wave = [0.3, -0.3, 0.2, -0.1, -0.1];
    let sequences = draws.into_iter().zip(advantages).zip(drifts).map(|((ids, advantage), drift)| {
        let count = ids.len() - 1;
        let now = logprobs(transformer, flat, &ids);
        let rows = (0..count).map(|t| TrainRow {
            position: t + 1,
            weight: 0.5 / count as f32,
            advantage,
            // Single tokens move differently; only the mean over the sequence counts.
            old_logprob: now[t] - drift - wave[t],
            importance: 1.0,
            ..TrainRow::default()
        });
        TrainSequence { rows: rows.collect(), ids, temperature: 1.0 }
    });
    sequences.collect()
}

fn objective(surrogate: SurrogateKind) -> Objective {
    let clip = ClipRange { low: 0.1, high: 0.1, dual: None };
    Objective::Policy(PolicyObjective { surrogate, clip, kl: None, entropy_coef: 0.0, candidates: None })
}

/// `1/2 sum max(-s A, -clip(s) A)` over the sequences.
fn gspo(transformer: &Transformer<Cpu>, flat: &[f32], batch: &[TrainSequence]) -> f64 {
    let one = |sequence: &TrainSequence| {
        let now = logprobs(transformer, flat, &sequence.ids);
        let moved =
            now.iter().zip(&sequence.rows).map(|(now, row)| f64::from(*now) - f64::from(row.old_logprob));
        let s = (moved.sum::<f64>() / now.len() as f64).exp();
        let a = f64::from(sequence.rows[0].advantage);
        (-s * a).max(-s.clamp(0.9, 1.1) * a)
    };
    batch.iter().map(one).sum::<f64>() / batch.len() as f64
}

#[test]
fn a_gspo_step_descends_the_sequence_objective() {
    let transformer = transformer();
    let flat: Vec<f32> = random_weights(&config(), 3).iter().map(|w| w * 4.0).collect();
    let batch = batch(&transformer, &flat, [0.02, 0.04]);
    for micro_batch_tokens in [1, 4096] {
        let mut trainer = Trainer::new(transformer.clone(), &flat, AdamWConfig::default()).unwrap();
        trainer.micro_batch_tokens = micro_batch_tokens;
        let report = trainer.accumulate(&batch, &objective(SurrogateKind::Gspo)).unwrap();
        assert!((report.loss - gspo(&transformer, &flat, &batch)).abs() < 1e-5, "{report:?}");
        let gradient = trainer.gradients().unwrap();
        // Along the gradient itself, so that the slope stands out of the rounding of f32.
        let norm = gradient.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
        let at = |step: f64| {
            let moved: Vec<f32> = flat
                .iter()
                .zip(&gradient)
                .map(|(w, g)| (f64::from(*w) + step * f64::from(*g) / norm) as f32)
                .collect();
            gspo(&transformer, &moved, &batch)
        };
        let slope = (at(2e-3) - at(-2e-3)) / 4e-3;
        assert!(norm > 1e-2 && (slope / norm - 1.0).abs() < 1e-2, "slope {slope}, norm {norm}");
    }
}

#[test]
fn a_clipped_sequence_teaches_nothing_and_clipped_tokens_do_under_cispo() {
    let transformer = transformer();
    let flat = random_weights(&config(), 4);
    // Both sequences have moved beyond the clip the way their advantages point.
    let batch = batch(&transformer, &flat, [0.9, -0.9]);
    let run = |surrogate| {
        let mut trainer = Trainer::new(transformer.clone(), &flat, AdamWConfig::default()).unwrap();
        let report = trainer.accumulate(&batch, &objective(surrogate)).unwrap();
        (report.clip_fraction, trainer.gradients().unwrap().iter().any(|g| *g != 0.0))
    };
    assert_eq!(run(SurrogateKind::Gspo), (1.0, false));
    assert_eq!(run(SurrogateKind::Ppo), (1.0, false));
    assert_eq!(run(SurrogateKind::Cispo), (1.0, true));
}

#[test]
fn a_report_tells_the_policys_part_of_the_loss_and_how_far_tokens_have_moved() {
    let transformer = transformer();
    let flat = random_weights(&config(), 5);
    let batch = batch(&transformer, &flat, [0.02, -0.04]);
    let report = |kl, entropy_coef| {
        let Objective::Policy(plain) = objective(SurrogateKind::Ppo) else { unreachable!("it is one") };
        let objective = Objective::Policy(PolicyObjective { kl, entropy_coef, ..plain });
        let mut trainer = Trainer::new(transformer.clone(), &flat, AdamWConfig::default()).unwrap();
        trainer.accumulate(&batch, &objective).unwrap()
    };
    let (plain, whole) = (report(None, 0.0), report(Some((KlKind::K2, 0.5)), 0.1));
    assert_eq!(plain.policy_loss, plain.loss);
    assert!((whole.policy_loss - plain.loss).abs() < 1e-5, "{whole:?}");
    assert!((whole.loss - plain.loss).abs() > 1e-2, "{whole:?}");

    let moved = batch.iter().flat_map(|sequence| {
        let now = logprobs(&transformer, &flat, &sequence.ids);
        sequence.rows.iter().zip(now).map(|(row, now)| f64::from(now - row.old_logprob).exp())
    });
    let ratios: Vec<f64> = moved.collect();
    let mean = ratios.iter().sum::<f64>() / ratios.len() as f64;
    let largest = ratios.iter().copied().fold(0.0, f64::max);
    assert!((plain.ratio - mean).abs() < 1e-4 && (plain.max_ratio - largest).abs() < 1e-4, "{plain:?}");
}
