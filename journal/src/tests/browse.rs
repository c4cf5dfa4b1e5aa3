use std::collections::BTreeMap;

use super::*;

fn of_session(name: &str, session: &str, index: u32) -> Record {
    let turn = Turn { session: SessionId(session.into()), index, ..turn(name) };
    Record::TurnCompleted { turn: Arc::new(turn), mark: mark(9) }
}

#[tokio::test]
async fn conversations_are_listed_by_their_latest_turn_and_page_by_page() {
    let journal = Journal::in_memory();
    for (name, session, index) in [("1", "a", 1), ("2", "b", 1), ("3", "c", 1), ("4", "a", 2)] {
        journal.done(of_session(name, session, index)).await;
    }
    let all = journal.sessions(u64::MAX, 10).await.unwrap();
    let names: Vec<&str> = all.iter().map(|row| &*row.session.0).collect();
    assert_eq!(names, ["a", "c", "b"]);
    assert_eq!(all[0].states, [(TurnState::Waiting, 2)]);
    assert_eq!(all[0].opening.as_ref().map(|turn| turn.id.clone()), Some(id("1")));
    assert_eq!(all[0].version, Some(3));
    let rest = journal.sessions(all[0].place, 1).await.unwrap();
    assert_eq!(&*rest[0].session.0, "c");
}

#[tokio::test]
async fn a_conversation_is_told_turn_by_turn_with_votes_and_what_its_step_made() {
    let journal = Journal::in_memory();
    journal.make_ready("1").await;
    journal.done(completed("2")).await;
    journal.done(leased(1, &["1"])).await;
    let story = journal.story(&id("1")).await.unwrap().unwrap();
    assert_eq!((story.row.state, story.learnt, story.died), (TurnState::Leased, None, None));
    assert_eq!(story.row.answers, [Some("\\boxed{-1}".to_owned()), None]);
    // A step whose folder is not written yet has learnt from it all the same.
    journal.done(Record::StepCompleted(commit(1, &["1"], false))).await;
    let session = SessionId("s".into());
    let told = journal.stories(&session, 0, 10).await.unwrap();
    let places: Vec<(&str, u64)> = told.iter().map(|told| (&*told.turn.0, told.place)).collect();
    assert_eq!(places, [("1", 1), ("2", 2)]);
    assert_eq!(told[0].story.as_ref().unwrap().learnt, Some(1));
    assert_eq!(journal.stories(&session, 1, 10).await.unwrap().len(), 1);
    assert!(journal.story(&id("9")).await.unwrap().is_none());
}

#[tokio::test]
async fn judged_replies_are_the_latest_and_what_is_known_is_not_read_again() {
    let journal = Journal::in_memory();
    for name in ["1", "2", "3"] {
        journal.make_ready(name).await;
    }
    journal.done(completed("4")).await;
    let latest = journal.replies(2, BTreeMap::new()).await.unwrap();
    let turns: Vec<&str> = latest.values().map(|reply| &*reply.turn.0).collect();
    assert_eq!(turns, ["2", "3"]);
    assert!(latest.values().all(|reply| (reply.version, reply.index, reply.reward) == (3, 1, Some(-1))));
    let mut known = latest.clone();
    known.first_entry().expect("two are known").get_mut().version = 77;
    let again = journal.replies(3, known).await.unwrap();
    let versions: Vec<u64> = again.values().map(|reply| reply.version).collect();
    assert_eq!(versions, [3, 77, 3]);
}

#[tokio::test]
async fn a_version_knows_who_taught_it() {
    let journal = Journal::in_memory();
    for name in ["1", "2"] {
        journal.make_ready(name).await;
    }
    journal.done(leased(1, &["1", "2"])).await;
    journal.done(step(1, &["1", "2"])).await;
    let (count, turns) = journal.taught(1, 1).await.unwrap();
    assert_eq!((count, turns), (2, vec![(id("1"), SessionId("s".into()))]));
    assert_eq!(journal.taught(2, 1).await.unwrap(), (0, Vec::new()));
}
