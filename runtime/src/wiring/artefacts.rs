//! What is left of the node's own episodes: workers write files and outcomes, and here the trajectory is added, once every
//! step was judged.

use std::{path::Path, time::Duration};

use openclaw_actors::{
    agents::{Artefacts, Left},
    pictures::Pictures,
};
use openclaw_journal::{Journal, JournalReader};
use tokio::time::timeout;
use tracing::{debug, warn};

use super::Builder;
use crate::{export, topology::Agent};

/// Of a run's folder.
pub(crate) const FOLDER: &str = "episodes";
/// The same, of what screens have shown.
const IMAGES: &str = "images";
/// Bytes of images that are kept.
const MOST_IMAGE_BYTES: u64 = 512 << 20;
/// A step that was not judged by then stands in the trajectory without.
const PATIENCE: Duration = Duration::from_secs(60);

/// The images of a run.
pub(crate) fn pictures(run_dir: &Path) -> Pictures {
    Pictures::new(run_dir.join(IMAGES), MOST_IMAGE_BYTES)
}

impl Builder<'_> {
    /// Where an agent's episodes are kept; none where none are wanted.
    pub(super) fn artefacts(&self, agent: &Agent) -> Option<Artefacts> {
        let dir = self.topology.run.dir.clone();
        let (artefacts, mut written) =
            (agent.artefacts > 0).then(|| Artefacts::new(dir.join(FOLDER), agent.artefacts))?;
        let journal = self.journal.clone();
        // It ends with the last worker.
        tokio::spawn(async move {
            while let Some(left) = written.recv().await {
                if timeout(PATIENCE, judged(&journal, &left)).await.is_err() {
                    debug!(episode = %left.episode, "its steps are not all judged");
                }
                let dir = dir.clone();
                let told = tokio::task::spawn_blocking(move || trajectory(&dir, &left));
                match told.await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => warn!(%error, "a trajectory is not kept as a file"),
                    Err(error) => warn!(%error, "a trajectory is not kept as a file"),
                }
            }
        });
        Some(artefacts)
    }
}

/// Returns once every step of an episode that is trained on has its score, or it cannot be read.
async fn judged(journal: &Journal, left: &Left) {
    let mut totals = journal.totals();
    while let Ok(Some((row, steps))) = journal.episode(&left.episode).await {
        let all = steps.iter().all(|(_, step)| step.score.is_some());
        if all || !row.episode.judged || totals.changed().await.is_err() {
            return;
        }
    }
}

fn trajectory(run_dir: &Path, left: &Left) -> anyhow::Result<()> {
    // It may be gone already, where many end at once.
    match (left.folder.is_dir(), JournalReader::open(run_dir)?) {
        (true, Some(reader)) => export::trajectory(&reader, run_dir, &left.session, &left.folder),
        _ => Ok(()),
    }
}
