//! What the worker `agent.N` does: plays episodes, several at a time.

use std::sync::Arc;

use futures::future::join_all;
use tokio::sync::watch;

use super::{Pass, Player, plan::Held};
use crate::rollout::Play;

/// What starts a worker.
#[derive(Clone)]
pub struct AgentsArguments {
    /// What it plays with; shared by the workers of its environment.
    pub player: Arc<Player>,
    /// Awaited before each episode.
    pub pace: Pass,
}

impl Play for AgentsArguments {
    async fn play(self, drain_asked: watch::Receiver<bool>) {
        let places = self.player.config.concurrency.max(1);
        join_all((0..places).map(|_| self.one_by_one(drain_asked.clone()))).await;
    }
}

impl AgentsArguments {
    async fn one_by_one(&self, mut drain_asked: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                biased;
                _ = drain_asked.wait_for(|asked| *asked) => return,
                () = (self.pace)() => {}
            }
            let Some(held) = Held::take(&self.player.plan) else { return };
            self.player.play(held).await;
        }
    }
}
