//! A next state that may be taken back is judged and taught like any other, and learnt from by nobody.

use super::*;

/// From `completed` on, what brings a turn whose next state is provisional to each state before a batch.
fn ways() -> [(TurnState, Vec<Record>); 4] {
    [
        (TurnState::Followed, vec![seems_followed("t")]),
        (TurnState::Judged, vec![seems_followed("t"), judged("t", true)]),
        (TurnState::Ready, vec![seems_followed("t"), judged("t", false)]),
        (TurnState::Ready, vec![seems_followed("t"), judged("t", true), taught("t")]),
    ]
}

async fn brought(way: &[Record]) -> Journal {
    let journal = Journal::in_memory();
    journal.done(completed("t")).await;
    for record in way {
        journal.done(record.clone()).await;
    }
    journal
}

async fn samples(journal: &Journal, after: u64) -> Vec<(u64, Sample)> {
    journal.samples(after, 10).await.expect("read")
}

#[tokio::test]
async fn a_turn_is_no_sample_until_its_next_state_is_settled() {
    let journal = brought(&[seems_followed("t"), judged("t", true), taught("t")]).await;
    assert!(journal.turn(&id("t")).await.expect("read").expect("known").provisional);
    assert!(samples(&journal, 0).await.is_empty());
    assert_eq!(journal.trainable(&ids(&["t"])).await.expect("read"), []);
    journal.stale(leased(1, &["t"])).await;
    let mut backlog = journal.backlog();
    let seen = *backlog.borrow_and_update();
    assert_eq!((seen.ready, seen.provisional), (0, 1));
    journal.done(settled("t")).await;
    // A reader that has seen everything before is woken and finds it.
    assert!(backlog.has_changed().expect("the journal lives"));
    assert_eq!((backlog.borrow().ready, backlog.borrow().provisional), (1, 0));
    assert_eq!(samples(&journal, seen.last_seq).await.len(), 1);
    journal.stale(settled("t")).await;
    journal.done(leased(1, &["t"])).await;
}

#[tokio::test]
async fn what_is_settled_before_it_is_judged_is_a_sample_once_it_is() {
    for (state, way) in ways() {
        let journal = brought(&way).await;
        journal.done(settled("t")).await;
        assert_eq!(journal.state("t").await, Some(state));
        assert_eq!(journal.provisional_turns().await.expect("read"), []);
        assert_eq!(samples(&journal, 0).await.len(), usize::from(state == TurnState::Ready));
    }
    let journal = brought(&[seems_followed("t"), settled("t"), judged("t", false)]).await;
    assert_eq!(samples(&journal, 0).await.len(), 1);
}

#[tokio::test]
async fn a_next_state_that_is_taken_back_leaves_nothing_behind_and_the_turn_takes_another() {
    for (state, way) in ways() {
        let journal = brought(&way).await;
        assert_eq!(journal.provisional_turns().await.expect("read"), ids(&["t"]), "{state:?}");
        journal.done(undone("t")).await;
        let row = journal.turn(&id("t")).await.expect("read").expect("known");
        assert_eq!((row.state, row.provisional), (TurnState::Waiting, false), "{state:?}");
        assert!(row.next_state.is_none() && row.verdict.is_none() && row.hints.is_empty(), "{state:?}");
        assert!(row.signal.is_none() && row.answers.is_empty(), "{state:?}");
        let backlog = *journal.backlog().borrow();
        assert_eq!((backlog.waiting, journal.provisional_turns().await.expect("read")), (1, vec![]));
        assert_eq!((backlog.to_judge, backlog.to_teach, backlog.ready, backlog.provisional), (0, 0, 0, 0));
        journal.stale(undone("t")).await;
        let open = journal.open_turns(SystemTime::UNIX_EPOCH).await.expect("read");
        assert!(open[0].waiting && open[0].mark == mark(9), "a session finds it again");

        journal.done(followed("t")).await;
        let work = journal.evaluations(0, 10).await.expect("read").remove(0).1;
        assert_eq!(work.undone, 1);
        let opinion = about_the_second(judged("t", false));
        journal.done(opinion).await;
        assert_eq!(samples(&journal, 0).await.len(), 1);
    }
}

/// The same record of the next state that took the place of the first.
fn about_the_second(mut record: Record) -> Record {
    if let Record::Judged { undone, .. } | Record::Taught { undone, .. } = &mut record {
        *undone = 1;
    }
    record
}

#[tokio::test]
async fn what_is_said_of_a_next_state_that_was_taken_back_is_not_taken_for_the_next_one() {
    let journal = brought(&[seems_followed("t")]).await;
    let asked = journal.evaluations(0, 10).await.expect("read").remove(0).1;
    assert_eq!(asked.undone, 0);
    journal.done(undone("t")).await;
    journal.stale(judged("t", false)).await;
    journal.done(seems_followed("t")).await;
    journal.stale(judged("t", false)).await;
    journal.stale(judged("t", true)).await;
    assert_eq!(journal.state("t").await, Some(TurnState::Followed));
    journal.done(about_the_second(judged("t", true))).await;
    assert_eq!(journal.judged(0, 10).await.expect("read")[0].1.undone, 1);
    journal.stale(taught("t")).await;
    journal.done(about_the_second(taught("t"))).await;
    assert_eq!(journal.state("t").await, Some(TurnState::Ready));
}

#[tokio::test]
async fn nothing_is_taken_back_from_a_batch_and_what_a_person_said_stays() {
    let in_a_batch = [seems_followed("t"), judged("t", false), settled("t"), leased(1, &["t"])];
    let journal = brought(&in_a_batch).await;
    journal.stale(undone("t")).await;
    journal.stale(followed("t")).await;
    assert_eq!(journal.state("t").await, Some(TurnState::Leased));
    journal.done(step(1, &["t"])).await;
    journal.stale(undone("t")).await;
    assert_eq!(journal.state("t").await, Some(TurnState::Trained));

    let journal = brought(&[seems_followed("t"), rated("t", 1), corrected("t", "Be brief.")]).await;
    journal.done(undone("t")).await;
    let row = journal.turn(&id("t")).await.expect("read").expect("known");
    assert_eq!((row.rated, row.corrected.as_deref()), (Some(1), Some("Be brief.")));
}

#[tokio::test]
async fn a_sample_that_was_sent_before_is_read_again_when_its_next_state_was_another() {
    let journal = brought(&[seems_followed("t"), judged("t", true), taught("t"), settled("t")]).await;
    assert_eq!(samples(&journal, 0).await[0].1.teacher, Some(signal()));
    assert!(journal.overruled(&ids(&["t"])).await.expect("read").is_empty());
    journal.done(undone("t")).await;
    journal.done(followed("t")).await;
    journal.done(about_the_second(judged("t", false))).await;
    journal.done(leased(1, &["t"])).await;
    let anew = journal.overruled(&ids(&["t"])).await.expect("read");
    assert_eq!((anew.len(), &anew[0].teacher), (1, &None));
}

#[tokio::test]
async fn it_is_provisional_after_a_restart_and_a_file_of_before_has_none() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let run = Run::start(config(dir.path())).await;
    for record in [completed("t"), seems_followed("t"), judged("t", false), completed("u"), followed("u")] {
        run.journal.done(record).await;
    }
    run.stop().await;
    let run = Run::start(config(dir.path())).await;
    assert_eq!(run.journal.provisional_turns().await.expect("read"), ids(&["t"]));
    assert_eq!((run.journal.backlog().borrow().ready, run.journal.backlog().borrow().provisional), (0, 1));
    run.journal.done(settled("t")).await;
    run.stop().await;

    // As the program before this one leaves it.
    let path = dir.path().join("journal.db");
    let connection = rusqlite::Connection::open(&path).expect("a database");
    connection
        .execute_batch(
            "DROP TABLE wishes; DROP TABLE episode_steps; DROP TABLE episodes; DROP INDEX turns_by_episode;
             ALTER TABLE turns DROP COLUMN episode; DROP INDEX turns_provisional; ALTER TABLE turns DROP COLUMN provisional;
             ALTER TABLE turns DROP COLUMN undone; PRAGMA user_version = 5;",
        )
        .expect("it can be undone");
    drop(connection);
    let reader = JournalReader::open(dir.path()).expect("readable").expect("a journal");
    assert!(!reader.story(&id("t")).expect("read").expect("it is kept").row.provisional);
    drop(reader);
    let run = Run::start(config(dir.path())).await;
    assert_eq!((run.journal.backlog().borrow().ready, run.journal.backlog().borrow().to_judge), (1, 1));
    assert_eq!(run.journal.evaluations(0, 10).await.expect("read")[0].1.undone, 0);
    assert_eq!(run.journal.provisional_turns().await.expect("read"), []);
}

#[test]
fn records_that_an_earlier_program_spilled_are_of_settled_next_states() {
    let read = |record: serde_json::Value| -> Record { serde_json::from_value(record).expect("a record") };
    let next_state = json!({"kind": "user", "text": "no", "rating": null, "is_error": false});
    let seen = read(json!({"NextStateSeen": {"turn": "t", "next_state": next_state}}));
    assert!(matches!(seen, Record::NextStateSeen { provisional: false, .. }));
    let taught = read(json!({"Taught": {"turn": "t", "signal": null}}));
    assert!(matches!(taught, Record::Taught { undone: 0, .. }));
}
