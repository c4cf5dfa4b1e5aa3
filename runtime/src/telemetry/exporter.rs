//! `GET /metrics` for Prometheus.

use std::{net::SocketAddr, sync::OnceLock, time::Duration};

use axum::{
    Router,
    http::{HeaderMap, StatusCode, header::CONTENT_TYPE},
    routing::get,
};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_process::Collector;
use openclaw_actors::{
    connections::{self, ConnectionLimits},
    gateway::to_foreign_name,
    stop::StopSignal,
};
use tokio::net::TcpListener;

use super::registry::{self, Kind};
use crate::descriptors;

/// Why metrics cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ExporterError {
    /// The address is taken or not ours.
    #[error("cannot serve metrics on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Something else records this process's metrics.
    #[error("cannot record metrics: {0}")]
    Recorder(String),
}

/// What a request for another name is told.
const FOREIGN_NAME: &str =
    "metrics on a loopback address are for localhost and addresses, not for other names\n";
/// Without it, samples pile up in memory while nobody scrapes.
const UPKEEP: Duration = Duration::from_secs(5);

static RECORDER: OnceLock<Result<PrometheusHandle, String>> = OnceLock::new();

fn recorder() -> Result<PrometheusHandle, ExporterError> {
    let install = || {
        let mut builder = PrometheusBuilder::new();
        for metric in registry::METRICS {
            // A histogram without buckets would be a summary, which cannot be added up over processes.
            if let Kind::Histogram(buckets) = metric.kind {
                let name = Matcher::Full(metric.name.to_owned());
                builder = builder.set_buckets_for_metric(name, buckets).map_err(|error| error.to_string())?;
            }
        }
        let handle = builder.install_recorder().map_err(|error| error.to_string())?;
        registry::describe();
        Collector::default().describe();
        metrics::gauge!("openclaw_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        Ok(handle)
    };
    RECORDER.get_or_init(install).clone().map_err(ExporterError::Recorder)
}

/// Records metrics from now on, and serves them at `/metrics` until the stop. Port 0 picks a free one; returns
/// the address in use.
pub async fn serve_metrics(address: SocketAddr, mut stop: StopSignal) -> Result<SocketAddr, ExporterError> {
    let handle = recorder()?;
    let failed = |source| ExporterError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    let (page, process) = (handle.clone(), Collector::default());
    let is_private = bound.ip().is_loopback();
    let render = move |headers: HeaderMap| {
        // A web page that was led here by a name of its own must not read it.
        let is_refused = is_private && to_foreign_name(&headers);
        // What the system knows of the process is asked when somebody looks.
        process.collect();
        let text = if is_refused { FOREIGN_NAME.to_owned() } else { page.render() };
        let status = if is_refused { StatusCode::FORBIDDEN } else { StatusCode::OK };
        async move { (status, [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text) }
    };
    let router = Router::new().route("/metrics", get(render));
    let limits = ConnectionLimits::new(descriptors::shares().metrics);
    let server = tokio::spawn(connections::serve(listener, router, limits, std::future::pending()));
    tokio::spawn(async move {
        let mut upkeep = tokio::time::interval(UPKEEP);
        loop {
            tokio::select! {
                () = stop.wait() => break,
                _ = upkeep.tick() => handle.run_upkeep(),
            }
        }
        server.abort();
    });
    Ok(bound)
}

#[cfg(test)]
mod tests {
    use super::*;
    use openclaw_actors::stop::stop_flag;

    #[tokio::test]
    async fn metrics_are_served_with_help_and_buckets_on_a_port_of_the_systems_choice() {
        let (_handle, stop) = stop_flag();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let address = serve_metrics(any, stop.clone()).await.unwrap();
        metrics::counter!("openclaw_supervisor_restarts_total", "actor" => "a").increment(2);
        metrics::histogram!("openclaw_inbox_wait_seconds").record(0.02);
        let page = reqwest::get(format!("http://{address}/metrics")).await.unwrap().text().await.unwrap();
        for expected in [
            "# HELP openclaw_supervisor_restarts_total",
            "openclaw_supervisor_restarts_total{actor=\"a\"} 2",
            "openclaw_inbox_wait_seconds_bucket{le=\"0.025\"} 1",
        ] {
            assert!(page.contains(expected), "{expected}: {page}");
        }
        let rebound =
            reqwest::Client::new().get(format!("http://{address}/metrics")).header("host", "evil.example");
        let refused = rebound.send().await.unwrap();
        assert_eq!(refused.status(), 403);
        assert!(!refused.text().await.unwrap().contains("openclaw_supervisor"));
        let error = serve_metrics(address, stop).await.unwrap_err();
        assert_eq!(error.to_string(), format!("cannot serve metrics on {address}"));
    }
}
