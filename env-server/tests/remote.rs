//! The kind `remote` against a server, over sockets: what is far away is as it is here.

mod host;

use std::{
    sync::{Arc, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use host::{
    Host, call, eventually, limits, made,
    proxy::Proxy,
    remote,
    rig::{Rig, picture},
    same,
};
use openclaw_env_server::leases::Limits;
use openclaw_environments::world::{Action, Environment, Part, Split, World, WorldError, users_of};

fn of_rig(limits: Limits) -> (Arc<Rig>, Host) {
    let rig = Rig::new();
    let host = Host::start(&[("rig", rig.clone())], limits);
    (rig, host)
}

fn begun(environment: &Arc<dyn Environment>) -> Box<dyn World> {
    let task = environment.task(Split::Train, 0).expect("a task");
    let mut world = environment.open().expect("a world");
    world.reset(&task).expect("it begins");
    world
}

fn act(what: &str) -> Action {
    call("do", "what", what)
}

#[test]
fn an_episode_far_away_is_the_same_episode_step_by_step() {
    let host = Host::of_sums(limits());
    let (here, there) = (made("kind = 'calculator'"), host.remote());
    assert_eq!(there.ready(), Ok(()));
    assert_eq!((there.spec().kind, there.spec().steps), ("remote", here.spec().steps));
    assert!(there.spec().patience > here.spec().patience);
    for (split, number) in [(Split::Train, 0), (Split::Train, u64::MAX >> 2), (Split::HeldOut, 7)] {
        assert_eq!(there.tasks(split), here.tasks(split));
        let sum = here.task(split, number).expect("a task").opening[0].message()["content"].to_string();
        let sum: String = sum.chars().filter(|c| "0123456789+-* ".contains(*c)).collect();
        let actions = [
            call("abacus", "expression", "1"),
            call("calculator", "expression", "1 + ("),
            Action::Malformed,
            call("calculator", "expression", sum.trim()),
            Action::Text("The result is 7.".into()),
        ];
        same(&*here, &*there, split, number, &actions);
    }
    host.stop();
}

#[test]
fn tasks_end_where_they_end_there_and_are_fetched_once() {
    let (rig, host) = of_rig(limits());
    let proxy = Proxy::before(host.address, 0);
    let there = remote(proxy.address, "");
    assert_eq!((there.tasks(Split::Train), there.tasks(Split::HeldOut)), (Some(5), Some(2)));
    let task = there.task(Split::HeldOut, 1).expect("a task");
    assert_eq!(Ok(task.clone()), rig.task(Split::HeldOut, 1));
    let passed = proxy.passed.load(Ordering::SeqCst);
    assert_eq!(there.task(Split::HeldOut, 1), Ok(task));
    assert_eq!(proxy.passed.load(Ordering::SeqCst), passed, "nobody was asked again");
    assert_eq!(there.task(Split::HeldOut, 2), Err(WorldError::NoTask("held-out/2".into())));
}

#[test]
fn users_far_away_have_their_own_tasks() {
    let here = made("kind = 'persona'");
    let host = Host::start(&[("people", here.clone())], limits());
    let there = host.remote();
    let (here, there) = (users_of("people", &here), users_of("people", &there));
    assert!(here.len() > 1 && here.len() == there.len());
    for (here, there) in here.iter().zip(&there) {
        assert_eq!(here.name, there.name);
        let talk = [Action::Text("Yes.".into()), Action::Text("Could you say that again?".into())];
        same(&*here.environment, &*there.environment, Split::Train, 3, &talk);
    }
}

#[test]
fn answers_that_are_lost_train_nothing_twice() {
    let (rig, host) = of_rig(limits());
    // Heartbeats are among the answers, so which are lost is not the same in each round.
    let proxy = Proxy::before(host.address, 3);
    let there = remote(proxy.address, "");
    let episodes = 20;
    for _ in 0..episodes {
        let mut world = begun(&there);
        for step in 1..=4 {
            let outcome = world.step(&act("go on")).expect("a step");
            assert_eq!(outcome.observation.results[0].parts, [Part::Text(format!("step {step}"))]);
            assert_eq!(outcome.observation.state, Some(u64::MAX - step));
            assert_eq!(outcome.rule.map(|rule| (rule.score, rule.reason)), Some((1, "it was done")));
        }
        let verdict = world.evaluate().expect("a verdict");
        assert_eq!((verdict.reward, verdict.numbers["steps"]), (0.1, 4.0));
    }
    assert!(proxy.lost.load(Ordering::SeqCst) > episodes, "answers were lost");
    let count = |counter: &std::sync::atomic::AtomicUsize| counter.load(Ordering::SeqCst);
    let counts = &rig.counts;
    assert_eq!((count(&counts.resets), count(&counts.steps)), (episodes, 4 * episodes));
    assert_eq!((count(&counts.evaluations), count(&counts.opened)), (episodes, episodes));
    eventually("every world is closed", || count(&counts.closed) == episodes);
    assert_eq!(host.server.count(), (0, 0));
}

#[test]
fn a_step_outlives_many_ttls_with_heartbeats_and_is_ended_by_an_interrupt() {
    let (rig, host) = of_rig(Limits { ttl_secs: 1.0, ..limits() });
    let there = host.remote();
    let mut world = begun(&there);
    let interrupt = world.interrupt();
    let step = thread::spawn(move || {
        let outcome = world.step(&act("wait"));
        (outcome, world)
    });
    eventually("it waits", || rig.counts.waiting.load(Ordering::SeqCst) == 1);
    let began = Instant::now();
    eventually("its time of life has passed many times", || {
        assert_eq!((rig.counts.waiting.load(Ordering::SeqCst), host.server.count()), (1, (1, 0)));
        began.elapsed() > Duration::from_secs(4)
    });
    interrupt();
    let (outcome, mut world) = step.join().expect("no panic");
    assert_eq!(outcome, Err(WorldError::Interrupted));
    eventually("it does not wait any more", || rig.counts.waiting.load(Ordering::SeqCst) == 0);
    assert!(world.step(&act("go on")).is_ok(), "the world goes on");
}

#[test]
fn a_client_that_is_gone_loses_its_lease_in_the_middle_of_a_step() {
    let (rig, host) = of_rig(Limits { ttl_secs: 0.3, ..limits() });
    let lease = host.lease("a");
    host.ok("/reset", serde_json::json!({"lease_id": lease, "task": {"number": 0}}));
    let address = host.address;
    let body = serde_json::json!({"lease_id": lease, "action": host::wired(&act("wait"))});
    let step = thread::spawn(move || host::post(address, "/step", body));
    eventually("it waits", || rig.counts.waiting.load(Ordering::SeqCst) == 1);
    // Nobody sends a heartbeat.
    let (status, told) = step.join().expect("no panic");
    assert_eq!((status, told["code"].as_str()), (410, Some("LEASE_GONE")));
    eventually("nothing is left", || host.server.count() == (0, 0));
    assert_eq!(rig.counts.closed.load(Ordering::SeqCst), 1);
    assert_eq!(host.post("/heartbeat", serde_json::json!({"lease_id": lease})).0, 410);
}

#[test]
fn what_a_world_shows_is_fetched_with_the_step_and_checked() {
    let (_rig, host) = of_rig(limits());
    let there = host.remote();
    let mut world = begun(&there);
    let outcome = world.step(&act("show")).expect("a step");
    let (bytes, image) = picture();
    assert!(outcome.observation.results[0].parts.contains(&Part::Image(image.clone())));
    world.step(&act("show")).expect("a step");
    assert_eq!(world.images(), [(image, bytes.to_vec())], "once, whoever often it is shown");
    assert_eq!(world.images(), []);
}

#[test]
fn faults_far_away_are_what_they_are_here() {
    let (rig, host) = of_rig(Limits { task_slots: 1, run_slots: 1, ..limits() });
    let there = host.remote();
    let mut world = begun(&there);
    assert!(matches!(world.evaluate(), Err(WorldError::Invalid(why)) if why == "nothing was done"));
    assert_eq!(world.step(&act("break")), Err(WorldError::Broken("on purpose".into())));
    assert!(world.step(&act("go on")).is_ok());
    // A world that panics is gone, and its slot is free.
    assert!(matches!(world.step(&act("panic")), Err(WorldError::Broken(_))));
    assert!(matches!(world.step(&act("go on")), Err(WorldError::Broken(_))));
    eventually("its slot is free", || host.server.count() == (0, 0));
    drop(world);
    let mut first = begun(&there);
    // One more waits as long as it may, and is told what is missing.
    let impatient = remote(host.address, "wait_secs = 1");
    let task = impatient.task(Split::Train, 0).expect("a task");
    let refused = impatient.open().expect("a world").reset(&task).expect_err("there is no slot");
    assert!(refused.may_pass() && refused.to_string().contains("all run slots"), "{refused}");
    // Whoever is patient gets the slot when it is free.
    let patient = thread::spawn(move || begun(&there).step(&act("go on")).is_ok());
    assert!(first.step(&act("go on")).is_ok());
    drop(first);
    assert!(patient.join().expect("no panic"));
    assert_eq!(rig.counts.opened.load(Ordering::SeqCst), 3);
}

#[test]
fn a_server_that_is_gone_is_told_in_words() {
    let host = Host::of_sums(limits());
    let (address, there) = (host.address, remote(host.address, "wait_secs = 1"));
    let wrong = made(&format!("kind = 'remote'\nurl = 'http://{address}'\ntoken_env = 'CARGO_PKG_VERSION'"));
    assert!(
        matches!(wrong.ready(), Err(WorldError::Refused(why)) if why.contains("its token is another one"))
    );
    let other = remote(address, "env = 'products'").ready().expect_err("there is none");
    assert!(other.to_string().contains("has no \"products\", but sums"), "{other}");
    let task = there.task(Split::Train, 0).expect("a task");
    let mut world = there.open().expect("a world");
    world.reset(&task).expect("it begins");
    host.stop();
    let broken = world.step(&Action::Text("7".into())).expect_err("nobody is there");
    assert!(broken.may_pass(), "{broken}");
    drop(world);
    // One in its place knows of no lease.
    let broken = there.open().expect("a world").reset(&task).expect_err("nobody is there");
    assert!(broken.may_pass() && broken.to_string().contains(&address.to_string()), "{broken}");
}

#[test]
fn two_hundred_leases_are_held_at_once() {
    let host = Host::of_sums(Limits { task_slots: 50, run_slots: 4, ttl_secs: 2.0, ..limits() });
    let there = host.remote();
    let mut worlds: Vec<Box<dyn World>> = (0..200)
        .map(|nth| {
            let task = there.task(Split::Train, nth % 50).expect("a task");
            let mut world = there.open().expect("a world");
            world.reset(&task).expect("it begins");
            world
        })
        .collect();
    assert_eq!(host.server.count(), (200, 0));
    // Each is asked while all others live by their heartbeats alone.
    for round in 0..2 {
        let steps = worlds.chunks_mut(25).map(|some| {
            move || {
                for world in some {
                    let outcome = world.step(&call("calculator", "expression", "1 + 1")).expect("a step");
                    assert!(!outcome.done, "{round}");
                }
            }
        });
        thread::scope(|scope| steps.for_each(|step| drop(scope.spawn(step))));
    }
    assert_eq!(host.server.count(), (200, 0));
    thread::scope(|scope| {
        while let Some(world) = worlds.pop() {
            scope.spawn(move || drop(world));
        }
    });
    assert_eq!(host.server.count(), (0, 0));
}

#[test]
fn a_remote_environment_can_be_asked_from_within_a_runtime() {
    let host = Host::of_sums(limits());
    let there = host.remote();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async move {
        let task = there.task(Split::Train, 0).expect("a task");
        let mut world = there.open().expect("a world");
        assert!(world.reset(&task).is_ok());
        drop(world);
        drop(there);
    });
}
