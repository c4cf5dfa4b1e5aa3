//! What episodes of the node's own agents count.

use std::time::Duration;

use metrics::{Gauge, counter, gauge, histogram};
use openclaw_environments::world::{Split, Verdict};

/// Does something when it is dropped.
pub(super) struct OnDrop<F: FnMut()>(pub F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Episodes being played.
pub(super) fn under_way(environment: &str) -> Gauge {
    gauge!("openclaw_agent_episodes_under_way", "environment" => environment.to_owned())
}

/// An episode came out.
pub(super) fn came_out(environment: &str, split: Split, verdict: &Verdict, steps: u32) {
    counter!("openclaw_episodes_total", "state" => "ended").increment(1);
    let success = if verdict.success { "yes" } else { "no" };
    let labels = [
        ("environment", environment.to_owned()),
        ("split", split.name().to_owned()),
        ("success", success.to_owned()),
    ];
    counter!("openclaw_agent_outcomes_total", &labels).increment(1);
    histogram!("openclaw_agent_steps", "environment" => environment.to_owned()).record(f64::from(steps));
}

/// One had no outcome.
pub(super) fn abandoned(environment: &str, reason: &'static str) {
    counter!("openclaw_episodes_total", "state" => "abandoned").increment(1);
    let labels = [("environment", environment.to_owned()), ("reason", reason.to_owned())];
    counter!("openclaw_agent_abandoned_total", &labels).increment(1);
}

/// How long the policy took for a step, and its world.
pub(super) fn step(environment: &str, policy: Duration, world: Duration) {
    for (part, took) in [("policy", policy), ("world", world)] {
        let labels = [("environment", environment.to_owned()), ("part", part.to_owned())];
        histogram!("openclaw_agent_step_seconds", &labels).record(took);
    }
}
