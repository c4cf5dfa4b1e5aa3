//! What can go wrong beside the command itself.

use std::{
    io,
    path::{Path, PathBuf},
};

/// What to do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// It may work next time, in the same session.
    Retry,
    /// This session is of no more use.
    NewSession,
    /// It never works: what was asked for is not allowed, or the host lacks something.
    Refused,
}

/// What can go wrong beside the command itself.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// Untrusted commands do not run without isolation.
    #[error("untrusted commands are refused here: {}", .missing.join("; "))]
    Missing {
        /// What, and what to do about it.
        missing: Vec<String>,
    },
    /// A limit that would be none.
    #[error("limit {limit} is 0")]
    Limit {
        /// Its name.
        limit: &'static str,
    },
    /// A path that is not what it has to be.
    #[error("{} {why}", .path.display())]
    Path {
        /// As asked for.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A file is larger than what may be read at once.
    #[error("{} has {bytes} bytes, read_bytes is {limit}", .path.display())]
    TooLarge {
        /// As asked for.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// [`crate::Limits::read_bytes`].
        limit: u64,
    },
    /// The sandbox could not be made.
    #[error("cannot start a sandbox: {why}")]
    Start {
        /// What the program that makes it said.
        why: String,
    },
    /// Files could not be carried in, out or back.
    #[error("cannot {doing}: {why}")]
    Carry {
        /// What.
        doing: &'static str,
        /// What the program that does it said.
        why: String,
    },
    /// The session is closed, or its base has died.
    #[error("the session is closed")]
    Closed,
    /// The system refused.
    #[error("cannot {doing}")]
    Io {
        /// What.
        doing: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl SandboxError {
    /// What to do.
    pub fn advice(&self) -> Advice {
        match self {
            Self::Missing { .. } | Self::Limit { .. } | Self::Path { .. } | Self::TooLarge { .. } => {
                Advice::Refused
            }
            Self::Start { .. } | Self::Io { .. } => Advice::Retry,
            Self::Carry { .. } | Self::Closed => Advice::NewSession,
        }
    }

    pub(crate) fn io(doing: &'static str, source: impl Into<io::Error>) -> Self {
        Self::Io { doing, source: source.into() }
    }

    pub(crate) fn path(path: &Path, why: impl Into<String>) -> Self {
        Self::Path { path: path.into(), why: why.into() }
    }
}
