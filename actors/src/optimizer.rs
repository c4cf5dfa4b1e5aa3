//! Collects a batch, and has its own thread learn from it.
//!
//! A batch is full when it holds `batch_samples` *effective* samples, or when its oldest has waited `max_wait`:
//! nothing waits for a slow user. Samples are leased until the step that learnt from them is committed; the training
//! thread itself acks them, so that an optimizer killed in the middle neither loses nor repeats them.

mod admission;
mod agreement;
mod batch;
mod learner;
mod thread;

use std::{sync::Arc, time::Duration};

use openclaw_journal::{
    Journal, JournalError, Record, Sample,
    inbox::{Inbox, Lease},
};
use openclaw_model::{ScoreRequest, StepReport, Trainer, VersionFolders};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, timeout_at},
};
use tracing::warn;

use crate::{
    breaker::BreakerConfig,
    engine::{Device, Engine, EngineError, EngineText},
    methods::MethodConfig,
    publisher::{Publish, Versions},
};

use learner::Batch;
pub use learner::rounded;
use thread::TrainingThread;
pub use thread::{Collecting, KeepError, TrainingEnded, TrainingSlot};

/// How batches are made.
#[derive(Clone, Debug, PartialEq)]
pub struct OptimizerConfig {
    /// Effective samples of a full batch.
    pub batch_samples: usize,
    /// A sample drawn by a version further back than this is dropped.
    pub max_staleness: u64,
    /// The oldest sample waits no longer than this for a full batch.
    pub max_wait: Duration,
    /// Signals to losses.
    pub method: MethodConfig,
    /// Steps from one version folder to the next; those between live in memory and are taken again after a crash.
    pub checkpoint_every_steps: u64,
    /// 0 where a version has its moments before it is announced. Else they are written behind the announcement, when so many steps
    /// were taken since the last that were; a crash before that goes on with an earlier version's.
    pub moments_every_steps: u64,
    /// When a version is withheld.
    pub breaker: BreakerConfig,
}

/// Builds a trainer with the base model's weights.
pub type BuildTrainer = Arc<dyn Fn() -> Result<Trainer<Device>, String> + Send + Sync>;

/// What starts an optimizer.
#[derive(Clone)]
pub struct OptimizerArguments {
    /// How batches are made.
    pub config: OptimizerConfig,
    /// Where samples come from.
    pub samples: Inbox<Sample>,
    /// Builds the trainer on the training thread; it then goes on from the newest version that is whole.
    pub build: BuildTrainer,
    /// Where versions are kept.
    pub folders: VersionFolders,
    /// How the policy reads and writes text.
    pub text: EngineText,
    /// The base version, for the KL term; asked only when the method has one.
    pub reference: Option<Engine>,
    /// Which version is current.
    pub versions: Versions,
    /// Where committed versions go, to be announced.
    pub publisher: Inbox<Publish>,
    /// Where drops and steps are recorded.
    pub journal: Journal,
    /// The place of the training thread, so that a new one waits for the end of the old: make one per optimizer.
    pub slot: TrainingSlot,
    /// Told of each step's report.
    pub reports: watch::Sender<Option<StepReport>>,
}

/// Control of the optimizer.
pub enum OptimizerControl {
    /// Finishes the step under way, gives back the samples collected since, answers, and stops.
    Drain(RpcReplyPort<()>),
    /// Answers.
    Ping(RpcReplyPort<()>),
    /// The loop or its thread ended by itself.
    #[doc(hidden)]
    Ended(String),
}

/// The actor.
pub struct Optimizer;

/// One incarnation's tasks.
pub struct Running {
    slot: TrainingSlot,
    looping: JoinHandle<()>,
    draining: watch::Sender<bool>,
    drained: Option<RpcReplyPort<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.looping.abort();
    }
}

impl Actor for Optimizer {
    type Msg = OptimizerControl;
    type State = Running;
    type Arguments = OptimizerArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        arguments: OptimizerArguments,
    ) -> Result<Running, ActorProcessingErr> {
        if arguments.config.method.kl.coef > 0.0 && arguments.reference.is_none() {
            return Err("the method has a KL term, but there is no base version to ask".into());
        }
        let thread = TrainingThread::start(arguments.clone()).await?;
        let (slot, ending) = (arguments.slot.clone(), arguments.slot.clone());
        let (draining, drain_asked) = watch::channel(false);
        let looping = tokio::spawn(async move {
            let ended = match (Loop { arguments, thread }).run(drain_asked).await {
                Ok(()) => "drained".to_owned(),
                Err(error) => error.to_string(),
            };
            ending.ended().await;
            // Fails only when the actor is gone, and then nobody needs to know.
            let _ = myself.cast(OptimizerControl::Ended(ended));
        });
        Ok(Running { slot, looping, draining, drained: None })
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        control: OptimizerControl,
        running: &mut Running,
    ) -> Result<(), ActorProcessingErr> {
        match control {
            OptimizerControl::Drain(reply) => {
                running.draining.send_replace(true);
                running.drained = Some(reply);
            }
            // The asker may have given up waiting.
            OptimizerControl::Ping(reply) => drop(reply.send(())),
            OptimizerControl::Ended(reason) => match running.drained.take() {
                Some(reply) => {
                    // The asker may have given up waiting.
                    let _ = reply.send(());
                    myself.stop(Some(reason));
                }
                None => return Err(reason.into()),
            },
        }
        Ok(())
    }

    async fn post_stop(
        &self,
        _: ActorRef<Self::Msg>,
        running: &mut Running,
    ) -> Result<(), ActorProcessingErr> {
        // What the thread commits at its end needs the journal, which stops after this.
        running.looping.abort();
        running.slot.ended().await;
        Ok(())
    }
}

/// Why the loop cannot go on.
#[derive(Debug, thiserror::Error)]
enum LoopError {
    #[error(transparent)]
    Training(#[from] TrainingEnded),
    #[error(transparent)]
    Journal(#[from] JournalError),
}

struct Loop {
    arguments: OptimizerArguments,
    thread: TrainingThread,
}

impl Loop {
    async fn run(self, mut drain_asked: watch::Receiver<bool>) -> Result<(), LoopError> {
        loop {
            let batch = tokio::select! {
                biased;
                _ = drain_asked.wait_for(|asked| *asked) => return Ok(()),
                batch = self.collect() => batch?,
            };
            self.learn(batch).await?;
        }
    }

    /// At least one effective sample.
    async fn collect(&self) -> Result<Vec<Lease<Sample>>, LoopError> {
        let OptimizerArguments { config, samples, versions, .. } = &self.arguments;
        let (slot, of) = (&self.arguments.slot, config.batch_samples.max(1));
        let collected = metrics::gauge!("openclaw_optimizer_batch_samples");
        let started = Instant::now();
        let mut batch: Vec<Lease<Sample>> = Vec::new();
        let note = |batch: &[Lease<Sample>]| {
            collected.set(batch.len() as f64);
            slot.collects(Collecting {
                samples: batch.len(),
                of,
                oldest: batch.first().map(|one| one.sent()),
            })
        };
        note(&batch);
        while batch.len() < of {
            let lease = match batch.first() {
                None => samples.lease().await,
                Some(oldest) => match timeout_at(oldest.sent() + config.max_wait, samples.lease()).await {
                    Ok(lease) => lease,
                    Err(_) => break,
                },
            };
            match admission::refusal(&lease, &config.method, versions.number(), config.max_staleness) {
                None => batch.push(lease),
                Some(reason) => self.give_up(lease, reason).await?,
            }
            note(&batch);
        }
        metrics::histogram!("openclaw_optimizer_collect_seconds").record(started.elapsed());
        Ok(batch)
    }

    async fn give_up(&self, lease: Lease<Sample>, reason: &'static str) -> Result<(), JournalError> {
        let turn = lease.turn.id.clone();
        self.arguments.journal.record(Record::TurnDropped { turn, reason }).await?;
        lease.ack();
        Ok(())
    }

    async fn learn(&self, leases: Vec<Lease<Sample>>) -> Result<(), LoopError> {
        let references = match self.reference_logprobs(&leases).await {
            Ok(references) => references,
            Err(error) => {
                warn!(%error, "no reference log-probs, the batch waits");
                leases.into_iter().for_each(Lease::postpone);
                return Ok(());
            }
        };
        let staleness = metrics::histogram!("openclaw_optimizer_staleness_versions");
        let current = self.arguments.versions.number();
        for lease in &leases {
            staleness.record(current.saturating_sub(lease.turn.completion.policy_version) as f64);
        }
        Ok(self.thread.learn(Batch { leases, references }).await?)
    }

    /// log p_ref of each response token under the plain prompt; empty lists where the method has no KL term.
    async fn reference_logprobs(&self, batch: &[Lease<Sample>]) -> Result<Vec<Vec<f32>>, EngineError> {
        let OptimizerArguments { config, reference, .. } = &self.arguments;
        let Some(reference) = reference.as_ref().filter(|_| config.method.kl.coef > 0.0) else {
            return Ok(vec![Vec::new(); batch.len()]);
        };
        let scores = batch.iter().map(|lease| {
            let completion = &lease.turn.completion;
            let request = ScoreRequest {
                ids: [completion.prompt_ids.as_slice(), &completion.response_ids].concat(),
                start: completion.prompt_ids.len(),
                temperature: completion.trained_temperature(),
                ..ScoreRequest::default()
            };
            async { Ok(reference.score(request).await?.logprobs) }
        });
        futures::future::try_join_all(scores).await
    }
}

#[cfg(test)]
mod tests;
