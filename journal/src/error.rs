//! What can go wrong with the journal, and which of it passes by waiting.

use std::{io, path::PathBuf};

use rusqlite::ErrorCode;

use super::codec::CodecError;

/// Why the journal did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The folder cannot hold a journal.
    #[error("{path} cannot be written")]
    Folder {
        /// What was to be made or written.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Somebody else writes to it.
    #[error("{dir} is in use by another process")]
    InUse {
        /// The folder.
        dir: PathBuf,
    },
    /// A later program wrote it.
    #[error("{path} has schema version {found}, and this program knows them up to {known}")]
    Newer {
        /// The file.
        path: PathBuf,
        /// The version of the file.
        found: u32,
        /// The latest known.
        known: u32,
    },
    /// The file is not a journal, or not any more.
    #[error("{path} is damaged or is not a journal")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        #[source]
        source: rusqlite::Error,
    },
    /// The database's log lost what was acknowledged.
    #[error(
        "{path} is torn: {problem}. What was acknowledged would be missing: bring the file back from a copy, together with \
         the database beside it"
    )]
    TornLog {
        /// The file.
        path: PathBuf,
        /// Where, and what is lost.
        problem: String,
    },
    /// The database refused.
    #[error("{path} cannot be read or written")]
    Database {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
    /// A file beside the database failed.
    #[error("{path} cannot be read or written")]
    Blob {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What is kept, or is to be kept, is not in a known form.
    #[error("{what} of {of}")]
    Form {
        /// Which part.
        what: &'static str,
        /// Of which turn or step.
        of: String,
        /// What is wrong with it.
        #[source]
        source: CodecError,
    },
    /// The writer panicked over this record as often as it is allowed to.
    #[error("the writer died {attempts} times over this record")]
    DeadLetter {
        /// How often.
        attempts: u32,
    },
    /// The thread could not be started, or panicked.
    #[error("the writer ended: {reason}")]
    Writer {
        /// How.
        reason: String,
    },
    /// Nobody will write any more.
    #[error("the journal is closed")]
    Closed,
}

/// What a failure to write means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// It may pass: the batch is kept and tried again. Holds the label of the counter.
    Passing(&'static str),
    /// The file is damaged.
    Lasting,
    /// Of this record alone.
    OfRecord,
}

impl JournalError {
    pub(crate) fn trouble(&self) -> Trouble {
        match self {
            Self::Database { source, .. } => trouble(source),
            Self::Damaged { .. } => Trouble::Lasting,
            Self::Blob { source, .. } | Self::Folder { source, .. } => {
                Trouble::Passing(match source.kind() {
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "full",
                    io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => "read_only",
                    _ => "io",
                })
            }
            _ => Trouble::OfRecord,
        }
    }

    /// Whether it says nothing of the rest of the journal.
    pub fn is_of_one_turn(&self) -> bool {
        matches!(self, Self::Form { .. } | Self::Blob { .. })
    }

    /// Says which file `source` is about.
    pub(crate) fn database(path: &std::path::Path, source: rusqlite::Error) -> Self {
        let path = path.to_owned();
        match trouble(&source) {
            Trouble::Lasting => Self::Damaged { path, source },
            _ => Self::Database { path, source },
        }
    }

    /// The whole chain on one line.
    pub fn line(&self) -> String {
        line(self)
    }
}

/// An error and its causes on one line.
pub(crate) fn line(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |line, cause| format!("{line}: {cause}"))
}

fn trouble(error: &rusqlite::Error) -> Trouble {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => Trouble::Passing("full"),
        Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen) => Trouble::Passing("io"),
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => Trouble::Passing("read_only"),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed) => {
            Trouble::Passing("busy")
        }
        Some(ErrorCode::OutOfMemory) => Trouble::Passing("memory"),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Trouble::Lasting,
        _ => Trouble::OfRecord,
    }
}
