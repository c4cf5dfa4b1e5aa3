//! How each role is asked whether it is well, and how it finishes what it has.

use openclaw_actors::{
    dispatch::DispatcherControl, engine::Engine, journal::JournalControl, optimizer::OptimizerControl,
    policy::EngineControl, rollout::RolloutControl, sessions::SessionsMessage, worker::WorkerControl,
};
use ractor::{ActorCell, ActorRef, Message, RpcReplyPort, rpc::CallResult};

use super::gateway::GatewayControl;
use crate::supervisor::ChildSpec;

/// The journal answers; a disk that fails is told by its health.
pub fn journal(spec: &mut ChildSpec) -> &mut ChildSpec {
    spec.probed_by(|cell| async { ask(cell, JournalControl::Ping).await })
}

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

/// The dispatcher's tasks wait for inboxes and for the journal; its actor answers meanwhile.
pub fn dispatcher(spec: &mut ChildSpec) -> &mut ChildSpec {
    spec.probed_by(|cell| async { ask(cell, DispatcherControl::Ping).await })
}

/// The gateway answers; drained, it lets every answer end.
pub fn gateway(spec: &mut ChildSpec) -> &mut ChildSpec {
    spec.probed_by(|cell| async { ask(cell, GatewayControl::Ping).await })
        .drained_by(|cell| async { drained(ask(cell, GatewayControl::Drain).await) })
}

/// Sessions may wait for the journal, but not for long.
pub fn sessions(spec: &mut ChildSpec) -> &mut ChildSpec {
    spec.probed_by(|cell| async { ask(cell, SessionsMessage::Ping).await })
}

/// A simulated user answers whatever it is told.
pub fn rollout(spec: &mut ChildSpec) -> &mut ChildSpec {
    spec.probed_by(|cell| async { ask(cell, RolloutControl::Ping).await })
        .drained_by(|cell| async { drained(ask(cell, RolloutControl::Drain).await) })
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

#[cfg(test)]
mod tests {
    use std::{
        path::Path,
        sync::{Arc, Mutex, mpsc},
        time::Duration,
    };

    use openclaw_actors::{
        engine::{EngineLimits, Place, PolicyWeights, ServingModel},
        policy::{EngineActor, EngineArguments},
        publisher::Versions,
    };
    use openclaw_model::{GenerateEvent, GenerateRequest, SamplingParams, ScoreRequest, Scored};
    use ractor::Actor;

    use super::*;
    use crate::supervisor::{ChildState, RunningChild, Supervisor};
    use openclaw_actors::loaded_model::LoadedModel;

    /// A model whose every step blocks until it is let.
    struct Blocking(Arc<Mutex<mpsc::Receiver<()>>>, bool);

    impl ServingModel for Blocking {
        fn submit(&mut self, _: GenerateRequest) -> Result<u64, String> {
            self.1 = true;
            Ok(1)
        }
        fn cancel(&mut self, _: u64) {
            self.1 = false;
        }
        fn step(&mut self) -> Result<Vec<(u64, GenerateEvent)>, String> {
            self.0.lock().expect("one thread at a time").recv().map_err(|error| error.to_string())?;
            Ok(Vec::new())
        }
        fn is_idle(&self) -> bool {
            !self.1
        }
        fn load(&mut self, _: u64, _: PolicyWeights) -> Result<(), String> {
            Ok(())
        }
        fn submit_score(&mut self, _: ScoreRequest) -> Result<u64, String> {
            Err("it only blocks".to_owned())
        }
        fn step_scores(&mut self) -> Result<Vec<(u64, Scored)>, String> {
            unreachable!("no score was taken")
        }
        fn is_scoring(&self) -> bool {
            false
        }
        fn version(&self) -> u64 {
            0
        }
    }

    #[tokio::test]
    async fn an_engine_whose_thread_is_in_a_call_that_does_not_return_is_stuck_until_it_does() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/models/nano");
        let model = LoadedModel::open(&folder, Place::Cpu, 1).expect("the embedded model is there");
        let engine = Engine::new("policy.0", EngineLimits::default(), model.text.clone());
        let (let_go, held) = mpsc::channel();
        let held = Arc::new(Mutex::new(held));
        let arguments = EngineArguments {
            engine: engine.clone(),
            build: Arc::new(move |_| Ok(Box::new(Blocking(held.clone(), false)))),
            versions: Versions::new(0, model.weights.clone()),
            follows: false,
        };
        let mut spec = ChildSpec::new("policy.0", "policy", move |supervisor| {
            let arguments = arguments.clone();
            async move {
                let (actor, task) = Actor::spawn_linked(None, EngineActor, arguments, supervisor).await?;
                Ok(RunningChild { cell: actor.get_cell(), task })
            }
        });
        self::engine(&mut spec, engine.clone());
        spec.probe_period = Duration::from_millis(5);
        spec.probe_timeout = Duration::from_millis(50);
        let supervisor = Supervisor::start(vec![spec]).await.expect("it starts");
        let request = GenerateRequest {
            prompt_ids: vec![1],
            sampling: SamplingParams::default(),
            max_new_tokens: 1,
            stop: Vec::new(),
            top_logprobs: 0,
            constraint: None,
            drawn_ids: Vec::new(),
        };
        let response = engine.generate(request).await.expect("accepted");
        let state = |state| supervisor.wait_for(move |children| children[0].state == state);
        let stuck = state(ChildState::Stuck).await.expect("the supervisor is up");
        let error = stuck[0].last_error.as_ref().expect("a reason");
        assert_eq!(error.reason, "does not answer for 0.05 s");
        assert!(engine.status().silent.is_some(), "which /health tells");

        drop(response);
        let_go.send(()).expect("the model is there");
        let back = state(ChildState::Running).await.expect("the supervisor is up");
        assert_eq!((back[0].restarts, engine.status().silent), (0, None));
        assert_eq!(supervisor.stop().await, Vec::<String>::new());
    }
}
