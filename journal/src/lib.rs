//! What happened: turns, what followed them, verdicts, hints, signals, steps and versions. It is the only path between
//! the stages of the loop, and what an export, the page and another process read.
//!
//! A turn has one state. A role takes work that is committed here, does it, records the transition, and only then
//! lets the work go; so whatever dies in between, the work is found again, and done twice it changes nothing.
//!
//! Records go into a queue that outlives the writer. The writer commits whatever waits in one transaction of SQLite
//! (WAL, synced at each commit), so an answered record survives the end of the process. Reads run beside it.

mod apply;
mod bodies;
mod browse;
mod closing;
mod codec;
mod contents;
mod episode;
mod episodes;
mod error;
pub mod fault;
mod folder;
pub mod inbox;
mod inspect;
mod pack;
pub mod panics;
mod reader;
mod reads;
mod record;
mod retention;
mod schema;
mod signals;
mod spill;
mod store;
mod tally;
#[cfg(test)]
mod tests;
mod turn;
mod wal;
mod wishes;
mod writer;
mod writing;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::SystemTime,
};

use tokio::sync::{Mutex, oneshot, watch};
use tracing::error;

use self::inbox::{Inbox, InboxStatus};
use self::{
    bodies::Bodies,
    reads::Page,
    store::Store,
    writer::{LIMITS, Write, WriterParts, WriterThread},
};
pub use self::{
    browse::{ReplyRow, SessionRow, Story, Told},
    closing::{Closed, NotKept, NotTakenUp},
    codec::CodecError,
    episode::*,
    error::JournalError,
    inspect::{Inspection, inspect, is_in_use},
    reader::{JournalReader, Lesson, Read},
    record::*,
    retention::Retention,
    signals::*,
    spill::SpillError,
    turn::*,
    wishes::{MOST_WISHES, WishRow, are_about_the_same},
    writer::Health,
    writing::Writing,
};

/// Where a journal lies and how much it keeps.
#[derive(Clone, Debug)]
pub struct JournalConfig {
    /// The run's folder.
    pub dir: PathBuf,
    /// Its limits.
    pub retention: Retention,
}

/// The address of a journal. Clones share it; it outlives every incarnation of the writer.
#[derive(Clone)]
pub struct Journal {
    shared: Arc<Shared>,
}

struct Shared {
    parts: WriterParts,
    /// The run's name for itself.
    run: u64,
    /// Records that wait for a place in the queue.
    submitting: AtomicUsize,
    /// Held by the thread that writes.
    slot: Arc<Mutex<()>>,
    /// Of a journal that no actor writes.
    _own_writer: Option<WriterThread>,
}

/// One that waits for a place, for as long as it does.
struct Submitting<'a>(&'a AtomicUsize);

impl<'a> Submitting<'a> {
    fn count(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::SeqCst);
        Self(waiting)
    }
}

impl Drop for Submitting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Of a record that has a place in the queue.
#[derive(Debug)]
pub struct Receipt {
    outcome: oneshot::Receiver<Result<Recorded, JournalError>>,
}

impl Receipt {
    /// Returns after the commit, and what became of the record.
    pub async fn committed(self) -> Result<Recorded, JournalError> {
        self.outcome.await.unwrap_or(Err(JournalError::Closed))
    }
}

impl Journal {
    /// Opens the journal in `config.dir`, makes it of today's form, and gives what an earlier process had leased
    /// back. Records wait until [`Journal::start_writing`]. Blocks.
    pub fn open(config: JournalConfig) -> Result<Self, JournalError> {
        let (store, tally) = Store::open(&config.dir)?;
        let run = store.run()?;
        let parts = parts(store, config.retention);
        parts.board.show(&tally);
        let (slot, submitting) = (Arc::default(), AtomicUsize::new(0));
        Ok(Self { shared: Arc::new(Shared { parts, run, submitting, slot, _own_writer: None }) })
    }

    /// A journal that ends with its last address. It has its own writer.
    pub fn in_memory() -> Self {
        let store = Store::in_memory().expect("an empty database in memory needs nothing but memory");
        let parts = parts(store, Retention::default());
        let slot: Arc<Mutex<()>> = Arc::default();
        let held = slot.clone().try_lock_owned().expect("nobody else has the slot yet");
        let writer = WriterThread::start(parts.clone(), held).expect("a thread can be started");
        let submitting = AtomicUsize::new(0);
        Self { shared: Arc::new(Shared { parts, run: 0, submitting, slot, _own_writer: Some(writer) }) }
    }

    /// Returns after the commit. While the journal cannot be written it waits.
    pub async fn record(&self, record: Record) -> Result<Recorded, JournalError> {
        self.submit(record).await.committed().await
    }

    /// Returns when the record has a place in the queue; its order with others is kept. Whoever tells somebody that it
    /// is kept waits for the receipt first.
    pub async fn submit(&self, record: Record) -> Receipt {
        let (answer, outcome) = oneshot::channel();
        let submitting = Submitting::count(&self.shared.submitting);
        self.shared.parts.queue.send(Write::new(record, answer)).await;
        drop(submitting);
        Receipt { outcome }
    }

    /// Leaves a record behind, whether the queue has a place or not: for an actor that ends and cannot wait.
    pub fn leave(&self, record: Record) {
        self.shared.parts.queue.leave(Write::new(record, oneshot::channel().0));
    }

    /// Counts since the run began; the receiver is told of each change, after its commit.
    pub fn totals(&self) -> watch::Receiver<Totals> {
        self.shared.parts.board.totals.subscribe()
    }

    /// What is not settled; the receiver is told of each change, after its commit.
    pub fn backlog(&self) -> watch::Receiver<Backlog> {
        self.shared.parts.board.backlog.subscribe()
    }

    /// Whether writing works.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.shared.parts.board.health.subscribe()
    }

    /// What waits to be written.
    pub fn queue(&self) -> InboxStatus {
        self.shared.parts.queue.status()
    }

    /// What it holds, files beside the database included; looked at now and then.
    pub fn size_bytes(&self) -> u64 {
        *self.shared.parts.board.size_bytes.borrow()
    }

    /// Work for judges changed after `after`, by the number of the change.
    pub async fn evaluations(&self, after: u64, limit: usize) -> Result<Vec<(u64, Evaluate)>, JournalError> {
        self.page(move |bodies| bodies.evaluations(after, limit)).await
    }

    /// Work for teachers, likewise.
    pub async fn judged(&self, after: u64, limit: usize) -> Result<Vec<(u64, Judged)>, JournalError> {
        self.page(move |bodies| bodies.judged(after, limit)).await
    }

    /// Work for the optimizer, likewise.
    pub async fn samples(&self, after: u64, limit: usize) -> Result<Vec<(u64, Sample)>, JournalError> {
        self.page(move |bodies| bodies.samples(after, limit)).await
    }

    /// Those of `turns` that a batch may lease: ready, or leased by an earlier optimizer.
    pub async fn trainable(&self, turns: &[TurnId]) -> Result<Vec<TurnId>, JournalError> {
        let turns = turns.to_vec();
        self.read(move |bodies| bodies.trainable(&turns)).await
    }

    /// Those of `turns` that a person rated or whose hint a person wrote, or that had another next state before, as they
    /// are to be learnt from now.
    pub async fn overruled(&self, turns: &[TurnId]) -> Result<Vec<Sample>, JournalError> {
        let turns = turns.to_vec();
        self.read(move |bodies| bodies.overruled(&turns)).await
    }

    /// Every turn of the sessions that answered since then, and those that wait for their next state, oldest first.
    pub async fn open_turns(&self, since: SystemTime) -> Result<Vec<RecordedTurn>, JournalError> {
        self.page(move |bodies| bodies.open_turns(since)).await
    }

    /// Turns whose next state may still be taken back, oldest first.
    pub async fn provisional_turns(&self) -> Result<Vec<TurnId>, JournalError> {
        self.read(|bodies| bodies.provisional_turns()).await
    }

    /// All that is known of a turn.
    pub async fn turn(&self, turn: &TurnId) -> Result<Option<TurnRow>, JournalError> {
        let turn = turn.clone();
        self.read(move |bodies| bodies.turn(&turn)).await
    }

    /// Episodes before the place `before`, the latest first.
    pub async fn episodes(&self, before: u64, limit: usize) -> Result<Vec<EpisodeRow>, JournalError> {
        self.read(move |bodies| bodies.episodes(before, limit)).await
    }

    /// An episode, and its steps by their places.
    pub async fn episode(&self, id: &EpisodeId) -> Result<Option<EpisodeStory>, JournalError> {
        let id = id.clone();
        self.read(move |bodies| bodies.episode(&id)).await
    }

    /// Of each of these places of episodes: the version that took the first step that is kept; none where none is, or it
    /// cannot be read.
    pub async fn first_versions(&self, episodes: Vec<u64>) -> Result<Vec<Option<u64>>, JournalError> {
        let version = |bodies: &Bodies<'_>, episode| match bodies.first_version(episode) {
            Err(error) if error.is_of_one_turn() => Ok(None),
            found => found,
        };
        self.read(move |bodies| episodes.into_iter().map(|episode| version(bodies, episode)).collect()).await
    }

    /// The episode that is open in a session, else the last that was.
    pub async fn episode_in(&self, session: &SessionId) -> Result<Option<EpisodeRow>, JournalError> {
        let session = session.clone();
        self.read(move |bodies| bodies.episode_in(&session)).await
    }

    /// Episodes in which nothing has happened since, and groups that wait for episodes that have not begun since.
    pub async fn idle_episodes(
        &self,
        since: SystemTime,
    ) -> Result<(Vec<EpisodeId>, Vec<String>), JournalError> {
        let since = store::millis(since);
        self.read(move |bodies| Ok((bodies.idle_episodes(since)?, bodies.idle_groups(since)?))).await
    }

    /// How many turns are kept in each state.
    pub async fn states(&self) -> Result<Vec<(TurnState, u64)>, JournalError> {
        self.read(|bodies| bodies.states()).await
    }

    /// Every version, oldest first.
    pub async fn versions(&self) -> Result<Vec<VersionRow>, JournalError> {
        self.read(|bodies| bodies.versions()).await
    }

    /// The version announced or returned to last; none for the base.
    pub async fn current_version(&self) -> Result<Option<VersionRow>, JournalError> {
        self.read(|bodies| bodies.current_version()).await
    }

    /// The version to go on from after a restart: the last that was committed with a checkpoint or returned to;
    /// none for the base.
    pub async fn resumable_version(&self) -> Result<Option<VersionRow>, JournalError> {
        self.read(|bodies| bodies.resumable_version()).await
    }

    /// The highest number ever given; 0 is the base.
    pub async fn last_version_number(&self) -> Result<u64, JournalError> {
        self.read(|bodies| bodies.last_version_number()).await
    }

    /// The highest number of a step; 0 before the first.
    pub async fn last_step(&self) -> Result<u64, JournalError> {
        self.read(|bodies| bodies.last_step()).await
    }

    /// The latest steps, newest first.
    pub async fn steps(&self, limit: usize) -> Result<Vec<StepRow>, JournalError> {
        self.read(move |bodies| bodies.steps(limit)).await
    }

    /// Dead turns, oldest first.
    pub async fn dead(&self, limit: usize) -> Result<Vec<DeadTurn>, JournalError> {
        self.read(move |bodies| bodies.dead(limit)).await
    }

    /// What operators asked for, newest first.
    pub async fn audit(&self, limit: usize) -> Result<Vec<AuditRow>, JournalError> {
        self.read(move |bodies| bodies.audit(limit)).await
    }

    /// Wishes that stand, the oldest first; with a turn, those of whoever has it.
    pub async fn wishes(&self, of: Option<&TurnId>) -> Result<Vec<WishRow>, JournalError> {
        let of = of.cloned();
        self.read(move |bodies| bodies.wishes(of.as_ref())).await
    }

    /// Conversations whose latest turn lies before the place `before`, the newest first.
    pub async fn sessions(&self, before: u64, limit: usize) -> Result<Vec<SessionRow>, JournalError> {
        self.read(move |bodies| bodies.sessions(before, limit)).await
    }

    /// Turns of a conversation behind the place `after`, the oldest first. One that cannot be read is its error.
    pub async fn stories(
        &self,
        session: &SessionId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Told>, JournalError> {
        let session = session.clone();
        self.read(move |bodies| bodies.stories(&session, after, limit)).await
    }

    /// A turn and what became of it.
    pub async fn story(&self, turn: &TurnId) -> Result<Option<Story>, JournalError> {
        let turn = turn.clone();
        self.read(move |bodies| bodies.story(&turn)).await
    }

    /// The first turn of the conversation that began last, of those that may be trained on.
    pub async fn last_opening(&self) -> Result<Option<Turn>, JournalError> {
        self.read(|bodies| bodies.last_opening()).await
    }

    /// The last turn of a conversation that is no side turn.
    pub async fn last_turn_of(&self, session: &SessionId) -> Result<Option<TurnRow>, JournalError> {
        let session = session.clone();
        self.read(move |bodies| bodies.last_turn_of(&session)).await
    }

    /// The latest `limit` judged replies, by their place. What an earlier call returned spares reading it again.
    pub async fn replies(
        &self,
        limit: usize,
        known: BTreeMap<u64, ReplyRow>,
    ) -> Result<BTreeMap<u64, ReplyRow>, JournalError> {
        self.read(move |bodies| bodies.replies(limit, known)).await
    }

    /// How many turns taught `version`, and the first `limit` of them.
    pub async fn taught(
        &self,
        version: u64,
        limit: usize,
    ) -> Result<(u64, Vec<(TurnId, SessionId)>), JournalError> {
        self.read(move |bodies| bodies.taught(version, limit)).await
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Bodies<'_>) -> Result<T, JournalError> + Send + 'static,
    ) -> Result<T, JournalError> {
        let store = self.shared.parts.store.clone();
        let read = tokio::task::spawn_blocking(move || store.read(read));
        // It ends early only with the runtime.
        read.await.unwrap_or(Err(JournalError::Closed))
    }

    /// Reads rows. A turn whose parts cannot be read stands in nobody's way: it is dead until an operator looks.
    async fn page<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Bodies<'_>) -> Result<Page<T>, JournalError> + Send + 'static,
    ) -> Result<Vec<T>, JournalError> {
        let Page { rows, unreadable } = self.read(read).await?;
        for (turn, problem) in unreadable {
            error!(%turn, error = problem.line(), "a turn cannot be read");
            metrics::counter!("openclaw_journal_errors_total", "reason" => "unreadable").increment(1);
            let reason = Some(problem.line());
            self.submit(Record::TurnDied { turn, inbox: "journal".to_owned(), attempts: 1, reason }).await;
        }
        Ok(rows)
    }
}

fn parts(store: Store, retention: Retention) -> WriterParts {
    WriterParts {
        store: Arc::new(store),
        queue: Inbox::new("journal", LIMITS),
        board: Arc::default(),
        retention,
    }
}
