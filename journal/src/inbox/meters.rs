//! What an inbox counts, by handles that it holds: every message passes here several times.

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

/// Handles of one inbox's metrics.
pub(crate) struct Meters {
    pub acked: Counter,
    pub refused: Counter,
    pub redelivered: Counter,
    pub postponed: Counter,
    pub dead: Counter,
    pub depth: Gauge,
    pub paused: Gauge,
    pub wait: Histogram,
}

impl Meters {
    /// `inbox` comes from the topology.
    pub fn new(inbox: &str, capacity: usize) -> Self {
        let inbox = || inbox.to_owned();
        gauge!("openclaw_inbox_capacity_messages", "inbox" => inbox()).set(capacity as f64);
        let unacked = |outcome: &'static str| counter!("openclaw_inbox_unacked_total", "inbox" => inbox(), "outcome" => outcome);
        Self {
            acked: counter!("openclaw_inbox_acked_total", "inbox" => inbox()),
            refused: counter!("openclaw_inbox_refused_total", "inbox" => inbox()),
            redelivered: unacked("redelivered"),
            postponed: unacked("postponed"),
            dead: unacked("dead_letter"),
            depth: gauge!("openclaw_inbox_depth_messages", "inbox" => inbox()),
            paused: gauge!("openclaw_inbox_paused", "inbox" => inbox()),
            wait: histogram!("openclaw_inbox_wait_seconds", "inbox" => inbox()),
        }
    }
}
