//! Numbers the weights that a step made, announces them, and keeps the last few on disk.
//!
//! Nobody waits for a version: each policy follows the announcement, loads the new weights beside the old ones and
//! gives them to its next request. A policy that was down finds the current version when it returns.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use openclaw_kernels::KernelError;
use openclaw_model::{CheckpointError, Transformer, WeightDtype, checkpoint};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::{
    engine::{Device, Engine, EngineError, PolicyWeights},
    inbox::Lease,
    journal::{Journal, Record},
    worker::Work,
};

/// A version and its weights.
#[derive(Clone)]
pub struct Version {
    /// How many times weights were published before.
    pub number: u64,
    /// Its weights.
    pub weights: PolicyWeights,
}

/// The announcement of the current version; it outlives the publisher. Clones share it.
#[derive(Clone)]
pub struct Versions {
    current: Arc<watch::Sender<Version>>,
}

impl Versions {
    /// Starts with these weights as version `number`.
    pub fn new(number: u64, weights: PolicyWeights) -> Self {
        Self { current: Arc::new(watch::Sender::new(Version { number, weights })) }
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

    /// Announces a version that was numbered elsewhere.
    fn mirror(&self, version: Version) {
        self.current.send_replace(version);
    }

    /// Announces `weights` under the next number. The same weights again, from a publisher that was restarted in
    /// the middle, keep their number.
    fn announce(&self, weights: &PolicyWeights) -> u64 {
        self.current.send_if_modified(|version| {
            let new = !Arc::ptr_eq(&version.weights, weights);
            if new {
                *version = Version { number: version.number + 1, weights: weights.clone() };
            }
            new
        });
        self.number()
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

/// Asks to publish what a step made.
pub struct Publish {
    /// The step.
    pub step: u64,
    /// The weights after it.
    pub weights: PolicyWeights,
}

/// Where and how versions are kept.
#[derive(Clone, Debug)]
pub struct PublisherConfig {
    /// The folder that holds a folder per version.
    pub dir: PathBuf,
    /// How many of them stay.
    pub keep_versions: usize,
    /// Only every so many versions are kept.
    pub save_every: u64,
    /// What their parameters are stored in.
    pub dtype: WeightDtype,
    /// The checkpoint folder whose tokenizer and configuration they take over.
    pub template: PathBuf,
    /// Tokens that end a response.
    pub end_ids: Vec<u32>,
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
    /// Where and how versions are kept.
    pub config: PublisherConfig,
    /// The announcement.
    pub versions: Versions,
    /// A teacher that does not stay on the base version.
    pub teacher: Option<Refresh>,
    /// The shape of the weights.
    pub transformer: Transformer<Device>,
    /// Where versions are recorded.
    pub journal: Journal,
}

/// Why a version was not written.
#[derive(Debug, thiserror::Error)]
enum SaveError {
    #[error("the weights cannot be read back")]
    Weights(#[source] KernelError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error("{path} cannot be removed")]
    Prune {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl Work for Publisher {
    type Message = Publish;
    const ROLE: &'static str = "publisher";

    async fn handle(&self, lease: Lease<Publish>) {
        let version = self.versions.announce(&lease.weights);
        metrics::gauge!("openclaw_publisher_policy_version").set(version as f64);
        info!(version, step = lease.step, "weights published");
        if let Some(teacher) = self.teacher.as_ref().filter(|teacher| version.is_multiple_of(teacher.every)) {
            teacher.versions.mirror(Version { number: version, weights: lease.weights.clone() });
        }
        if let Err(error) = self.journal.submit(Record::VersionPublished { version }).await {
            warn!(version, %error, "a version was not recorded");
        }
        if version.is_multiple_of(self.config.save_every.max(1)) {
            self.save(version, lease.weights.clone()).await;
        }
        lease.ack();
    }
}

impl Publisher {
    /// Keeps the current version if it is not kept yet, whatever `save_every` says: the last thing before the end.
    pub async fn keep_current(&self) {
        let Version { number, weights } = self.versions.current();
        if number > 0 && !self.config.dir.join(number.to_string()).exists() {
            self.save(number, weights).await;
        }
    }

    async fn save(&self, version: u64, weights: PolicyWeights) {
        let (config, transformer) = (self.config.clone(), self.transformer.clone());
        let saved = tokio::task::spawn_blocking(move || save(&config, &transformer, version, &weights)).await;
        let problem = match saved {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        // The version serves all the same; it only cannot be returned to.
        warn!(version, problem, "a version was not kept");
        metrics::counter!("openclaw_publisher_saves_failed_total").increment(1);
    }
}

fn save(
    config: &PublisherConfig,
    transformer: &Transformer<Device>,
    version: u64,
    weights: &PolicyWeights,
) -> Result<(), SaveError> {
    let flat = weights.to_host(transformer).map_err(SaveError::Weights)?;
    checkpoint::save(
        &config.dir.join(version.to_string()),
        &transformer.config,
        &flat,
        config.dtype,
        &config.end_ids,
        Some(&config.template),
    )?;
    for old in superseded(&config.dir, config.keep_versions) {
        fs::remove_dir_all(&old).map_err(|source| SaveError::Prune { path: old, source })?;
    }
    Ok(())
}

/// Version folders beyond the newest `keep`.
fn superseded(dir: &Path, keep: usize) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut numbers: Vec<u64> =
        entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    numbers.sort_unstable_by(|a, b| b.cmp(a));
    numbers.into_iter().skip(keep.max(1)).map(|number| dir.join(number.to_string())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_versions_stay_and_nothing_else_is_touched() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        for name in ["1", "2", "9", "10", "latest", "3.tmp"] {
            fs::create_dir(dir.path().join(name)).expect("a folder");
        }
        assert_eq!(superseded(dir.path(), 2), [dir.path().join("2"), dir.path().join("1")]);
        assert!(superseded(&dir.path().join("missing"), 2).is_empty());
    }
}
