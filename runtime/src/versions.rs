//! Versions of the policy, as an operator and the page list them: how each was made, and how its replies were received.

use openclaw_actors::rollback::Rollback;
use openclaw_journal::{Journal, JournalError};
use serde::{Deserialize, Serialize};

use crate::measures::unix_secs;

/// Steps that are looked through for withheld ones, the newest.
const STEPS: usize = 1000;

/// A version of the policy, or one that was not to be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionStatus {
    /// Its number; a withheld one has none.
    pub version: Option<u64>,
    /// The step that made it.
    pub step: u64,
    /// `current`, `base` (version 0), `published`, `committed` (and not announced yet) or `withheld`.
    pub state: String,
    /// Why it was withheld.
    pub reason: Option<String>,
    /// Of its weights.
    pub fingerprint: String,
    /// It was written to disk.
    pub kept: bool,
    /// When it was made, in seconds since 1970; 0 for the base model.
    pub made_unix_secs: u64,
}

/// How a version's replies were received, among the latest replies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reception {
    /// The version.
    pub version: u64,
    /// Its judged replies.
    pub replies: u64,
    /// Verdicts of +1.
    pub approved: u64,
    /// Verdicts of -1.
    pub rejected: u64,
    /// Its judged replies that were the first of their conversation.
    pub first: u64,
    /// Those with a verdict of +1.
    pub first_approved: u64,
}

/// Version 0: the base model, which can always be returned to.
pub(crate) fn base_status(rollback: &Rollback) -> VersionStatus {
    VersionStatus {
        version: Some(0),
        state: if rollback.versions.number() == 0 { "current" } else { "base" }.to_owned(),
        kept: true,
        ..VersionStatus::default()
    }
}

/// Every version that was made and every one that was withheld, by their steps.
pub(crate) async fn version_statuses(
    journal: &Journal,
    rollback: &Rollback,
) -> Result<Vec<VersionStatus>, JournalError> {
    let current = rollback.versions.number();
    let made = journal.versions().await?.into_iter().map(|row| VersionStatus {
        version: Some(row.number),
        step: row.step,
        state: match (row.number == current, row.published) {
            (true, _) => "current".to_owned(),
            (false, true) => "published".to_owned(),
            (false, false) => "committed".to_owned(),
        },
        reason: None,
        fingerprint: row.fingerprint,
        kept: row.checkpoint && rollback.folders.folder(row.number).exists(),
        made_unix_secs: unix_secs(row.when),
    });
    let withheld = journal.steps(STEPS).await?.into_iter().filter(|step| step.withheld.is_some());
    let withheld = withheld.map(|step| VersionStatus {
        version: None,
        step: step.step,
        state: "withheld".to_owned(),
        reason: step.withheld,
        fingerprint: step.fingerprint,
        kept: false,
        made_unix_secs: unix_secs(step.when),
    });
    let mut all: Vec<_> = made.chain(withheld).collect();
    all.sort_by_key(|row| (row.step, row.version));
    Ok(all)
}
