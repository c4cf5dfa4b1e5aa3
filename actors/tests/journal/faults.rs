//! The writer panics or fails at each place where it can.

use std::time::Duration;

use fail::FailScenario;
use openclaw_journal::{Health, Journal, JournalError, Record, Recorded};

use crate::turns::*;

/// A hundred turns, followed and judged by as many tasks at once: what each record came to.
async fn work(journal: &Journal) -> Vec<Result<Recorded, JournalError>> {
    let tasks = (0..100).map(|n| {
        let journal = journal.clone();
        tokio::spawn(async move {
            let name = format!("turn-{n}");
            let mut outcomes = Vec::new();
            for record in [completed(&name), followed(&name), judged(&name)] {
                outcomes.push(journal.record(record).await);
            }
            outcomes
        })
    });
    let tasks: Vec<_> = tasks.collect();
    let mut outcomes = Vec::new();
    for task in tasks {
        outcomes.extend(task.await.expect("no panic of the task's own"));
    }
    outcomes
}

async fn exactly_once(journal: &Journal) {
    let totals = *journal.totals().borrow();
    assert_eq!((totals.turns, totals.next_states, totals.approved, totals.samples), (100, 100, 100, 100));
    assert_eq!(journal.samples(0, 1000).await.expect("read").len(), 100);
    assert_eq!(journal.queue().dead_letters, 0);
}

#[tokio::test]
async fn a_writer_that_panics_anywhere_loses_nothing_and_does_nothing_twice() {
    for place in ["journal.before_write", "journal.before_commit", "journal.after_commit"] {
        let scenario = FailScenario::setup();
        let dir = tempfile::tempdir().expect("a temporary folder");
        let journal = open(dir.path());
        let supervisor = supervise(&journal);
        // Not so often in a row that a record is given up.
        fail::cfg(place, "2*off->1*panic->7*off->1*panic->20*off->1*panic->off").expect("a place");
        for outcome in work(&journal).await {
            assert_eq!(outcome.expect("it is written"), Recorded::Done, "{place}");
        }
        exactly_once(&journal).await;
        scenario.teardown();
        supervisor.abort();
    }
}

#[tokio::test]
async fn a_disk_that_fails_for_a_while_delays_and_no_more() {
    let scenario = FailScenario::setup();
    let dir = tempfile::tempdir().expect("a temporary folder");
    let journal = open(dir.path());
    let supervisor = supervise(&journal);
    fail::cfg("journal.write_fails", "return(no space left)").expect("a place");
    let mut health = journal.health();
    let working = tokio::spawn({
        let journal = journal.clone();
        async move { work(&journal).await }
    });
    let failing = health.wait_for(|health| *health != Health::Ok).await.expect("the journal lives").clone();
    let Health::Failing(why) = failing else { panic!("it fails") };
    assert!(why.contains("journal.db") && why.contains("no space left"), "{why}");
    assert!(!working.is_finished());
    fail::remove("journal.write_fails");
    for outcome in working.await.expect("no panic") {
        assert_eq!(outcome.expect("it is written"), Recorded::Done);
    }
    assert_eq!(*health.borrow_and_update(), Health::Ok);
    exactly_once(&journal).await;
    scenario.teardown();
    supervisor.abort();
}

#[tokio::test]
async fn a_record_that_kills_its_writer_is_given_up_alone_and_told() {
    let scenario = FailScenario::setup();
    let dir = tempfile::tempdir().expect("a temporary folder");
    let journal = open(dir.path());
    let names: Vec<String> = (0..50).map(|n| format!("turn-{n}")).collect();
    let waiting: Vec<_> = names
        .iter()
        .map(|name| {
            let (journal, record) = (journal.clone(), completed(name));
            tokio::spawn(async move { journal.record(record).await })
        })
        .collect();
    while journal.queue().waiting < names.len() {
        tokio::task::yield_now().await;
    }
    // Once with all of them, then twice with the first alone.
    fail::cfg("journal.before_write", "3*panic->off").expect("a place");
    let supervisor = supervise(&journal);
    let mut given_up = 0;
    for outcome in waiting {
        match outcome.await.expect("no panic of the task's own") {
            Err(JournalError::DeadLetter { attempts: 3 }) => given_up += 1,
            outcome => assert_eq!(outcome.expect("it is written"), Recorded::Done),
        }
    }
    assert_eq!((given_up, journal.queue().dead_letters, journal.totals().borrow().turns), (1, 1, 49));
    scenario.teardown();
    supervisor.abort();
}

#[tokio::test]
async fn a_step_whose_writer_dies_is_committed_once_with_its_turns() {
    for place in ["journal.before_commit", "journal.after_commit"] {
        let scenario = FailScenario::setup();
        let dir = tempfile::tempdir().expect("a temporary folder");
        let journal = open(dir.path());
        let supervisor = supervise(&journal);
        work(&journal).await;
        let batch: Vec<_> = (0..16).map(|n| id(&format!("turn-{n}"))).collect();
        let leased = Record::BatchLeased { step: 1, turns: batch.clone() };
        assert_eq!(journal.record(leased).await.expect("written"), Recorded::Done);
        fail::cfg(place, "1*panic->off").expect("a place");
        let committed = tokio::time::timeout(Duration::from_secs(60), journal.record(step(1, batch))).await;
        assert_eq!(
            committed.expect("it does not wait for ever").expect("written"),
            Recorded::Done,
            "{place}"
        );
        let totals = *journal.totals().borrow();
        assert_eq!((totals.steps, totals.trained, journal.backlog().borrow().ready), (1, 16, 84));
        scenario.teardown();
        supervisor.abort();
    }
}
