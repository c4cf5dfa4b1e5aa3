//! Announces versions that are committed, and prunes what old folders hold.
//!
//! Nobody waits for a version: each policy follows the announcement, loads the new weights beside the old ones and
//! gives them to its next request. A policy that was down finds the current version when it returns.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use openclaw_journal::{Journal, Record, fault, inbox::Lease};
use openclaw_model::{CheckpointError, VersionFolders};
use tokio::sync::{Mutex, MutexGuard, watch};
use tracing::{info, warn};

use crate::{
    engine::{Engine, EngineError, PolicyWeights},
    resume::chain,
    worker::Work,
};

/// A version and its weights.
#[derive(Clone)]
pub struct Version {
    /// Its number; 0 is the base model.
    pub number: u64,
    /// Its weights.
    pub weights: PolicyWeights,
}

/// The announcement of the current version; it outlives the publisher. Clones share it.
#[derive(Clone)]
pub struct Versions {
    current: Arc<watch::Sender<Version>>,
    /// How often an earlier version was returned to: what was trained before that has no place after it.
    epoch: Arc<AtomicU64>,
    change: Arc<Mutex<()>>,
}

impl Versions {
    /// Starts with these weights as version `number`.
    pub fn new(number: u64, weights: PolicyWeights) -> Self {
        Self {
            current: Arc::new(watch::Sender::new(Version { number, weights })),
            epoch: Arc::default(),
            change: Arc::default(),
        }
    }

    /// The current version.
    pub fn current(&self) -> Version {
        self.current.borrow().clone()
    }

    /// Its number.
    pub fn number(&self) -> u64 {
        self.current.borrow().number
    }

    /// Is told of each new version.
    pub fn subscribe(&self) -> watch::Receiver<Version> {
        self.current.subscribe()
    }

    /// How often an earlier version was returned to.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }

    /// The right to commit, announce or return to a version: one at a time, so that what the journal says and what
    /// is served never part.
    pub async fn change(&self) -> VersionChange<'_> {
        VersionChange { versions: self, _turn: self.change.lock().await }
    }

    /// Shows the current version in the metrics: for the policy's versions, of which there is one announcement.
    pub fn show(&self) {
        metrics::gauge!("openclaw_publisher_policy_version").set(self.number() as f64);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        metrics::gauge!("openclaw_publisher_version_timestamp_seconds").set(now.as_secs_f64());
    }

    fn announce(&self, version: Version) {
        self.current.send_replace(version);
    }
}

/// See [`Versions::change`].
pub struct VersionChange<'a> {
    versions: &'a Versions,
    _turn: MutexGuard<'a, ()>,
}

impl VersionChange<'_> {
    /// How often an earlier version was returned to; it does not change meanwhile.
    pub fn epoch(&self) -> u64 {
        self.versions.epoch()
    }

    /// The next version; its number is higher.
    pub fn announce(&self, version: Version) {
        self.versions.announce(version);
        self.versions.show();
    }

    /// An earlier version: what was trained since is abandoned.
    pub fn roll_back(&self, version: Version) {
        self.versions.epoch.fetch_add(1, Ordering::SeqCst);
        self.versions.announce(version);
        self.versions.show();
    }
}

/// Keeps `engine` on the current version until the engine refuses one or its thread ends for good.
pub async fn follow(versions: Versions, engine: Engine) -> EngineError {
    let mut announced = versions.subscribe();
    loop {
        let Version { number, weights } = announced.borrow_and_update().clone();
        if engine.version() != number
            && let Err(error) = engine.load(number, weights).await
        {
            return error;
        }
        announced.changed().await.expect("`versions` holds the sender");
    }
}

/// Asks to announce a version that is committed.
pub struct Publish {
    /// The version.
    pub version: Version,
    /// The step that made it.
    pub step: u64,
    /// [`Versions::epoch`] when the step was taken.
    pub epoch: u64,
}

/// Who else takes the policy's weights, and how often.
pub struct Refresh {
    /// Every so many versions.
    pub every: u64,
    /// The announcement that it follows.
    pub versions: Versions,
}

/// The work of `publisher`.
pub struct Publisher {
    /// The announcement.
    pub versions: Versions,
    /// Where versions are kept.
    pub folders: VersionFolders,
    /// How many of them stay.
    pub keep_versions: usize,
    /// A teacher that does not stay on the base version.
    pub teacher: Option<Refresh>,
    /// Where versions are recorded.
    pub journal: Journal,
}

impl Work for Publisher {
    type Message = Publish;
    const ROLE: &'static str = "publisher";

    async fn handle(&self, lease: Lease<Publish>) {
        fault::point("publisher.before");
        let change = self.versions.change().await;
        let version = lease.version.clone();
        let number = version.number;
        if lease.epoch != change.epoch() {
            info!(version = number, "a version is not announced: an earlier one was returned to");
            return lease.ack();
        }
        // Recorded first: a version that was seen must not be forgotten by a crash.
        if let Err(error) = self.journal.record(Record::VersionPublished { version: number }).await {
            // The lease is dropped: it is announced when the journal takes it.
            warn!(version = number, %error, "a version cannot be recorded");
            return;
        }
        if self.versions.number() != number {
            if let Some(teacher) =
                self.teacher.as_ref().filter(|teacher| number.is_multiple_of(teacher.every))
            {
                teacher.versions.announce(version.clone());
            }
            change.announce(version);
            metrics::histogram!("openclaw_publisher_publish_seconds").record(lease.sent().elapsed());
            info!(version = number, step = lease.step, "weights published");
        }
        fault::point("publisher.after");
        self.prune().await;
        drop(change);
        lease.ack();
    }
}

impl Publisher {
    /// Nobody returns to a version meanwhile: the caller has the right to change versions.
    async fn prune(&self) {
        let resumable = self.journal.resumable_version().await.ok().flatten().map(|row| row.number);
        let needed = [Some(self.versions.number()), resumable];
        let (folders, keep) = (self.folders.clone(), self.keep_versions);
        let pruned = tokio::task::spawn_blocking(move || prune(&folders, keep, &needed)).await;
        if let Err(error) =
            pruned.map_err(|error| error.to_string()).and_then(|pruned| pruned.map_err(|error| chain(&error)))
        {
            warn!(error, "old versions cannot be removed");
        }
    }
}

/// Removes folders beyond the newest `keep`, those `needed` excepted. Training goes on from the needed ones, and
/// from those that are made meanwhile; the others keep their weights, and let go of their moments.
fn prune(folders: &VersionFolders, keep: usize, needed: &[Option<u64>]) -> Result<(), CheckpointError> {
    let numbers = folders.numbers()?;
    let is_needed = |number: &u64| needed.contains(&Some(*number));
    let (old, kept) = numbers.split_at(numbers.len().saturating_sub(keep.max(1)));
    for number in old.iter().filter(|number| !is_needed(number)) {
        folders.remove(*number)?;
    }
    let newest_needed = needed.iter().flatten().max().copied().unwrap_or(0);
    // Those of the newest may be written yet: until then a crash goes on with the ones before.
    let newest_whole =
        numbers.iter().rfind(|number| **number <= newest_needed && folders.has_moments(**number));
    let passed = kept.iter().filter(|number| Some(*number) < newest_whole && !is_needed(number));
    passed.into_iter().try_for_each(|number| folders.drop_moments(*number))
}
