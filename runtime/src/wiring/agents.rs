//! Workers that let the policy act: an actor each, and a plan for all workers of an environment.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use openclaw_actors::{
    agents::{AgentsArguments, AgentsConfig, Pass, Plan, PlanConfig, Player, Sampling, StepJudge},
    engine::Engine,
    rollout::{Pace, Rollout},
};
use openclaw_environments::world::Split;

use super::{Builder, care, child, looks::says, rollouts::at_gate};
use crate::{
    admin::{Gate, Seen},
    supervisor::{ChildSpec, Restart},
    topology::{self, Agent},
};

impl Builder<'_> {
    /// One actor per worker, named `agent.N` over all environments.
    pub(super) fn agents(&mut self, policies: &[Engine], pace: &Pace) -> anyhow::Result<()> {
        let gate = Gate::default();
        let mut workers: Vec<ChildSpec> = Vec::new();
        for agent in &self.topology.actors.agent {
            let player = Arc::new(self.player(agent, policies, &gate)?);
            let plan = player.plan.clone();
            let arguments = AgentsArguments {
                player,
                pace: at_gate(&gate, agent.wait_for_learning.then(|| pace.clone())),
            };
            for _ in 0..agent.workers {
                let name = format!("agent.{}", workers.len());
                self.panel.look(name.clone(), look(plan.clone()));
                let arguments = arguments.clone();
                let mut spec = child(name, "agent", move || (Rollout::default(), arguments.clone()));
                // A worker ends once its plan has no further episode.
                spec.restart = Restart::Transient;
                let gate = gate.clone();
                care::rollout(&mut spec).paused_when(move || gate.is_paused());
                workers.push(spec);
            }
        }
        if !workers.is_empty() {
            self.panel.look("agent", look_of_all(self.topology.actors.agent.len()));
        }
        // Further ones join the last environment.
        self.numbered("agent", workers, gate);
        Ok(())
    }

    fn player(&self, agent: &Agent, policies: &[Engine], gate: &Gate) -> anyhow::Result<Player> {
        let environment = self.topology.environments[&agent.environment].make()?;
        let plan = PlanConfig {
            environment: agent.environment.as_str().into(),
            seed: agent.seed.unwrap_or(self.topology.run.seed),
            group: agent.group as u32,
            groups: agent.groups.map(|groups| groups as u64),
            tasks: [Split::Train, Split::HeldOut].map(|split| environment.tasks(split)),
            held_out: agent.held_out as u64,
            held_out_every: agent.held_out_every as u64,
        };
        let gate = gate.clone();
        let pass: Pass = Arc::new(move || {
            let gate = gate.clone();
            Box::pin(async move { gate.pass().await })
        });
        Ok(Player {
            config: AgentsConfig {
                sampling: Sampling {
                    temperature: agent.temperature as f32,
                    max_new_tokens: agent.max_new_tokens,
                },
                steps: agent.steps.map_or(environment.spec().steps, |steps| steps as u32),
                episode: Duration::from_secs(agent.episode_secs),
                step_judge: match agent.step_judge {
                    topology::StepJudge::Rule => StepJudge::Rule,
                    topology::StepJudge::Model => StepJudge::Model,
                },
                judged: self.topology.method.needs().verdicts,
                concurrency: agent.concurrency,
            },
            environment,
            plan: Arc::new(Mutex::new(Plan::new(plan))),
            engines: policies.to_vec(),
            journal: self.journal.clone(),
            pass,
            artefacts: self.artefacts(agent),
            pictures: self.pictures.clone(),
        })
    }
}

fn look_of_all(environments: usize) -> impl Fn() -> Seen + Send + Sync {
    move || says(format!("{environments} environments"))
}

fn look(plan: Arc<Mutex<Plan>>) -> impl Fn() -> Seen + Send + Sync {
    move || {
        let plan = plan.lock().unwrap_or_else(PoisonError::into_inner);
        let tally = plan.tally();
        let share = |(of, well): (u64, u64)| format!("{well} of {of}");
        let mut told = vec![format!("{}: {} well", plan.config().environment, share(tally.train))];
        if tally.held_out.0 > 0 {
            told.push(format!("held out {}", share(tally.held_out)));
        }
        if tally.abandoned > 0 {
            told.push(format!("{} abandoned", tally.abandoned));
        }
        told.push(format!("{} under way", plan.under_way()));
        says(told.join(", "))
    }
}
