//! Returns to an earlier version, and keeps the current one: what an operator may ask of the versions.

use std::sync::Arc;

use openclaw_journal::{Journal, JournalError, Record, Recorded};
use openclaw_kernels::KernelError;
use openclaw_model::{CheckpointError, Transformer, VersionFolders};
use tracing::info;

use crate::{
    engine::{Device, PolicyWeights},
    publisher::{Version, Versions},
};

/// Why a version was not returned to.
#[derive(Debug, thiserror::Error)]
pub enum RollbackError {
    /// There is no such version.
    #[error("version {version} is unknown; the newest is {newest}")]
    Unknown {
        /// The version.
        version: u64,
        /// The highest number given.
        newest: u64,
    },
    /// It has no folder any more, or never had one.
    #[error("version {version} is not kept: {dir} is not there")]
    NotKept {
        /// The version.
        version: u64,
        /// Where it would be.
        dir: String,
    },
    /// Its folder is torn.
    #[error("version {version} cannot be read")]
    Torn {
        /// The version.
        version: u64,
        /// Which file, and how.
        #[source]
        source: CheckpointError,
    },
    /// The device has no room for it.
    #[error(transparent)]
    Device(#[from] KernelError),
    /// It was not recorded.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// Returns to earlier versions. Clones share it.
#[derive(Clone)]
pub struct Rollback {
    /// The announcement.
    pub versions: Versions,
    /// Where versions are kept.
    pub folders: VersionFolders,
    /// The base model: version 0.
    pub base: PolicyWeights,
    /// Its shape.
    pub transformer: Transformer<Device>,
    /// Where it is recorded.
    pub journal: Journal,
}

impl Rollback {
    /// Serves `version` from now on; the next step trains from it. Returns the version that was left, which is
    /// `version` itself when there was nothing to do.
    pub async fn roll_back(&self, version: u64) -> Result<u64, RollbackError> {
        // Held to the end: no step is committed and no folder removed meanwhile.
        let change = self.versions.change().await;
        let from = self.versions.number();
        if version == from {
            return Ok(from);
        }
        // Read whole: the next step needs more of it than the weights.
        let weights = self.read(version, move |folders| Ok(folders.load(version)?.state.weights)).await?;
        let recorded = self.journal.record(Record::RolledBack { from, to: version }).await?;
        if recorded == Recorded::Stale {
            let newest = self.journal.last_version_number().await?;
            return Err(RollbackError::Unknown { version, newest });
        }
        change.roll_back(Version { number: version, weights });
        metrics::counter!("openclaw_publisher_rollbacks_total").increment(1);
        info!(from, to = version, "rolled back");
        Ok(from)
    }

    /// The weights of a version: the base's from memory, any other's from its folder.
    pub async fn weights(&self, version: u64) -> Result<PolicyWeights, RollbackError> {
        self.read(version, move |folders| folders.load_weights(version)).await
    }

    async fn read(
        &self,
        version: u64,
        read: impl FnOnce(&VersionFolders) -> Result<Vec<f32>, CheckpointError> + Send + 'static,
    ) -> Result<PolicyWeights, RollbackError> {
        if version == 0 {
            return Ok(self.base.clone());
        }
        let rows = self.journal.versions().await?;
        let Some(row) = rows.iter().find(|row| row.number == version) else {
            let newest = rows.last().map_or(0, |row| row.number);
            return Err(RollbackError::Unknown { version, newest });
        };
        let dir = self.folders.folder(version);
        if !row.checkpoint || !dir.exists() {
            return Err(RollbackError::NotKept { version, dir: dir.display().to_string() });
        }
        let folders = self.folders.clone();
        let flat = tokio::task::spawn_blocking(move || read(&folders)).await;
        let flat = flat.expect("reading a folder does not panic");
        let flat = flat.map_err(|source| RollbackError::Torn { version, source })?;
        Ok(Arc::new(self.base.with(&self.transformer, &flat)?))
    }
}
