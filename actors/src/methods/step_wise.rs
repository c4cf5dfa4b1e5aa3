//! `A_t = (o + s_j - mean) / std` over the steps of a group at the same place: outcome and step verdict together, for every
//! token of the step.

use super::{MethodConfig, TokenTarget, group, taken_targets};
use openclaw_journal::Sample;

pub(super) fn advantage(config: &MethodConfig, sample: &Sample) -> Option<f32> {
    group::of_step(&config.group, config.group.step_weight(config.kind), sample)
}

pub(super) fn targets(config: &MethodConfig, sample: &Sample) -> Vec<TokenTarget> {
    let advantage = advantage(config, sample).unwrap_or_default();
    taken_targets(config, sample, |_| advantage)
}
