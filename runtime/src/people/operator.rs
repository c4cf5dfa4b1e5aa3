//! What an operator sees of a house and does to it: its actors are the people. What is a person's own, versions and all, is
//! asked of that person's node, in its own folder.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use openclaw_actors::stop::StopHandle;
use tokio::{
    sync::{OnceCell, watch},
    time::Instant,
};
use tracing::info;

use super::{house::House, person::Person};
use crate::{
    admin::{
        ActorStatus, AdminClient, AuditEntry, Command, DeadTurn, DeadTurnStory, Done, JournalStatus,
        NodeStatus, Operator, StandingWish,
    },
    refusal::{Refusal, RefusalKind},
    supervisor::{ChildStatus, SupervisorError, SupervisorHandle},
    versions::VersionStatus,
};

/// The operator of a house.
pub struct HouseOperator {
    /// `run.name`.
    pub run: String,
    /// `run.dir`.
    pub dir: PathBuf,
    /// The node's name in the topology.
    pub node: String,
    /// Whose nodes they are.
    pub house: Arc<House>,
    /// Where everyone comes in.
    pub door: SocketAddr,
    /// Requests being answered.
    pub in_flight: watch::Receiver<usize>,
    /// Ends the house.
    pub stop: StopHandle,
    /// Since when it runs.
    pub started: Instant,
    /// Once it runs.
    pub supervisor: OnceCell<SupervisorHandle>,
}

impl HouseOperator {
    fn supervisor(&self) -> Result<&SupervisorHandle, Refusal> {
        self.supervisor.get().ok_or_else(|| Refusal::new(RefusalKind::NotNow, "the node is still starting"))
    }

    /// It is a person's, whose node is asked for it.
    fn elsewhere<T>(&self, what: &str) -> Result<T, Refusal> {
        let message = format!("{what} are each person's own here: say whose with --person NAME");
        Err(Refusal::new(RefusalKind::NeverHere, message))
    }

    async fn seen(&self, child: ChildStatus, status: &mut NodeStatus) -> ActorStatus {
        let person = person_of(&child.name);
        let own = match &person {
            Some(person) if super::house::is_up(child.state) => {
                let client = AdminClient::connect(&person.dir(self.house.dir())).ok();
                match client {
                    Some(client) => client.status().await.ok(),
                    None => None,
                }
            }
            _ => None,
        };
        let mut seen = ActorStatus {
            state: child.state.as_str().to_owned(),
            up_secs: super::house::is_up(child.state).then(|| child.since.elapsed().as_secs_f64()),
            restarts: child.restarts,
            last_error_secs: child.last_error.as_ref().map(|error| error.when.elapsed().as_secs_f64()),
            last_error: child.last_error.map(|error| error.reason),
            name: child.name,
            role: child.role,
            ..ActorStatus::default()
        };
        if let Some(own) = own {
            let plural = if own.sessions == 1 { "" } else { "s" };
            seen.version = Some(own.version);
            seen.detail = format!("{} conversation{plural}, {} steps", own.sessions, own.learning.steps);
            let ill = own.actors.iter().filter(|actor| actor.state == "failed").map(|actor| &*actor.name);
            let ill = ill.collect::<Vec<_>>().join(", ");
            seen.advice = (!ill.is_empty()).then(|| format!("failed there: {ill}"));
            status.sessions += own.sessions;
            status.learning.steps += own.learning.steps;
            status.learning.withheld += own.learning.withheld;
            status.learning.trained += own.learning.trained;
            status.learning.approved += own.learning.approved;
            status.learning.rejected += own.learning.rejected;
            status.learning.neutral += own.learning.neutral;
            status.learning.hinted += own.learning.hinted;
            status.serving.tokens_per_sec += own.serving.tokens_per_sec;
            status.journal.healthy &= own.journal.healthy;
        } else if person.is_some() && seen.state == "stopped" {
            seen.detail = "asleep: comes back with the next request".to_owned();
        }
        seen
    }
}

/// Whose node an actor is.
fn person_of(actor: &str) -> Option<Person> {
    actor.strip_prefix("person.").map(Person::of_folder)
}

impl Operator for HouseOperator {
    async fn status(&self) -> Result<NodeStatus, Refusal> {
        let mut status = NodeStatus {
            run: self.run.clone(),
            dir: std::path::absolute(&self.dir).unwrap_or_else(|_| self.dir.clone()),
            node: self.node.clone(),
            pid: std::process::id(),
            stopping: self.stop.is_set(),
            uptime_secs: self.started.elapsed().as_secs_f64(),
            gateway: Some(format!("http://{}/v1", self.door)),
            journal: JournalStatus { healthy: true, detail: "each person's own".to_owned() },
            ..NodeStatus::default()
        };
        status.serving.in_flight = *self.in_flight.borrow();
        for child in self.supervisor.get().map(SupervisorHandle::statuses).unwrap_or_default() {
            let seen = self.seen(child, &mut status).await;
            status.actors.push(seen);
        }
        Ok(status)
    }

    async fn dead(&self) -> Result<Vec<DeadTurn>, Refusal> {
        self.elsewhere("turns that were given up on")
    }

    async fn dead_turn(&self, _: String) -> Result<DeadTurnStory, Refusal> {
        self.elsewhere("turns that were given up on")
    }

    async fn versions(&self) -> Result<Vec<VersionStatus>, Refusal> {
        self.elsewhere("versions")
    }

    async fn audit(&self) -> Result<Vec<AuditEntry>, Refusal> {
        self.elsewhere("audits")
    }

    async fn wishes(&self) -> Result<Vec<StandingWish>, Refusal> {
        self.elsewhere("wishes")
    }

    async fn operate(&self, command: Command) -> Result<Done, Refusal> {
        let (verb, target) = (command.verb(), command.target());
        let refused = |error: SupervisorError| match error {
            SupervisorError::Unknown { .. } => Refusal::new(RefusalKind::Unknown, error.to_string()),
            error => Refusal::failed(error),
        };
        let supervisor = self.supervisor()?;
        let done = match command {
            Command::Stop { now } => {
                info!(now, "told to stop");
                if now {
                    // The nodes end with their inputs.
                    std::process::exit(0);
                }
                self.stop.stop();
                return Ok(Done::new("stopping"));
            }
            // Those who are asleep stay so: there is room for so many.
            Command::Restart { name, drain } => {
                let mut restarted = Vec::new();
                for name in supervisor.resolve(&name).map_err(refused)? {
                    let up = |child: &ChildStatus| child.name == name && super::house::is_up(child.state);
                    if person_of(&name).is_none() || supervisor.statuses().iter().any(up) {
                        restarted.append(&mut supervisor.restart(&name, drain).await.map_err(refused)?);
                    }
                }
                Ok(restarted)
            }
            Command::Kill { name } => supervisor.kill(&name).await,
            Command::Drain { name } => supervisor.drain(&name).await,
            Command::Resume { name } => {
                let names = supervisor.resolve(&name).map_err(refused)?;
                for name in &names {
                    match person_of(name) {
                        Some(person) => drop(self.house.enter(&person).await.map_err(Refusal::failed)?),
                        None => drop(supervisor.start_child(name).await.map_err(refused)?),
                    }
                }
                Ok(names)
            }
            _ => return self.elsewhere(&format!("what `{verb}` is done to: such things")),
        };
        let names = done.map_err(refused)?.join(", ");
        info!(verb, target, "done by an operator");
        Ok(Done::new(format!("{names}: {verb} done")))
    }
}
