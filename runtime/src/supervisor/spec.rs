//! What a child is told to be: how to start, probe, drain and stop it, and when to start it again.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use futures::future::BoxFuture;
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

/// Starts a child, linked to the given supervisor.
pub type Start = Arc<dyn Fn(ActorCell) -> StartFuture + Send + Sync>;

/// Asks a running child whether it is well; an error says what is wrong with it.
pub type Probe = Arc<dyn Fn(ActorCell) -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// Lets a running child finish what it has, and take nothing more.
pub type Drain = Arc<dyn Fn(ActorCell) -> BoxFuture<'static, ()> + Send + Sync>;

/// Whether a child's inbox hands nothing out.
pub type Paused = Arc<dyn Fn() -> bool + Send + Sync>;

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

/// What a child's end means for others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// Nothing.
    OneForOne,
    /// In the group of this name a child is up only while those before it are: when one ends, those after it are
    /// stopped in reverse, and started again in order after it.
    RestForOne(String),
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
    pub role: String,
    /// Starts it.
    pub start: Start,
    /// What its end means for others.
    pub strategy: Strategy,
    /// When it is started again.
    pub restart: Restart,
    /// The wait before a restart.
    pub backoff: Backoff,
    /// When to give up.
    pub intensity: Intensity,
    /// How long it may take to drain, and then to stop before it is killed.
    pub shutdown_timeout: Duration,
    /// Lets it finish what it has; without one, a drain is a stop.
    pub drain: Option<Drain>,
    /// Asks it whether it is well; without one, it is well while it is up.
    pub probe: Option<Probe>,
    /// From one answer to the next question.
    pub probe_period: Duration,
    /// A child that has not answered by then is stuck. Longer than its longest honest silence: a model thread in
    /// a long step is busy, not stuck.
    pub probe_timeout: Duration,
    /// Whether its inbox hands nothing out.
    pub paused: Option<Paused>,
    /// It is down until an operator starts it.
    pub starts_down: bool,
}

impl ChildSpec {
    /// A permanent child on its own: 5 restarts a minute, 50 ms to 5 s apart, 10 s to stop.
    pub fn new<F, S>(name: impl Into<String>, role: impl Into<String>, start: S) -> Self
    where
        S: Fn(ActorCell) -> F + Send + Sync + 'static,
        F: Future<Output = Result<RunningChild, StartError>> + Send + 'static,
    {
        Self {
            name: name.into(),
            role: role.into(),
            start: Arc::new(move |supervisor| Box::pin(start(supervisor))),
            strategy: Strategy::OneForOne,
            restart: Restart::Permanent,
            backoff: Backoff { min: Duration::from_millis(50), max: Duration::from_secs(5) },
            intensity: Intensity { restarts: 5, period: Duration::from_secs(60) },
            shutdown_timeout: Duration::from_secs(10),
            drain: None,
            probe: None,
            probe_period: Duration::from_secs(5),
            probe_timeout: Duration::from_secs(30),
            paused: None,
            starts_down: false,
        }
    }

    /// Puts it into a group of which the rest follows one.
    pub fn rest_for_one(&mut self, group: impl Into<String>) -> &mut Self {
        self.strategy = Strategy::RestForOne(group.into());
        self
    }

    /// Sets [`Self::drain`].
    pub fn drained_by<F>(&mut self, drain: impl Fn(ActorCell) -> F + Send + Sync + 'static) -> &mut Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.drain = Some(Arc::new(move |cell| Box::pin(drain(cell))));
        self
    }

    /// Sets [`Self::probe`].
    pub fn probed_by<F>(&mut self, probe: impl Fn(ActorCell) -> F + Send + Sync + 'static) -> &mut Self
    where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        self.probe = Some(Arc::new(move |cell| Box::pin(probe(cell))));
        self
    }

    /// Sets [`Self::paused`].
    pub fn paused_when(&mut self, paused: impl Fn() -> bool + Send + Sync + 'static) -> &mut Self {
        self.paused = Some(Arc::new(paused));
        self
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
