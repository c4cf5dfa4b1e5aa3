//! The actor `rollout.N` of an environment: plays episodes, several at a time, and stops by itself when none is left.

use std::{panic::AssertUnwindSafe, sync::Arc};

use futures::{FutureExt, future::join_all};
use openclaw_journal::panics::panic_message;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::{sync::watch, task::JoinHandle};

use super::{Pass, Player, plan::Held};
use crate::rollout::RolloutControl;

/// What starts a worker.
#[derive(Clone)]
pub struct AgentsArguments {
    /// What it plays with; shared by the workers of its environment.
    pub player: Arc<Player>,
    /// Awaited before each episode.
    pub pace: Pass,
}

/// See the file's header.
pub struct Agents;

/// One incarnation.
pub struct Playing {
    playing: JoinHandle<()>,
    draining: watch::Sender<bool>,
    drained: Option<ractor::RpcReplyPort<()>>,
}

impl Drop for Playing {
    fn drop(&mut self) {
        self.playing.abort();
    }
}

impl Actor for Agents {
    type Msg = RolloutControl;
    type State = Playing;
    type Arguments = AgentsArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        arguments: AgentsArguments,
    ) -> Result<Playing, ActorProcessingErr> {
        let (draining, drain_asked) = watch::channel(false);
        let playing = tokio::spawn(async move {
            let places = (0..arguments.player.config.concurrency.max(1))
                .map(|_| play_on(arguments.clone(), drain_asked.clone()));
            let ended = AssertUnwindSafe(join_all(places)).catch_unwind().await;
            // Fails only when the actor is gone, and then nobody needs to know.
            let _ = myself.cast(RolloutControl::Ended(ended.map(drop).map_err(panic_message)));
        });
        Ok(Playing { playing, draining, drained: None })
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        control: RolloutControl,
        state: &mut Playing,
    ) -> Result<(), ActorProcessingErr> {
        match control {
            RolloutControl::Drain(reply) => {
                state.draining.send_replace(true);
                state.drained = Some(reply);
            }
            // The asker may have given up waiting, here and below.
            RolloutControl::Ping(reply) => drop(reply.send(())),
            RolloutControl::Ended(ended) => {
                ended?;
                state.drained.take().map(|reply| reply.send(()));
                myself.stop(None);
            }
        }
        Ok(())
    }
}

async fn play_on(AgentsArguments { player, pace }: AgentsArguments, mut drain_asked: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            biased;
            _ = drain_asked.wait_for(|asked| *asked) => return,
            () = pace() => {}
        }
        let Some(held) = Held::take(&player.plan) else { return };
        player.play(held).await;
    }
}
