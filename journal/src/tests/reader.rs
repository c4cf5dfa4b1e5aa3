use super::*;

#[tokio::test]
async fn a_reader_sees_what_is_committed_beside_the_writer_and_after_it() {
    let dir = tempfile::tempdir().unwrap();
    assert!(JournalReader::open(dir.path()).unwrap().is_none());
    let run = Run::start(config(dir.path())).await;
    let reader = JournalReader::open(dir.path()).unwrap().expect("a journal that was never closed");
    assert_eq!(reader.sessions(0, 9).unwrap(), []);
    for name in ["1", "2"] {
        run.journal.make_ready(name).await;
    }
    run.journal.done(leased(1, &["1"])).await;
    run.journal.done(step(1, &["1"])).await;
    run.journal.done(dropped("2")).await;
    let session = SessionId("s".into());
    assert_eq!(reader.sessions(0, 9).unwrap(), [(1, session.clone())]);
    assert_eq!((reader.count_sessions().unwrap(), reader.has_session(&session).unwrap()), (1, true));
    assert!(!reader.has_session(&SessionId("nobody".into())).unwrap());
    let told = reader.stories(&session, 1, 9).unwrap();
    assert_eq!((told.len(), told[0].turn.clone()), (1, id("2")));
    let [(1, Ok(lesson))] = &reader.lessons(0, 9).unwrap()[..] else { panic!("one turn was taken") };
    let expected = Lesson { step: 1, state: TurnState::Trained, version: 3, reward: Some(-1) };
    assert_eq!(*lesson, expected);
    let [(1, Ok(row))] = &reader.steps(0, 9).unwrap()[..] else { panic!("one step was taken") };
    assert_eq!((row.step, row.version, row.report.grad_norm), (1, Some(1), 1.5));
    assert!(reader.steps(1, 9).unwrap().is_empty());
    let gone = reader.dropped(0, 9).unwrap();
    assert_eq!(gone.iter().map(|(_, _, reason)| reason.as_str()).collect::<Vec<_>>(), ["test"]);
    run.stop().await;
    let reader = JournalReader::open(dir.path()).unwrap().expect("it was written");
    assert!(reader.story(&id("1")).unwrap().is_some() && reader.story(&id("9")).unwrap().is_none());
}

#[tokio::test]
async fn a_row_that_cannot_be_read_hides_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let run = Run::start(config(dir.path())).await;
    for name in ["1", "2"] {
        run.journal.make_ready(name).await;
    }
    run.journal.done(leased(1, &["1", "2"])).await;
    run.journal.done(step(1, &["1", "2"])).await;
    run.stop().await;
    let path = dir.path().join(crate::folder::DATABASE);
    let database = rusqlite::Connection::open(&path).unwrap();
    database.execute("UPDATE bodies SET body = x'09' WHERE turn = 1 AND part = 'turn'", []).unwrap();
    let reader = JournalReader::open(dir.path()).unwrap().expect("it was written");
    let lessons = reader.lessons(0, 9).unwrap();
    assert!(matches!(&lessons[..], [(1, Err(_)), (2, Ok(_))]));
    database.execute("UPDATE steps SET report = x''", []).unwrap();
    let problem = reader.steps(0, 9).unwrap().remove(0).1.unwrap_err();
    assert!(problem.line().contains("report of step 1"), "{}", problem.line());
    database.pragma_update(None, "user_version", 999).unwrap();
    assert!(matches!(JournalReader::open(dir.path()), Err(JournalError::Newer { found: 999, .. })));
}
