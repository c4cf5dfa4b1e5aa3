//! What happened, in order: turns, what followed them, verdicts, hints, samples, steps and versions.
//!
//! This journal lives in memory and forgets its oldest records; its totals do not. Everything that a durable one
//! must keep already passes through [`Journal::record`].

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::watch;

use crate::turn::{NextState, Turn, TurnId, TurnKind, Verdict};

/// One fact.
#[derive(Clone, Debug)]
pub enum Record {
    /// The policy answered.
    TurnCompleted(Arc<Turn>),
    /// Something followed a turn.
    NextStateSeen {
        /// The turn.
        turn: TurnId,
        /// What followed.
        next_state: NextState,
    },
    /// A turn was judged.
    Judged {
        /// The turn.
        turn: TurnId,
        /// The majority and its votes.
        verdict: Verdict,
        /// What the judge said, vote by vote; none where a vote did not arrive.
        answers: Vec<Option<String>>,
    },
    /// Hints were drawn from what followed a turn.
    HintsFound {
        /// The turn.
        turn: TurnId,
        /// Those kept.
        hints: Vec<String>,
        /// What the hint writer said, vote by vote; none where a vote did not arrive.
        answers: Vec<Option<String>>,
    },
    /// A turn became a sample.
    SampleReady {
        /// The turn.
        turn: TurnId,
        /// The hint that its teacher saw.
        hint: Option<String>,
    },
    /// A turn will not be trained on.
    SampleDropped {
        /// The turn.
        turn: TurnId,
        /// Why; also the label of the counter.
        reason: &'static str,
    },
    /// The policy was updated.
    StepCompleted {
        /// Number of the step, from 1.
        step: u64,
        /// The turns it learnt from.
        turns: Vec<TurnId>,
    },
    /// A version is there to be served.
    VersionPublished {
        /// Its number.
        version: u64,
        /// The step that made it.
        step: u64,
    },
}

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Conversations, by their first main turn.
    pub sessions: u64,
    /// Turns answered.
    pub turns: u64,
    /// Turns that something followed.
    pub next_states: u64,
    /// Verdicts of +1.
    pub approved: u64,
    /// Verdicts of -1.
    pub rejected: u64,
    /// Verdicts of 0, and turns whose votes could not be read.
    pub neutral: u64,
    /// Turns with at least one hint.
    pub hinted: u64,
    /// Samples ready for the optimizer.
    pub samples: u64,
    /// Turns given up, for whatever reason.
    pub dropped: u64,
    /// Optimizer steps.
    pub steps: u64,
    /// Turns trained on.
    pub trained: u64,
    /// The newest version.
    pub version: u64,
}

impl Totals {
    fn add(&mut self, record: &Record) {
        match record {
            Record::TurnCompleted(turn) => {
                self.turns += 1;
                self.sessions += u64::from(turn.kind == TurnKind::Main && turn.index == 1);
            }
            Record::NextStateSeen { .. } => self.next_states += 1,
            Record::Judged { verdict, .. } => match verdict.reward {
                Some(1) => self.approved += 1,
                Some(-1) => self.rejected += 1,
                _ => self.neutral += 1,
            },
            Record::HintsFound { hints, .. } => self.hinted += u64::from(!hints.is_empty()),
            Record::SampleReady { .. } => self.samples += 1,
            Record::SampleDropped { .. } => self.dropped += 1,
            Record::StepCompleted { turns, .. } => {
                self.steps += 1;
                self.trained += turns.len() as u64;
            }
            Record::VersionPublished { version, .. } => self.version = *version,
        }
    }
}

/// Why a record was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// The run is ending.
    #[error("the journal is closed")]
    Closed,
}

/// The address of a journal.
#[derive(Clone)]
pub struct Journal {
    shared: Arc<Shared>,
}

struct Shared {
    capacity: usize,
    kept: Mutex<Kept>,
    totals: watch::Sender<Totals>,
}

struct Kept {
    records: VecDeque<Record>,
    closed: bool,
}

impl Journal {
    /// A journal that keeps the latest `capacity` records.
    pub fn in_memory(capacity: usize) -> Self {
        let kept = Kept { records: VecDeque::new(), closed: false };
        Self {
            shared: Arc::new(Shared {
                capacity: capacity.max(1),
                kept: Mutex::new(kept),
                totals: watch::Sender::default(),
            }),
        }
    }

    /// Returns once the record is as safe as this journal makes it.
    pub async fn record(&self, record: Record) -> Result<(), JournalError> {
        let mut kept = self.kept();
        if kept.closed {
            return Err(JournalError::Closed);
        }
        if let Record::SampleDropped { reason, .. } = &record {
            metrics::counter!("openclaw_samples_dropped_total", "reason" => *reason).increment(1);
        }
        self.shared.totals.send_modify(|totals| totals.add(&record));
        if kept.records.len() == self.shared.capacity {
            kept.records.pop_front();
        }
        kept.records.push_back(record);
        Ok(())
    }

    /// Takes nothing further.
    pub fn close(&self) {
        self.kept().closed = true;
    }

    /// Counts since the start; the receiver is told of each change.
    pub fn totals(&self) -> watch::Receiver<Totals> {
        self.shared.totals.subscribe()
    }

    /// The latest records that `wanted` maps to something, oldest first.
    pub fn recent<T>(&self, wanted: impl FnMut(&Record) -> Option<T>) -> Vec<T> {
        self.kept().records.iter().filter_map(wanted).collect()
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.shared.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dropped(turn: &str) -> Record {
        Record::SampleDropped { turn: TurnId(turn.into()), reason: "stale" }
    }

    #[tokio::test]
    async fn records_are_bounded_and_totals_are_not() {
        let journal = Journal::in_memory(2);
        for turn in ["a", "b", "c"] {
            journal.record(dropped(turn)).await.expect("open");
        }
        journal.record(Record::VersionPublished { version: 4, step: 9 }).await.expect("open");
        let turns = journal.recent(|record| match record {
            Record::SampleDropped { turn, .. } => Some(turn.to_string()),
            _ => None,
        });
        assert_eq!(turns, ["c"]);
        assert_eq!(*journal.totals().borrow(), Totals { dropped: 3, version: 4, ..Totals::default() });
    }

    #[tokio::test]
    async fn a_closed_journal_says_so() {
        let journal = Journal::in_memory(2);
        journal.close();
        assert_eq!(journal.record(dropped("a")).await, Err(JournalError::Closed));
        assert_eq!(journal.totals().borrow().dropped, 0);
    }
}
