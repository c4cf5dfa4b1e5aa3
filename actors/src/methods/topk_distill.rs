//! Reverse KL from the student to the teacher over the teacher's most likely ids and one bin for the rest.
//!
//! The loss is the trainer's; this file only says which ids, position by position. A position without them
//! is taught nothing: ids made up to fill a row would be taught as certain.

use super::{DistillTarget, TokenTarget};
use openclaw_journal::Sample;

pub(super) fn targets(sample: &Sample) -> Vec<TokenTarget> {
    let mut targets = vec![TokenTarget::default(); sample.turn.completion.response_ids.len()];
    if let Some(teacher) = &sample.teacher {
        for (target, top) in targets.iter_mut().zip(&teacher.teacher_top) {
            target.distill = (!top.ids.is_empty()).then(|| DistillTarget {
                ids: top.ids.clone(),
                teacher_logprobs: top.teacher_logprobs.clone(),
            });
        }
    }
    targets
}

#[cfg(test)]
mod tests {
    use super::super::tests::{sample, teacher};
    use super::*;
    use openclaw_journal::{Candidates, TeacherSignal};

    #[test]
    fn each_position_has_the_teachers_ids_and_the_drawn_token_no_term() {
        let top = |id, p: f32| Candidates {
            ids: vec![id, id + 1],
            old_logprobs: vec![0.0; 2],
            teacher_logprobs: vec![p.ln(), (0.9 - p).ln()],
        };
        let signal = TeacherSignal {
            teacher_top: vec![top(4, 0.6), top(8, 0.7)],
            ..teacher(&[-1.0, -1.0], &[-1.0, -1.0])
        };
        let targets = targets(&sample(&[-1.0, -1.0], Some(1), Some(signal)));
        assert!(targets.iter().all(|target| target.taken.is_none() && target.vocabulary.is_empty()));
        let distill = targets[1].distill.as_ref().expect("the second token has a target");
        assert_eq!(distill.ids, [8, 9]);
        assert_eq!(distill.teacher_logprobs, [0.7f32.ln(), (0.9f32 - 0.7).ln()]);
    }

    #[test]
    fn without_a_teacher_nothing_is_taught() {
        assert_eq!(targets(&sample(&[-1.0], Some(1), None)), [TokenTarget::default()]);
    }
}
