//! Keeps this process's actors alive: starts them in order, restarts what ends by itself, stops them in reverse.
//!
//! ractor brings links and events; this brings what is built on them. Three of its traps decide the shape. A
//! child's state may outlive the news of its end, so a child counts as ended when its task has ended. A
//! supervisor that stops kills its children, so [`Supervisor::stop`] stops them first. And slow work in a
//! supervisor's handler delays every event, so starting and stopping run in tasks that report back.
//!
//! `spec` is what a child is told to be, `child` its life and `tree` that of all together as plain state
//! machines, `actor` what carries them out, `probe` what asks after a child, `status` what an operator sees.

mod actor;
mod child;
mod probe;
mod spec;
mod status;
#[cfg(test)]
mod tests;
mod tree;

use std::{ops::Deref, time::Duration};

use ractor::{Actor, ActorRef, RpcReplyPort};
use tokio::{sync::watch, task::JoinHandle};

use crate::topology::did_you_mean;
use actor::{Message, SupervisorActor};
pub use spec::{
    Backoff, ChildSpec, Drain, Intensity, Paused, Probe, Restart, RunningChild, Start, StartError,
    StartFuture, Strategy,
};
use status::View;
pub use status::{ChildState, ChildStatus, LastError};
use tree::Order;

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
    /// The child ended too often before it was up.
    #[error("{name} failed while it started")]
    Failed {
        /// The child.
        name: String,
    },
    /// The child starts only once another of its group is up, which is down.
    #[error("{name} waits for {by}, which is down")]
    Held {
        /// The child.
        name: String,
        /// The other.
        by: String,
    },
    /// Two children want the same name.
    #[error("two actors are named `{name}`")]
    Duplicate {
        /// The name.
        name: String,
    },
    /// The supervisor has ended, or is about to.
    #[error("the supervisor has ended")]
    Ended,
}

/// What operators hold. Clones address the same supervisor. Where a `target` is asked for, it is a child's name
/// or a role, which stands for each of its children in turn, up to the first that fails; the answer names those
/// it was done to. Every verb may be given again: what is so already stays so. None of them gives up waiting for
/// a child whose code blocks: put a deadline on the call.
#[derive(Clone, Debug)]
pub struct SupervisorHandle {
    actor: ActorRef<Message>,
    views: watch::Receiver<Vec<View>>,
}

impl SupervisorHandle {
    /// Every child, in starting order.
    pub fn statuses(&self) -> Vec<ChildStatus> {
        self.views.borrow().iter().map(View::status).collect()
    }

    /// Returns once the statuses are like this. Looks when something has happened to a child; a pause alone is
    /// nothing that happens to one.
    pub async fn wait_for(
        &self,
        mut holds: impl FnMut(&[ChildStatus]) -> bool,
    ) -> Result<Vec<ChildStatus>, SupervisorError> {
        let mut views = self.views.clone();
        loop {
            let statuses: Vec<_> = views.borrow_and_update().iter().map(View::status).collect();
            if holds(&statuses) {
                return Ok(statuses);
            }
            views.changed().await.map_err(|_| SupervisorError::Ended)?;
        }
    }

    /// The names that `target` stands for, in starting order.
    pub fn resolve(&self, target: &str) -> Result<Vec<String>, SupervisorError> {
        let views = self.views.borrow();
        let statuses = || views.iter().map(|view| &view.status);
        if statuses().any(|status| status.name == target) {
            return Ok(vec![target.to_owned()]);
        }
        let names: Vec<_> =
            statuses().filter(|status| status.role == target).map(|status| status.name.clone()).collect();
        if names.is_empty() {
            let known = statuses().flat_map(|status| [&status.name, &status.role]);
            let hint = did_you_mean(target, known);
            return Err(SupervisorError::Unknown { name: target.to_owned(), hint });
        }
        Ok(names)
    }

    /// Restarts, whatever it is doing, and returns once it is up again; with `drain`, what is up finishes first
    /// what it has. Not counted as a failure; clears the failures counted so far, and brings back what failed.
    pub async fn restart(&self, target: &str, drain: bool) -> Result<Vec<String>, SupervisorError> {
        let names = self.resolve(target)?;
        self.order_each(names, Order::Restart { drain }).await
    }

    /// Starts what is not up, and returns once it is.
    pub async fn start_child(&self, target: &str) -> Result<Vec<String>, SupervisorError> {
        let names = self.resolve(target)?;
        self.order_each(names, Order::Start).await
    }

    /// Stops, and returns once it is down. It stays down until someone starts it.
    pub async fn stop_child(&self, target: &str) -> Result<Vec<String>, SupervisorError> {
        let names = self.resolve(target)?;
        self.order_each(names.into_iter().rev().collect(), Order::Stop { drain: false }).await
    }

    /// [`Self::stop_child`], but it finishes first what it has.
    pub async fn drain(&self, target: &str) -> Result<Vec<String>, SupervisorError> {
        let names = self.resolve(target)?;
        self.order_each(names.into_iter().rev().collect(), Order::Stop { drain: true }).await
    }

    /// Ends what is alive as a crash would, and returns once it is gone; counts as a failure.
    pub async fn kill(&self, target: &str) -> Result<Vec<String>, SupervisorError> {
        let names = self.resolve(target)?;
        self.order_each(names, Order::Kill).await
    }

    /// A new child, behind the last one of its role. When it does not start, there is no such child again.
    pub async fn add(&self, spec: ChildSpec) -> Result<(), SupervisorError> {
        let name = spec.name.clone();
        self.ask(|reply| Message::Add { spec: Box::new(spec), reply }).await?;
        let started = self.order(&name, Order::Start).await;
        if started.is_err() {
            self.remove(&name).await?;
        }
        started
    }

    /// Drains a child and forgets it.
    pub async fn remove(&self, name: &str) -> Result<(), SupervisorError> {
        self.order(name, Order::Remove).await
    }

    async fn order_each(&self, names: Vec<String>, order: Order) -> Result<Vec<String>, SupervisorError> {
        for name in &names {
            self.order(name, order).await?;
        }
        Ok(names)
    }

    async fn order(&self, name: &str, order: Order) -> Result<(), SupervisorError> {
        self.ask(|reply| Message::Order { name: name.to_owned(), order, reply }).await
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

/// The supervisor and its children, whom it outlives: end it by [`Supervisor::stop`].
#[derive(Debug)]
pub struct Supervisor {
    handle: SupervisorHandle,
    task: JoinHandle<()>,
}

impl Deref for Supervisor {
    type Target = SupervisorHandle;
    fn deref(&self) -> &SupervisorHandle {
        &self.handle
    }
}

/// A killed child gets this long before the shutdown goes on without it.
const KILL_GRACE: Duration = Duration::from_secs(2);

impl Supervisor {
    /// Starts the children in order, each after the one before it is up. When one does not start, those that
    /// did are stopped in reverse, and the error names it.
    pub async fn start(specs: Vec<ChildSpec>) -> Result<Self, SupervisorError> {
        let (publish, views) = watch::channel(Vec::new());
        let (actor, task) =
            Actor::spawn(None, SupervisorActor, publish).await.map_err(|_| SupervisorError::Ended)?;
        let supervisor = Self { handle: SupervisorHandle { actor, views }, task };
        let up = specs.iter().filter(|spec| !spec.starts_down);
        let names: Vec<_> = up.map(|spec| spec.name.clone()).collect();
        let started = async {
            for spec in specs {
                supervisor.ask(|reply| Message::Add { spec: Box::new(spec), reply }).await?;
            }
            supervisor.order_each(names, Order::Start).await
        };
        match started.await {
            Ok(_) => Ok(supervisor),
            Err(error) => {
                supervisor.stop().await;
                Err(error)
            }
        }
    }

    /// For those who give orders.
    pub fn handle(&self) -> SupervisorHandle {
        self.handle.clone()
    }

    /// Stops the children in reverse, each with its own timeout, and ends. Returns the names of those that
    /// were still not down after being killed.
    pub async fn stop(self) -> Vec<String> {
        // An error here and below means that it has ended already, and its children with it.
        let _ = self.actor.cast(Message::Close);
        let mut stuck = Vec::new();
        let children: Vec<_> = self
            .views
            .borrow()
            .iter()
            .map(|view| (view.status.name.clone(), view.shutdown_timeout))
            .collect();
        for (name, limit) in children.into_iter().rev() {
            let down = self.order(&name, Order::Stop { drain: false });
            if tokio::time::timeout(limit + KILL_GRACE, down).await.is_err() {
                tracing::warn!(actor = name.as_str(), "not down after being killed; going on without it");
                stuck.push(name);
            }
        }
        self.actor.stop(None);
        // It has no work left; an error would be a panic, which is logged where it happened.
        let _ = self.task.await;
        stuck
    }
}
