//! Children that depend on those before them.

use super::*;

/// `first`, `second` and `third` of one group, and `alone` of none.
async fn started(world: &World) -> Supervisor {
    let specs = ["first", "second", "alone", "third"].map(|name| {
        let mut spec = world.child(name);
        if name != "alone" {
            spec.rest_for_one("group");
        }
        spec
    });
    let supervisor = Supervisor::start(specs.into()).await.unwrap();
    world.log.lock().unwrap().clear();
    supervisor
}

fn all_running(statuses: &[ChildStatus]) -> bool {
    statuses.iter().all(|child| child.state == ChildState::Running)
}

#[tokio::test(start_paused = true)]
async fn the_rest_of_a_group_is_stopped_in_reverse_and_started_in_order_behind_the_one_that_ended() {
    let world = World::default();
    let supervisor = started(&world).await;
    world.tell("first", Order::Panic);
    supervisor
        .wait_for(|statuses| statuses[0].restarts == 1 && statuses[3].restarts == 1 && all_running(statuses))
        .await
        .unwrap();
    let log = world.log();
    // The first ended by itself, before anyone was told.
    assert_eq!(log, ["down first", "down third", "down second", "up first", "up second", "up third"]);
    assert_eq!(world.alive.load(SeqCst), 4);

    world.log.lock().unwrap().clear();
    world.tell("second", Order::Fail);
    supervisor.wait_for(|statuses| statuses[3].restarts == 2 && all_running(statuses)).await.unwrap();
    assert_eq!(world.log(), ["down second", "down third", "up second", "up third"]);
    supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_ordered_restart_takes_the_rest_of_the_group_along_and_a_stop_keeps_it_down() {
    let world = World::default();
    let supervisor = started(&world).await;
    supervisor.restart("second", false).await.unwrap();
    supervisor.wait_for(all_running).await.unwrap();
    assert_eq!(world.log(), ["down third", "down second", "up second", "up third"]);

    supervisor.stop_child("first").await.unwrap();
    assert_eq!(world.alive.load(SeqCst), 1);
    let error = supervisor.restart("third", false).await.unwrap_err();
    assert_eq!(error.to_string(), "third waits for first, which is down");
    supervisor.start_child("first").await.unwrap();
    supervisor.wait_for(all_running).await.unwrap();
    supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_group_whose_first_has_failed_waits_for_an_operator_while_everything_else_goes_on() {
    let world = World::default();
    let mut first = world.child("first");
    first.intensity = Intensity { restarts: 0, period: Duration::from_secs(60) };
    first.rest_for_one("group");
    let mut second = world.child("second");
    second.rest_for_one("group");
    let supervisor = Supervisor::start(vec![first, second, world.child("alone")]).await.unwrap();
    world.tell("first", Order::Panic);
    let statuses = supervisor
        .wait_for(|statuses| statuses[0].state == ChildState::Failed && world.alive.load(SeqCst) == 1)
        .await
        .unwrap();
    assert_eq!(statuses[2].state, ChildState::Running);
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(supervisor.statuses()[0].state, ChildState::Failed);
    assert_eq!(supervisor.statuses()[1].state, ChildState::Restarting);
    supervisor.restart("first", false).await.unwrap();
    supervisor.wait_for(all_running).await.unwrap();
    supervisor.stop().await;
}
