//! The verbs on a real node: orders for the supervisor, pauses for the inboxes, questions to the journal.

use std::{net::SocketAddr, path::PathBuf, sync::OnceLock, time::Duration};

use openclaw_actors::{
    optimizer::{KeepError, TrainingSlot},
    rollback::{Rollback, RollbackError},
    stop::StopHandle,
};
use openclaw_journal::{self, Health, Journal, JournalError, Record, Recorded, TurnId, inbox::InboxStatus};
use tokio::{
    sync::{Mutex, watch},
    time::{Instant, timeout},
};
use tracing::{info, warn};

use super::{
    actor::PortAddress,
    corrections::Corrections,
    operator::{
        ActorStatus, AuditEntry, Command, DeadTurn, DeadTurnStory, Done, InboxView, JournalStatus,
        LearningStatus, NodeStatus, Operator, ServingStatus, StandingWish,
    },
    panel::Panel,
};
use crate::{
    exit::EXIT_INTERRUPTED,
    measures::{size, unix_secs},
    page::{self, Received},
    progress::ProgressSnapshot,
    refusal::{Refusal, RefusalKind},
    supervisor::{ChildState, ChildStatus, SupervisorError, SupervisorHandle},
    versions::{VersionStatus, base_status, version_statuses},
};

/// A command that takes longer is told to be under way still.
const DEADLINE: Duration = Duration::from_secs(120);
/// The journal is not waited for longer than this.
const AUDIT_DEADLINE: Duration = Duration::from_secs(2);
/// An answer gets this long to leave before the process ends.
const LAST_WORD: Duration = Duration::from_millis(100);
/// Most rows that a list has.
const LIST_ROWS: usize = 1000;
/// Most versions that `status` tells of.
const STATUS_VERSIONS: usize = 64;
/// Most actors of a role.
const MOST_ACTORS: usize = 256;

/// What a node's operator is given.
pub struct NodeArguments {
    /// `run.name`.
    pub run: String,
    /// `run.dir`.
    pub dir: PathBuf,
    /// The node's name.
    pub node: String,
    /// What each role shows and lets be done.
    pub panel: Panel,
    /// Where turns, versions and the audit are.
    pub journal: Journal,
    /// Versions, and the way back to one.
    pub rollback: Rollback,
    /// Keeps the current version.
    pub training: TrainingSlot,
    /// What a person says of a turn.
    pub corrections: Corrections,
    /// Where the gateway listens, once it does.
    pub gateway: watch::Receiver<Option<SocketAddr>>,
    /// How the run is doing.
    pub progress: watch::Receiver<ProgressSnapshot>,
    /// How replies were received.
    pub received: Received,
    /// The operator's port.
    pub port: PortAddress,
    /// Ends the node; raised once it is ending, whoever ended it.
    pub stop: StopHandle,
}

/// The operator of a node.
pub struct NodeOperator {
    node: NodeArguments,
    started: Instant,
    supervisor: OnceLock<SupervisorHandle>,
    /// Two scalings of a role must not count on each other's actors.
    scaling: Mutex<()>,
}

/// Actors that a command is for.
struct Target {
    names: Vec<String>,
    role: String,
    whole_role: bool,
}

impl NodeOperator {
    /// For a node that is about to start.
    pub fn new(node: NodeArguments) -> Self {
        Self { node, started: Instant::now(), supervisor: OnceLock::new(), scaling: Mutex::default() }
    }

    /// Gives orders to this supervisor from now on.
    pub fn supervised_by(&self, supervisor: SupervisorHandle) {
        // A node has one supervisor; a second word of it changes nothing.
        let _ = self.supervisor.set(supervisor);
    }

    fn supervisor(&self) -> Result<&SupervisorHandle, Refusal> {
        self.supervisor.get().ok_or_else(|| Refusal::new(RefusalKind::NotNow, "the node is starting"))
    }

    fn target(&self, name: &str) -> Result<Target, Refusal> {
        let supervisor = self.supervisor()?;
        let names = supervisor.resolve(name)?;
        let children = supervisor.statuses();
        let role = children.iter().find(|child| child.name == names[0]).map(|child| child.role.clone());
        let role = role.ok_or_else(|| Refusal::new(RefusalKind::NotNow, format!("{name} is going away")))?;
        let whole_role = children.iter().filter(|child| child.role == role).count() == names.len();
        Ok(Target { names, role, whole_role })
    }

    async fn carry_out(&self, command: Command) -> Result<Done, Refusal> {
        match command {
            Command::Restart { name, drain } => {
                let names = self.supervisor()?.restart(&name, drain).await?;
                Ok(Done::new(format!("{} restarted", names.join(", "))))
            }
            Command::Kill { name } => {
                let supervisor = self.supervisor()?;
                let names = supervisor.resolve(&name)?;
                for name in &names {
                    supervisor.kill(name).await?;
                }
                Ok(Done::new(format!("{} killed", names.join(", "))))
            }
            Command::Pause { name } => self.pause(&name),
            Command::Resume { name } => self.resume(&name).await,
            Command::Drain { name } => self.drain(&name).await,
            Command::Scale { role, count } => self.scale(&role, count).await,
            Command::RetryDead { turns } => {
                let retried = |turn| Record::TurnRetried { turn };
                self.settle_dead(turns, "retried", retried).await
            }
            Command::DropDead { turns } => {
                let dropped = |turn| Record::TurnDropped { turn, reason: "operator" };
                self.settle_dead(turns, "dropped", dropped).await
            }
            Command::Rate { turn, rating } => self.node.corrections.rate(&turn, rating).await,
            Command::CorrectHint { turn, hint } => self.node.corrections.correct_hint(&turn, hint).await,
            Command::ForgetWish { wish } => {
                match self.node.journal.record(Record::WishWithdrawn { wish }).await? {
                    Recorded::Done => Ok(Done::new(format!("wish {wish} stands no longer"))),
                    Recorded::Stale => {
                        Ok(Done::new(format!("no wish {wish} stands: `openclaw-rl wishes list`")))
                    }
                }
            }
            Command::DropTurn { turn } => self.node.corrections.drop_turn(&turn).await,
            Command::Checkpoint {} => self.checkpoint().await,
            Command::Rollback { version } => self.roll_back(version).await,
            // Done last, once it is in the audit.
            Command::Stop { .. } => Ok(Done::new("stopping")),
        }
    }

    async fn checkpoint(&self) -> Result<Done, Refusal> {
        match self.node.training.keep().await {
            Ok(0) => Ok(Done::new("nothing is learnt yet")),
            Ok(version) => Ok(Done::new(format!("version {version} is on the disk"))),
            Err(error @ KeepError::Down) => Err(Refusal::new(RefusalKind::NotNow, error.to_string())),
            Err(error @ KeepError::Failed(_)) => Err(Refusal::new(RefusalKind::Failed, error.to_string())),
        }
    }

    async fn roll_back(&self, version: u64) -> Result<Done, Refusal> {
        match self.node.rollback.roll_back(version).await {
            Ok(from) if from == version => Ok(Done::new(format!("version {version} is served already"))),
            Ok(from) => {
                Ok(Done::new(format!("from version {from} to {version}; the next step trains from it")))
            }
            Err(error) => {
                let kind = match error {
                    RollbackError::Unknown { .. } => RefusalKind::Unknown,
                    RollbackError::NotKept { .. } => RefusalKind::NotNow,
                    _ => RefusalKind::Failed,
                };
                Err(Refusal::new(kind, format!("{:#}", anyhow::Error::from(error))))
            }
        }
    }

    fn pause(&self, name: &str) -> Result<Done, Refusal> {
        let Target { role, whole_role, names } = self.target(name)?;
        if !whole_role {
            let message = format!("{} takes its work from the inbox of every {role}: pause {role}", names[0]);
            return Err(Refusal::new(RefusalKind::NeverHere, message));
        }
        match self.node.panel.set_paused(&role, true) {
            Some(true) => Ok(Done::new(format!("{role} is paused already"))),
            Some(false) => Ok(Done::new(format!("{role} paused; `openclaw-rl resume {role}` ends it"))),
            None => Err(self.cannot("paused", &role, &self.node.panel.pausable())),
        }
    }

    async fn resume(&self, name: &str) -> Result<Done, Refusal> {
        let Target { role, whole_role, names } = self.target(name)?;
        let already = !whole_role || self.node.panel.set_paused(&role, false).unwrap_or(true);
        let down = self.children_of(&names).any(|child| child.state == ChildState::Stopped);
        self.supervisor()?.start_child(name).await?;
        let names = names.join(", ");
        Ok(Done::new(if already && !down {
            format!("{names}: nothing to resume")
        } else {
            format!("{names} resumed")
        }))
    }

    async fn drain(&self, name: &str) -> Result<Done, Refusal> {
        let Target { role, .. } = self.target(name)?;
        let pausable = self.node.panel.pausable();
        if !pausable.contains(&role.as_str()) {
            return Err(self.cannot("drained", &role, &pausable));
        }
        let names = self.supervisor()?.drain(name).await?.join(", ");
        Ok(Done::new(format!("{names} drained; `openclaw-rl resume {name}` starts it again")))
    }

    async fn scale(&self, role: &str, count: usize) -> Result<Done, Refusal> {
        let supervisor = self.supervisor()?;
        let scalable = self.node.panel.scalable();
        if !scalable.contains(&role) {
            // An unknown name is told first.
            let Target { role, .. } = self.target(role)?;
            return Err(self.cannot("scaled", &role, &scalable));
        }
        if !(1..=MOST_ACTORS).contains(&count) {
            let message =
                format!("{count} is not from 1 to {MOST_ACTORS}; `openclaw-rl pause {role}` stops its work");
            return Err(Refusal::new(RefusalKind::Usage, message));
        }
        let _alone = self.scaling.lock().await;
        let mut numbers: Vec<usize> = supervisor
            .statuses()
            .iter()
            .filter(|child| child.role == role)
            .filter_map(|child| child.name.rsplit_once('.')?.1.parse().ok())
            .collect();
        numbers.sort_unstable();
        let before = numbers.len();
        while numbers.len() > count {
            let last = numbers.pop().expect("it is longer than count");
            supervisor.remove(&format!("{role}.{last}")).await?;
        }
        while numbers.len() < count {
            let free = (0..).find(|number| !numbers.contains(number)).expect("numbers do not end");
            let spec = self.node.panel.make(role, free).expect("it is among the scalable");
            supervisor.add(spec).await?;
            numbers.push(free);
        }
        Ok(Done::new(match before == count {
            true => format!("{role}: {count} already"),
            false => format!("{role}: {before} -> {count}"),
        }))
    }

    async fn settle_dead(
        &self,
        turns: Vec<String>,
        verb: &str,
        record: impl Fn(TurnId) -> Record,
    ) -> Result<Done, Refusal> {
        let dead = self.node.journal.dead(LIST_ROWS).await?;
        let (mut done, asked) = (0, turns.len());
        for turn in turns {
            // What is not dead is on its way: a drop of it would be felt.
            if let Some(dead) = dead.iter().find(|dead| *dead.turn.0 == *turn)
                && self.node.journal.record(record(dead.turn.clone())).await? == Recorded::Done
            {
                done += 1;
            }
        }
        let rest = if done < asked { format!(", {} not dead", asked - done) } else { String::new() };
        Ok(Done::new(format!("{done} {verb}{rest}")))
    }

    fn cannot(&self, what: &str, role: &str, these: &[&str]) -> Refusal {
        let why = match role {
            "gateway" => "requests would be refused",
            "sessions" => "every request goes through it",
            "journal" => "every reply waits for it",
            "policy" => "requests would wait for it",
            "base" | "admin" => "others depend on it",
            _ => "it has no work of its own",
        };
        let message = format!("{role} cannot be {what}: {why}; these can: {}", these.join(", "));
        Refusal::new(RefusalKind::NeverHere, message)
    }

    fn children_of(&self, names: &[String]) -> impl Iterator<Item = ChildStatus> {
        let children = self.supervisor.get().map(SupervisorHandle::statuses).unwrap_or_default();
        children.into_iter().filter(move |child| names.contains(&child.name))
    }

    fn actor(&self, child: ChildStatus) -> ActorStatus {
        let seen = self.node.panel.seen(&child.name, &child.role);
        let since_secs = child.since.elapsed().as_secs_f64();
        let is_up = matches!(
            child.state,
            ChildState::Running | ChildState::Paused | ChildState::Stuck | ChildState::Draining
        );
        let (last_error, last_error_secs) = match child.last_error {
            Some(error) => (Some(error.reason), Some(error.when.elapsed().as_secs_f64())),
            None => (None, None),
        };
        ActorStatus {
            state: child.state.as_str().to_owned(),
            up_secs: is_up.then_some(since_secs),
            restarts: child.restarts,
            last_error,
            last_error_secs,
            version: seen.version,
            inbox: self.node.panel.inbox_of(&child.role).map(|inbox| inbox.status().into()),
            detail: seen.detail,
            advice: seen.advice,
            name: child.name,
            role: child.role,
        }
    }
}

impl Operator for NodeOperator {
    async fn status(&self) -> Result<NodeStatus, Refusal> {
        let node = &self.node;
        let children = self.supervisor.get().map(SupervisorHandle::statuses).unwrap_or_default();
        let mut versions = node.received.versions().await;
        versions.drain(..versions.len().saturating_sub(STATUS_VERSIONS));
        let totals = *node.journal.totals().borrow();
        let progress = node.progress.borrow().clone();
        Ok(NodeStatus {
            run: node.run.clone(),
            dir: std::path::absolute(&node.dir).unwrap_or_else(|_| node.dir.clone()),
            node: node.node.clone(),
            pid: std::process::id(),
            stopping: node.stop.is_set(),
            uptime_secs: self.started.elapsed().as_secs_f64(),
            gateway: node.gateway.borrow().map(|address| format!("http://{address}/v1")),
            page: node.port.bound().map(page::url),
            version: node.rollback.versions.number(),
            sessions: totals.sessions,
            journal: match &*node.journal.health().borrow() {
                Health::Ok => {
                    let look = openclaw_journal::inspect(&node.dir).ok().flatten();
                    let detail = look.map(|look| size(look.bytes)).unwrap_or_default();
                    JournalStatus { healthy: true, detail }
                }
                Health::Failing(why) => JournalStatus { healthy: false, detail: why.clone() },
            },
            learning: LearningStatus {
                steps: totals.steps,
                withheld: totals.withheld,
                trained: totals.trained,
                loss: progress.loss,
                approved: totals.approved,
                rejected: totals.rejected,
                neutral: totals.neutral,
                hinted: totals.hinted,
                versions,
            },
            serving: ServingStatus {
                tokens_per_sec: progress.tokens_per_sec,
                in_flight: progress.in_flight,
                recent: progress.recent,
            },
            actors: children.into_iter().map(|child| self.actor(child)).collect(),
        })
    }

    async fn dead(&self) -> Result<Vec<DeadTurn>, Refusal> {
        let dead = self.node.journal.dead(LIST_ROWS).await?;
        let row = |dead: openclaw_journal::DeadTurn| DeadTurn {
            turn: dead.turn.to_string(),
            state: dead.state.name().to_owned(),
            inbox: dead.inbox,
            attempts: dead.attempts,
            reason: dead.reason,
            died_unix_secs: unix_secs(dead.when),
        };
        Ok(dead.into_iter().map(row).collect())
    }

    async fn dead_turn(&self, turn: String) -> Result<DeadTurnStory, Refusal> {
        let unknown = || Refusal::new(RefusalKind::Unknown, format!("no dead turn `{turn}`"));
        let dead = self.dead().await?.into_iter().find(|dead| dead.turn == turn).ok_or_else(unknown)?;
        let row = self.node.journal.turn(&TurnId(turn.as_str().into())).await?.ok_or_else(unknown)?;
        Ok(DeadTurnStory::new(dead, row))
    }

    async fn versions(&self) -> Result<Vec<VersionStatus>, Refusal> {
        let made = version_statuses(&self.node.journal, &self.node.rollback).await?;
        Ok([base_status(&self.node.rollback)].into_iter().chain(made).collect())
    }

    async fn wishes(&self) -> Result<Vec<StandingWish>, Refusal> {
        let standing = |row: openclaw_journal::WishRow| StandingWish {
            wish: row.wish,
            person: (row.person != 0).then(|| format!("{:016x}", row.person)),
            text: row.text,
            turn: row.turn.to_string(),
            at_unix_secs: unix_secs(row.when),
        };
        Ok(self.node.journal.wishes(None).await?.into_iter().map(standing).collect())
    }

    async fn audit(&self) -> Result<Vec<AuditEntry>, Refusal> {
        let rows = self.node.journal.audit(LIST_ROWS).await?;
        let entry = |row: openclaw_journal::AuditRow| AuditEntry {
            at_unix_secs: unix_secs(row.when),
            verb: row.verb,
            target: row.target,
            outcome: row.outcome,
        };
        Ok(rows.into_iter().rev().map(entry).collect())
    }

    async fn operate(&self, command: Command) -> Result<Done, Refusal> {
        let (verb, target) = (command.verb(), command.target());
        let stop = match command {
            Command::Stop { now } => Some(now),
            _ => None,
        };
        let outcome = timeout(DEADLINE, self.carry_out(command)).await.unwrap_or_else(|_| {
            let message =
                format!("not done after {} s; it goes on, and `status` shows it", DEADLINE.as_secs());
            Err(Refusal::new(RefusalKind::Failed, message))
        });
        let told = match &outcome {
            Ok(done) => done.message.clone(),
            Err(refusal) => format!("refused: {refusal}"),
        };
        info!(verb, target, outcome = told, "operated");
        let record = Record::Operated { verb, target, outcome: told };
        // A full disk is when an operator is needed most.
        match timeout(AUDIT_DEADLINE, self.node.journal.record(record)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => warn!(%error, "what the operator did is not in the journal"),
            Err(_) => warn!("what the operator did is not in the journal yet"),
        }
        match stop {
            Some(false) => self.node.stop.stop(),
            Some(true) => {
                tokio::spawn(async {
                    tokio::time::sleep(LAST_WORD).await;
                    std::process::exit(EXIT_INTERRUPTED.into());
                });
            }
            None => {}
        }
        outcome
    }
}

impl From<SupervisorError> for Refusal {
    fn from(error: SupervisorError) -> Self {
        let kind = match &error {
            SupervisorError::Unknown { .. } => RefusalKind::Unknown,
            SupervisorError::Held { .. } | SupervisorError::Stopped { .. } | SupervisorError::Ended => {
                RefusalKind::NotNow
            }
            SupervisorError::Start { .. }
            | SupervisorError::Failed { .. }
            | SupervisorError::Duplicate { .. } => RefusalKind::Failed,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<JournalError> for Refusal {
    fn from(error: JournalError) -> Self {
        Self::failed(error)
    }
}

impl From<InboxStatus> for InboxView {
    fn from(status: InboxStatus) -> Self {
        Self {
            waiting: status.waiting,
            leased: status.leased,
            capacity: status.capacity,
            oldest_wait_secs: status.oldest_wait.as_secs_f64(),
            dead_letters: status.dead_letters,
            paused: status.paused,
        }
    }
}
