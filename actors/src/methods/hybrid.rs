//! The verdict on the drawn tokens, and the teacher's gap on the student's most likely ids.
//!
//! For each id v of the student's top-k: `A_v = w_opd clip(log p_teacher(v) - log p_old(v), C)`, weighted by
//! p_old(v) (published) or by the larger of p_old and p_teacher. The ratio of each id is clipped by itself. Almost
//! all of the signal sits in the first token, where a style is chosen: weighted by p_old an id that the student
//! draws at 2 % gets a push of .02 while the default is pulled by its .8, and the freed mass goes anywhere.

use super::{MethodConfig, TokenTarget, VocabularyTarget, VocabularyWeight, taken_targets, verdict};
use openclaw_journal::{Candidates, Sample};

pub(super) fn targets(config: &MethodConfig, sample: &Sample) -> Vec<TokenTarget> {
    let mut targets = taken_targets(config, sample, |t| verdict(config, sample, t));
    let Some(teacher) = &sample.teacher else { return targets };
    for (target, student_top) in targets.iter_mut().zip(&teacher.student_top) {
        target.vocabulary = vocabulary(config, student_top).collect();
    }
    if config.add_teacher_top {
        for (target, teacher_top) in targets.iter_mut().zip(&teacher.teacher_top) {
            if let Some(first) = vocabulary(config, teacher_top).next()
                && target.vocabulary.iter().all(|known| known.id != first.id)
            {
                target.vocabulary.push(first);
            }
        }
    }
    targets
}

fn vocabulary<'a>(
    config: &'a MethodConfig,
    candidates: &'a Candidates,
) -> impl Iterator<Item = VocabularyTarget> + 'a {
    let logprobs = candidates.old_logprobs.iter().zip(&candidates.teacher_logprobs);
    candidates.ids.iter().zip(logprobs).map(|(&id, (&old_logprob, &teacher))| VocabularyTarget {
        id,
        weight: match config.vocabulary_weight {
            VocabularyWeight::Old => old_logprob.exp(),
            VocabularyWeight::Max => old_logprob.max(teacher).exp(),
        },
        advantage: config.weight_opd * config.clip_gap(teacher - old_logprob),
        old_logprob,
    })
}

#[cfg(test)]
mod tests {
    use super::super::{
        MethodKind,
        tests::{advantages, sample, teacher},
    };
    use super::*;
    use openclaw_journal::TeacherSignal;

    /// One token: the student's default at .84 that the teacher gives .001, and the wanted id at .02 against .95.
    fn first_token() -> TeacherSignal {
        let [old, hinted] = [[0.84f32.ln(), 0.02f32.ln()], [0.001f32.ln(), 0.95f32.ln()]];
        let student_top = vec![Candidates {
            ids: vec![10, 77],
            old_logprobs: old.to_vec(),
            teacher_logprobs: hinted.to_vec(),
        }];
        TeacherSignal { student_top, ..teacher(&old[..1], &hinted[..1]) }
    }

    fn weights_and_advantages(config: &MethodConfig) -> Vec<(u32, f32, f32)> {
        let sample = sample(&[0.84f32.ln()], Some(-1), Some(first_token()));
        let targets = targets(config, &sample);
        assert_eq!(advantages(&targets), [-config.weight_rl]);
        targets[0].vocabulary.iter().map(|v| (v.id, v.weight, v.advantage)).collect()
    }

    fn assert_close(found: &[(u32, f32, f32)], expected: &[(u32, f32, f32)]) {
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            assert_eq!(found.0, expected.0);
            assert!((found.1 - expected.1).abs() < 1e-6 && (found.2 - expected.2).abs() < 1e-6, "{found:?}");
        }
    }

    #[test]
    fn the_published_weight_hardly_pushes_what_the_teacher_wants() {
        let config = MethodConfig {
            vocabulary_weight: VocabularyWeight::Old,
            ..MethodConfig::new(MethodKind::Hybrid)
        };
        assert_close(&weights_and_advantages(&config), &[(10, 0.84, -1.0), (77, 0.02, 1.0)]);
    }

    #[test]
    fn the_larger_weight_pushes_it_as_hard_as_it_is_wanted() {
        let config = MethodConfig { weight_rl: 0.25, ..MethodConfig::new(MethodKind::Hybrid) };
        assert_close(&weights_and_advantages(&config), &[(10, 0.84, -1.0), (77, 0.95, 1.0)]);
    }

    #[test]
    fn gaps_inside_the_bound_are_not_clipped() {
        let config =
            MethodConfig { diff_clip: Some(100.0), weight_opd: 2.0, ..MethodConfig::new(MethodKind::Hybrid) };
        let gaps = [(0.001f32 / 0.84).ln() * 2.0, (0.95f32 / 0.02).ln() * 2.0];
        assert_close(&weights_and_advantages(&config), &[(10, 0.84, gaps[0]), (77, 0.95, gaps[1])]);
    }

    #[test]
    fn the_teachers_first_id_is_added_once_and_only_if_missing() {
        let mut signal = first_token();
        let top = |id| Candidates { ids: vec![id], old_logprobs: vec![-7.0], teacher_logprobs: vec![-0.5] };
        let config = MethodConfig { add_teacher_top: true, ..MethodConfig::new(MethodKind::Hybrid) };
        for (id, expected) in [(77, vec![10, 77]), (500, vec![10, 77, 500])] {
            signal.teacher_top = vec![top(id)];
            let targets = targets(&config, &sample(&[-0.1], None, Some(signal.clone())));
            let ids: Vec<u32> = targets[0].vocabulary.iter().map(|v| v.id).collect();
            assert_eq!(ids, expected);
        }
    }
}
