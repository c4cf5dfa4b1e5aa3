//! The simulated users: one actor per worker, groups that share a schedule, and what each waits for before it talks.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use openclaw_actors::{
    chat_client::ChatClient,
    engine::Engine,
    rollout::{Pace, Rollout, RolloutArguments, RolloutConfig, Schedule, SessionReport},
};
use openclaw_environments::world::{User, users_of};
use openclaw_journal::Backlog;
use ractor::{Actor, ActorCell};
use serde_json::Map;
use tokio::sync::{mpsc, watch};

use super::{Builder, Inboxes, care, gateway, looks};
use crate::{
    admin::Gate,
    supervisor::{ChildSpec, Restart, RunningChild},
};

/// A simulated user waits this long for a reply.
const REPLY_DEADLINE: Duration = Duration::from_secs(120);
/// How often a simulated user looks whether learning has caught up.
const PACE_PERIOD: Duration = Duration::from_millis(10);

impl Builder<'_> {
    /// Turns wait for no judge and no teacher, fewer samples than a batch are left, no step is under way, and the
    /// policies serve the current version.
    pub(super) fn pace(&self, policies: &[Engine]) -> Pace {
        let Inboxes { samples, publish, .. } = self.inboxes.clone();
        let (backlog, versions, policies) =
            (self.journal.backlog(), self.versions.clone(), policies.to_vec());
        let training = self.training.clone();
        let batch = self.topology.actors.optimizer.batch_samples;
        Arc::new(move || {
            let (backlog, samples, publish) = (backlog.clone(), samples.clone(), publish.clone());
            let (versions, policies, training) = (versions.clone(), policies.clone(), training.clone());
            Box::pin(async move {
                let caught_up = || {
                    let Backlog { to_judge, to_teach, ready, .. } = *backlog.borrow();
                    to_judge + to_teach == 0 && ready < batch as u64
                };
                // A batch that was given back waits in the inbox; a version that was made, in the publisher's.
                let learning =
                    || training.is_learning() || samples.status().waiting >= batch || publish.depth() > 0;
                let current = || policies.iter().all(|engine| engine.version() == versions.number());
                while !caught_up() || learning() || !current() {
                    tokio::time::sleep(PACE_PERIOD).await;
                }
            })
        })
    }

    pub(super) fn rollouts(
        &mut self,
        gateway: &watch::Receiver<Option<SocketAddr>>,
        pace: &Pace,
        reports: mpsc::Sender<SessionReport>,
    ) -> anyhow::Result<Vec<User>> {
        let mut all = Vec::new();
        let served_model = self.topology.actors.gateway.served_model.clone();
        let key = gateway::api_key(self.topology)?;
        let gate = Gate::default();
        let mut workers: Vec<ChildSpec> = Vec::new();
        for group in &self.topology.actors.rollout {
            let environment = self.topology.environments[&group.environment].make()?;
            let users = users_of(&group.environment, &environment);
            let schedule = Arc::new(Mutex::new(Schedule::new(&users, group.max_sessions)));
            all.extend(users);
            let config = RolloutConfig {
                seed: group.seed.unwrap_or(self.topology.run.seed),
                options: Map::new(),
                stream: true,
                reply_deadline: REPLY_DEADLINE,
            };
            let (gateway, served_model, key, reports) =
                (gateway.clone(), served_model.clone(), key.clone(), reports.clone());
            let pace = at_gate(&gate, group.wait_for_learning.then(|| pace.clone()));
            let seen = schedule.clone();
            let start = move |supervisor: ActorCell| {
                let (config, schedule, reports) = (config.clone(), schedule.clone(), reports.clone());
                let (mut gateway, served_model, key, pace) =
                    (gateway.clone(), served_model.clone(), key.clone(), pace.clone());
                async move {
                    let address = gateway.wait_for(Option::is_some).await?.expect("waited for it");
                    let client = ChatClient::new(&format!("http://{address}/v1"), served_model, key)?;
                    let arguments = RolloutArguments { config, client, schedule, pace: Some(pace), reports };
                    let (reference, task) =
                        Actor::spawn_linked(None, Rollout::default(), arguments, supervisor).await?;
                    Ok(RunningChild { cell: reference.get_cell(), task })
                }
            };
            self.panel.look("rollout", looks::rollout(seen.clone()));
            for _ in 0..group.workers {
                let name = format!("rollout.{}", workers.len());
                self.panel.look(name.clone(), looks::rollout(seen.clone()));
                let mut spec = ChildSpec::new(name, "rollout", start.clone());
                // A worker ends once its group has no further session.
                spec.restart = Restart::Transient;
                let gate = gate.clone();
                care::rollout(&mut spec).paused_when(move || gate.is_paused());
                workers.push(spec);
            }
        }
        // Further ones join the last group.
        self.numbered("rollout", workers, gate);
        Ok(all)
    }
}

impl Builder<'_> {
    /// Workers of a role, numbered over all of its groups, which an operator may pause together; a further one is as the
    /// last.
    pub(super) fn numbered(&mut self, role: &'static str, workers: Vec<ChildSpec>, gate: Gate) {
        self.specs.extend(workers.iter().cloned());
        let Some(last) = workers.last().cloned() else { return };
        self.panel.gate(role, gate);
        self.panel.factory(role, move |number| {
            let name = format!("{role}.{number}");
            ChildSpec { name, ..workers.get(number).unwrap_or(&last).clone() }
        });
    }
}

/// Waits for what is waited for, and then at the gate.
pub(super) fn at_gate(gate: &Gate, pace: Option<Pace>) -> Pace {
    let gate = gate.clone();
    Arc::new(move || {
        let (gate, pace) = (gate.clone(), pace.clone());
        Box::pin(async move {
            if let Some(pace) = pace {
                pace().await;
            }
            gate.pass().await;
        })
    })
}
