//! `A_t = r`: the verdict, for every token of the response.

use super::{MethodConfig, TokenTarget, reward, taken_targets};
use openclaw_journal::Sample;

pub(super) fn targets(config: &MethodConfig, sample: &Sample) -> Vec<TokenTarget> {
    let advantage = config.weight_rl * reward(sample);
    taken_targets(config, sample, |_| advantage)
}

#[cfg(test)]
mod tests {
    use super::super::{
        MethodKind,
        tests::{advantages, sample},
    };
    use super::*;

    #[test]
    fn every_token_gets_the_verdict_and_the_rollout_is_old() {
        let config = MethodConfig::new(MethodKind::BinaryRl);
        for reward in [1, -1] {
            let targets = targets(&config, &sample(&[-0.1, -2.0], Some(reward), None));
            assert_eq!(advantages(&targets), [f32::from(reward); 2]);
            let old: Vec<f32> = targets.iter().filter_map(|t| t.taken).map(|t| t.old_logprob).collect();
            assert_eq!(old, [-0.1, -2.0]);
        }
    }
}
