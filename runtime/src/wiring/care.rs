//! How each role is asked whether it is well, and how it finishes what it has.

use openclaw_actors::{
    engine::Engine, optimizer::OptimizerControl, policy::EngineControl, worker::WorkerControl,
};
use ractor::{ActorCell, ActorRef, Message, RpcReplyPort, rpc::CallResult};

use crate::supervisor::ChildSpec;

/// A worker answers whatever its work does.
pub fn worker(spec: &mut ChildSpec) -> &mut ChildSpec {
    spec.probed_by(|cell| async { ask(cell, WorkerControl::InFlight).await.map(drop) })
        .drained_by(|cell| async { drained(ask(cell, WorkerControl::Drain).await) })
}

/// An engine's actor answers, and its thread turns its loop.
pub fn engine(spec: &mut ChildSpec, engine: Engine) -> &mut ChildSpec {
    spec.probed_by(move |cell| {
        let engine = engine.clone();
        async move {
            ask(cell, EngineControl::Status).await?;
            engine.ping().await.map_err(|error| error.to_string())
        }
    })
}

/// The optimizer's thread may take long over a step; its actor answers meanwhile, and ends when the thread does.
pub fn optimizer(spec: &mut ChildSpec) -> &mut ChildSpec {
    spec.probed_by(|cell| async { ask(cell, OptimizerControl::Ping).await })
        .drained_by(|cell| async { drained(ask(cell, OptimizerControl::Drain).await) })
}

/// An actor that did not answer has ended, and with it what it had; its leases are back in the inbox.
fn drained(answer: Result<(), String>) {
    if let Err(reason) = answer {
        tracing::debug!(reason, "ended before it was drained");
    }
}

async fn ask<M: Message, T: Send + 'static>(
    cell: ActorCell,
    question: impl FnOnce(RpcReplyPort<T>) -> M,
) -> Result<T, String> {
    match ActorRef::<M>::from(cell).call(question, None).await {
        Ok(CallResult::Success(answer)) => Ok(answer),
        Ok(_) => Err("ended before it answered".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}
