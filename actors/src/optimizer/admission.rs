//! Which samples are worth a place in a batch.

use openclaw_model::FinishReason;

use crate::{
    methods::{MethodConfig, check_alignment},
    turn::Sample,
};

/// The longest phrase whose repetition is looked for.
const LONGEST_PERIOD_TOKENS: usize = 64;
/// A response that ends in this many tokens of one repeated phrase is a loop.
const LOOP_TOKENS: usize = 64;
/// A loop says its phrase at least this often.
const REPEATS: usize = 6;

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
    // A cut response says nothing of what the policy wanted to say; that it was cut is all there is to learn.
    if completion.finish_reason == FinishReason::Length && sample.verdict.reward != Some(-1) {
        return Some("truncated");
    }
    if ends_in_a_loop(&completion.response_ids, LOOP_TOKENS) {
        return Some("repetition");
    }
    if check_alignment(sample).is_err() {
        return Some("misaligned");
    }
    if !method.is_effective(sample) {
        return Some("no_signal");
    }
    None
}

/// Whether the last `loop_tokens` or more of `ids` are one phrase again and again.
pub(crate) fn ends_in_a_loop(ids: &[u32], loop_tokens: usize) -> bool {
    (1..=LONGEST_PERIOD_TOKENS.min(ids.len() / 2)).any(|period| {
        let repeated =
            ids.iter().rev().zip(ids.iter().rev().skip(period)).take_while(|(a, b)| a == b).count();
        repeated + period >= loop_tokens.max(REPEATS * period)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{methods::MethodKind, methods::tests::sample};
    use std::sync::Arc;

    fn refused(change: impl FnOnce(&mut crate::turn::Turn), reward: Option<i8>) -> Option<&'static str> {
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
        let cut = |turn: &mut crate::turn::Turn| turn.completion.finish_reason = FinishReason::Length;
        assert_eq!(refused(cut, Some(1)), Some("truncated"));
        assert_eq!(refused(cut, Some(-1)), None);
    }

    #[test]
    fn loops_are_recognised_and_lists_are_not() {
        let phrase = [7u32, 8, 9];
        let looping: Vec<u32> = (100..150).chain(phrase.into_iter().cycle().take(70)).collect();
        assert!(ends_in_a_loop(&looping, LOOP_TOKENS));
        assert!(ends_in_a_loop(&[3; 64], LOOP_TOKENS));
        assert!(!ends_in_a_loop(&[3; 20], LOOP_TOKENS), "a short run is a word or a rule of dashes");
        let list: Vec<u32> = (0..40).flat_map(|n| [5, 6, 100 + n]).collect();
        assert!(!ends_in_a_loop(&list, LOOP_TOKENS));
        assert!(!ends_in_a_loop(&[], LOOP_TOKENS));
    }
}
