//! `A_t = (o + s_j - mean) / std` over the steps of a group at the same place: outcome and step verdict together, for every
//! token of the step.

use super::{MethodConfig, group};
use openclaw_journal::Sample;

pub(super) fn advantage(config: &MethodConfig, sample: &Sample) -> Option<f32> {
    group::of_step(&config.group, config.group.step_weight(config.kind), sample)
}
