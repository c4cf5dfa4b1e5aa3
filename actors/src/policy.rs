//! An engine under supervision: starts its thread, keeps it on the current version, and fails when it ends.

use std::sync::Arc;

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::task::JoinHandle;

use crate::{
    engine::{Engine, EngineStatus, ServingModel, Stopper},
    publisher::{self, Version, Versions},
};

/// Builds the model of an engine, on its thread, with the weights it is to start with.
pub type BuildModel = Arc<dyn Fn(Version) -> Result<Box<dyn ServingModel>, String> + Send + Sync>;

/// What starts an engine's actor.
#[derive(Clone)]
pub struct EngineArguments {
    /// The handle that requests come through; it outlives the actor.
    pub engine: Engine,
    /// Builds its model.
    pub build: BuildModel,
    /// What it serves.
    pub versions: Versions,
    /// Whether it loads each new version (a policy), or stays on the one it started with (a base version).
    pub follows: bool,
}

/// Control of an engine's actor.
pub enum EngineControl {
    /// What an operator sees.
    Status(RpcReplyPort<EngineStatus>),
    /// Its thread ended, or refused a version.
    #[doc(hidden)]
    Ended(String),
}

/// The actor: `policy.N`, and each judge's and teacher's own engine.
pub struct EngineActor;

/// One incarnation's thread and tasks.
pub struct Running {
    engine: Engine,
    stopper: Stopper,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        // Its own thread only: ractor may drop this state after a successor has started.
        self.stopper.stop();
    }
}

impl Actor for EngineActor {
    type Msg = EngineControl;
    type State = Running;
    type Arguments = EngineArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        EngineArguments { engine, build, versions, follows }: EngineArguments,
    ) -> Result<Running, ActorProcessingErr> {
        let first = versions.current();
        let exited = engine.start(move || build(first)).await?;
        let mut running = Running { engine: engine.clone(), stopper: exited.stopper(), tasks: Vec::new() };
        let watched = myself.clone();
        running.tasks.push(tokio::spawn(async move {
            let reason = exited.await.err().unwrap_or_else(|| "the engine was stopped".to_owned());
            // Fails only when the actor is gone, and then nobody needs to know.
            let _ = watched.cast(EngineControl::Ended(reason));
        }));
        if follows {
            running.tasks.push(tokio::spawn(async move {
                let error = publisher::follow(versions, engine).await;
                let _ = myself.cast(EngineControl::Ended(error.to_string()));
            }));
        }
        Ok(running)
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        control: EngineControl,
        running: &mut Running,
    ) -> Result<(), ActorProcessingErr> {
        match control {
            // The asker may have given up waiting.
            EngineControl::Status(reply) => drop(reply.send(running.engine.status())),
            EngineControl::Ended(reason) => return Err(reason.into()),
        }
        Ok(())
    }
}
