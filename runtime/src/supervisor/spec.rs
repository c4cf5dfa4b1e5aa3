//! What a child is told to be: how to start it, when to start it again, how long it may take to stop.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use ractor::ActorCell;
use tokio::task::JoinHandle;

/// A child that is up.
#[derive(Debug)]
pub struct RunningChild {
    /// The actor; linked to the supervisor it was given.
    pub cell: ActorCell,
    /// Its task. The child is gone, with everything it owned, once this has ended.
    pub task: JoinHandle<()>,
}

/// Why a child did not start.
pub type StartError = Box<dyn std::error::Error + Send + Sync>;

/// A child on its way up.
pub type StartFuture = Pin<Box<dyn Future<Output = Result<RunningChild, StartError>> + Send>>;

/// When a child that ended by itself is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// Always.
    Permanent,
    /// After a panic, an error or a kill, but not when it has finished.
    Transient,
    /// Never.
    Temporary,
}

/// The wait before a restart: doubles with each failure in the period, up to `max`, half of it at random.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// After the first failure.
    pub min: Duration,
    /// At most.
    pub max: Duration,
}

impl Backoff {
    /// The wait after this many failures, for a random number in [0, 1).
    pub fn delay(&self, failures: usize, random: f64) -> Duration {
        let doublings = failures.saturating_sub(1).min(30) as u32;
        let full = self.min.saturating_mul(1 << doublings).min(self.max);
        full.mul_f64(0.5 + 0.5 * random)
    }
}

/// A child that ends more than `restarts` times within `period` is failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intensity {
    /// Ends that are forgiven.
    pub restarts: usize,
    /// Within this time.
    pub period: Duration,
}

/// One child.
#[derive(Clone)]
pub struct ChildSpec {
    /// Its name, such as `judge.0`.
    pub name: String,
    /// Its role, such as `judge`.
    pub group: String,
    /// Starts it, linked to the given supervisor.
    pub start: Arc<dyn Fn(ActorCell) -> StartFuture + Send + Sync>,
    /// When it is started again.
    pub restart: Restart,
    /// How long it may take to stop before it is killed.
    pub shutdown_timeout: Duration,
    /// The wait before a restart.
    pub backoff: Backoff,
    /// When to give up.
    pub intensity: Intensity,
}

impl ChildSpec {
    /// A permanent child: 5 restarts a minute, 50 ms to 5 s apart, 10 s to stop.
    pub fn new<F, S>(name: impl Into<String>, group: impl Into<String>, start: S) -> Self
    where
        S: Fn(ActorCell) -> F + Send + Sync + 'static,
        F: Future<Output = Result<RunningChild, StartError>> + Send + 'static,
    {
        Self {
            name: name.into(),
            group: group.into(),
            start: Arc::new(move |supervisor| Box::pin(start(supervisor))),
            restart: Restart::Permanent,
            shutdown_timeout: Duration::from_secs(10),
            backoff: Backoff { min: Duration::from_millis(50), max: Duration::from_secs(5) },
            intensity: Intensity { restarts: 5, period: Duration::from_secs(60) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_to_its_maximum_and_is_half_random() {
        let backoff = Backoff { min: Duration::from_millis(50), max: Duration::from_secs(1) };
        let full = |failures| backoff.delay(failures, 1.0).as_millis();
        assert_eq!([1, 2, 3, 4, 5, 6, 500].map(full), [50, 100, 200, 400, 800, 1000, 1000]);
        assert_eq!(backoff.delay(3, 0.0).as_millis(), 100);
    }
}
