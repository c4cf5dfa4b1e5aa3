//! The supervisor as an actor: carries news to the children's state machines and does what they answer. No
//! handler waits for anything.

use std::collections::HashMap;

use metrics::counter;
use ractor::{Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent};
use tokio::{sync::watch, time::Duration};
use tracing::{error, info, warn};

use super::{
    ChildState, ChildStatus, SupervisorError,
    child::{Action, Child, Exit},
    spec::{ChildSpec, RunningChild},
};
use crate::topology::did_you_mean;

type Reply = RpcReplyPort<Result<(), SupervisorError>>;

/// What the supervisor is told.
pub enum Message {
    /// Start a child; answered when it is up.
    Start { name: String, reply: Reply },
    /// Restart a child; answered when it is up again.
    Restart { name: String, reply: Reply },
    /// Stop a child; answered when it is down.
    Stop { name: String, reply: Reply },
    /// A start came to its end.
    Started { child: usize, generation: u64, outcome: Result<RunningChild, String> },
    /// A child's task has ended.
    Ended { child: usize, generation: u64, actor: ActorId },
    /// The wait before a restart is over.
    Woken { child: usize, generation: u64 },
}

pub struct SupervisorActor;

pub struct State {
    children: Vec<Child<Reply>>,
    cells: HashMap<usize, ActorCell>,
    /// How actors ended, from the event until the end of their task.
    exits: HashMap<ActorId, Exit>,
    publish: watch::Sender<Vec<ChildStatus>>,
}

impl Actor for SupervisorActor {
    type Msg = Message;
    type State = State;
    type Arguments = (Vec<ChildSpec>, watch::Sender<Vec<ChildStatus>>);

    async fn pre_start(
        &self,
        _: ActorRef<Message>,
        (specs, publish): Self::Arguments,
    ) -> Result<State, ActorProcessingErr> {
        let children = specs.into_iter().map(Child::new).collect();
        let state = State { children, cells: HashMap::new(), exits: HashMap::new(), publish };
        state.publish();
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<Message>,
        message: Message,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Start { name, reply } => state.start(&myself, &name, reply),
            Message::Restart { name, reply } => state.restart(&myself, &name, reply),
            Message::Stop { name, reply } => state.stop(&myself, &name, reply),
            Message::Started { child, generation, outcome } => {
                state.started(&myself, child, generation, outcome);
            }
            Message::Ended { child, generation, actor } => state.ended(&myself, child, generation, actor),
            Message::Woken { child, generation } => state.woken(&myself, child, generation),
        }
        state.publish();
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<Message>,
        event: SupervisionEvent,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            // The boxed state of a stopped actor ends here, before its successor is thought of.
            SupervisionEvent::ActorTerminated(cell, _, reason) => {
                // ractor reports a killed actor as one that finished.
                let abnormal = matches!(reason.as_deref(), Some("killed" | "actor_task_cancelled"));
                let reason = reason.unwrap_or_else(|| "finished".to_owned());
                state.exits.insert(cell.get_id(), Exit { abnormal, reason });
            }
            SupervisionEvent::ActorFailed(cell, error) => {
                let exit = Exit { abnormal: true, reason: error.to_string() };
                state.exits.insert(cell.get_id(), exit);
            }
            _ => {}
        }
        Ok(())
    }
}

impl State {
    fn publish(&self) {
        self.publish.send_replace(self.children.iter().map(|child| child.status().clone()).collect());
    }

    fn find(&self, name: &str) -> Result<usize, SupervisorError> {
        self.children.iter().position(|child| child.spec.name == name).ok_or_else(|| {
            let names = self.children.iter().map(|child| child.spec.name.as_str());
            SupervisorError::Unknown { name: name.to_owned(), hint: did_you_mean(name, names) }
        })
    }

    fn start(&mut self, myself: &ActorRef<Message>, name: &str, reply: Reply) {
        match self.find(name) {
            Err(error) => answer(reply, Err(error)),
            Ok(i) if self.children[i].is_up() => answer(reply, Ok(())),
            Ok(i) => {
                self.children[i].waiters.up.push(reply);
                let action = self.children[i].wanted();
                self.act(myself, i, action);
            }
        }
    }

    fn restart(&mut self, myself: &ActorRef<Message>, name: &str, reply: Reply) {
        match self.find(name) {
            Err(error) => answer(reply, Err(error)),
            Ok(i) => {
                info!(actor = name, "restart asked for");
                self.children[i].waiters.up.push(reply);
                let action = self.children[i].restart_wanted();
                self.act(myself, i, action);
            }
        }
    }

    fn stop(&mut self, myself: &ActorRef<Message>, name: &str, reply: Reply) {
        match self.find(name) {
            Err(error) => answer(reply, Err(error)),
            Ok(i) => {
                self.children[i].waiters.down.push(reply);
                let action = self.children[i].unwanted();
                self.act(myself, i, action);
                self.settle(i);
            }
        }
    }

    fn started(
        &mut self,
        myself: &ActorRef<Message>,
        i: usize,
        generation: u64,
        outcome: Result<RunningChild, String>,
    ) {
        let child = &mut self.children[i];
        let outcome = match outcome {
            Ok(RunningChild { cell, task }) => {
                let (me, actor) = (myself.clone(), cell.get_id());
                self.cells.insert(i, cell);
                tokio::spawn(async move {
                    // A panic has been caught by ractor and reported as an event; the task ends all the same.
                    let _ = task.await;
                    let _ = me.cast(Message::Ended { child: i, generation, actor });
                });
                Ok(())
            }
            Err(reason) => Err(reason),
        };
        if let Err(reason) = &outcome {
            warn!(actor = child.spec.name, reason, "actor did not start");
        }
        let (action, told) = child.started(outcome);
        if let Some(told) = told {
            for reply in child.waiters.up.drain(..) {
                answer(reply, told.clone());
            }
        }
        self.act(myself, i, action);
        self.settle(i);
    }

    fn ended(&mut self, myself: &ActorRef<Message>, i: usize, generation: u64, actor: ActorId) {
        let unknown = Exit { abnormal: true, reason: "ended without a word".to_owned() };
        let exit = self.exits.remove(&actor).unwrap_or(unknown);
        let child = &mut self.children[i];
        if generation != child.generation() {
            return;
        }
        self.cells.remove(&i);
        let (name, reason) = (child.spec.name.clone(), exit.reason.clone());
        let action = child.ended(exit);
        match child.status().state {
            ChildState::Failed => {
                counter!("openclaw_supervisor_failures_total", "actor" => name.clone()).increment(1);
                error!(actor = name, reason, "actor failed; it stays down until it is restarted by hand");
            }
            ChildState::Restarting => warn!(actor = name, reason, "actor ended; restarting it"),
            _ => info!(actor = name, reason, "actor ended"),
        }
        self.act(myself, i, action);
        self.settle(i);
    }

    fn woken(&mut self, myself: &ActorRef<Message>, i: usize, generation: u64) {
        if generation == self.children[i].generation() {
            let action = self.children[i].woken();
            self.act(myself, i, action);
        }
    }

    /// Tells those who wait for a child to be down once it is, and those who waited for it to be up.
    fn settle(&mut self, i: usize) {
        let child = &mut self.children[i];
        if !child.is_down() {
            return;
        }
        for reply in child.waiters.down.drain(..) {
            answer(reply, Ok(()));
        }
        for reply in child.waiters.up.drain(..) {
            answer(reply, Err(SupervisorError::Stopped { name: child.spec.name.clone() }));
        }
    }

    fn act(&mut self, myself: &ActorRef<Message>, i: usize, action: Action) {
        let spec = &self.children[i].spec;
        match action {
            Action::Wait => {}
            Action::Start { generation } => {
                if generation > 1 {
                    counter!("openclaw_supervisor_restarts_total", "actor" => spec.name.clone()).increment(1);
                }
                // A task inside a task: a start that panics is a start that failed.
                let start = tokio::spawn((spec.start)(myself.get_cell()));
                let me = myself.clone();
                tokio::spawn(async move {
                    let outcome = match start.await {
                        Ok(outcome) => outcome.map_err(|error| chain(error.as_ref())),
                        Err(error) => Err(panic_text(error)),
                    };
                    let _ = me.cast(Message::Started { child: i, generation, outcome });
                });
            }
            Action::Stop => {
                if let Some(cell) = self.cells.get(&i).cloned() {
                    tokio::spawn(stop_or_kill(spec.name.clone(), cell, spec.shutdown_timeout));
                }
            }
            Action::WakeAfter { delay, generation } => {
                let me = myself.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(delay).await;
                    let _ = me.cast(Message::Woken { child: i, generation });
                });
            }
        }
    }
}

async fn stop_or_kill(name: String, cell: ActorCell, timeout: Duration) {
    cell.stop(None);
    if cell.wait(Some(timeout)).await.is_err() {
        warn!(actor = name, timeout_secs = timeout.as_secs_f64(), "did not stop in time; killed");
        counter!("openclaw_supervisor_kills_total", "actor" => name).increment(1);
        cell.kill();
    }
}

/// Whoever asked may have gone; then nobody needs the answer.
fn answer(reply: Reply, outcome: Result<(), SupervisorError>) {
    let _ = reply.send(outcome);
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn panic_text(error: tokio::task::JoinError) -> String {
    let Ok(panic) = error.try_into_panic() else { return "its start was cancelled".to_owned() };
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "its start panicked".to_owned())
}
