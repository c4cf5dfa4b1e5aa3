//! Finds where a run goes on after a crash: the version that training resumes from, and the number it is served
//! under.
//!
//! A number is never lower than one that was seen, unless an operator returned to it. Versions that lived in memory
//! alone are gone with it: their turns are ready again, and the weights they grew from go on under a new number.

use std::collections::BTreeMap;

use openclaw_journal::{Journal, JournalError, Record, VersionRow};
use openclaw_model::{CheckpointError, StoredVersion, TrainerState, VersionFolders};
use tracing::{error, warn};

/// Why a run cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ResumeError {
    /// The journal cannot be read or written.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A version folder cannot be listed, removed or set aside.
    #[error(transparent)]
    Folders(#[from] CheckpointError),
    /// Folders of another run's versions: removing them would lose something.
    #[error(
        "{dir} is not in the journal of this run: it is another run's, or journal.db and journal.db-wal are older than \
         it and were not brought back together; move it away, or bring them back"
    )]
    Foreign {
        /// The folder.
        dir: String,
    },
    /// Everything learnt would be lost.
    #[error("version {version} is torn, and no earlier one is left in {dir}")]
    NothingLeft {
        /// The newest version.
        version: u64,
        /// Where versions are kept.
        dir: String,
    },
}

/// Where a run goes on.
pub struct Resume {
    /// The number to serve under.
    pub number: u64,
    /// The step that made the weights.
    pub step: u64,
    /// The version whose weights they are; 0 is the base model.
    pub base: u64,
    /// What training goes on from; none for the base model.
    pub stored: Option<StoredVersion>,
    /// Versions whose folders are torn.
    torn: Vec<u64>,
}

impl Resume {
    /// Looks, without writing into the journal. What a writer that died has left in the folders is removed.
    pub async fn find(folders: &VersionFolders, journal: &Journal) -> Result<Self, ResumeError> {
        let rows: BTreeMap<u64, VersionRow> =
            journal.versions().await?.into_iter().map(|row| (row.number, row)).collect();
        let highest = journal.last_version_number().await?;
        discard_unnamed(folders, &rows, highest)?;
        let newest = journal.resumable_version().await?.map_or(0, |row| row.number);
        let (mut torn, mut missing) = (Vec::new(), false);
        let (mut base, mut stored) = (newest, None);
        while let Some(row) = rows.get(&base) {
            if row.checkpoint {
                match folders.load(base) {
                    Ok(found) => {
                        stored = Some(found);
                        break;
                    }
                    Err(error) => {
                        error!(version = base, error = chain(&error), "a version cannot be resumed");
                        missing |= !folders.folder(base).exists();
                        torn.push(base);
                    }
                }
            }
            base = row.base;
        }
        if let Some(stored) = stored.as_mut().filter(|stored| !stored.own_moments) {
            borrow_moments(folders, &rows, stored);
        }
        if stored.is_none() && (missing || base != 0) {
            let dir = folders.dir.display().to_string();
            return Err(ResumeError::NothingLeft { version: newest, dir });
        }
        let current = journal.current_version().await?;
        let number = match current {
            Some(row) if row.number > base && !is_restored(&row, &rows, base) => highest + 1,
            Some(row) if row.number > base => row.number,
            _ => base,
        };
        let step = rows.get(&base).map_or(0, |row| row.step);
        Ok(Self { number, step, base, stored, torn })
    }

    /// Writes into the journal what was found to be lost, and the number that goes on in its place.
    pub async fn record(&self, folders: &VersionFolders, journal: &Journal) -> Result<(), ResumeError> {
        if !self.torn.is_empty() {
            warn!(to = self.base, versions = ?self.torn, "what they learnt is learnt again");
            let undone = Record::VersionsUndone { versions: self.torn.clone(), to: self.base };
            let _ = journal.record(undone).await?;
            self.torn.iter().try_for_each(|number| folders.set_aside(*number))?;
        }
        if self.number != self.base {
            // Stale when an earlier incarnation came as far.
            let restored = Record::VersionRestored { version: self.number, base: self.base };
            let _ = journal.record(restored).await?;
        }
        Ok(())
    }
}

/// A version that was announced before its moments were written goes on with those of the nearest version before it.
fn borrow_moments(folders: &VersionFolders, rows: &BTreeMap<u64, VersionRow>, stored: &mut StoredVersion) {
    let version = stored.manifest.number;
    let mut ancestors = std::iter::successors(rows.get(&version), |row| rows.get(&row.base)).skip(1);
    let Some(of) = ancestors.find(|row| folders.has_moments(row.number)) else { return };
    match folders.load_moments(of.number, &mut stored.state) {
        Ok(_) => warn!(version, of = of.number, "training goes on with the moments of an earlier version"),
        Err(error) => {
            warn!(version, of = of.number, error = chain(&error), "moments cannot be read: they start empty");
            stored.state = TrainerState::fresh(std::mem::take(&mut stored.state.weights));
        }
    }
}

/// Whether a version is nothing but the weights of `base` under a new number.
fn is_restored(row: &VersionRow, rows: &BTreeMap<u64, VersionRow>, base: u64) -> bool {
    row.base == base && row.step == rows.get(&base).map_or(0, |base| base.step)
}

fn discard_unnamed(
    folders: &VersionFolders,
    rows: &BTreeMap<u64, VersionRow>,
    highest: u64,
) -> Result<(), ResumeError> {
    let numbers = folders.numbers()?;
    // The one folder that may be there without a row is that of a step whose commit did not come. Rows of old
    // versions are forgotten at some time.
    let forgotten = |number: &u64| rows.keys().next().is_some_and(|oldest| number < oldest);
    let known = |number: &u64| rows.contains_key(number) || *number == highest + 1 || forgotten(number);
    if let Some(foreign) = numbers.iter().find(|number| !known(number)) {
        return Err(ResumeError::Foreign { dir: folders.folder(*foreign).display().to_string() });
    }
    let named = rows.values().filter(|row| row.checkpoint).map(|row| row.number);
    let named: Vec<u64> = named.chain(numbers.into_iter().filter(forgotten)).collect();
    for folder in folders.discard_unnamed(&named)? {
        warn!(folder = %folder.display(), "a version that was not committed is discarded");
    }
    Ok(())
}

/// An error and its causes, on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
