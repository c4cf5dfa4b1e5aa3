//! Real actors that crash, hang and finish, under paused time.

mod groups;
mod machine;
mod orders;

use std::{
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::mpsc;

use super::*;

/// What the test tells an actor to do.
enum Order {
    Panic,
    Fail,
    Finish,
    Hang,
}

#[derive(Clone, Default)]
struct World {
    /// `up a`, `down a`, in the order in which states came and went.
    log: Arc<Mutex<Vec<String>>>,
    /// States that exist now, and the most that ever did.
    alive: Arc<AtomicUsize>,
    most_alive: Arc<AtomicUsize>,
    /// The newest incarnation of each actor.
    actors: Arc<Mutex<std::collections::HashMap<String, ActorRef<Order>>>>,
    /// Starts that fail before one succeeds.
    failing_starts: Arc<AtomicUsize>,
}

/// An actor's state, which notes when it is made and when it is gone.
struct Held(World, String);

impl Held {
    fn new(world: World, name: String) -> Self {
        let alive = world.alive.fetch_add(1, SeqCst) + 1;
        world.most_alive.fetch_max(alive, SeqCst);
        world.log.lock().unwrap().push(format!("up {name}"));
        Self(world, name)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.alive.fetch_sub(1, SeqCst);
        self.0.log.lock().unwrap().push(format!("down {}", self.1));
    }
}

struct Obedient;

impl Actor for Obedient {
    type Msg = Order;
    type State = Held;
    type Arguments = Held;

    async fn pre_start(&self, _: ActorRef<Order>, held: Held) -> Result<Held, ActorProcessingErr> {
        Ok(held)
    }

    async fn handle(
        &self,
        me: ActorRef<Order>,
        order: Order,
        _: &mut Held,
    ) -> Result<(), ActorProcessingErr> {
        match order {
            Order::Panic => panic!("told to panic"),
            Order::Fail => Err("told to fail".into()),
            Order::Finish => {
                me.stop(None);
                Ok(())
            }
            Order::Hang => pending().await,
        }
    }
}

impl World {
    fn child(&self, name: &str) -> ChildSpec {
        let (world, own_name) = (self.clone(), name.to_owned());
        ChildSpec::new(name, "test", move |supervisor| {
            let (world, name) = (world.clone(), own_name.clone());
            async move {
                if world.failing_starts.load(SeqCst) > 0 {
                    world.failing_starts.fetch_sub(1, SeqCst);
                    return Err("told not to start".into());
                }
                let held = Held::new(world.clone(), name.clone());
                let (actor, task) = Actor::spawn_linked(None, Obedient, held, supervisor).await?;
                world.actors.lock().unwrap().insert(name, actor.clone());
                Ok(RunningChild { cell: actor.get_cell(), task })
            }
        })
    }

    fn tell(&self, name: &str, order: Order) {
        self.actors.lock().unwrap()[name].cast(order).expect("the actor is up");
    }

    fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }
}

/// Waits until the only child looks like this.
async fn until(supervisor: &Supervisor, holds: impl Fn(&ChildStatus) -> bool) -> ChildStatus {
    let statuses = supervisor.wait_for(|statuses| holds(&statuses[0])).await.expect("the supervisor is up");
    statuses[0].clone()
}

#[tokio::test(start_paused = true)]
async fn children_start_in_order_and_stop_in_reverse() {
    let world = World::default();
    let supervisor = Supervisor::start(["a", "b", "c"].map(|name| world.child(name)).into()).await.unwrap();
    assert!(supervisor.statuses().iter().all(|child| child.state == ChildState::Running));
    assert_eq!(supervisor.stop().await, Vec::<String>::new());
    assert_eq!(world.log(), ["up a", "up b", "up c", "down c", "down b", "down a"]);
}

#[tokio::test(start_paused = true)]
async fn a_child_that_ends_by_itself_comes_back_and_its_old_state_is_gone_first() {
    let world = World::default();
    let supervisor = Supervisor::start(vec![world.child("a")]).await.unwrap();
    for (nth, order) in [Order::Panic, Order::Fail, Order::Finish].into_iter().enumerate() {
        world.tell("a", order);
        until(&supervisor, |child| child.restarts == nth as u64 + 1 && child.state == ChildState::Running)
            .await;
    }
    assert_eq!(world.most_alive.load(SeqCst), 1);
    assert_eq!(world.log().len(), 7);
    supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_reason_of_an_end_is_kept() {
    let world = World::default();
    let supervisor = Supervisor::start(vec![world.child("a")]).await.unwrap();
    world.tell("a", Order::Panic);
    let status = until(&supervisor, |child| child.restarts == 1).await;
    assert!(
        status.last_error.as_ref().is_some_and(|error| error.reason.contains("told to panic")),
        "{status:?}"
    );
    supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn over_its_intensity_a_child_fails_alone_until_an_operator_restarts_it() {
    let world = World::default();
    let mut weak = world.child("weak");
    weak.intensity = Intensity { restarts: 2, period: Duration::from_secs(60) };
    let supervisor = Supervisor::start(vec![weak, world.child("strong")]).await.unwrap();
    for restarts in 1..=2 {
        world.tell("weak", Order::Fail);
        until(&supervisor, |child| child.restarts == restarts && child.state == ChildState::Running).await;
    }
    world.tell("weak", Order::Fail);
    until(&supervisor, |child| child.state == ChildState::Failed).await;
    assert_eq!(supervisor.statuses()[1].state, ChildState::Running);
    assert_eq!(world.alive.load(SeqCst), 1);

    supervisor.restart("weak", false).await.unwrap();
    assert_eq!(supervisor.statuses()[0].state, ChildState::Running);
    // The count starts anew.
    world.tell("weak", Order::Fail);
    until(&supervisor, |child| child.restarts == 4 && child.state == ChildState::Running).await;
    supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn failures_that_lie_further_apart_than_the_period_are_forgiven() {
    let world = World::default();
    let mut child = world.child("a");
    child.intensity = Intensity { restarts: 1, period: Duration::from_secs(10) };
    let supervisor = Supervisor::start(vec![child]).await.unwrap();
    for restarts in 1..=4 {
        world.tell("a", Order::Panic);
        until(&supervisor, |child| child.restarts == restarts && child.state == ChildState::Running).await;
        tokio::time::advance(Duration::from_secs(11)).await;
    }
    supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_transient_child_may_finish_but_not_be_killed_and_a_temporary_one_stays_down() {
    let world = World::default();
    let spec = |restart| ChildSpec { restart, ..world.child("a") };

    let supervisor = Supervisor::start(vec![spec(Restart::Transient)]).await.unwrap();
    let killed = world.actors.lock().unwrap()["a"].clone();
    killed.kill();
    until(&supervisor, |child| child.restarts == 1 && child.state == ChildState::Running).await;
    world.tell("a", Order::Finish);
    until(&supervisor, |child| child.state == ChildState::Stopped).await;
    supervisor.stop().await;

    let supervisor = Supervisor::start(vec![spec(Restart::Temporary)]).await.unwrap();
    world.tell("a", Order::Panic);
    let status = until(&supervisor, |child| child.state == ChildState::Failed).await;
    assert_eq!(status.restarts, 0);
    supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_operators_restart_is_no_failure_and_loses_no_order() {
    let world = World::default();
    let mut child = world.child("a");
    child.intensity = Intensity { restarts: 0, period: Duration::from_secs(60) };
    let supervisor = Supervisor::start(vec![child]).await.unwrap();
    for restarts in 1..=3 {
        supervisor.restart("a", false).await.unwrap();
        let status = supervisor.statuses().remove(0);
        assert_eq!((status.state, status.restarts), (ChildState::Running, restarts));
    }
    assert_eq!(world.most_alive.load(SeqCst), 1);
    let error = supervisor.restart("b", false).await.unwrap_err();
    assert_eq!(error.to_string(), "no actor named `b` (did you mean \"a\"?)");
    supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_child_that_does_not_stop_in_time_is_killed() {
    let world = World::default();
    let supervisor = Supervisor::start(vec![world.child("a")]).await.unwrap();
    world.tell("a", Order::Hang);
    supervisor.restart("a", false).await.unwrap();
    world.tell("a", Order::Hang);
    assert_eq!(supervisor.stop().await, Vec::<String>::new());
    assert_eq!(world.log(), ["up a", "down a", "up a", "down a"]);
}

#[tokio::test(start_paused = true)]
async fn a_child_that_does_not_start_stops_those_before_it_and_is_named() {
    let world = World::default();
    let mut broken = world.child("b");
    broken.start = Arc::new(|_| Box::pin(async { Err("no such device".into()) }));
    let error = Supervisor::start(vec![world.child("a"), broken, world.child("c")]).await.unwrap_err();
    assert_eq!(error.to_string(), "b did not start: no such device");
    assert_eq!(world.log(), ["up a", "down a"]);

    let mut panics = world.child("p");
    panics.start = Arc::new(|_| Box::pin(async { panic!("boom") }));
    let error = Supervisor::start(vec![panics]).await.unwrap_err();
    assert_eq!(error.to_string(), "p did not start: boom");
}

#[tokio::test(start_paused = true)]
async fn a_restart_whose_start_fails_is_tried_again_by_itself() {
    let world = World::default();
    let supervisor = Supervisor::start(vec![world.child("a")]).await.unwrap();
    world.failing_starts.store(2, SeqCst);
    world.tell("a", Order::Panic);
    until(&supervisor, |child| child.restarts == 3 && child.state == ChildState::Running).await;
    supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_child_stopped_while_it_starts_comes_down_again() {
    let world = World::default();
    let (go, wait) = mpsc::channel::<()>(1);
    let wait = Arc::new(tokio::sync::Mutex::new(wait));
    let plain = world.child("a");
    let mut slow = world.child("a");
    slow.start = Arc::new(move |supervisor| {
        let (wait, start) = (wait.clone(), plain.start.clone());
        Box::pin(async move {
            wait.lock().await.recv().await;
            start(supervisor).await
        })
    });
    go.send(()).await.unwrap();
    let supervisor = Arc::new(Supervisor::start(vec![slow]).await.unwrap());
    let restarting = tokio::spawn({
        let supervisor = supervisor.clone();
        async move { supervisor.restart("a", false).await }
    });
    until(&supervisor, |child| child.state == ChildState::Restarting).await;
    let stopping = supervisor.stop_child("a");
    let (stopped, sent) = tokio::join!(stopping, go.send(()));
    stopped.unwrap();
    sent.unwrap();
    assert!(matches!(restarting.await.unwrap(), Err(SupervisorError::Stopped { .. })));
    assert_eq!(world.alive.load(SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn two_children_of_one_name_are_refused() {
    let world = World::default();
    let error = Supervisor::start(vec![world.child("a"), world.child("a")]).await.unwrap_err();
    assert_eq!(error, SupervisorError::Duplicate { name: "a".to_owned() });
}

/// Whose start goes wrong inside ractor.
struct Stillborn {
    panics: bool,
}

impl Actor for Stillborn {
    type Msg = Order;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Order>, (): ()) -> Result<(), ActorProcessingErr> {
        assert!(!self.panics, "no memory");
        Err("no such file".into())
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_and_a_panic_before_the_start_tell_their_reason() {
    for (panics, reason) in [(false, "no such file"), (true, "no memory")] {
        let spec = ChildSpec::new("a", "test", move |supervisor| async move {
            let (actor, task) = Actor::spawn_linked(None, Stillborn { panics }, (), supervisor).await?;
            Ok(RunningChild { cell: actor.get_cell(), task })
        });
        let error = Supervisor::start(vec![spec]).await.unwrap_err();
        assert_eq!(error.to_string(), format!("a did not start: {reason}"));
    }
}
