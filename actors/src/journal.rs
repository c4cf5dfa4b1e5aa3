//! The only path between the stages of the loop: turns, what followed them, verdicts, hints, signals, steps and
//! versions.
//!
//! A turn has one state. A role takes work that is committed here, does it, records the transition, and only then
//! lets the work go; so whatever dies in between, the work is found again, and done twice it changes nothing.

mod memory;
mod record;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use tokio::sync::watch;

use self::memory::Memory;
pub use self::record::*;
use crate::{
    judge::Judged,
    turn::{Evaluate, Sample, TurnId},
};

/// Why the journal did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The run is ending.
    #[error("the journal is closed")]
    Closed,
}

/// The address of a journal. Clones share it; it outlives every incarnation of the writer.
#[derive(Clone)]
pub struct Journal {
    shared: Arc<Shared>,
}

struct Shared {
    kept: Mutex<Memory>,
    totals: watch::Sender<Totals>,
    backlog: watch::Sender<Backlog>,
}

impl Journal {
    /// A journal that ends with the process.
    pub fn in_memory() -> Self {
        let shared =
            Shared { kept: Mutex::default(), totals: watch::Sender::default(), backlog: Default::default() };
        Self { shared: Arc::new(shared) }
    }

    /// Returns after the commit.
    pub async fn record(&self, record: Record) -> Result<Recorded, JournalError> {
        let mut kept = self.kept();
        let recorded = kept.apply(&record);
        if let (Recorded::Done, Record::TurnDropped { reason, .. }) = (recorded, &record) {
            metrics::counter!("openclaw_samples_dropped_total", "reason" => *reason).increment(1);
        }
        if recorded == Recorded::Done {
            self.shared.totals.send_replace(kept.totals);
            self.shared.backlog.send_replace(kept.backlog());
        }
        Ok(recorded)
    }

    /// Returns when the record has a place in the queue; its order with others is kept.
    pub async fn submit(&self, record: Record) -> Result<(), JournalError> {
        self.record(record).await.map(drop)
    }

    /// Counts since the run began; the receiver is told of each change.
    pub fn totals(&self) -> watch::Receiver<Totals> {
        self.shared.totals.subscribe()
    }

    /// What is not settled; the receiver is told of each change.
    pub fn backlog(&self) -> watch::Receiver<Backlog> {
        self.shared.backlog.subscribe()
    }

    /// Work for judges changed after `after`, by the number of the change.
    pub async fn evaluations(&self, after: u64, limit: usize) -> Result<Vec<(u64, Evaluate)>, JournalError> {
        Ok(self.kept().evaluations(after, limit))
    }

    /// Work for teachers, likewise.
    pub async fn judged(&self, after: u64, limit: usize) -> Result<Vec<(u64, Judged)>, JournalError> {
        Ok(self.kept().judged(after, limit))
    }

    /// Work for the optimizer, likewise.
    pub async fn samples(&self, after: u64, limit: usize) -> Result<Vec<(u64, Sample)>, JournalError> {
        Ok(self.kept().samples(after, limit))
    }

    /// Those of `turns` that a batch may lease: ready, or leased by an earlier optimizer.
    pub async fn trainable(&self, turns: &[TurnId]) -> Result<Vec<TurnId>, JournalError> {
        Ok(self.kept().trainable(turns))
    }

    /// Every turn of the sessions that answered since then, oldest first.
    pub async fn open_turns(&self, since: SystemTime) -> Result<Vec<RecordedTurn>, JournalError> {
        Ok(self.kept().open_turns(since))
    }

    /// Every version, oldest first.
    pub async fn versions(&self) -> Result<Vec<VersionRow>, JournalError> {
        Ok(self.kept().versions.values().cloned().collect())
    }

    /// The version announced or returned to last; none for the base.
    pub async fn current_version(&self) -> Result<Option<VersionRow>, JournalError> {
        let kept = self.kept();
        Ok(kept.versions.get(&kept.current).cloned())
    }

    /// The version to go on from after a restart: the last that was committed with a checkpoint or returned to;
    /// none for the base.
    pub async fn resumable_version(&self) -> Result<Option<VersionRow>, JournalError> {
        let kept = self.kept();
        Ok(kept.versions.get(&kept.resumable).cloned())
    }

    /// The highest number ever given; 0 is the base.
    pub async fn last_version_number(&self) -> Result<u64, JournalError> {
        Ok(self.kept().versions.keys().next_back().copied().unwrap_or(0))
    }

    /// The highest number of a step; 0 before the first.
    pub async fn last_step(&self) -> Result<u64, JournalError> {
        Ok(self.kept().steps.iter().map(|row| row.step).max().unwrap_or(0))
    }

    /// The latest steps, newest first.
    pub async fn steps(&self, limit: usize) -> Result<Vec<StepRow>, JournalError> {
        Ok(self.kept().steps.iter().rev().take(limit).cloned().collect())
    }

    /// Dead turns, oldest first.
    pub async fn dead(&self, limit: usize) -> Result<Vec<DeadTurn>, JournalError> {
        let mut dead = self.kept().dead();
        dead.truncate(limit);
        Ok(dead)
    }

    /// What operators asked for, newest first.
    pub async fn audit(&self, limit: usize) -> Result<Vec<AuditRow>, JournalError> {
        Ok(self.kept().audit.iter().rev().take(limit).cloned().collect())
    }

    fn kept(&self) -> MutexGuard<'_, Memory> {
        self.shared.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
