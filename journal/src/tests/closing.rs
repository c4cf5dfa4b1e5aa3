//! The end of a journal whose disk fails, and what the next process finds of it.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt, symlink},
    path::PathBuf,
};

use super::*;

/// A run whose journal holds one turn and cannot be written any more, and where it may spill.
struct Broken {
    _scratch: tempfile::TempDir,
    dir: PathBuf,
    spill: PathBuf,
    journal: Journal,
}

impl Broken {
    async fn new() -> Self {
        let scratch = tempfile::tempdir().expect("a temporary folder");
        let (dir, spill) = (scratch.path().join("run"), scratch.path().join("elsewhere"));
        fs::create_dir(&spill).expect("a folder");
        let Run { journal, mut writing } = Run::start(config(&dir)).await;
        journal.done(completed("before")).await;
        writing.stop().await;
        assert_eq!(journal.close(Duration::ZERO, &spill).await.expect("nothing waits"), Closed::Written);
        drop((journal, writing));
        let journal = Self::open(&dir).await;
        let whole = fs::read(dir.join("journal.db")).expect("a database");
        fs::write(scratch.path().join("whole"), &whole).expect("kept aside");
        journal.shared.parts.store.checkpoint().expect("nobody reads it");
        fs::write(dir.join("journal.db"), vec![0xff; whole.len()]).expect("written");
        Self { _scratch: scratch, dir, spill, journal }
    }

    async fn open(dir: &Path) -> Journal {
        let Run { journal, mut writing } = Run::start(config(dir)).await;
        writing.stop().await;
        journal
    }

    /// The disk is mended, and another process begins.
    async fn mended(self) -> (Journal, PathBuf, tempfile::TempDir) {
        let Self { _scratch: scratch, dir, spill, journal } = self;
        drop(journal);
        for end in ["-wal", "-shm"] {
            // SQLite may have removed them.
            let _ = fs::remove_file(dir.join(format!("journal.db{end}")));
        }
        fs::copy(scratch.path().join("whole"), dir.join("journal.db")).expect("restored");
        (Self::open(&dir).await, spill, scratch)
    }
}

fn spills(spill: &Path) -> Vec<PathBuf> {
    let folders = fs::read_dir(spill).expect("a folder").map(|entry| entry.expect("a folder").path());
    folders
        .flat_map(|folder| fs::read_dir(folder).expect("a folder"))
        .map(|file| file.expect("a file").path())
        .collect()
}

#[tokio::test]
async fn what_could_not_be_written_is_spilled_whole_and_the_next_process_writes_it_once() {
    let broken = Broken::new().await;
    // More than the queue has places for: those who wait for one are not forgotten.
    let names: Vec<String> = (0..LIMITS.capacity + 40).map(|n| format!("turn-{n}")).collect();
    let recorders: Vec<_> = names
        .iter()
        .map(|name| {
            let (journal, record) = (broken.journal.clone(), completed(name));
            tokio::spawn(async move { journal.record(record).await })
        })
        .collect();
    while broken.journal.shared.submitting.load(Ordering::SeqCst) < 40 {
        tokio::task::yield_now().await;
    }
    broken.journal.leave(followed("before"));
    broken.journal.leave(dropped("turn-0"));
    let closed = broken.journal.close(Duration::ZERO, &broken.spill).await.expect("there is room elsewhere");
    let Closed::Spilled { files, records } = closed else { panic!("{closed:?}") };
    assert_eq!(records, names.len() + 2);
    for recorder in recorders {
        assert_eq!(recorder.await.expect("no panic").expect("it is kept"), Recorded::Done);
    }
    let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    for file in &files {
        assert_eq!((mode(file), mode(file.parent().expect("a folder"))), (0o600, 0o700));
    }

    let (journal, spill, _scratch) = broken.mended().await;
    let taken = journal.take_up(&spill, Duration::from_secs(60)).await.expect("it is written");
    assert_eq!((taken, spills(&spill)), (records, Vec::<PathBuf>::new()));
    for (name, state) in [("before", TurnState::Followed), ("turn-0", TurnState::Dropped)] {
        assert_eq!(journal.state(name).await, Some(state), "{name}");
    }
    assert_eq!(journal.totals().borrow().turns as usize, names.len() + 1);
    let kept = journal.turn(&id("turn-1063")).await.expect("read").expect("it is there").turn;
    assert_eq!(format!("{kept:?}"), format!("{:?}", turn("turn-1063")), "to the last number");
    assert_eq!(journal.take_up(&spill, Duration::ZERO).await.expect("nothing is left"), 0);
}

#[tokio::test]
async fn turns_that_can_be_put_nowhere_are_named() {
    let broken = Broken::new().await;
    for name in ["a", "b"] {
        broken.journal.submit(completed(name)).await;
    }
    broken.journal.submit(followed("a")).await;
    let nowhere = broken.spill.join("nowhere");
    let lost = broken.journal.close(Duration::ZERO, &nowhere).await.expect_err("no such folder");
    assert_eq!((lost.records, &lost.turns), (3, &ids(&["a", "b"])));
    assert_eq!(lost.to_string(), "3 records are lost, of the turns a, b");
}

#[tokio::test]
async fn what_others_could_have_put_there_is_neither_read_nor_written() {
    let broken = Broken::new().await;
    broken.journal.submit(completed("a")).await;
    let Closed::Spilled { files, .. } =
        broken.journal.close(Duration::ZERO, &broken.spill).await.expect("there is room")
    else {
        panic!("it is spilled")
    };
    let (file, folder) = (files[0].clone(), files[0].parent().expect("a folder").to_owned());
    let (journal, spill, scratch) = broken.mended().await;
    let refused = async |why: &str| {
        let refused = journal.take_up(&spill, Duration::ZERO).await.expect_err(why);
        assert!(refused.to_string().contains(why), "{refused}");
    };

    fs::set_permissions(&folder, Permissions::from_mode(0o755)).expect("set");
    refused("others may enter it").await;
    fs::set_permissions(&folder, Permissions::from_mode(0o700)).expect("set");
    let aside = scratch.path().join("aside");
    fs::rename(&file, &aside).expect("moved");
    symlink(&aside, &file).expect("a link");
    refused("0001.spill cannot be read").await;
    fs::remove_file(&file).expect("removed");
    let bytes = fs::read(&aside).expect("read");
    fs::write(&file, &bytes[..bytes.len() - 1]).expect("written");
    refused("record 1").await;
    assert!(file.exists(), "what cannot be read stays");
    fs::write(&file, &bytes).expect("written");
    let real = scratch.path().join("real");
    fs::rename(&folder, &real).expect("moved");
    symlink(&real, &folder).expect("a link");
    refused("it is no folder").await;
    fs::remove_file(&folder).expect("removed");
    fs::rename(&real, &folder).expect("moved back");
    assert_eq!(journal.take_up(&spill, Duration::from_secs(60)).await.expect("it is whole"), 1);
}

#[tokio::test]
async fn a_copy_of_a_run_leaves_the_originals_spill_alone() {
    let broken = Broken::new().await;
    broken.journal.submit(completed("a")).await;
    broken.journal.close(Duration::ZERO, &broken.spill).await.expect("there is room");
    let (original, spill, scratch) = broken.mended().await;
    let copied = scratch.path().join("copy");
    fs::create_dir(&copied).expect("a folder");
    fs::copy(scratch.path().join("whole"), copied.join("journal.db")).expect("copied");
    let copy = Broken::open(&copied).await;
    assert_eq!(copy.take_up(&spill, Duration::from_secs(60)).await.expect("not its own"), 0);
    assert_eq!(original.take_up(&spill, Duration::from_secs(60)).await.expect("its own"), 1);
}

#[tokio::test]
async fn a_journal_that_was_closed_lies_in_its_database_alone() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let Run { journal, mut writing } = Run::start(config(dir.path())).await;
    for n in 0..50 {
        journal.submit(completed(&format!("turn-{n}"))).await;
    }
    writing.stop().await;
    assert_eq!(
        journal.turn(&id("turn-1")).await.expect("read").expect("it is there").state,
        TurnState::Waiting
    );
    assert_eq!(journal.close(Duration::ZERO, dir.path()).await.expect("it is written"), Closed::Written);
    let copied = tempfile::tempdir().expect("a temporary folder");
    // While the journal's connections are still open, as they are when a process ends.
    fs::copy(dir.path().join("journal.db"), copied.path().join("journal.db")).expect("copied");
    let copy = Journal::open(config(copied.path())).expect("a whole journal");
    assert_eq!(copy.totals().borrow().turns, 50);
}
