//! `A_t = w_rl r + w_opd (log p_teacher(a_t) - log p_old(a_t))`.
//!
//! Without a hint the second term is absent, not the difference of two engines' numerics.

use super::{MethodConfig, TokenTarget, gap, taken_targets, verdict};
use openclaw_journal::Sample;

pub(super) fn targets(config: &MethodConfig, sample: &Sample) -> Vec<TokenTarget> {
    taken_targets(config, sample, |t| verdict(config, sample, t) + config.weight_opd * gap(config, sample, t))
}

#[cfg(test)]
mod tests {
    use super::super::{
        MethodKind,
        tests::{advantages, sample, teacher},
    };
    use super::*;

    #[test]
    fn verdict_and_gap_add_up_by_their_weights() {
        let config =
            MethodConfig { weight_rl: 0.25, weight_opd: 2.0, ..MethodConfig::new(MethodKind::Combine) };
        let signal = teacher(&[-1.0, -0.5], &[-0.5, -1.5]);
        let targets = targets(&config, &sample(&[-1.0, -0.5], Some(-1), Some(signal)));
        assert_eq!(advantages(&targets), [0.75, -2.25]); // -0.25 + 2 * 0.5, -0.25 + 2 * -1
    }

    #[test]
    fn a_verdict_can_be_kept_off_what_the_hint_does_not_touch() {
        let config = MethodConfig {
            verdict_on: super::super::VerdictOn::Disputed,
            weight_opd: 0.0,
            ..MethodConfig::new(MethodKind::Combine)
        };
        let signal = teacher(&[-1.0, -0.5], &[-0.5, -0.45]);
        let disliked = sample(&[-1.0, -0.5], Some(-1), Some(signal));
        assert_eq!(advantages(&targets(&config, &disliked)), [-1.0, 0.0]);
        // Without a hint nobody disputes anything.
        assert_eq!(advantages(&targets(&config, &sample(&[-1.0, -0.5], Some(-1), None))), [-1.0, -1.0]);
    }

    #[test]
    fn without_a_hint_it_is_binary_rl_and_without_a_verdict_opd() {
        let config = MethodConfig::new(MethodKind::Combine);
        let plain = targets(&config, &sample(&[-1.0, -2.0], Some(1), None));
        assert_eq!(advantages(&plain), [1.0, 1.0]);
        let signal = teacher(&[-1.0], &[-0.25]);
        assert_eq!(advantages(&targets(&config, &sample(&[-1.0], None, Some(signal)))), [0.75]);
    }
}
