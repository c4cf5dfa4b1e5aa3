//! What is asked of a node and not done: the reason, for programs and in words.

use serde::{Deserialize, Serialize};

/// Why a command is refused. Decides the HTTP status and the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalKind {
    /// The request cannot be read.
    Usage,
    /// The token is missing or wrong.
    Unauthorized,
    /// There is no actor, role, turn or version of this name.
    Unknown,
    /// Not possible in this state.
    NotNow,
    /// Not possible for this role in any state.
    NeverHere,
    /// It was tried and did not work.
    Failed,
}

/// A command that was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{message}")]
pub struct Refusal {
    /// Why, for programs.
    pub kind: RefusalKind,
    /// Why, in words.
    pub message: String,
}

impl Refusal {
    /// Refuses in words.
    pub fn new(kind: RefusalKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// What was tried and did not work, with its causes.
    pub fn failed(error: impl std::error::Error) -> Self {
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            message = format!("{message}: {error}");
            cause = error.source();
        }
        Self::new(RefusalKind::Failed, message)
    }
}
