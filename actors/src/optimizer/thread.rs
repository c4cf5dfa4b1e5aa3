//! The thread that learns, and the address under which it is asked to keep what it has learnt.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use openclaw_journal::panics::panic_message;
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
    time::Instant,
};
use tracing::{error, info};

use super::{
    OptimizerArguments,
    learner::{Batch, LearnError, Learner},
};
use crate::resume::chain;

/// The training thread is no more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("training ended: {0}")]
pub struct TrainingEnded(pub(super) String);

/// Why the current version was not made durable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeepError {
    /// Nobody is there to ask; what was learnt before is on the disk, or is learnt again.
    #[error("the optimizer is not up")]
    Down,
    /// It was tried.
    #[error("{0}")]
    Failed(String),
}

enum Job {
    Learn { batch: Batch, done: oneshot::Sender<Result<(), TrainingEnded>> },
    Keep { done: oneshot::Sender<Result<u64, String>> },
}

/// The place of one training thread at a time; it outlives them. Clones are the same place.
#[derive(Clone, Default)]
pub struct TrainingSlot {
    held: Arc<tokio::sync::Mutex<()>>,
    jobs: Arc<Mutex<Option<mpsc::WeakSender<Job>>>>,
    steps: Arc<AtomicUsize>,
    collecting: Arc<Mutex<Collecting>>,
    hinted: Arc<AtomicBool>,
}

/// How far the next batch is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Collecting {
    /// Effective samples that are held.
    pub samples: usize,
    /// Those of a full batch.
    pub of: usize,
    /// When the first of them came.
    pub oldest: Option<Instant>,
}

/// Fewer samples are no pattern.
const FEW_SAMPLES: usize = 4;
/// As many that wait are many, however fast they came.
const MANY_SAMPLES: usize = 20;
/// Samples that wait longer wait for a batch that is too large for those who talk.
const LONG: Duration = Duration::from_secs(30);

impl Collecting {
    /// What would let the run learn sooner, where samples wait long or in number for a full batch.
    pub fn hint(&self) -> Option<String> {
        let Self { samples, of, oldest } = *self;
        let long = oldest.is_some_and(|oldest| oldest.elapsed() >= LONG);
        let waits = samples < of && samples >= FEW_SAMPLES && (long || samples >= MANY_SAMPLES);
        let told = || {
            format!("{samples} of {of} samples wait; lower actors.optimizer.batch_samples to learn sooner")
        };
        waits.then(told)
    }
}

/// A step under way.
struct Step<'a>(&'a AtomicUsize);

impl<'a> Step<'a> {
    fn begin(steps: &'a AtomicUsize) -> Self {
        steps.fetch_add(1, Ordering::AcqRel);
        Self(steps)
    }
}

impl Drop for Step<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl TrainingSlot {
    /// Whether a batch is being learnt from: from before the journal hears of it until its version was handed on.
    pub fn is_learning(&self) -> bool {
        self.steps.load(Ordering::Acquire) > 0
    }

    /// How far the next batch is.
    pub fn collecting(&self) -> Collecting {
        *self.collecting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes how far it is; the first hint of a process is logged.
    pub(super) fn collects(&self, collecting: Collecting) {
        *self.collecting.lock().unwrap_or_else(PoisonError::into_inner) = collecting;
        if let Some(hint) = collecting.hint()
            && !self.hinted.swap(true, Ordering::Relaxed)
        {
            info!("{hint}");
        }
    }

    /// Makes the current version durable, if it is not; returns its number.
    pub async fn keep(&self) -> Result<u64, KeepError> {
        let jobs = self.jobs().as_ref().and_then(mpsc::WeakSender::upgrade).ok_or(KeepError::Down)?;
        let (done, outcome) = oneshot::channel();
        jobs.send(Job::Keep { done }).await.map_err(|_| KeepError::Down)?;
        drop(jobs);
        outcome.await.map_err(|_| KeepError::Down)?.map_err(KeepError::Failed)
    }

    /// Returns once no thread is left: what was learnt is on the disk.
    pub async fn ended(&self) {
        drop(self.held.lock().await);
    }

    fn jobs(&self) -> std::sync::MutexGuard<'_, Option<mpsc::WeakSender<Job>>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Dropping it ends the thread, after the step under way and once what was learnt is on the disk.
pub(super) struct TrainingThread {
    jobs: mpsc::Sender<Job>,
}

impl TrainingThread {
    /// Waits until the thread before has ended, then builds the trainer on a new one.
    pub async fn start(arguments: OptimizerArguments) -> Result<Self, TrainingEnded> {
        let slot = arguments.slot.clone();
        let held = slot.held.clone().lock_owned().await;
        let (jobs, inbox) = mpsc::channel(1);
        let (built, ready) = oneshot::channel();
        let runtime = Handle::current();
        let run = move || {
            let _held = held;
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| work(inbox, arguments, runtime, built))) {
                error!(message = panic_message(panic), "the training thread panicked");
                metrics::counter!("openclaw_optimizer_panics_total").increment(1);
            }
        };
        let ended = |error: String| TrainingEnded(error);
        thread::Builder::new().name("optimizer".to_owned()).spawn(run).map_err(|e| ended(e.to_string()))?;
        ready.await.map_err(|_| ended("the trainer panicked while it was built".to_owned()))??;
        *slot.jobs() = Some(jobs.downgrade());
        Ok(Self { jobs })
    }

    /// Learns from a batch. Once it is handed over this runs to its end, even if the caller goes away.
    pub async fn learn(&self, batch: Batch) -> Result<(), TrainingEnded> {
        let (done, outcome) = oneshot::channel();
        let panicked = || TrainingEnded("the trainer panicked".to_owned());
        self.jobs.send(Job::Learn { batch, done }).await.map_err(|_| panicked())?;
        outcome.await.map_err(|_| panicked())?
    }
}

fn work(
    mut jobs: mpsc::Receiver<Job>,
    arguments: OptimizerArguments,
    runtime: Handle,
    built: oneshot::Sender<Result<(), TrainingEnded>>,
) {
    let steps = arguments.slot.steps.clone();
    let learner = (arguments.build)()
        .map_err(TrainingEnded)
        .and_then(|trainer| Ok(Learner::resume(arguments, trainer, runtime)?));
    let mut learner = match learner {
        Ok(learner) => {
            let _ = built.send(Ok(()));
            learner
        }
        Err(error) => {
            let _ = built.send(Err(error));
            return;
        }
    };
    while let Some(job) = jobs.blocking_recv() {
        // The asker may have gone meanwhile.
        let failed = match job {
            Job::Learn { batch, done } => {
                let step = Step::begin(&steps);
                let outcome = learner.learn(batch);
                drop(step);
                let failed = outcome.is_err();
                let _ = done.send(outcome.map_err(TrainingEnded::from));
                failed
            }
            Job::Keep { done } => {
                let outcome = learner.keep();
                // A folder that cannot be written costs nothing that is in memory.
                let failed = !matches!(outcome, Ok(_) | Err(LearnError::Folder(_)));
                let _ = done.send(outcome.map_err(|error| chain(&error)));
                failed
            }
        };
        if failed {
            // What failed is not built upon: the next thread resumes.
            return;
        }
    }
    if let Err(error) = learner.keep() {
        error!(
            error = TrainingEnded::from(error).to_string(),
            "the last steps are not kept: they are taken again"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn samples_that_wait_long_or_in_number_name_the_key_to_lower() {
        let now = |samples, of| Collecting { samples, of, oldest: (samples > 0).then(Instant::now) };
        let eight = now(8, 16);
        assert_eq!((now(0, 16).hint(), eight.hint(), now(32, 32).hint()), (None, None, None));
        let expected = "20 of 32 samples wait; lower actors.optimizer.batch_samples to learn sooner";
        assert_eq!(now(20, 32).hint().as_deref(), Some(expected));
        let one = now(1, 2);
        tokio::time::advance(LONG).await;
        assert!(eight.hint().is_some_and(|hint| hint.starts_with("8 of 16 samples wait")));
        assert_eq!(one.hint(), None, "one sample is no pattern");
    }
}
