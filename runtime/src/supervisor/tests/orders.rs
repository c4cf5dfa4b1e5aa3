//! What operators and probes do to running children.

use openclaw_actors::worker::{Work, Worker, WorkerArguments, WorkerControl};
use openclaw_journal::inbox::{Inbox, InboxLimits, Lease};
use tokio::sync::{Semaphore, watch};

use super::*;

#[tokio::test(start_paused = true)]
async fn a_child_killed_ten_times_in_a_row_comes_back_ten_times() {
    let world = World::default();
    let mut child = world.child("a");
    child.intensity = Intensity { restarts: 10, period: Duration::from_secs(60) };
    let supervisor = Supervisor::start(vec![child]).await.unwrap();
    for restarts in 1..=10 {
        assert_eq!(supervisor.kill("a").await.unwrap(), ["a"]);
        let status =
            until(&supervisor, |child| child.restarts == restarts && child.state == ChildState::Running)
                .await;
        assert_eq!(status.last_error.map(|error| error.reason).as_deref(), Some("killed"));
    }
    assert_eq!(world.most_alive.load(SeqCst), 1);
    supervisor.kill("a").await.unwrap();
    until(&supervisor, |child| child.state == ChildState::Failed).await;
    // There is nothing to kill, and that is fine.
    supervisor.kill("a").await.unwrap();
    supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn orders_are_for_names_or_roles_and_may_be_given_again() {
    let world = World::default();
    let mut specs: Vec<_> = ["judge.0", "judge.1"].map(|name| world.child(name)).into();
    for spec in &mut specs {
        spec.role = "judge".to_owned();
    }
    specs.push(world.child("gateway"));
    let supervisor = Supervisor::start(specs).await.unwrap();
    let handle = supervisor.handle();
    world.log.lock().unwrap().clear();
    assert_eq!(handle.restart("judge", false).await.unwrap(), ["judge.0", "judge.1"]);
    assert_eq!(world.log(), ["down judge.0", "up judge.0", "down judge.1", "up judge.1"]);

    for _ in 0..2 {
        handle.stop_child("judge").await.unwrap();
        let states: Vec<_> = handle.statuses().iter().map(|child| child.state).collect();
        assert_eq!(states, [ChildState::Stopped, ChildState::Stopped, ChildState::Running]);
    }
    for _ in 0..2 {
        handle.start_child("judge").await.unwrap();
        assert_eq!(world.alive.load(SeqCst), 3);
    }
    for (wrong, hint) in [("juge", "judge"), ("judge.2", "judge.0"), ("gatway", "gateway")] {
        let error = handle.kill(wrong).await.unwrap_err();
        assert_eq!(error.to_string(), format!("no actor named `{wrong}` (did you mean \"{hint}\"?)"));
    }
    supervisor.stop().await;
    assert_eq!(handle.start_child("judge").await, Err(SupervisorError::Ended));
}

#[tokio::test(start_paused = true)]
async fn a_role_grows_and_shrinks() {
    let world = World::default();
    let supervisor = Supervisor::start(vec![world.child("a.0"), world.child("b")]).await.unwrap();
    let mut other = world.child("b");
    other.role = "other".to_owned();
    assert_eq!(supervisor.add(other).await, Err(SupervisorError::Duplicate { name: "b".to_owned() }));
    let mut sibling = world.child("a.1");
    sibling.role = "another".to_owned();
    supervisor.add(sibling).await.unwrap();
    let names = || supervisor.statuses().into_iter().map(|child| child.name).collect::<Vec<_>>();
    assert_eq!(names(), ["a.0", "b", "a.1"]);
    supervisor.remove("a.0").await.unwrap();
    assert_eq!(names(), ["b", "a.1"]);
    assert_eq!(world.alive.load(SeqCst), 2);
    assert!(matches!(supervisor.remove("a.0").await, Err(SupervisorError::Unknown { .. })));
    // The name is free again, behind its role.
    supervisor.add(world.child("a.0")).await.unwrap();
    assert_eq!(names(), ["b", "a.0", "a.1"]);

    world.failing_starts.store(1, SeqCst);
    let error = supervisor.add(world.child("a.2")).await.unwrap_err();
    assert_eq!(error.to_string(), "a.2 did not start: told not to start");
    assert_eq!(names().len(), 3);
    assert_eq!(supervisor.stop().await, Vec::<String>::new());
    assert_eq!(world.alive.load(SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn a_child_that_does_not_answer_is_stuck_until_it_does_and_is_left_alone() {
    let world = World::default();
    let (answers, answering) = watch::channel(true);
    let mut child = world.child("a");
    child.probed_by(move |_| {
        let mut answering = answering.clone();
        async move { answering.wait_for(|answers| *answers).await.map(drop).map_err(|error| error.to_string()) }
    });
    let supervisor = Supervisor::start(vec![child]).await.unwrap();
    answers.send_replace(false);
    let status = until(&supervisor, |child| child.state == ChildState::Stuck).await;
    assert_eq!(status.last_error.map(|error| error.reason).as_deref(), Some("does not answer for 30 s"));
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!((supervisor.statuses()[0].state, supervisor.statuses()[0].restarts), (ChildState::Stuck, 0));
    answers.send_replace(true);
    until(&supervisor, |child| child.state == ChildState::Running).await;
    assert_eq!(world.log(), ["up a"]);
    supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_child_that_is_not_well_says_why_and_a_restart_heals_it() {
    let world = World::default();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let mut child = world.child("a");
    child.probed_by(move |_| {
        let asked = count.fetch_add(1, SeqCst);
        async move {
            match asked {
                0 => Err("too warm".to_owned()),
                1 => panic!("the probe itself"),
                _ => Ok(()),
            }
        }
    });
    child.probe_period = Duration::from_secs(60);
    let supervisor = Supervisor::start(vec![child]).await.unwrap();
    let status = until(&supervisor, |child| child.state == ChildState::Stuck).await;
    assert_eq!(status.last_error.as_ref().map(|error| error.reason.as_str()), Some("too warm"));
    let since = status.since;
    while asked.load(SeqCst) < 2 {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(supervisor.statuses()[0].since, since, "still stuck, noted once");
    supervisor.restart("a", false).await.unwrap();
    assert_eq!(supervisor.statuses()[0].state, ChildState::Running);
    supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_paused_inbox_shows() {
    let world = World::default();
    let inbox = Inbox::<u32>::new("test", InboxLimits::default());
    let seen = inbox.clone();
    let mut child = world.child("a");
    child.paused_when(move || seen.status().paused);
    let supervisor = Supervisor::start(vec![child]).await.unwrap();
    inbox.pause();
    assert_eq!(supervisor.statuses()[0].state, ChildState::Paused);
    inbox.resume();
    assert_eq!(supervisor.statuses()[0].state, ChildState::Running);
    supervisor.stop().await;
}

/// Handles a message once it is let.
struct Slow {
    let_go: Semaphore,
    handled: AtomicUsize,
}

impl Work for Slow {
    type Message = u32;
    const ROLE: &'static str = "slow";
    async fn handle(&self, lease: Lease<u32>) {
        self.let_go.acquire().await.expect("it is never closed").forget();
        self.handled.fetch_add(1, SeqCst);
        lease.ack();
    }
}

fn slow_worker(work: &Arc<Slow>, inbox: &Inbox<u32>) -> ChildSpec {
    let (work, inbox) = (work.clone(), inbox.clone());
    let mut spec = ChildSpec::new("slow.0", "slow", move |supervisor| {
        let arguments = WorkerArguments { work: work.clone(), inbox: inbox.clone(), concurrency: 2 };
        async move {
            let (actor, task) = Actor::spawn_linked(None, Worker::default(), arguments, supervisor).await?;
            Ok(RunningChild { cell: actor.get_cell(), task })
        }
    });
    spec.drained_by(|cell| async move {
        let _ = ActorRef::<WorkerControl>::from(cell).call(WorkerControl::Drain, None).await;
    });
    spec
}

#[tokio::test(start_paused = true)]
async fn a_drain_finishes_what_was_leased_and_takes_nothing_more() {
    let inbox = Inbox::new("slow", InboxLimits::default());
    let work = Arc::new(Slow { let_go: Semaphore::new(0), handled: 0.into() });
    for n in 0..5 {
        inbox.send(n).await;
    }
    let supervisor = Supervisor::start(vec![slow_worker(&work, &inbox)]).await.unwrap();
    while inbox.status().leased < 2 {
        tokio::task::yield_now().await;
    }
    let handle = supervisor.handle();
    let draining = tokio::spawn(async move { handle.drain("slow").await });
    until(&supervisor, |child| child.state == ChildState::Draining).await;
    work.let_go.add_permits(5);
    draining.await.unwrap().unwrap();
    assert_eq!((work.handled.load(SeqCst), inbox.status().waiting), (2, 3));
    assert_eq!(supervisor.statuses()[0].state, ChildState::Stopped);

    supervisor.start_child("slow").await.unwrap();
    while inbox.depth() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(work.handled.load(SeqCst), 5);
    supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_takes_too_long_gives_its_work_back_and_a_restart_goes_on_with_it() {
    let inbox = Inbox::new("slow", InboxLimits::default());
    let work = Arc::new(Slow { let_go: Semaphore::new(0), handled: 0.into() });
    inbox.send(1).await;
    let supervisor = Supervisor::start(vec![slow_worker(&work, &inbox)]).await.unwrap();
    while inbox.status().leased < 1 {
        tokio::task::yield_now().await;
    }
    supervisor.restart("slow.0", true).await.unwrap();
    assert_eq!((supervisor.statuses()[0].restarts, inbox.depth()), (1, 1));
    work.let_go.add_permits(1);
    while inbox.depth() > 0 {
        tokio::task::yield_now().await;
    }
    supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_cuts_a_drain_short() {
    let inbox = Inbox::new("slow", InboxLimits::default());
    let work = Arc::new(Slow { let_go: Semaphore::new(0), handled: 0.into() });
    inbox.send(1).await;
    let mut spec = slow_worker(&work, &inbox);
    spec.shutdown_timeout = Duration::from_secs(1_000_000);
    let supervisor = Supervisor::start(vec![spec]).await.unwrap();
    while inbox.status().leased < 1 {
        tokio::task::yield_now().await;
    }
    let handle = supervisor.handle();
    let started = tokio::time::Instant::now();
    let draining = tokio::spawn(async move { handle.drain("slow").await });
    until(&supervisor, |child| child.state == ChildState::Draining).await;
    supervisor.stop_child("slow").await.unwrap();
    draining.await.unwrap().unwrap();
    assert!(started.elapsed() < Duration::from_secs(1_000_000), "the drain was waited for");
    assert_eq!(inbox.status().waiting, 1);
    supervisor.stop().await;
}
