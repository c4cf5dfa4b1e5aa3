//! What simulated users count. Their own rule is the yardstick here; what trains is the judge's reading of them.

use std::sync::Arc;

use metrics::{Counter, Gauge, counter, gauge};

use super::{Played, Progress};

/// Sessions being played.
pub(super) fn active_sessions() -> Gauge {
    gauge!("openclaw_rollout_active_sessions")
}

fn sessions(user: &Arc<str>, satisfied: &'static str) -> Counter {
    counter!("openclaw_rollout_sessions_total", "user" => user.clone(), "satisfied" => satisfied)
}

fn replies(user: &Arc<str>, reward: &'static str) -> Counter {
    counter!("openclaw_rollout_replies_total", "user" => user.clone(), "reward" => reward)
}

fn correct(user: &Arc<str>) -> Counter {
    counter!("openclaw_rollout_correct_first_replies_total", "user" => user.clone())
}

/// Puts a user's counters up before the first session, so that the first is an increase.
pub(super) fn show(user: &Arc<str>) {
    for counter in [
        sessions(user, "yes"),
        sessions(user, "no"),
        replies(user, "good"),
        replies(user, "bad"),
        correct(user),
    ] {
        counter.increment(0);
    }
    gauge!("openclaw_rollout_sessions_to_satisfaction", "user" => user.clone()).increment(0.0);
}

/// A session ended; `recent` is [`super::Schedule::recently_satisfied`].
pub(super) fn count(user: &Arc<str>, played: &Played, (progress, recent): (Progress, Option<f64>)) {
    if let Some(share) = recent {
        gauge!("openclaw_rollout_recent_satisfied_ratio", "user" => user.clone()).set(share);
    }
    sessions(user, if played.verdict.success { "yes" } else { "no" }).increment(1);
    correct(user).increment(u64::from(played.verdict.first_correct()));
    for (remark, count) in ["bad", "good"].into_iter().zip(played.remarks) {
        replies(user, remark).increment(count);
    }
    if let Progress::Satisfied { sessions } = progress {
        gauge!("openclaw_rollout_sessions_to_satisfaction", "user" => user.clone()).set(sessions as f64);
    }
}
