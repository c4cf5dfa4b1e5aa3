//! The thread that writes: it takes all that waits, commits it in one transaction, and then answers.
//!
//! A batch stays leased until it is committed. A writer that dies gives it back, and a record that was committed
//! before that is answered, not applied again.

use std::{
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant, SystemTime},
};

use rusqlite::TransactionBehavior;
use tokio::{
    sync::{OwnedMutexGuard, oneshot, watch},
    time::{sleep, sleep_until},
};
use tracing::{error, info, warn};

use super::{
    apply::Applying,
    bodies::{Kept, encode},
    error::{JournalError, Trouble},
    record::{Backlog, Record, Recorded, Totals, WITHDRAWN},
    retention::{self, Retention},
    store::{Store, millis},
    tally::Tally,
};
use crate::{
    fault,
    inbox::{Inbox, InboxLimits, Lease},
    panics::panic_message,
};

/// What waits to be written.
pub(crate) const LIMITS: InboxLimits = InboxLimits { capacity: 1024, max_attempts: 3 };
/// Records of one transaction.
const RECORDS_AT_ONCE: usize = 512;
/// A transaction takes no further record beyond this.
const BYTES_AT_ONCE: usize = 1 << 20;
/// Its size is looked at each time that this part of its limit was written.
const LOOKS_PER_LIMIT: u64 = 16;
/// Between the tries to write, doubling.
const RETRY_PERIODS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// A record on its way to the database.
pub(crate) struct Write {
    record: Record,
    progress: Mutex<Progress>,
}

type Outcome = Result<Recorded, JournalError>;

#[derive(Default)]
struct Progress {
    /// Set once it is committed or refused for good.
    outcome: Option<Outcome>,
    answer: Option<oneshot::Sender<Outcome>>,
}

impl Write {
    pub fn new(record: Record, answer: oneshot::Sender<Outcome>) -> Self {
        Self { record, progress: Mutex::new(Progress { outcome: None, answer: Some(answer) }) }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn record(&self) -> &Record {
        &self.record
    }

    pub fn settle(&self, outcome: Outcome) {
        self.progress().outcome = Some(outcome);
    }

    pub fn is_settled(&self) -> bool {
        self.progress().outcome.is_some()
    }

    pub fn answer(&self) {
        let mut progress = self.progress();
        if let (Some(answer), Some(outcome)) = (progress.answer.take(), progress.outcome.take()) {
            // Whoever asked may have gone away.
            let _ = answer.send(outcome);
        }
    }
}

/// Whether writing works.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// It does.
    #[default]
    Ok,
    /// It does not, and is tried again; records wait. Says why.
    Failing(String),
}

/// What the writer tells everybody.
#[derive(Default)]
pub(crate) struct Board {
    pub totals: watch::Sender<Totals>,
    pub backlog: watch::Sender<Backlog>,
    pub health: watch::Sender<Health>,
    pub size_bytes: watch::Sender<u64>,
}

impl Board {
    pub fn show(&self, tally: &Tally) {
        let Tally { totals, backlog, .. } = *tally;
        let update = |shown: &mut Totals| mem::replace(shown, totals) != totals;
        self.totals.send_if_modified(update);
        self.backlog.send_if_modified(|shown| mem::replace(shown, backlog) != backlog);
        for (stage, turns) in [
            ("waiting", backlog.waiting),
            ("to_judge", backlog.to_judge),
            ("to_teach", backlog.to_teach),
            ("ready", backlog.ready),
            ("leased", backlog.leased),
            ("dead", backlog.dead),
        ] {
            metrics::gauge!("openclaw_journal_backlog_turns", "stage" => stage).set(turns as f64);
        }
        // Counted by the journal itself, so that they go on where an earlier process was.
        for (event, turns) in [
            ("completed", totals.turns),
            ("followed", totals.next_states),
            ("approved", totals.approved),
            ("rejected", totals.rejected),
            ("neutral", totals.neutral),
            ("hinted", totals.hinted),
            ("taught", totals.taught),
            ("ready", totals.samples),
            ("rated", totals.rated),
            ("corrected", totals.corrected),
            ("trained", totals.trained),
            ("dropped", totals.dropped),
            ("quarantined", totals.quarantined),
        ] {
            metrics::counter!("openclaw_journal_turns_total", "event" => event).absolute(turns);
        }
    }
}

/// What a writer needs; it outlives each of them.
#[derive(Clone)]
pub(crate) struct WriterParts {
    pub store: Arc<Store>,
    pub queue: Inbox<Write>,
    pub board: Arc<Board>,
    pub retention: Retention,
}

/// A running thread. Dropping it ends the thread once what waits by then is written.
pub(crate) struct WriterThread {
    /// Told when the thread has ended by itself.
    pub ended: oneshot::Receiver<Result<(), JournalError>>,
    /// Ends it when dropped.
    pub stop: oneshot::Sender<()>,
}

impl WriterThread {
    /// Starts a thread that holds `slot` to its end, so that there is one at a time.
    pub fn start(parts: WriterParts, slot: OwnedMutexGuard<()>) -> Result<Self, JournalError> {
        let failed = |error: std::io::Error| JournalError::Writer { reason: error.to_string() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(failed)?;
        parts.store.reopen()?;
        let tally = {
            let connection = parts.store.writing();
            Tally::load(&connection).map_err(|source| parts.store.refused(source))?
        };
        parts.board.show(&tally);
        let (stop, stopped) = oneshot::channel();
        let (tell, ended) = oneshot::channel();
        let run = move || {
            let _slot = slot;
            let writer = Writer {
                parts,
                tally,
                stopped,
                stopping: false,
                look: Instant::now(),
                unseen_bytes: 0,
                is_beyond: false,
                clock: Clock::default(),
            };
            let outcome = catch_unwind(AssertUnwindSafe(|| runtime.block_on(writer.run())));
            let outcome = outcome.unwrap_or_else(|panic| {
                let reason = panic_message(panic);
                error!(message = reason, "the journal's writer panicked");
                metrics::counter!("openclaw_journal_panics_total").increment(1);
                Err(JournalError::Writer { reason })
            });
            // Nobody may be watching.
            let _ = tell.send(outcome);
        };
        thread::Builder::new().name("journal".to_owned()).spawn(run).map_err(failed)?;
        Ok(Self { ended, stop })
    }
}

struct Writer {
    parts: WriterParts,
    tally: Tally,
    stopped: oneshot::Receiver<()>,
    stopping: bool,
    /// When age and size are looked at next.
    look: Instant,
    /// Bytes written since they were.
    unseen_bytes: u64,
    /// All that is beyond the limit of bytes is owed to training.
    is_beyond: bool,
    clock: Clock,
}

/// The wall clock beside one that only goes on.
#[derive(Default)]
pub(crate) struct Clock {
    last: Option<(Instant, SystemTime)>,
}

impl Clock {
    /// By how many seconds the wall clock was set since it was asked last, where that is more than an hour.
    pub fn jump(&mut self, instant: Instant, wall: SystemTime) -> Option<i64> {
        let (before, seen) = self.last.replace((instant, wall))?;
        let secs = |time: SystemTime| {
            time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
        };
        let jump = secs(wall) - secs(seen) - instant.duration_since(before).as_secs() as i64;
        (jump.abs() > 3600).then_some(jump)
    }
}

/// Given back as it was when it is dropped un-acked: the first one first.
#[derive(Default)]
struct Batch {
    items: Vec<Item>,
}

struct Item {
    lease: Lease<Write>,
    bodies: Vec<Kept>,
}

impl Drop for Batch {
    fn drop(&mut self) {
        while let Some(Item { lease, .. }) = self.items.pop() {
            let attempts = lease.attempt() + 1;
            if attempts == LIMITS.max_attempts && !lease.is_settled() {
                lease.settle(Err(JournalError::DeadLetter { attempts }));
                lease.answer();
            }
        }
    }
}

impl Writer {
    async fn run(mut self) -> Result<(), JournalError> {
        while !self.stopping {
            let queue = self.parts.queue.clone();
            tokio::select! {
                biased;
                _ = &mut self.stopped => self.stopping = true,
                lease = queue.lease() => self.write(lease).await?,
                () = sleep_until(self.look.into()) => {}
            }
            if !self.stopping {
                self.tend()?;
            }
        }
        // What waits by now was accepted; what comes later is another writer's.
        for _ in 0..self.parts.queue.depth() {
            let Some(lease) = self.parts.queue.try_lease() else { break };
            self.write(lease).await?;
        }
        match self.parts.queue.depth() {
            0 => {}
            records => {
                warn!(records, file = %self.parts.store.path().display(), "records are not written yet")
            }
        }
        Ok(())
    }

    /// Writes `first` and what waits behind it, as often as it takes.
    async fn write(&mut self, first: Lease<Write>) -> Result<(), JournalError> {
        let mut batch = self.collect(first);
        let mut retry_in = RETRY_PERIODS.0;
        let started = Instant::now();
        let after = loop {
            let error = match self.commit(&batch) {
                Ok(after) => break after,
                Err(error) => error,
            };
            let Trouble::Passing(reason) = error.trouble() else {
                error!(error = error.line(), "the journal cannot be written");
                metrics::counter!("openclaw_journal_errors_total", "reason" => "damaged").increment(1);
                return Err(error);
            };
            self.report_failure(&error, reason, batch.items.len());
            if self.stopping {
                return Ok(());
            }
            tokio::select! {
                _ = &mut self.stopped => {
                    self.stopping = true;
                    return Ok(());
                }
                () = sleep(retry_in) => retry_in = (2 * retry_in).min(RETRY_PERIODS.1),
            }
        };
        fault::point("journal.after_commit");
        self.tally = after;
        self.parts.board.show(&self.tally);
        self.report_success();
        metrics::histogram!("openclaw_journal_commit_seconds").record(started.elapsed().as_secs_f64());
        metrics::counter!("openclaw_journal_commits_total").increment(1);
        metrics::counter!("openclaw_journal_records_total").increment(batch.items.len() as u64);
        for Item { lease, bodies } in batch.items.drain(..) {
            self.unseen_bytes += bodies.iter().map(|kept| kept.bytes.len() as u64).sum::<u64>();
            lease.answer();
            lease.ack();
        }
        Ok(())
    }

    fn collect(&self, first: Lease<Write>) -> Batch {
        let mut batch = Batch::default();
        // A record given back may be the one that kills: it is tried alone, so that it takes no other with it.
        let most = if first.attempt() > 0 { 1 } else { RECORDS_AT_ONCE };
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some(lease) = next.take() {
            batch.items.push(Item { lease, bodies: Vec::new() });
            let item = batch.items.last_mut().expect("it was just pushed");
            if !item.lease.is_settled() {
                match encode(&item.lease.record, &self.parts.store) {
                    Ok(bodies) => item.bodies = bodies,
                    Err(error) => item.lease.settle(Err(error)),
                }
            }
            bytes += item.bodies.iter().map(|kept| kept.bytes.len()).sum::<usize>();
            if batch.items.len() < most && bytes < BYTES_AT_ONCE {
                next = self.parts.queue.try_lease();
            }
        }
        batch
    }

    /// One transaction. Settles each record that it holds, and returns the counts after it.
    fn commit(&self, batch: &Batch) -> Result<Tally, JournalError> {
        fault::point("journal.before_write");
        let store = &self.parts.store;
        if let Some(reason) = fault::failure("journal.write_fails") {
            let full = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL);
            return Err(store.refused(rusqlite::Error::SqliteFailure(full, Some(reason))));
        }
        let unsettled = || batch.items.iter().filter(|item| !item.lease.is_settled());
        if let Some(folder) = store.folder() {
            for kept in unsettled().flat_map(|item| &item.bodies) {
                if let Some(name) = &kept.file {
                    folder.keep(name, &kept.bytes)?;
                }
            }
        }
        let refused = |source| store.refused(source);
        let now = millis(SystemTime::now());
        let mut tally = self.tally;
        let mut outcomes = Vec::with_capacity(batch.items.len());
        let mut connection = store.writing();
        let mut transaction =
            connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(refused)?;
        for item in unsettled() {
            let savepoint = transaction.savepoint().map_err(refused)?;
            let mut applied = tally;
            let mut applying = Applying { connection: &savepoint, tally: &mut applied, now };
            match applying.apply(&item.lease.record, &item.bodies).map_err(refused) {
                Ok(recorded) => {
                    savepoint.commit().map_err(refused)?;
                    tally = applied;
                    outcomes.push((item, Ok(recorded)));
                }
                // Dropping the savepoint takes back what it had changed.
                Err(error) if error.trouble() == Trouble::OfRecord => {
                    error!(error = error.line(), record = %item.lease.record, "a record is refused");
                    metrics::counter!("openclaw_journal_errors_total", "reason" => "record").increment(1);
                    outcomes.push((item, Err(error)));
                }
                Err(error) => return Err(error),
            }
        }
        fault::point("journal.before_commit");
        tally.save(self.tally, &transaction).map_err(refused)?;
        transaction.commit().map_err(refused)?;
        for (item, outcome) in outcomes {
            let dropped = match &item.lease.record {
                Record::TurnDropped { reason, .. } => Some(*reason),
                Record::TurnWithdrawn { .. } => Some(WITHDRAWN),
                _ => None,
            };
            if let (Ok(Recorded::Done), Some(reason)) = (&outcome, dropped) {
                metrics::counter!("openclaw_samples_dropped_total", "reason" => reason).increment(1);
            }
            item.lease.settle(outcome);
        }
        Ok(tally)
    }

    /// Keeps within the limits, one small transaction at a time.
    fn tend(&mut self) -> Result<(), JournalError> {
        let Retention { period, max_bytes, .. } = self.parts.retention;
        let is_due = self.look <= Instant::now() || self.unseen_bytes > max_bytes / LOOKS_PER_LIMIT;
        if is_due {
            (self.look, self.unseen_bytes) = (Instant::now() + period, 0);
        }
        match self.shed(is_due).and_then(|()| if is_due { self.prune() } else { Ok(()) }) {
            Err(error) => match error.trouble() {
                Trouble::Passing(reason) => {
                    self.report_failure(&error, reason, 0);
                    Ok(())
                }
                Trouble::Lasting | Trouble::OfRecord => Err(error),
            },
            Ok(()) => Ok(()),
        }
    }

    fn shed(&mut self, by_size: bool) -> Result<(), JournalError> {
        let WriterParts { store, retention, board, .. } = &self.parts;
        let now = millis(SystemTime::now());
        let shed = retention::shed(store, retention, &mut self.tally, now, by_size)?;
        if let Some((turns, reason)) = shed {
            board.show(&self.tally);
            let Retention { max_backlog_turns, max_bytes, .. } = retention;
            warn!(
                turns,
                reason, max_backlog_turns, max_bytes, "too much is open: the oldest turns are dropped"
            );
            metrics::counter!("openclaw_samples_dropped_total", "reason" => reason).increment(turns as u64);
            self.look = Instant::now();
        }
        Ok(())
    }

    fn prune(&mut self) -> Result<(), JournalError> {
        let WriterParts { store, retention, board, .. } = &self.parts;
        let now = SystemTime::now();
        if let Some(jump) = self.clock.jump(Instant::now(), now) {
            warn!(secs = jump, "the clock was set; turns are kept by days on which the journal was written");
        }
        let pruned = retention::prune(store, retention, now)?;
        if pruned.turns > 0 {
            info!(turns = pruned.turns, bytes = pruned.bytes, "old turns left the journal");
        }
        board.size_bytes.send_replace(pruned.bytes);
        metrics::gauge!("openclaw_journal_size_bytes").set(pruned.bytes as f64);
        metrics::counter!("openclaw_journal_pruned_turns_total").increment(pruned.turns as u64);
        if pruned.more {
            self.look = Instant::now();
        }
        let is_beyond = pruned.bytes > retention.max_bytes && pruned.turns == 0;
        if mem::replace(&mut self.is_beyond, is_beyond) != is_beyond && is_beyond {
            let limit = retention.max_bytes;
            warn!(
                bytes = pruned.bytes,
                limit, "the journal is beyond its limit: what is left is owed to training"
            );
        }
        self.report_success();
        Ok(())
    }

    fn report_success(&self) {
        if self.parts.board.health.send_replace(Health::Ok) != Health::Ok {
            info!(file = %self.parts.store.path().display(), "the journal is written again");
        }
    }

    /// One line in the log for each new cause.
    fn report_failure(&self, error: &JournalError, reason: &'static str, records: usize) {
        let line = error.line();
        metrics::counter!("openclaw_journal_errors_total", "reason" => reason).increment(1);
        self.parts.board.health.send_if_modified(|health| {
            let failing = Health::Failing(line.clone());
            let is_new = *health != failing;
            if is_new {
                error!(error = line, records, "the journal cannot be written, and is tried again");
                *health = failing;
            }
            is_new
        });
    }
}
