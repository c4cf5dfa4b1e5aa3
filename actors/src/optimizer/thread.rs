//! The thread that owns the trainer.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
    time::Instant,
};

use openclaw_model::{Objective, StepReport, TrainSequence, Trainer};
use tokio::sync::{Mutex, mpsc, oneshot};
use tracing::error;

use super::BuildTrainer;
use crate::{
    engine::{Device, PolicyWeights, panic_message},
    inbox::Lease,
    turn::Sample,
};

/// The training thread is no more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("training ended: {0}")]
pub struct TrainingEnded(String);

/// What a step left.
pub(super) struct StepOutcome {
    /// What it did.
    pub report: StepReport,
    /// The weights after it; none when it was withheld.
    pub weights: Option<PolicyWeights>,
}

struct Job {
    sequences: Vec<TrainSequence>,
    objective: Objective,
    leases: Vec<Lease<Sample>>,
    done: oneshot::Sender<Result<StepOutcome, TrainingEnded>>,
}

/// Dropping it ends the thread after the step under way.
pub(super) struct TrainingThread {
    jobs: mpsc::Sender<Job>,
}

impl TrainingThread {
    /// Waits until the thread that holds `slot` has ended, then builds the trainer on a new one.
    pub async fn start(slot: Arc<Mutex<()>>, build: BuildTrainer) -> Result<Self, TrainingEnded> {
        let held = slot.lock_owned().await;
        let (jobs, inbox) = mpsc::channel(1);
        let (built, ready) = oneshot::channel();
        let run = move || {
            let _held = held;
            let outcome = catch_unwind(AssertUnwindSafe(|| train(inbox, &build, built)));
            if let Err(panic) = outcome {
                error!(message = panic_message(panic), "the training thread panicked");
                metrics::counter!("openclaw_optimizer_panics_total").increment(1);
            }
        };
        let ended = |error: String| TrainingEnded(error);
        thread::Builder::new().name("optimizer".to_owned()).spawn(run).map_err(|e| ended(e.to_string()))?;
        ready
            .await
            .map_err(|_| ended("the trainer panicked while it was built".to_owned()))?
            .map_err(ended)?;
        Ok(Self { jobs })
    }

    /// Takes a step. Once the job is handed over it runs to its end, even if the caller goes away.
    pub async fn step(
        &self,
        sequences: Vec<TrainSequence>,
        objective: Objective,
        leases: Vec<Lease<Sample>>,
    ) -> Result<StepOutcome, TrainingEnded> {
        let (done, outcome) = oneshot::channel();
        let panicked = || TrainingEnded("the trainer panicked".to_owned());
        self.jobs.send(Job { sequences, objective, leases, done }).await.map_err(|_| panicked())?;
        outcome.await.map_err(|_| panicked())?
    }
}

fn train(mut jobs: mpsc::Receiver<Job>, build: &BuildTrainer, built: oneshot::Sender<Result<(), String>>) {
    let mut trainer = match build() {
        Ok(trainer) => {
            let _ = built.send(Ok(()));
            trainer
        }
        Err(error) => {
            let _ = built.send(Err(error));
            return;
        }
    };
    while let Some(Job { sequences, objective, leases, done }) = jobs.blocking_recv() {
        let outcome = step(&mut trainer, &sequences, &objective);
        let failed = outcome.is_err();
        if !failed {
            // Learnt from, or withheld: in neither case again.
            leases.into_iter().for_each(Lease::ack);
        }
        // The optimizer may have been killed meanwhile; the next step's weights hold this one's too.
        let _ = done.send(outcome);
        if failed {
            return;
        }
    }
}

fn step(
    trainer: &mut Trainer<Device>,
    sequences: &[TrainSequence],
    objective: &Objective,
) -> Result<StepOutcome, TrainingEnded> {
    let started = Instant::now();
    let report = trainer.step(sequences, objective).map_err(|error| TrainingEnded(error.to_string()))?;
    let weights = match report.skipped {
        true => None,
        false => Some(Arc::new(trainer.weights().map_err(|error| TrainingEnded(error.to_string()))?)),
    };
    metrics::histogram!("openclaw_optimizer_step_seconds").record(started.elapsed().as_secs_f64());
    Ok(StepOutcome { report, weights })
}
