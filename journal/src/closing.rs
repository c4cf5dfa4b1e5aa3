//! The end of a journal in this process: what still waits is written, or put elsewhere, or named; and what was put
//! elsewhere is taken up by the next.

use std::{
    path::{Path, PathBuf},
    sync::atomic::Ordering,
    time::Duration,
};

use tokio::time::{Instant, sleep, timeout};
use tracing::{error, info, warn};

use crate::{
    Journal, JournalError,
    error::line,
    inbox::Lease,
    record::{Record, Recorded},
    spill::{Spill, SpillError, Spilled},
    turn::TurnId,
    writer::Write,
};

/// How often it is looked whether all is written.
const LOOK_PERIOD: Duration = Duration::from_millis(10);
/// A thread that does not end in this time is in a call of the system that does not return.
const WRITER_PATIENCE: Duration = Duration::from_secs(15);

/// How a journal ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Closed {
    /// All that was recorded is in the database.
    Written,
    /// The rest is in these files, for [`Journal::take_up`].
    Spilled {
        /// The files.
        files: Vec<PathBuf>,
        /// Records in them.
        records: usize,
    },
}

/// Records could be written nowhere, and are lost with the process.
#[derive(Debug, thiserror::Error)]
#[error("{records} records are lost, of the turns {}", names(turns))]
pub struct NotKept {
    /// How many.
    pub records: usize,
    /// The turns they are of, each once.
    pub turns: Vec<TurnId>,
    /// Why they could not be put elsewhere.
    #[source]
    pub source: SpillError,
}

fn names(turns: &[TurnId]) -> String {
    turns.iter().map(|turn| &*turn.0).collect::<Vec<_>>().join(", ")
}

/// What an earlier process spilled could not be taken up; it stays where it is.
#[derive(Debug, thiserror::Error)]
#[error("{path} holds what an earlier process could not write, and cannot be taken up: {problem}")]
pub struct NotTakenUp {
    /// The spill.
    pub path: PathBuf,
    /// Why not.
    pub problem: String,
}

impl Journal {
    /// Ends all writing, once every actor has ended. What cannot be written within `patience` is put into a file below
    /// `spill`. A journal that is written is whole in its database, without a log beside it.
    pub async fn close(&self, patience: Duration, spill: &Path) -> Result<Closed, NotKept> {
        match timeout(WRITER_PATIENCE, self.start_writing()).await {
            Ok(Ok(mut writing)) => {
                let deadline = Instant::now() + patience;
                while self.is_awaited() && Instant::now() < deadline {
                    sleep(LOOK_PERIOD).await;
                }
                // What it then holds is told of below.
                let _ = timeout(WRITER_PATIENCE, writing.stop()).await;
            }
            Ok(Err(error)) => error!(error = error.line(), "the journal cannot be written any more"),
            Err(_) => error!("the journal's writer does not end"),
        }
        let closed = self.spill(spill).await?;
        if let Err(error) = self.shared.parts.store.checkpoint() {
            // The next process finds it there.
            warn!(error = error.line(), "the end of the journal stays in its log");
        }
        Ok(closed)
    }

    /// Somebody has records that are not written.
    fn is_awaited(&self) -> bool {
        self.shared.parts.queue.depth() + self.shared.submitting.load(Ordering::SeqCst) > 0
    }

    async fn spill(&self, within: &Path) -> Result<Closed, NotKept> {
        let spill = self.spill_below(within);
        let (mut files, mut records) = (Vec::new(), 0);
        let mut lost: Option<NotKept> = None;
        while self.is_awaited() {
            let mut leases = Vec::new();
            while let Some(lease) = self.shared.parts.queue.try_lease() {
                leases.push(lease);
            }
            if leases.is_empty() && self.shared.submitting.load(Ordering::SeqCst) == 0 {
                let (source, turns) = (SpillError::Held, Vec::new());
                let lost = lost.get_or_insert(NotKept { records: 0, turns, source });
                lost.records += self.shared.parts.queue.depth();
                break;
            }
            // What a writer had committed when it ended is only to be answered.
            let left: Vec<&Record> =
                leases.iter().filter(|lease| !lease.is_settled()).map(|lease| lease.record()).collect();
            if !left.is_empty() {
                match spill.write(&left) {
                    Ok(file) => {
                        warn!(file = %file.display(), records = left.len(), "the next launch writes what lies there");
                        records += left.len();
                        files.push(file);
                    }
                    Err(source) => {
                        let lost = lost.get_or_insert(NotKept { records: 0, turns: Vec::new(), source });
                        lost.add(&left);
                    }
                }
            }
            settle(leases, if lost.is_some() { || Err(JournalError::Closed) } else { || Ok(Recorded::Done) });
            // Whoever waited for a place comes now.
            sleep(LOOK_PERIOD).await;
        }
        match lost {
            Some(lost) => {
                metrics::counter!("openclaw_journal_errors_total", "reason" => "lost")
                    .increment(lost.records as u64);
                Err(lost)
            }
            None if files.is_empty() => Ok(Closed::Written),
            None => Ok(Closed::Spilled { files, records }),
        }
    }

    fn spill_below(&self, within: &Path) -> Spill {
        let dir = self.shared.parts.store.path().parent().unwrap_or(Path::new("."));
        let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
        Spill::new(within, self.shared.run, &dir)
    }

    /// Writes what earlier processes of this run left below `spill`, before anything else is recorded; returns how many
    /// records that were. What cannot be written within `patience` stays where it is.
    pub async fn take_up(&self, spill: &Path, patience: Duration) -> Result<usize, NotTakenUp> {
        let spill = self.spill_below(spill);
        let unread = |error: SpillError| NotTakenUp {
            path: error.path().unwrap_or(self.shared.parts.store.path()).to_owned(),
            problem: line(&error),
        };
        let spills = spill.read().map_err(unread)?;
        let Some(first) = spills.first() else { return Ok(0) };
        let unwritten =
            |path: &Path, error: JournalError| NotTakenUp { path: path.to_owned(), problem: error.line() };
        let mut writing = self.start_writing().await.map_err(|error| unwritten(&first.path, error))?;
        let mut taken = 0;
        let written = async {
            for spilled in &spills {
                self.write_again(spilled, patience).await?;
                spill.remove(spilled).map_err(unread)?;
                taken += spilled.records.len();
                info!(file = %spilled.path.display(), records = spilled.records.len(), "an earlier process could not write this: it is written");
            }
            Ok(())
        };
        let written = written.await;
        writing.stop().await;
        written.map(|()| taken)
    }

    /// Done twice, after a process that ended in the middle, it changes nothing.
    async fn write_again(&self, spilled: &Spilled, patience: Duration) -> Result<(), NotTakenUp> {
        let stays = |problem: String| NotTakenUp { path: spilled.path.clone(), problem };
        for record in &spilled.records {
            match timeout(patience, self.record(record.clone())).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(stays(format!("{record}: {}", error.line()))),
                Err(_) => {
                    let health = format!("{:?}", *self.health().borrow());
                    return Err(stays(format!("the journal does not write ({health})")));
                }
            }
        }
        Ok(())
    }
}

impl NotKept {
    fn add(&mut self, records: &[&Record]) {
        self.records += records.len();
        for record in records {
            error!(%record, "a record is lost");
            if let Some(turn) = record.turn().filter(|turn| !self.turns.contains(turn)) {
                self.turns.push(turn.clone());
            }
        }
    }
}

fn settle(leases: Vec<Lease<Write>>, outcome: fn() -> Result<Recorded, JournalError>) {
    for lease in leases {
        if !lease.is_settled() {
            lease.settle(outcome());
        }
        lease.answer();
        lease.ack();
    }
}
