//! From samples to what the trainer takes: the one place that knows both.

use openclaw_journal::Sample;
use openclaw_kernels::ops::{ClipRange, KlKind};
use openclaw_model::{
    CandidateObjective, Objective, PolicyObjective, TrainCandidate, TrainRow, TrainSequence,
};

use crate::methods::{KlEstimator, MethodConfig, MethodKind, TokenTarget};

/// One sequence per sample. Each sample weighs the same, however long it is, and the weights of a batch add up to
/// one: a batch with fewer samples takes as large a step.
pub(super) fn sequences<'a>(
    method: &MethodConfig,
    samples: impl ExactSizeIterator<Item = &'a Sample>,
    references: &[Vec<f32>],
) -> Vec<TrainSequence> {
    let count = samples.len() as f32;
    samples
        .zip(references)
        .map(|(sample, reference)| {
            let completion = &sample.turn.completion;
            let targets = method.targets(sample).expect("admission refuses misaligned samples");
            let weight = 1.0 / (count * targets.len() as f32);
            let rows = targets.into_iter().enumerate().map(|(t, target)| {
                let position = completion.prompt_ids.len() + t;
                let policy = completion.compared_logprobs()[t];
                row(position, weight, target, policy, reference.get(t).copied())
            });
            TrainSequence {
                ids: [completion.prompt_ids.as_slice(), &completion.response_ids].concat(),
                rows: rows.collect(),
                temperature: completion.trained_temperature(),
            }
        })
        .collect()
}

fn row(position: usize, weight: f32, target: TokenTarget, policy: f32, reference: Option<f32>) -> TrainRow {
    let (advantage, old_logprob, importance) = match target.taken {
        Some(taken) => (taken.advantage, taken.old_logprob, taken.importance_weight),
        None => (0.0, policy, 1.0),
    };
    let mut candidates: Vec<TrainCandidate> = target
        .vocabulary
        .iter()
        .map(|v| TrainCandidate {
            id: v.id,
            weight: v.weight,
            advantage: v.advantage,
            old_logprob: v.old_logprob,
            ..TrainCandidate::default()
        })
        .collect();
    if let Some(distill) = target.distill {
        candidates.extend(distill.ids.into_iter().zip(distill.teacher_logprobs).map(
            |(id, teacher_logprob)| TrainCandidate { id, teacher_logprob, ..TrainCandidate::default() },
        ));
    }
    let reference_logprob = reference.unwrap_or_default();
    TrainRow { position, weight, advantage, old_logprob, importance, reference_logprob, candidates }
}

/// Share of the samples' tokens that were drawn greedily or from a part of the distribution.
pub(super) fn truncated_fraction<'a>(samples: impl Iterator<Item = &'a Sample>) -> f64 {
    let (mut truncated, mut tokens) = (0, 0);
    for sample in samples {
        truncated += sample.turn.completion.truncated_tokens();
        tokens += sample.turn.completion.response_ids.len();
    }
    truncated as f64 / tokens.max(1) as f64
}

/// The loss of `method`.
pub(super) fn objective(method: &MethodConfig) -> Objective {
    let clip = ClipRange { low: method.clip_low, high: method.clip_high, dual: method.dual_clip };
    let kl = match method.kl.kind {
        KlEstimator::K1 => KlKind::K1,
        KlEstimator::K2 => KlKind::K2,
        KlEstimator::K3 => KlKind::K3,
        KlEstimator::LowVar => KlKind::LowVar,
    };
    Objective::Policy(PolicyObjective {
        surrogate: method.surrogate,
        clip,
        kl: (method.kl.coef > 0.0).then_some((kl, method.kl.coef)),
        entropy_coef: method.entropy_coef,
        candidates: match method.kind {
            MethodKind::Hybrid => Some(CandidateObjective::Policy { coef: 1.0, clip }),
            MethodKind::TopkDistill => Some(CandidateObjective::ReverseKl { coef: 1.0 }),
            MethodKind::BinaryRl
            | MethodKind::Opd
            | MethodKind::Combine
            | MethodKind::Grpo
            | MethodKind::StepWise => None,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::methods::tests::{sample, teacher};

    #[test]
    fn rows_sit_on_the_response_and_weigh_each_sample_the_same() {
        let samples =
            [sample(&[-0.5; 4], Some(1), None), sample(&[-0.25], None, Some(teacher(&[-0.25], &[-1.25])))];
        let method = MethodConfig::new(MethodKind::Combine);
        let references = [vec![-0.1, -0.2, -0.3, -0.4], vec![-0.9]];
        let sequences = sequences(&method, samples.iter(), &references);
        let positions: Vec<usize> = sequences[0].rows.iter().map(|row| row.position).collect();
        assert_eq!(positions, [3, 4, 5, 6]);
        assert_eq!(sequences[0].ids, [1, 2, 3, 10, 11, 12, 13]);
        for (sequence, weight) in sequences.iter().zip([0.125, 0.5]) {
            assert!(sequence.rows.iter().all(|row| row.weight == weight), "{sequence:?}");
        }
        assert_eq!(sequences[0].rows[2].reference_logprob, -0.3);
        let last = &sequences[1].rows[0];
        assert_eq!((last.advantage, last.old_logprob, last.importance), (-1.0, -0.25, 1.0));
    }

    #[test]
    fn only_a_kl_term_reads_references() {
        let mut method = MethodConfig::new(MethodKind::BinaryRl);
        let kl_of = |method: &MethodConfig| match objective(method) {
            Objective::Policy(policy) => policy.kl,
            Objective::CrossEntropy => panic!("a method has a policy objective"),
        };
        assert_eq!(kl_of(&method), Some((KlKind::LowVar, 0.01)));
        method.kl.coef = 0.0;
        assert_eq!(kl_of(&method), None);
        assert_eq!(
            sequences(&method, [sample(&[-0.5], Some(1), None)].iter(), &[Vec::new()])[0].rows.len(),
            1
        );
    }
}
