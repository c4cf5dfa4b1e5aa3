//! `A_t = log p_teacher(a_t) - log p_old(a_t)`: on-policy distillation from the hinted teacher, drawn tokens only.

use super::{MethodConfig, TokenTarget, gap, taken_targets};
use openclaw_journal::Sample;

pub(super) fn targets(config: &MethodConfig, sample: &Sample) -> Vec<TokenTarget> {
    taken_targets(config, sample, |t| config.weight_opd * gap(config, sample, t))
}

#[cfg(test)]
mod tests {
    use super::super::{
        MethodKind,
        tests::{advantages, sample, teacher},
    };
    use super::*;

    #[test]
    fn the_advantage_is_the_gap_and_the_verdict_does_not_count() {
        let config = MethodConfig::new(MethodKind::Opd);
        let signal = teacher(&[-0.5, -0.25], &[-8.5, -0.125]);
        let targets = targets(&config, &sample(&[-0.5, -0.25], Some(1), Some(signal)));
        assert_eq!(advantages(&targets), [-8.0, 0.125]);
    }

    #[test]
    fn a_configured_bound_clips_the_gap() {
        let config = MethodConfig { diff_clip: Some(2.0), ..MethodConfig::new(MethodKind::Opd) };
        let signal = teacher(&[-0.5, -6.0], &[-8.5, -0.5]);
        let targets = targets(&config, &sample(&[-0.5, -6.0], None, Some(signal)));
        assert_eq!(advantages(&targets), [-2.0, 2.0]);
    }
}
