//! What simulated users count. Their own rule is the yardstick here; what trains is the judge's reading of them.

use metrics::{Counter, Gauge, counter, gauge};
use openclaw_environments::persona::{Persona, SessionRecord};

use super::Progress;

/// Sessions being played.
pub(super) fn active_sessions() -> Gauge {
    gauge!("openclaw_rollout_active_sessions")
}

fn sessions(persona: Persona, satisfied: &'static str) -> Counter {
    counter!("openclaw_rollout_sessions_total", "persona" => persona.name(), "satisfied" => satisfied)
}

fn replies(persona: Persona, reward: &'static str) -> Counter {
    counter!("openclaw_rollout_replies_total", "persona" => persona.name(), "reward" => reward)
}

fn correct(persona: Persona) -> Counter {
    counter!("openclaw_rollout_correct_first_replies_total", "persona" => persona.name())
}

/// Puts a persona's counters up before its first session, so that the first is an increase.
pub(super) fn show(persona: Persona) {
    for counter in [
        sessions(persona, "yes"),
        sessions(persona, "no"),
        replies(persona, "good"),
        replies(persona, "bad"),
        correct(persona),
    ] {
        counter.increment(0);
    }
    gauge!("openclaw_rollout_sessions_to_satisfaction", "persona" => persona.name()).increment(0.0);
}

/// A session ended; `recent` is [`super::Schedule::recently_satisfied`].
pub(super) fn count(persona: Persona, record: &SessionRecord, progress: Progress, recent: Option<f64>) {
    if let Some(share) = recent {
        gauge!("openclaw_rollout_recent_satisfied_ratio", "persona" => persona.name()).set(share);
    }
    sessions(persona, if record.first_satisfied { "yes" } else { "no" }).increment(1);
    correct(persona).increment(u64::from(record.first_correct));
    // Each complaint is about a reply; who leaves without one was content with the last.
    replies(persona, "bad").increment(u64::from(record.complaints));
    replies(persona, "good").increment(u64::from(record.last_satisfied));
    if let Progress::Satisfied { sessions } = progress {
        gauge!("openclaw_rollout_sessions_to_satisfaction", "persona" => persona.name()).set(sessions as f64);
    }
}
