use super::{super::writer::Write, *};

#[tokio::test]
async fn records_that_wait_together_share_a_commit() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let journal = Journal::open(config(dir.path())).expect("a journal");
    let names: Vec<String> = (0..200).map(|n| format!("turn-{n}")).collect();
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
    let wal = dir.path().join("journal.db-wal");
    let mut backlog = journal.backlog();
    let mut writing = journal.start_writing().await.expect("it starts");
    // Told of once per commit: the first is told of them all.
    backlog.changed().await.expect("the journal lives");
    assert_eq!(backlog.borrow().waiting, 200);
    for record in waiting {
        assert_eq!(record.await.expect("no panic").expect("it is written"), Recorded::Done);
    }
    assert!(std::fs::metadata(wal).expect("a file").len() > 0);
    writing.stop().await;
}

#[tokio::test]
async fn a_writer_killed_again_and_again_loses_nothing_and_writes_nothing_twice() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let Run { journal, mut writing } = Run::start(config(dir.path())).await;
    for life in 0..10 {
        for n in 0..20 {
            journal.submit(completed(&format!("turn-{life}-{n}"))).await;
        }
        drop(writing);
        writing = journal.start_writing().await.expect("it starts again");
    }
    journal.done(completed("last")).await;
    assert_eq!((journal.totals().borrow().turns, journal.queue().dead_letters), (201, 0));
}

#[tokio::test]
async fn what_was_accepted_is_written_before_the_journal_stops() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let run = Run::start(config(dir.path())).await;
    for n in 0..50 {
        run.journal.submit(completed(&format!("turn-{n}"))).await;
    }
    run.stop().await;
    let run = Run::start(config(dir.path())).await;
    assert_eq!(run.journal.totals().borrow().turns, 50);
}

#[tokio::test]
async fn on_a_full_disk_records_wait_and_the_reason_is_shown_until_there_is_room() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let run = Run::start(config(dir.path())).await;
    run.journal.done(completed("a")).await;
    let limit = |pages: u32| {
        let connection = run.journal.shared.parts.store.writing();
        connection
            .query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))
            .expect("the limit is set");
    };
    limit(1);
    let waiting: Vec<_> = (0..40)
        .map(|n| {
            let journal = run.journal.clone();
            tokio::spawn(async move { journal.record(completed(&format!("turn-{n}"))).await })
        })
        .collect();
    let mut health = run.journal.health();
    let failing = health.wait_for(|health| *health != Health::Ok).await.expect("the journal lives").clone();
    let Health::Failing(why) = failing else { panic!("it fails") };
    assert!(why.contains("journal.db") && why.contains("full"), "{why}");
    assert!(!waiting.iter().all(|record| record.is_finished()), "they wait");
    assert_eq!(run.journal.state("a").await, Some(TurnState::Waiting), "what is there can be read");
    limit(1 << 20);
    health.wait_for(|health| *health == Health::Ok).await.expect("the journal lives");
    for record in waiting {
        assert_eq!(record.await.expect("no panic").expect("it is written"), Recorded::Done);
    }
    assert_eq!(run.journal.totals().borrow().turns, 41);
}

#[tokio::test]
async fn a_file_that_is_damaged_while_it_is_written_ends_the_writing_with_its_name() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut run = Run::start(config(dir.path())).await;
    run.journal.done(completed("a")).await;
    {
        let connection = run.journal.shared.parts.store.writing();
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).expect("in one file");
        let path = dir.path().join("journal.db");
        let mut bytes = std::fs::read(&path).expect("read");
        bytes[100..].fill(0xff);
        std::fs::write(&path, bytes).expect("written");
        connection.execute_batch("PRAGMA shrink_memory; PRAGMA cache_size = 0").expect("nothing is cached");
    }
    let refused = tokio::spawn({
        let journal = run.journal.clone();
        async move { journal.record(completed("b")).await }
    });
    let why = run.writing.ended().await.expect_err("it ends").line();
    assert!(why.contains("journal.db"), "{why}");
    assert!(!refused.is_finished(), "the record waits for a writer");
    // No writer can start on it either, and says which file it is.
    let failed = run.journal.start_writing().await.map(|_| ()).expect_err("damaged").line();
    assert!(failed.contains("journal.db"), "{failed}");
}

#[test]
fn a_record_that_nobody_waits_for_can_be_settled_all_the_same() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let journal = Journal::in_memory();
        let (answer, gone) = oneshot::channel();
        drop(gone);
        journal.shared.parts.queue.send(Write::new(completed("a"), answer)).await;
        journal.done(followed("a")).await;
    });
}
