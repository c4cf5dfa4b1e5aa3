//! Which samples are worth a place in a batch.

use openclaw_journal::Sample;
use openclaw_model::FinishReason;

use crate::{
    methods::{MethodConfig, check_alignment},
    repetition::ends_in_a_loop,
};

/// A response that ends in this many tokens of one repeated phrase is a loop.
const LOOP_TOKENS: usize = 64;

/// Why `sample` is not trained on; none when it is.
pub(super) fn refusal(
    sample: &Sample,
    method: &MethodConfig,
    version: u64,
    max_staleness: u64,
) -> Option<&'static str> {
    let completion = &sample.turn.completion;
    if version.saturating_sub(completion.policy_version) > max_staleness {
        return Some("stale");
    }
    if completion.response_ids.is_empty() || completion.prompt_ids.is_empty() {
        return Some("empty");
    }
    // A cut response says nothing of what the policy wanted to say; that it was cut is all there is to learn. What came of
    // it in an episode, its outcome says.
    let by_outcome = method.needs().episodes && sample.standing.is_some();
    if completion.finish_reason == FinishReason::Length && sample.verdict.reward != Some(-1) && !by_outcome {
        return Some("truncated");
    }
    if ends_in_a_loop(&completion.response_ids, LOOP_TOKENS) {
        return Some("repetition");
    }
    if check_alignment(sample).is_err() {
        return Some("misaligned");
    }
    // Of an older journal: how likely the policy found a greedy draw was not written down.
    if completion.policy_logprobs.is_none() && completion.temperature < f32::MIN_POSITIVE {
        return Some("greedy");
    }
    if !method.is_effective(sample) {
        return Some("no_signal");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{methods::MethodKind, methods::tests::sample};
    use std::sync::Arc;

    fn refused(change: impl FnOnce(&mut openclaw_journal::Turn), reward: Option<i8>) -> Option<&'static str> {
        let mut sample = sample(&[-0.5, -0.5], reward, None);
        change(Arc::get_mut(&mut sample.turn).expect("the only owner"));
        refusal(&sample, &MethodConfig::new(MethodKind::Combine), 5, 2)
    }

    #[test]
    fn each_unusable_sample_is_refused_for_its_reason() {
        assert_eq!(refused(|_| (), Some(1)), None);
        assert_eq!(refused(|_| (), Some(0)), Some("no_signal"));
        assert_eq!(refused(|turn| turn.completion.policy_version = 2, Some(1)), Some("stale"));
        assert_eq!(refused(|turn| turn.completion.response_ids.clear(), Some(-1)), Some("empty"));
        assert_eq!(refused(|turn| turn.completion.rollout_logprobs.truncate(1), Some(1)), Some("misaligned"));
        let short = |turn: &mut openclaw_journal::Turn| turn.completion.policy_logprobs = Some(vec![-0.5]);
        assert_eq!(refused(short, Some(1)), Some("misaligned"));
        assert_eq!(refused(|turn| turn.completion.temperature = 0.0, Some(1)), Some("greedy"));
        let known = |turn: &mut openclaw_journal::Turn| {
            (turn.completion.temperature, turn.completion.policy_logprobs) = (0.0, Some(vec![-0.5, -0.5]));
        };
        assert_eq!(refused(known, Some(1)), None);
        let cut = |turn: &mut openclaw_journal::Turn| turn.completion.finish_reason = FinishReason::Length;
        assert_eq!(refused(cut, Some(1)), Some("truncated"));
        assert_eq!(refused(cut, Some(-1)), None);
    }
}
