//! What an operator sees of the children.

use std::fmt;

use tokio::time::{Duration, Instant};

use super::spec::Paused;

/// What a child is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChildState {
    /// On its way up for the first time, or after it was down.
    Starting,
    /// Up.
    Running,
    /// Up, but its inbox hands nothing out until an operator resumes it.
    Paused,
    /// Up, but it is not well or does not answer.
    Stuck,
    /// On its way down: takes nothing more.
    Draining,
    /// Ended by itself, with its group, or told to restart; on its way back.
    Restarting,
    /// Ended too often: down until an operator restarts it.
    Failed,
    /// Down on purpose.
    Stopped,
}

impl ChildState {
    /// Every state.
    pub const ALL: [Self; 8] = [
        Self::Starting,
        Self::Running,
        Self::Paused,
        Self::Stuck,
        Self::Draining,
        Self::Restarting,
        Self::Failed,
        Self::Stopped,
    ];

    /// The word that `status` shows.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stuck => "stuck",
            Self::Draining => "draining",
            Self::Restarting => "restarting",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
        }
    }
}

/// How a child last ended, did not start, or was not well.
#[derive(Clone, Debug, PartialEq)]
pub struct LastError {
    /// In words.
    pub reason: String,
    /// When.
    pub when: Instant,
}

impl fmt::Display for LastError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} s ago)", self.reason, self.when.elapsed().as_secs())
    }
}

/// One child, as an operator sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct ChildStatus {
    /// Its name, such as `judge.0`.
    pub name: String,
    /// Its role, such as `judge`.
    pub role: String,
    /// What it is doing.
    pub state: ChildState,
    /// Since when; a paused child, since it is up.
    pub since: Instant,
    /// How often it was started again.
    pub restarts: u64,
    /// What last went wrong, if anything did.
    pub last_error: Option<LastError>,
}

/// A status but for the pause, which is looked at when the status is; and what a shutdown must know.
#[derive(Clone)]
pub struct View {
    pub status: ChildStatus,
    pub paused: Option<Paused>,
    pub shutdown_timeout: Duration,
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.status.fmt(f)
    }
}

impl View {
    pub fn status(&self) -> ChildStatus {
        let mut status = self.status.clone();
        if status.state == ChildState::Running && self.paused.as_ref().is_some_and(|paused| paused()) {
            status.state = ChildState::Paused;
        }
        status
    }
}
