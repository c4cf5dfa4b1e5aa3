//! The journal of a node: where it lies, how much it keeps, and the actor that writes it.

use std::{path::PathBuf, time::Duration};

use openclaw_actors::journal::JournalActor;
use openclaw_journal::{Closed, Journal, JournalConfig, JournalError, NotKept, Retention};
use tracing::error;

use super::{Builder, care};
use crate::topology::Topology;

/// Where what the journal cannot take is put.
pub fn spill(topology: &Topology) -> PathBuf {
    topology.journal.spill.clone().unwrap_or_else(std::env::temp_dir)
}

/// How long a start and a stop wait for a journal that cannot be written.
pub fn patience(topology: &Topology) -> Duration {
    Duration::from_secs(topology.journal.stop_wait_secs)
}

/// Opens the journal of the run.
pub fn open(topology: &Topology) -> Result<Journal, JournalError> {
    let table = &topology.journal;
    let retention = Retention {
        keep: Duration::from_secs(table.keep_days as u64 * 24 * 3600),
        max_bytes: (table.max_mib as u64) << 20,
        max_backlog_turns: table.max_backlog_turns as u64,
        ..Retention::default()
    };
    Journal::open(JournalConfig { dir: topology.run.dir.clone(), retention })
}

/// Ends it, once every actor has ended.
pub async fn close(topology: &Topology, journal: &Journal) -> Result<Closed, NotKept> {
    journal.close(patience(topology), &spill(topology)).await
}

/// [`close`], for a launch that is refused: it has a reason to tell already.
pub async fn end(topology: &Topology, journal: &Journal) {
    if let Err(lost) = close(topology, journal).await {
        error!(error = %lost, "the journal is not closed");
    }
}

impl Builder<'_> {
    /// The first to start and the last to stop: all others record what they do.
    pub(super) fn journal_writer(&mut self) {
        let journal = self.journal.clone();
        care::journal(self.child("journal".into(), "journal", move || (JournalActor, journal.clone())));
    }
}
