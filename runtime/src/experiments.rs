//! What the experiments of `lab` are given: this binary's topologies, wiring and supervision, behind `lab`'s words.

use std::path::Path;

use anyhow::{Context, ensure};
use futures::{FutureExt, future::BoxFuture};
use openclaw_journal::Journal;
use openclaw_lab::experiment::node::{Facts, Node, Parts, Plan};

use crate::{
    run_dir,
    supervisor::{ChildState, ChildStatus, Supervisor},
    topology::{Override, Topology},
    wiring::{self, Wiring},
};

/// Reads a topology file for an experiment.
pub fn read(file: &Path, sets: &[String]) -> anyhow::Result<Box<dyn Plan>> {
    let sets: Result<Vec<Override>, String> = sets.iter().map(|set| set.parse()).collect();
    let topology = Topology::load_for_launch(file, &sets.map_err(anyhow::Error::msg)?)?;
    ensure!(
        topology.people.is_none(),
        "{}: an experiment is of one model, and [people] has many",
        file.display()
    );
    Ok(Box::new(PlannedNode { topology }))
}

struct PlannedNode {
    topology: Topology,
}

impl Plan for PlannedNode {
    fn facts(&self) -> Facts {
        let actors = &self.topology.actors;
        let threads =
            self.topology.node(None).map_or(1, |(_, node)| node.serving_threads() + node.training_threads());
        Facts {
            name: self.topology.run.name.clone(),
            served_model: actors.gateway.served_model.clone(),
            policy: self.topology.models[&actors.policy.model].path.clone(),
            temperature: actors.policy.temperature as f32,
            threads,
            has_users: !actors.rollout.is_empty(),
            max_sessions: actors.rollout.iter().map(|group| group.max_sessions).max().unwrap_or(0),
        }
    }

    fn begin_anew_in(&mut self, folder: &str) -> anyhow::Result<()> {
        self.topology.run.dir.push(folder);
        run_dir::set_aside(&self.topology.run.dir)?;
        Ok(())
    }

    fn start(&self) -> BoxFuture<'_, anyhow::Result<Node>> {
        async {
            let (_, node) = self.topology.node(None)?;
            let Wiring { specs, mut view, .. } = wiring::wire(&self.topology, node).await?;
            let supervisor = Supervisor::start(specs).await?;
            let address = *view.gateway.wait_for(Option::is_some).await?;
            Ok(Node {
                url: format!("http://{}/v1", address.context("the gateway has no address")?),
                journal: view.journal,
                versions: view.versions,
                users: view.users,
                sessions: view.sessions,
                parts: Box::new(Supervised(supervisor)),
            })
        }
        .boxed()
    }

    fn journal(&self) -> anyhow::Result<Journal> {
        Ok(wiring::journal::open(&self.topology)?)
    }
}

struct Supervised(Supervisor);

impl Parts for Supervised {
    fn crash<'a>(&'a self, part: &'a str) -> BoxFuture<'a, anyhow::Result<()>> {
        async move {
            let named = |status: &&ChildStatus| status.name == part;
            let statuses = self.0.statuses();
            let restarts = statuses.iter().find(named).map(|status| status.restarts);
            let restarts = restarts.with_context(|| format!("there is no {part} in this topology"))?;
            self.0.kill(part).await?;
            let is_back = |status: &ChildStatus| {
                status.name == part && status.state == ChildState::Running && status.restarts > restarts
            };
            self.0.wait_for(|statuses| statuses.iter().any(is_back)).await?;
            Ok(())
        }
        .boxed()
    }

    fn restart<'a>(&'a self, part: &'a str) -> BoxFuture<'a, anyhow::Result<()>> {
        async move {
            self.0.restart(part, false).await?;
            Ok(())
        }
        .boxed()
    }

    fn stop(self: Box<Self>) -> BoxFuture<'static, ()> {
        async move {
            self.0.stop().await;
        }
        .boxed()
    }
}
