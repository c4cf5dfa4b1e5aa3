use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use rusqlite::Connection;

use super::{super::schema, *};

fn error(dir: &Path) -> JournalError {
    Journal::open(config(dir)).map(|_| ()).expect_err("it is refused")
}

#[tokio::test]
async fn what_was_leased_is_ready_again_when_the_journal_is_opened() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let run = Run::start(config(dir.path())).await;
    for name in ["a", "b", "c"] {
        run.journal.make_ready(name).await;
    }
    run.journal.done(leased(1, &["b", "a"])).await;
    run.kill();
    let run = Run::start(config(dir.path())).await;
    assert_eq!((run.journal.backlog().borrow().ready, run.journal.backlog().borrow().leased), (3, 0));
    let order: Vec<TurnId> = run
        .journal
        .samples(0, 10)
        .await
        .expect("read")
        .into_iter()
        .map(|(_, sample)| sample.turn.id.clone())
        .collect();
    assert_eq!(order, ids(&["c", "b", "a"]));
    assert_eq!(run.journal.totals().borrow().samples, 3, "counted once");
}

#[tokio::test]
async fn a_writer_that_is_restarted_leaves_a_batch_under_way_alone() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let run = Run::start(config(dir.path())).await;
    run.journal.make_ready("a").await;
    run.journal.done(leased(1, &["a"])).await;
    let journal = run.journal.clone();
    run.kill();
    let _writing = journal.start_writing().await.expect("it starts again");
    journal.done(step(1, &["a"])).await;
    assert_eq!(journal.totals().borrow().trained, 1);
}

#[tokio::test]
async fn a_folder_is_one_processs_and_the_refusal_names_it() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let _run = Run::start(config(dir.path())).await;
    let refused = error(dir.path());
    assert!(matches!(&refused, JournalError::InUse { dir: named } if named == dir.path()), "{refused:?}");
}

#[tokio::test]
async fn a_file_of_version_1_becomes_one_of_today() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("journal.db");
    let mut old = Connection::open(&path).expect("a database");
    schema::migrate(&mut old, &path, 1).expect("version 1");
    old.execute(
        "INSERT INTO turns (id, session, state, seq, completed_at, changed_at) VALUES ('t', 's', 'waiting', 1, 5, 5)",
        [],
    )
    .expect("a turn");
    for (part, body) in [("turn", codec::TURN_1), ("mark", codec::MARK_1)] {
        let bytes = codec::bytes(body);
        old.execute(
            "INSERT INTO bodies (turn, part, body, bytes) VALUES (1, ?1, ?2, ?3)",
            (part, &bytes, bytes.len()),
        )
        .expect("a body");
    }
    old.execute("INSERT INTO totals VALUES ('turns', 1), ('last_seq', 1)", []).expect("totals");
    assert!(old.prepare("SELECT * FROM audit").is_err(), "version 1 has none");
    drop(old);
    let run = Run::start(config(dir.path())).await;
    assert_eq!((run.journal.totals().borrow().turns, run.journal.backlog().borrow().waiting), (1, 1));
    run.journal.done(followed("t")).await;
    assert_eq!(run.journal.evaluations(1, 10).await.expect("read").len(), 1);
    assert_eq!(run.journal.audit(10).await.expect("read"), []);
}

#[test]
fn a_file_from_a_later_program_is_refused_with_both_versions() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    drop(Journal::open(config(dir.path())).expect("a journal"));
    let path = dir.path().join("journal.db");
    Connection::open(&path).expect("a database").pragma_update(None, "user_version", 99).expect("written");
    let refused = error(dir.path());
    let JournalError::Newer { path: named, found: 99, known } = &refused else { panic!("{refused:?}") };
    assert_eq!((named, *known), (&path, schema::known()));
    let line = refused.line();
    for part in ["journal.db", "99", &known.to_string()] {
        assert!(line.contains(part), "{line}");
    }
}

#[test]
fn a_damaged_file_is_refused_by_name() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("journal.db");
    fs::write(&path, "this was never a database, whatever its name says".repeat(100)).expect("written");
    let refused = error(dir.path());
    assert!(matches!(&refused, JournalError::Damaged { path: named, .. } if *named == path), "{refused:?}");
    // A database of somebody else is not written over.
    fs::remove_file(&path).expect("removed");
    let other = Connection::open(&path).expect("a database");
    other.pragma_update(None, "application_id", 77).expect("written");
    other.execute_batch("CREATE TABLE turns (x)").expect("a table");
    drop(other);
    assert!(matches!(error(dir.path()), JournalError::Damaged { path: named, .. } if named == path));
}

#[test]
fn a_folder_that_cannot_be_written_is_refused_by_name() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let file = dir.path().join("run");
    fs::write(&file, "a file where the folder should be").expect("written");
    let refused = error(&file);
    assert!(matches!(&refused, JournalError::Folder { path, .. } if path.starts_with(&file)), "{refused:?}");
    assert!(refused.line().contains("run/blobs"), "{}", refused.line());

    let locked = dir.path().join("locked");
    drop(Journal::open(config(&locked)).expect("a journal"));
    let set = |path: PathBuf, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set");
    set(locked.join("journal.db"), 0o444);
    set(locked.clone(), 0o555);
    let probe = fs::File::create(locked.join("probe"));
    let opened = Journal::open(config(&locked)).map(|_| ());
    set(locked.clone(), 0o755);
    // A superuser writes everywhere.
    if probe.is_err() {
        let line = opened.expect_err("it is refused").line();
        assert!(line.contains("locked"), "{line}");
    }
}

pub(super) fn blobs(dir: &Path) -> Vec<PathBuf> {
    let folders = fs::read_dir(dir.join("blobs")).expect("a folder");
    folders
        .flat_map(|folder| fs::read_dir(folder.expect("an entry").path()).expect("a folder"))
        .map(|file| file.expect("an entry").path())
        .collect()
}

/// Ids that nothing compresses, others for each seed.
pub(super) fn scattered(seed: u64, count: usize) -> Vec<u32> {
    let mut rng = StdRng::seed_from_u64(seed);
    (0..count).map(|_| rng.random()).collect()
}

/// A turn whose words do not fit into a row.
fn large(name: &str) -> Record {
    let mut turn = turn(name);
    turn.completion.prompt_ids = scattered(0, 100_000);
    Record::TurnCompleted { turn: Arc::new(turn), mark: mark(1) }
}

#[tokio::test]
async fn a_large_body_lies_in_a_file_and_leaves_with_its_turn() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let retention =
        Retention { keep: Duration::ZERO, period: Duration::from_millis(1), ..Retention::default() };
    let run = Run::start(JournalConfig { retention, ..config(dir.path()) }).await;
    run.journal.done(large("a")).await;
    let files = blobs(dir.path());
    assert_eq!(files.len(), 1);
    let name = files[0].file_name().expect("a name").to_str().expect("hexadecimal").to_owned();
    assert_eq!(
        (name.len(), files[0].parent().expect("a folder").file_name().expect("a name").to_str()),
        (64, Some(&name[..2]))
    );
    run.journal.done(followed("a")).await;
    let work = run.journal.evaluations(0, 10).await.expect("read");
    assert!(work[0].1.turn.completion.prompt_ids == scattered(0, 100_000));
    run.journal.done(dropped("a")).await;
    while run.journal.state("a").await.is_some() || !blobs(dir.path()).is_empty() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    run.stop().await;
}

#[tokio::test]
async fn a_file_that_no_row_names_is_removed_at_the_start_and_the_others_stay() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let run = Run::start(config(dir.path())).await;
    run.journal.done(large("a")).await;
    run.stop().await;
    let kept = blobs(dir.path());
    let folder = dir.path().join("blobs/ab");
    fs::create_dir_all(&folder).expect("a folder");
    fs::write(folder.join(format!("ab{}", "0".repeat(62))), "left behind").expect("a file");
    fs::write(kept[0].with_extension("tmp"), "half").expect("a file");
    let run = Run::start(config(dir.path())).await;
    assert_eq!(blobs(dir.path()), kept);
    run.journal.done(followed("a")).await;
    // A file whose content changed is told, and its turn stands in nobody's way.
    fs::write(&kept[0], "something else").expect("written");
    run.journal.done(completed("b")).await;
    run.journal.done(followed("b")).await;
    let work = run.journal.evaluations(0, 10).await.expect("read");
    assert_eq!(work.iter().map(|(_, work)| &work.turn.id).collect::<Vec<_>>(), [&id("b")]);
    run.journal.backlog().wait_for(|backlog| backlog.dead == 1).await.expect("the journal lives");
    assert_eq!(run.journal.dead(10).await.expect("read")[0].inbox, "journal");
}
