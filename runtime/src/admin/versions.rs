//! Versions of the policy, as an operator and the page list them.

use openclaw_actors::{
    journal::{Journal, JournalError},
    rollback::Rollback,
};

use super::{
    node::{LIST_ROWS, unix_secs},
    operator::VersionStatus,
};

/// Version 0: the base model, which can always be returned to.
pub(super) fn base_status(rollback: &Rollback) -> VersionStatus {
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
    let withheld = journal.steps(LIST_ROWS).await?.into_iter().filter(|step| step.withheld.is_some());
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
