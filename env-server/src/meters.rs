//! What is counted. `GET /metrics` shows it.

use std::sync::OnceLock;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// Records from now on; none where something else of this process records already.
pub fn record() -> Option<&'static PrometheusHandle> {
    let install = || match PrometheusBuilder::new().install_recorder() {
        Ok(handle) => Some(handle),
        Err(error) => {
            tracing::warn!(%error, "metrics are recorded by something else");
            None
        }
    };
    RECORDER.get_or_init(install).as_ref()
}

/// A lease has ended: `closed`, `expired`, `stuck`, `died`, `stopped`.
pub fn ended(end: &'static str, leases: usize) {
    metrics::counter!("openclaw_env_server_leases_total", "end" => end).increment(leases as u64);
}

/// How many there are.
pub fn leases(live: usize, ending: usize) {
    metrics::gauge!("openclaw_env_server_leases", "state" => "live").set(live as f64);
    metrics::gauge!("openclaw_env_server_leases", "state" => "ending").set(ending as f64);
}

/// A request was not done.
pub fn denied(reason: &'static str) {
    metrics::counter!("openclaw_env_server_denied_total", "reason" => reason).increment(1);
}

/// A request came again, and was not done again.
pub fn repeated() {
    metrics::counter!("openclaw_env_server_repeated_total").increment(1);
}

/// A world has taken a step.
pub fn stepped(environment: &str) {
    metrics::counter!("openclaw_env_server_steps_total", "environment" => environment.to_owned())
        .increment(1);
}

/// A world did not do what it was asked.
pub fn failed(reason: &'static str) {
    metrics::counter!("openclaw_env_server_faults_total", "reason" => reason).increment(1);
}

/// Images that nobody can fetch any more, though their lease lives.
pub fn images_dropped(images: usize) {
    metrics::counter!("openclaw_env_server_images_dropped_total").increment(images as u64);
}
