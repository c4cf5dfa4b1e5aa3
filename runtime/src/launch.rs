//! `launch`: starts what a topology names, shows how it is doing, and stops it in order.

mod changes;
mod folder;
mod pair;
pub(crate) mod screen;

use std::{
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use openclaw_actors::{
    agents::worlds_closed,
    rollout::{Progress, SessionReport},
    stop::{StopHandle, StopSignal, stop_flag},
};
use openclaw_environments::world::User;
use openclaw_journal::JournalError;
use tokio::{sync::watch, time::timeout};
use tracing::{debug, info, warn};

pub(crate) use self::folder::RunFolder;
use self::screen::{Outcome, Pair};
use crate::{
    admin::{self, NodeArguments, NodeOperator, PortAddress, ServeError},
    descriptors, doctor,
    page::Page,
    people,
    progress::{self, ProgressSnapshot, RecentLoad, RewardCounts, UserProgress},
    supervisor::Supervisor,
    telemetry,
    topology::{Node, Topology},
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
    /// The topology file, for commands that are shown.
    pub file: PathBuf,
    /// How lines are logged.
    pub log_format: telemetry::LogFormat,
}

/// How often the snapshot is made.
const SNAPSHOT_PERIOD: Duration = Duration::from_millis(500);
/// How long worlds of agents may take to close.
const LAST_WORLDS: Duration = Duration::from_secs(10);
/// What the end of the last step is waited for.
const LAST_STEP: Duration = Duration::from_secs(10);

/// Runs until the stop: starts the actors in order, shows progress, stops them in reverse.
pub async fn run(
    topology: Topology,
    options: LaunchOptions,
    mut stop: StopSignal,
) -> anyhow::Result<ExitCode> {
    if let Some(people) = topology.people.clone() {
        return people::run(topology, people, options, stop).await;
    }
    descriptors::raise();
    let (name, node) = topology.node(options.node.as_deref())?;
    let dir = &topology.run.dir;
    // Before anything is written over a node's head.
    if admin::is_live(dir).unwrap_or(false) {
        return Err(ServeError::Running { dir: dir.clone() }.into());
    }
    if openclaw_journal::is_in_use(dir) {
        return Err(JournalError::InUse { dir: dir.clone() }.into());
    }
    if !options.fresh {
        people::must_not_be_a_house(dir)?;
    }
    doctor::must_fit(&topology)?;
    must_be_ready(&topology)?;
    must_listen("actors.gateway.listen", Some(topology.actors.gateway.listen))?;
    must_listen(&format!("nodes.{name}.admin"), node.admin)?;
    // Metrics and progress outlive the stop, so that the shutdown is seen too.
    let (shutdown_over, observing) = stop_flag();
    let metrics = telemetry::serve_metrics(node.metrics, observing.clone()).await;
    let metrics = metrics.with_context(|| format!("nodes.{name}.metrics"))?;
    info!(node = name, %metrics, "launching {}", topology.run.name);

    let folder = RunFolder::take(dir, options.fresh)?;
    let changed = changes::since_the_last_launch(&topology);
    let (screen, program) = (telemetry::on_terminal(), screen::program());
    // A person reads it on the first screen.
    for key in changed.iter().filter(|_| !screen) {
        warn!("the run goes on under another topology: {key}");
    }
    let started = match start(&topology, name, node).await {
        Ok(started) => started,
        Err(refused) => {
            folder.put_back();
            return Err(refused);
        }
    };
    let Started { supervisor, mut watcher, snapshots, stop_handle, mut told_to_stop, device, goes_on } =
        started;
    let shown = snapshots.subscribe();
    let url = watcher.gateway_url().await;
    info!(gateway = %url, "serving");
    if screen {
        telemetry::say(&screen::welcome(&screen::Welcome {
            run: &topology.run.name,
            model: &topology.models[&topology.actors.policy.model].path,
            device: &device,
            url: &url,
            served_model: &topology.actors.gateway.served_model,
            page: node.admin.is_some(),
            dir,
            goes_on,
            users: &watcher.users.iter().map(|heard| &*heard.user.name).collect::<Vec<_>>(),
            changed: &changed,
            program: &program,
        }));
    }
    let shown = tokio::spawn(progress::show(shown, observing));

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
                    if screen {
                        let pair = watcher.pair(&topology, &url).await;
                        telemetry::say(&screen::closing(&watcher.outcomes(), pair.as_ref(), &screen::Next {
                            serves_on: !options.exit_when_satisfied,
                            page: node.admin.is_some(),
                            file: &options.file,
                            version: watcher.view.versions.number(),
                            program: &program,
                        }));
                    }
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
    worlds_closed(LAST_WORLDS).await;
    let closed = wiring::journal::close(&topology, &watcher.view.journal).await;
    snapshots.send_replace(watcher.snapshot());
    shutdown_over.stop();
    shown.await.context("the progress view panicked")?;
    closed?;
    anyhow::ensure!(stuck.is_empty(), "still running at the end: {}", stuck.join(", "));
    info!("stopped");
    if screen && !options.exit_when_satisfied {
        let version = watcher.view.versions.number();
        telemetry::say(&screen::stopped(&program, &options.file, dir, version));
    }
    Ok(if options.exit_when_satisfied && !watcher.all_satisfied() {
        ExitCode::from(crate::exit::EXIT_FAILED)
    } else {
        ExitCode::SUCCESS
    })
}

/// A node whose actors are up.
struct Started {
    supervisor: Supervisor,
    watcher: Watcher,
    snapshots: watch::Sender<ProgressSnapshot>,
    /// An operator's order to stop.
    stop_handle: StopHandle,
    told_to_stop: StopSignal,
    device: String,
    /// The version and the step that the run goes on with.
    goes_on: (u64, u64),
}

/// All that may still refuse once the run's folder is written into. Nothing of it runs any more when it does.
async fn start(topology: &Topology, name: &str, node: &Node) -> anyhow::Result<Started> {
    let dir = &topology.run.dir;
    let mut wiring = wiring::wire(topology, node).await?;
    let unwritable = || format!("cannot write into run.dir {}", dir.display());
    let resolved = topology.write_resolved().with_context(unwritable)?;
    info!(topology = %resolved.display(), "the topology is written out");
    let (batch_samples, teaches) = (topology.actors.optimizer.batch_samples, wiring.corrections.teaches);
    let page = Page::new(wiring.comparison, wiring.films, batch_samples, teaches);
    let goes_on = (wiring.view.versions.number(), wiring.view.journal.totals().borrow().steps);
    let mut watcher = Watcher::new(wiring.view);
    let (snapshots, shown) = watch::channel(watcher.snapshot());
    let (stop_handle, told_to_stop) = stop_flag();
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
        progress: shown,
        received: page.received(),
        port: port.clone(),
        stop: stop_handle.clone(),
    }));
    wiring.specs.insert(0, admin::child(operator.clone(), dir.clone(), port, Some(page)));
    match Supervisor::start(wiring.specs).await {
        Ok(supervisor) => {
            operator.supervised_by(supervisor.handle());
            let device = wiring.device;
            Ok(Started { supervisor, watcher, snapshots, stop_handle, told_to_stop, device, goes_on })
        }
        Err(refused) => {
            wiring::journal::end(topology, &watcher.view.journal).await;
            Err(refused.into())
        }
    }
}

/// Whether this machine has what the worlds of agents need, before a run begins whose every episode would be abandoned.
fn must_be_ready(topology: &Topology) -> anyhow::Result<()> {
    for name in topology.actors.agent.iter().map(|agent| &agent.environment) {
        let key = format!("environments.{name}");
        topology.environments[name].make().and_then(|made| made.ready()).with_context(|| key)?;
    }
    Ok(())
}

/// Whether an actor can listen there, before anything is written for a run that nobody could reach.
fn must_listen(key: &str, address: Option<SocketAddr>) -> anyhow::Result<()> {
    let Some(address) = address else { return Ok(()) };
    TcpListener::bind(address).map(drop).with_context(|| format!("{key}: cannot listen on {address}"))
}

/// Gathers what a person wants to see.
struct Watcher {
    view: View,
    recent: RecentLoad,
    users: Vec<Reception>,
}

/// What one simulated user has said so far.
struct Reception {
    user: User,
    shown: UserProgress,
    correct: u64,
    /// The first session that began with a reply that it did not like.
    disliked: Option<SessionReport>,
}

impl Watcher {
    fn new(view: View) -> Self {
        let heard = |user: &User| Reception {
            user: user.clone(),
            shown: UserProgress { name: user.name.to_string(), open: true, ..UserProgress::default() },
            correct: 0,
            disliked: None,
        };
        let users = view.users.iter().map(heard).collect();
        Self { view, recent: RecentLoad::default(), users }
    }

    async fn gateway_url(&mut self) -> String {
        let known = self.view.gateway.wait_for(Option::is_some).await;
        known.ok().and_then(|address| *address).map_or("-".into(), |address| format!("http://{address}/v1"))
    }

    /// Some simulated user goes on.
    fn is_open(&self) -> bool {
        self.users.iter().any(|heard| heard.shown.open)
    }

    /// There are simulated users, and every one is satisfied.
    fn all_satisfied(&self) -> bool {
        let satisfied = |heard: &Reception| heard.shown.satisfied_at.is_some();
        !self.users.is_empty() && self.users.iter().all(satisfied)
    }

    fn heard(&mut self, report: &SessionReport) {
        let Some(heard) = self.users.iter_mut().find(|heard| heard.user.name == report.user) else {
            return;
        };
        heard.shown.sessions += 1;
        heard.correct += u64::from(report.verdict.first_correct());
        if report.verdict.success {
            heard.shown.satisfied += 1;
            heard.shown.streak += 1;
        } else {
            heard.shown.streak = 0;
            if heard.disliked.is_none() && report.policy_version.is_some() {
                heard.disliked = Some(report.clone());
            }
        }
        match report.progress {
            Progress::Open => {}
            Progress::Satisfied { sessions } => {
                heard.shown.satisfied_at.get_or_insert(sessions as u64);
                heard.shown.open = false;
            }
            Progress::Unsatisfied => heard.shown.open = false,
        }
        debug!(
            user = &*report.user,
            session = report.number,
            satisfied = report.verdict.success,
            numbers = ?report.verdict.numbers,
            version = report.policy_version,
            "session ended"
        );
    }

    /// The result, once every simulated user is through.
    fn tell(&self) {
        for heard in &self.users {
            let shown = &heard.shown;
            match shown.satisfied_at {
                Some(sessions) => info!(
                    user = shown.name,
                    sessions,
                    correct = format!("{}/{}", heard.correct, shown.sessions),
                    "three satisfied first replies in a row"
                ),
                None => info!(
                    user = shown.name,
                    sessions = shown.sessions,
                    correct = format!("{}/{}", heard.correct, shown.sessions),
                    "gave up"
                ),
            }
        }
    }

    fn outcomes(&self) -> Vec<Outcome> {
        let outcome = |heard: &Reception| Outcome {
            name: heard.shown.name.clone(),
            content_after: heard.shown.satisfied_at,
            conversations: heard.shown.sessions,
        };
        self.users.iter().map(outcome).collect()
    }

    /// A question that was answered badly once, answered again.
    async fn pair(&self, topology: &Topology, url: &str) -> Option<Pair> {
        let disliked: Vec<(&User, &SessionReport)> =
            self.users.iter().filter_map(|heard| Some((&heard.user, heard.disliked.as_ref()?))).collect();
        pair::find(topology, url, &disliked).await
    }

    fn snapshot(&mut self) -> ProgressSnapshot {
        self.view.rates.look();
        let totals = *self.view.journal.totals().borrow();
        let step = *self.view.steps.borrow();
        let (tokens_per_sec, in_flight) = (self.view.rates.total(), *self.view.in_flight.borrow());
        self.recent.look(tokens_per_sec, in_flight);
        ProgressSnapshot {
            sessions: totals.sessions,
            users: self.users.iter().map(|heard| heard.shown.clone()).collect(),
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
            hint: self.view.training.collecting().hint(),
        }
    }
}
