//! Keeps this process's actors alive: starts them in order, restarts what ends by itself, stops them in reverse.
//!
//! ractor brings links and events; this brings what is built on them. Three of its traps decide the shape. A
//! child's state may outlive the news of its end, so a child counts as ended when its task has ended. A
//! supervisor that stops kills its children, so [`Supervisor::stop`] stops them first. And slow work in a
//! supervisor's handler delays every event, so starting and stopping run in tasks that report back.
//!
//! `child` is the life of one child as a plain state machine, `spec` is what a child is told to be.

mod actor;
mod child;
mod spec;
#[cfg(test)]
mod tests;

use std::time::Duration;

use ractor::{Actor, ActorRef, RpcReplyPort};
use tokio::{sync::watch, task::JoinHandle, time::Instant};

use actor::{Message, SupervisorActor};
pub use spec::{Backoff, ChildSpec, Intensity, Restart, RunningChild, StartError, StartFuture};

/// What a child is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChildState {
    /// On its way up for the first time, or at an operator's word.
    Starting,
    /// Up.
    Running,
    /// Ended by itself, or told to restart; on its way back.
    Restarting,
    /// Ended too often: down until an operator restarts it.
    Failed,
    /// Down on purpose.
    Stopped,
}

impl ChildState {
    /// The word that `status` shows.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Restarting => "restarting",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
        }
    }
}

/// One child, as an operator sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct ChildStatus {
    /// Its name, such as `judge.0`.
    pub name: String,
    /// Its role, such as `judge`.
    pub group: String,
    /// What it is doing.
    pub state: ChildState,
    /// Since when.
    pub since: Instant,
    /// How often it was started again.
    pub restarts: u64,
    /// How it last ended, if not on purpose.
    pub last_error: Option<String>,
}

/// Why the supervisor did not do what it was told.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SupervisorError {
    /// There is no such child.
    #[error("no actor named `{name}`{hint}")]
    Unknown {
        /// The name that was asked for.
        name: String,
        /// A name that is close to it.
        hint: String,
    },
    /// The child's start failed.
    #[error("{name} did not start: {reason}")]
    Start {
        /// The child.
        name: String,
        /// Why.
        reason: String,
    },
    /// The child was told to stop before it was up.
    #[error("{name} was stopped while it started")]
    Stopped {
        /// The child.
        name: String,
    },
    /// Two children want the same name.
    #[error("two actors are named `{name}`")]
    Duplicate {
        /// The name.
        name: String,
    },
    /// The supervisor has ended.
    #[error("the supervisor has ended")]
    Ended,
}

/// A handle on the supervisor and its children.
#[derive(Debug)]
pub struct Supervisor {
    actor: ActorRef<Message>,
    task: JoinHandle<()>,
    statuses: watch::Receiver<Vec<ChildStatus>>,
    shutdown_timeouts: Vec<(String, Duration)>,
}

/// A killed child gets this long before the shutdown goes on without it.
const KILL_GRACE: Duration = Duration::from_secs(2);

impl Supervisor {
    /// Starts the children in order, each after the one before it is up. When one does not start, those that
    /// did are stopped in reverse, and the error names it.
    pub async fn start(specs: Vec<ChildSpec>) -> Result<Self, SupervisorError> {
        for (i, spec) in specs.iter().enumerate() {
            if specs[..i].iter().any(|other| other.name == spec.name) {
                return Err(SupervisorError::Duplicate { name: spec.name.clone() });
            }
        }
        let shutdown_timeouts: Vec<_> =
            specs.iter().map(|spec| (spec.name.clone(), spec.shutdown_timeout)).collect();
        let (publish, statuses) = watch::channel(Vec::new());
        let (actor, task) = Actor::spawn(None, SupervisorActor, (specs, publish))
            .await
            .map_err(|_| SupervisorError::Ended)?;
        let supervisor = Self { actor, task, statuses, shutdown_timeouts };
        for i in 0..supervisor.shutdown_timeouts.len() {
            let name = supervisor.shutdown_timeouts[i].0.clone();
            if let Err(error) = supervisor.ask(|reply| Message::Start { name, reply }).await {
                supervisor.stop().await;
                return Err(error);
            }
        }
        Ok(supervisor)
    }

    /// Restarts a child, whatever it is doing, and returns once it is up. Not counted as a failure; clears
    /// the failures counted so far.
    pub async fn restart(&self, name: &str) -> Result<(), SupervisorError> {
        self.ask(|reply| Message::Restart { name: name.to_owned(), reply }).await
    }

    /// Every child, in starting order.
    pub fn statuses(&self) -> Vec<ChildStatus> {
        self.statuses.borrow().clone()
    }

    /// The statuses as they change.
    pub fn watch(&self) -> watch::Receiver<Vec<ChildStatus>> {
        self.statuses.clone()
    }

    /// Stops the children in reverse, each with its own timeout, and ends. Returns the names of those that
    /// were still not down after being killed.
    pub async fn stop(self) -> Vec<String> {
        let mut stuck = Vec::new();
        for (name, timeout) in self.shutdown_timeouts.iter().rev() {
            let down = self.ask(|reply| Message::Stop { name: name.clone(), reply });
            if tokio::time::timeout(*timeout + KILL_GRACE, down).await.is_err() {
                tracing::warn!(actor = name.as_str(), "not down after being killed; going on without it");
                stuck.push(name.clone());
            }
        }
        self.actor.stop(None);
        // It has no work left; an error would be a panic, which is logged where it happened.
        let _ = self.task.await;
        stuck
    }

    async fn ask(
        &self,
        message: impl FnOnce(RpcReplyPort<Result<(), SupervisorError>>) -> Message,
    ) -> Result<(), SupervisorError> {
        use ractor::rpc::CallResult;
        match self.actor.call(message, None).await {
            Ok(CallResult::Success(outcome)) => outcome,
            _ => Err(SupervisorError::Ended),
        }
    }
}
