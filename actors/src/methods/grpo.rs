//! `A_t = (R - mean) / std` over the episodes of a group: how an episode came out beside the others of its task, for every
//! token of every step.

use super::{MethodConfig, group};
use openclaw_journal::Sample;

pub(super) fn advantage(config: &MethodConfig, sample: &Sample) -> Option<f32> {
    group::of_episode(&config.group, config.group.step_weight(config.kind), sample)
}
