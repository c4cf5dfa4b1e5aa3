//! The supervisor as an actor: carries orders and news to the tree and does what it answers. No handler waits for
//! anything.

use std::{collections::HashMap, error::Error};

use metrics::{counter, gauge};
use ractor::{
    Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, RpcReplyPort, SpawnErr, SupervisionEvent,
};
use tokio::{
    sync::watch,
    task::AbortHandle,
    time::{Duration, sleep, timeout},
};
use tracing::{debug, error, info, warn};

use super::{
    SupervisorError,
    child::{Action, ChildId, Exit},
    probe,
    spec::{ChildSpec, Drain, RunningChild},
    status::{ChildState, View},
    tree::{News, Obstacle, Order, Tree},
};
use crate::topology::did_you_mean;

type Reply = RpcReplyPort<Result<(), SupervisorError>>;

/// What the supervisor is told.
pub enum Message {
    /// Answered once the child is as it was ordered to be.
    Order { name: String, order: Order, reply: Reply },
    /// A new child, not started yet.
    Add { spec: Box<ChildSpec>, reply: Reply },
    /// From now on nothing is started at anyone's word.
    Close,
    /// A start came to its end.
    Started { child: ChildId, generation: u64, outcome: Result<RunningChild, String> },
    /// A child's task has ended.
    Ended { child: ChildId, generation: u64, actor: ActorId },
    /// Anything else that happened to an incarnation.
    News { child: ChildId, generation: u64, news: News },
}

/// Someone who waits for a child.
struct Waiter {
    child: ChildId,
    name: String,
    until: Until,
    reply: Reply,
}

enum Until {
    Up,
    /// This incarnation, and every earlier one, is no more.
    Past(u64),
}

/// What an incarnation needs to be ended.
enum Incarnation {
    Starting(AbortHandle),
    Running { cell: ActorCell, probing: Option<AbortHandle> },
}

impl Drop for Incarnation {
    fn drop(&mut self) {
        if let Self::Running { probing: Some(probing), .. } = self {
            probing.abort();
        }
    }
}

pub struct SupervisorActor;

pub struct State {
    tree: Tree,
    waiters: Vec<Waiter>,
    alive: HashMap<ChildId, Incarnation>,
    /// How actors ended, from the event until the end of their task.
    exits: HashMap<ActorId, Exit>,
    /// The states that were last made known.
    shown: HashMap<String, ChildState>,
    closed: bool,
    publish: watch::Sender<Vec<View>>,
}

impl Actor for SupervisorActor {
    type Msg = Message;
    type State = State;
    type Arguments = watch::Sender<Vec<View>>;

    async fn pre_start(
        &self,
        _: ActorRef<Message>,
        publish: Self::Arguments,
    ) -> Result<State, ActorProcessingErr> {
        Ok(State {
            tree: Tree::default(),
            waiters: Vec::new(),
            alive: HashMap::new(),
            exits: HashMap::new(),
            shown: HashMap::new(),
            closed: false,
            publish,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<Message>,
        message: Message,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        let actions = match message {
            Message::Order { name, order, reply } => state.order(&name, order, reply),
            Message::Add { spec, reply } => {
                answer(reply, state.add(*spec));
                Vec::new()
            }
            Message::Close => {
                state.closed = true;
                Vec::new()
            }
            Message::Started { child, generation, outcome } => {
                state.started(&myself, child, generation, outcome)
            }
            Message::Ended { child, generation, actor } => state.ended(child, generation, actor),
            Message::News { child, generation, news } => state.tree.news(child, generation, news),
        };
        for (child, action) in actions {
            state.act(&myself, child, action);
        }
        state.answer_waiters();
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
                let exit = Exit { abnormal: true, reason: chain(error.as_ref()) };
                state.exits.insert(cell.get_id(), exit);
            }
            _ => {}
        }
        Ok(())
    }
}

impl State {
    fn order(&mut self, name: &str, order: Order, reply: Reply) -> Vec<(ChildId, Action)> {
        let Some(child) = self.tree.named(name) else {
            let names = self.tree.children().iter().map(|child| child.spec.name.as_str());
            let hint = did_you_mean(name, names);
            answer(reply, Err(SupervisorError::Unknown { name: name.to_owned(), hint }));
            return Vec::new();
        };
        let (child, generation) = (child.id, child.generation);
        let until = match order {
            Order::Start | Order::Restart { .. } if self.closed => {
                answer(reply, Err(SupervisorError::Ended));
                return Vec::new();
            }
            Order::Start | Order::Restart { .. } => Until::Up,
            Order::Stop { .. } | Order::Remove | Order::Kill => Until::Past(generation),
        };
        debug!(actor = name, ?order, "order");
        if order == Order::Kill {
            counter!("openclaw_supervisor_kills_total", "actor" => name.to_owned(), "reason" => "order")
                .increment(1);
        }
        self.waiters.push(Waiter { child, name: name.to_owned(), until, reply });
        self.tree.order(child, order)
    }

    fn add(&mut self, spec: ChildSpec) -> Result<(), SupervisorError> {
        if self.closed {
            return Err(SupervisorError::Ended);
        }
        if self.tree.named(&spec.name).is_some() {
            return Err(SupervisorError::Duplicate { name: spec.name });
        }
        let actor = || spec.name.clone();
        counter!("openclaw_supervisor_restarts_total", "actor" => actor()).increment(0);
        counter!("openclaw_supervisor_failures_total", "actor" => actor()).increment(0);
        counter!("openclaw_supervisor_stuck_total", "actor" => actor()).increment(0);
        self.tree.add(spec);
        Ok(())
    }

    fn started(
        &mut self,
        myself: &ActorRef<Message>,
        child: ChildId,
        generation: u64,
        outcome: Result<RunningChild, String>,
    ) -> Vec<(ChildId, Action)> {
        self.alive.remove(&child);
        // The tree forgets a child only once its last incarnation has ended.
        let Some(spec) = self.tree.get(child).map(|child| &child.spec) else { return Vec::new() };
        let outcome = match outcome {
            Ok(RunningChild { cell, task }) => {
                let (me, actor) = (myself.clone(), cell.get_id());
                let probing = probe::start(spec, cell.clone(), {
                    let me = me.clone();
                    move |outcome| {
                        let news = News::Probed(outcome);
                        let _ = me.cast(Message::News { child, generation, news });
                    }
                });
                self.alive.insert(child, Incarnation::Running { cell, probing });
                tokio::spawn(async move {
                    // A panic has been caught by ractor and reported as an event; the task ends all the same.
                    let _ = task.await;
                    let _ = me.cast(Message::Ended { child, generation, actor });
                });
                Ok(())
            }
            Err(reason) => {
                warn!(actor = spec.name, reason, "actor did not start");
                let (waited, others) = std::mem::take(&mut self.waiters)
                    .into_iter()
                    .partition(|waiter| waiter.child == child && matches!(waiter.until, Until::Up));
                self.waiters = others;
                for Waiter { name, reply, .. } in waited {
                    answer(reply, Err(SupervisorError::Start { name, reason: reason.clone() }));
                }
                Err(reason)
            }
        };
        self.tree.news(child, generation, News::Started(outcome))
    }

    fn ended(&mut self, child: ChildId, generation: u64, actor: ActorId) -> Vec<(ChildId, Action)> {
        let unknown = Exit { abnormal: true, reason: "ended without a word".to_owned() };
        let exit = self.exits.remove(&actor).unwrap_or(unknown);
        self.alive.remove(&child);
        if let Some(child) = self.tree.get(child) {
            // One that should not have ended is restarting or failed, and that is told.
            debug!(actor = child.spec.name, reason = exit.reason, "actor ended");
        }
        self.tree.news(child, generation, News::Ended(exit))
    }

    fn act(&mut self, myself: &ActorRef<Message>, child: ChildId, action: Action) {
        let Some(spec) = self.tree.get(child).map(|child| &child.spec) else { return };
        match (action, self.alive.get(&child)) {
            (Action::Start { generation }, _) => {
                if generation > 1 {
                    counter!("openclaw_supervisor_restarts_total", "actor" => spec.name.clone()).increment(1);
                }
                // A task inside a task: a start that panics is a start that failed.
                let start = tokio::spawn((spec.start)(myself.get_cell()));
                self.alive.insert(child, Incarnation::Starting(start.abort_handle()));
                let me = myself.clone();
                tokio::spawn(async move {
                    let outcome = match start.await {
                        Ok(outcome) => outcome.map_err(|error| chain(error.as_ref())),
                        Err(error) => Err(probe::panic_text(error)),
                    };
                    let _ = me.cast(Message::Started { child, generation, outcome });
                });
            }
            (Action::GiveUpStart, Some(Incarnation::Starting(start))) => {
                let (start, limit) = (start.clone(), spec.shutdown_timeout);
                tokio::spawn(async move {
                    sleep(limit).await;
                    start.abort();
                });
            }
            (Action::Stop { drain }, Some(Incarnation::Running { cell, .. })) => {
                let drain = spec.drain.clone().filter(|_| drain);
                tokio::spawn(stop(spec.name.clone(), cell.clone(), drain, spec.shutdown_timeout));
            }
            (Action::Kill, Some(Incarnation::Starting(start))) => start.abort(),
            (Action::Kill, Some(Incarnation::Running { cell, .. })) => cell.kill(),
            (Action::WakeAfter { delay, generation }, _) => {
                let me = myself.clone();
                tokio::spawn(async move {
                    sleep(delay).await;
                    let _ = me.cast(Message::News { child, generation, news: News::Woken });
                });
            }
            // Its end is on its way here.
            (Action::GiveUpStart | Action::Stop { .. } | Action::Kill, _) => {}
        }
    }

    fn answer_waiters(&mut self) {
        let waiters = std::mem::take(&mut self.waiters);
        for waiter in waiters {
            match self.verdict(&waiter) {
                Some(outcome) => answer(waiter.reply, outcome),
                None => self.waiters.push(waiter),
            }
        }
    }

    fn verdict(&self, waiter: &Waiter) -> Option<Result<(), SupervisorError>> {
        let (tree, child, name) = (&self.tree, waiter.child, || waiter.name.clone());
        match waiter.until {
            Until::Up if tree.is_up(child) => Some(Ok(())),
            Until::Up => Some(Err(match tree.obstacle(child)? {
                Obstacle::Stopped => SupervisorError::Stopped { name: name() },
                Obstacle::Failed => SupervisorError::Failed { name: name() },
                Obstacle::Held(by) => SupervisorError::Held { name: name(), by },
            })),
            Until::Past(generation) => tree
                .get(child)
                .is_none_or(|child| child.generation > generation || !child.is_alive())
                .then_some(Ok(())),
        }
    }

    /// Makes known what has changed: statuses, metrics, and a line in the log.
    fn publish(&mut self) {
        let view = |child: &super::child::Child| View {
            status: child.status().clone(),
            paused: child.spec.paused.clone(),
            shutdown_timeout: child.spec.shutdown_timeout,
        };
        let views: Vec<View> = self.tree.children().iter().map(view).collect();
        let mut shown = HashMap::with_capacity(views.len());
        for status in views.iter().map(View::status) {
            let before = self.shown.remove(&status.name);
            if before != Some(status.state) {
                let error = status.last_error.as_ref().map_or("", |error| error.reason.as_str());
                changed(&status.name, before, Some(status.state), error);
            }
            shown.insert(status.name, status.state);
        }
        for (name, before) in std::mem::replace(&mut self.shown, shown) {
            changed(&name, Some(before), None, "");
        }
        self.publish.send_replace(views);
    }
}

fn was_unwell(state: ChildState) -> bool {
    matches!(state, ChildState::Restarting | ChildState::Failed | ChildState::Stuck)
}

fn changed(name: &str, before: Option<ChildState>, now: Option<ChildState>, error: &str) {
    for (state, value) in [(before, 0.0), (now, 1.0)] {
        if let Some(state) = state {
            gauge!("openclaw_supervisor_state", "actor" => name.to_owned(), "state" => state.as_str())
                .set(value);
        }
    }
    match now {
        Some(ChildState::Failed) => {
            counter!("openclaw_supervisor_failures_total", "actor" => name.to_owned()).increment(1);
            error!(actor = name, error, "actor failed; it stays down until it is restarted by hand");
        }
        Some(ChildState::Stuck) => {
            counter!("openclaw_supervisor_stuck_total", "actor" => name.to_owned()).increment(1);
            error!(actor = name, error, "actor is stuck");
        }
        Some(ChildState::Restarting) => warn!(actor = name, error, "actor is restarting"),
        Some(ChildState::Running) if before.is_some_and(was_unwell) => {
            info!(actor = name, "actor runs again")
        }
        Some(state) => debug!(actor = name, state = state.as_str(), "actor"),
        None => debug!(actor = name, "actor removed"),
    }
}

/// Drains, then stops, then kills; each for as long as `limit`.
async fn stop(name: String, cell: ActorCell, drain: Option<Drain>, limit: Duration) {
    if let Some(drain) = drain {
        // A task of its own: a drain that panics must not be the last of the stop.
        let mut draining = tokio::spawn(drain(cell.clone()));
        if timeout(limit, &mut draining).await.is_err() {
            warn!(actor = name, limit_secs = limit.as_secs_f64(), "not drained in time; stopping it");
            draining.abort();
        }
    }
    cell.stop(None);
    if cell.wait(Some(limit)).await.is_err() {
        warn!(actor = name, limit_secs = limit.as_secs_f64(), "did not stop in time; killed");
        counter!("openclaw_supervisor_kills_total", "actor" => name, "reason" => "timeout").increment(1);
        cell.kill();
    }
}

/// Whoever asked may have gone; then nobody needs the answer.
fn answer(reply: Reply, outcome: Result<(), SupervisorError>) {
    let _ = reply.send(outcome);
}

/// The error with its causes. ractor calls every failed start a panic; its cause says what it was.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut error = match error.downcast_ref() {
        Some(SpawnErr::StartupFailed(cause)) => &**cause,
        _ => error,
    };
    let mut text = error.to_string();
    while let Some(cause) = error.source() {
        if !text.ends_with(&cause.to_string()) {
            text = format!("{text}: {cause}");
        }
        error = cause;
    }
    text
}
