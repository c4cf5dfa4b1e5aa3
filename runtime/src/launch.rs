//! `launch`: starts what a topology names, and stops it in order.

use std::process::ExitCode;

use anyhow::Context;
use tokio::sync::watch;
use tracing::info;

use crate::{
    progress::{self, ProgressSnapshot},
    stop::{StopSignal, stop_flag},
    supervisor::Supervisor,
    telemetry,
    topology::Topology,
};

/// What the command line adds to a topology.
#[derive(Clone, Debug, Default)]
pub struct LaunchOptions {
    /// Which node this process is; the only one, unless given.
    pub node: Option<String>,
}

/// Runs until the stop: starts the actors in order, shows progress, stops them in reverse.
pub async fn run(
    topology: Topology,
    options: LaunchOptions,
    mut stop: StopSignal,
) -> anyhow::Result<ExitCode> {
    let (name, node) = topology.node(options.node.as_deref())?;
    let dir = topology.run.dir.display();
    let resolved = topology.write_resolved().with_context(|| format!("cannot write into run.dir {dir}"))?;
    // Metrics and progress outlive the stop, so that the shutdown is seen too.
    let (shutdown_over, observing) = stop_flag();
    let metrics = telemetry::serve_metrics(node.metrics, observing.clone()).await?;
    info!(node = name, %metrics, topology = %resolved.display(), "launching {}", topology.run.name);

    let (_progress, snapshots) = watch::channel(ProgressSnapshot::default());
    let shown = tokio::spawn(progress::show(snapshots, observing));
    let supervisor = Supervisor::start(Vec::new()).await?;
    stop.wait().await;

    let stuck = supervisor.stop().await;
    shutdown_over.stop();
    shown.await.context("the progress view panicked")?;
    anyhow::ensure!(stuck.is_empty(), "still running at the end: {}", stuck.join(", "));
    info!("stopped");
    Ok(ExitCode::SUCCESS)
}
