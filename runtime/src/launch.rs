//! `launch`: starts what a topology names, shows how it is doing, and stops it in order.

use std::{process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context;
use openclaw_actors::rollout::{Progress, SessionReport};
use openclaw_environments::persona::Persona;
use tokio::{sync::watch, time::timeout};
use tracing::{debug, info, warn};

use crate::{
    admin::{self, NodeArguments, NodeOperator, PortAddress, ServeError},
    doctor,
    page::Page,
    progress::{self, PersonaProgress, ProgressSnapshot, RecentLoad, RewardCounts},
    run_dir,
    stop::{StopSignal, stop_flag},
    supervisor::Supervisor,
    telemetry,
    topology::Topology,
    wiring::{self, View},
};

/// What the command line adds to a topology.
#[derive(Clone, Debug, Default)]
pub struct LaunchOptions {
    /// Which node this process is; the only one, unless given.
    pub node: Option<String>,
    /// Ends once every simulated user is satisfied or has given up, instead of serving on.
    pub exit_when_satisfied: bool,
    /// Begins anew: the run's folder is renamed first.
    pub fresh: bool,
}

/// How often the snapshot is made.
const SNAPSHOT_PERIOD: Duration = Duration::from_millis(500);
/// What the end of the last step is waited for.
const LAST_STEP: Duration = Duration::from_secs(10);

/// Runs until the stop: starts the actors in order, shows progress, stops them in reverse.
pub async fn run(
    topology: Topology,
    options: LaunchOptions,
    mut stop: StopSignal,
) -> anyhow::Result<ExitCode> {
    let (name, node) = topology.node(options.node.as_deref())?;
    let dir = &topology.run.dir;
    // Before anything is written over a node's head.
    if admin::is_live(dir).unwrap_or(false) {
        return Err(ServeError::Running { dir: dir.clone() }.into());
    }
    doctor::must_fit(&topology)?;
    if options.fresh
        && let Some(old) = run_dir::set_aside(dir)?
    {
        info!(folder = %old.display(), "the run before is set aside");
    }
    let unwritable = || format!("cannot write into run.dir {}", dir.display());
    let resolved = topology.write_resolved().with_context(unwritable)?;
    // Metrics and progress outlive the stop, so that the shutdown is seen too.
    let (shutdown_over, observing) = stop_flag();
    let metrics = telemetry::serve_metrics(node.metrics, observing.clone()).await?;
    info!(node = name, %metrics, topology = %resolved.display(), "launching {}", topology.run.name);

    let mut wiring = wiring::wire(&topology, node).await?;
    let page =
        Page::new(wiring.comparison, topology.actors.optimizer.batch_samples, wiring.corrections.teaches);
    let mut watcher = Watcher::new(wiring.view);
    let (snapshots, shown) = watch::channel(watcher.snapshot());
    let (stop_handle, mut told_to_stop) = stop_flag();
    let port = PortAddress::new(node.admin);
    let operator = Arc::new(NodeOperator::new(NodeArguments {
        run: topology.run.name.clone(),
        dir: dir.clone(),
        node: name.to_owned(),
        panel: wiring.panel,
        journal: watcher.view.journal.clone(),
        rollback: watcher.view.rollback.clone(),
        training: watcher.view.training.clone(),
        corrections: wiring.corrections,
        gateway: watcher.view.gateway.clone(),
        progress: shown.clone(),
        received: page.received(),
        port: port.clone(),
        stop: stop_handle.clone(),
    }));
    wiring.specs.insert(0, admin::child(operator.clone(), dir.clone(), port, page));
    let shown = tokio::spawn(progress::show(shown, observing));
    let supervisor = Supervisor::start(wiring.specs).await?;
    operator.supervised_by(supervisor.handle());
    info!(gateway = %watcher.gateway_url().await, "serving");

    loop {
        tokio::select! {
            () = stop.wait() => break,
            () = told_to_stop.wait() => break,
            report = watcher.view.sessions.recv(), if watcher.is_open() => {
                if let Some(report) = report {
                    watcher.heard(&report);
                }
                if !watcher.is_open() {
                    watcher.tell();
                    if options.exit_when_satisfied {
                        break;
                    }
                }
            }
            () = tokio::time::sleep(SNAPSHOT_PERIOD) => {}
        }
        snapshots.send_replace(watcher.snapshot());
    }

    stop_handle.stop();
    watcher.view.closing.stop();
    let stuck = supervisor.stop().await;
    // An optimizer that did not stop in time may still write.
    if timeout(LAST_STEP, watcher.view.training.ended()).await.is_err() {
        warn!("the last step is not over: it is taken again");
    }
    snapshots.send_replace(watcher.snapshot());
    shutdown_over.stop();
    shown.await.context("the progress view panicked")?;
    anyhow::ensure!(stuck.is_empty(), "still running at the end: {}", stuck.join(", "));
    info!("stopped");
    Ok(if options.exit_when_satisfied && !watcher.all_satisfied() {
        ExitCode::from(crate::cli::EXIT_FAILED)
    } else {
        ExitCode::SUCCESS
    })
}

/// Gathers what a person wants to see.
struct Watcher {
    view: View,
    recent: RecentLoad,
    personas: Vec<Heard>,
}

/// What one simulated user has said so far.
struct Heard {
    persona: Persona,
    shown: PersonaProgress,
    correct: u64,
    open: bool,
}

impl Watcher {
    fn new(view: View) -> Self {
        let heard = |persona: &Persona| Heard {
            persona: *persona,
            shown: PersonaProgress { name: persona.name().to_owned(), ..PersonaProgress::default() },
            correct: 0,
            open: true,
        };
        let personas = view.personas.iter().map(heard).collect();
        Self { view, recent: RecentLoad::default(), personas }
    }

    async fn gateway_url(&mut self) -> String {
        let known = self.view.gateway.wait_for(Option::is_some).await;
        known.ok().and_then(|address| *address).map_or("-".into(), |address| format!("http://{address}/v1"))
    }

    /// Some simulated user goes on.
    fn is_open(&self) -> bool {
        self.personas.iter().any(|heard| heard.open)
    }

    /// There are simulated users, and every one is satisfied.
    fn all_satisfied(&self) -> bool {
        let satisfied = |heard: &Heard| heard.shown.satisfied_at.is_some();
        !self.personas.is_empty() && self.personas.iter().all(satisfied)
    }

    fn heard(&mut self, report: &SessionReport) {
        let Some(heard) = self.personas.iter_mut().find(|heard| heard.persona == report.persona) else {
            return;
        };
        heard.shown.sessions += 1;
        heard.correct += u64::from(report.record.first_correct);
        if report.record.first_satisfied {
            heard.shown.satisfied += 1;
            heard.shown.streak += 1;
        } else {
            heard.shown.streak = 0;
        }
        match report.progress {
            Progress::Open => {}
            Progress::Satisfied { sessions } => {
                heard.shown.satisfied_at.get_or_insert(sessions as u64);
                heard.open = false;
            }
            Progress::Unsatisfied => heard.open = false,
        }
        let first = &report.record;
        debug!(
            persona = report.persona.name(),
            session = report.number,
            satisfied = first.first_satisfied,
            correct = first.first_correct,
            tokens = first.first_tokens,
            version = report.policy_version,
            "session ended"
        );
    }

    /// The result, once every simulated user is through.
    fn tell(&self) {
        for heard in &self.personas {
            let shown = &heard.shown;
            match shown.satisfied_at {
                Some(sessions) => info!(
                    persona = shown.name,
                    sessions,
                    correct = format!("{}/{}", heard.correct, shown.sessions),
                    "three satisfied first replies in a row"
                ),
                None => info!(
                    persona = shown.name,
                    sessions = shown.sessions,
                    correct = format!("{}/{}", heard.correct, shown.sessions),
                    "gave up"
                ),
            }
        }
    }

    fn snapshot(&mut self) -> ProgressSnapshot {
        self.view.rates.look();
        let totals = *self.view.journal.totals().borrow();
        let step = *self.view.steps.borrow();
        let (tokens_per_sec, in_flight) = (self.view.rates.total(), *self.view.in_flight.borrow());
        self.recent.look(tokens_per_sec, in_flight);
        ProgressSnapshot {
            sessions: totals.sessions,
            personas: self.personas.iter().map(|heard| heard.shown.clone()).collect(),
            rewards: RewardCounts {
                positive: totals.approved,
                negative: totals.rejected,
                neutral: totals.neutral,
            },
            hints: totals.hinted,
            policy_version: self.view.versions.number(),
            tokens_per_sec,
            in_flight,
            recent: self.recent.told.clone(),
            step: totals.steps,
            loss: step.map(|report| report.loss),
        }
    }
}
