//! Takes steps exactly once. It runs on the training thread, so that the end of the optimizer's actor cuts nothing
//! short.
//!
//! A step is: lease the batch in the journal, train, look at the numbers, write the version's folder, commit, and
//! only then let the samples go and the version be announced. Whatever dies in between, the journal says which
//! turns were learnt from, and the folder that it names holds exactly that.

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use openclaw_journal::{JournalError, Record, Recorded, Sample, StepCommit, TurnId, fault, inbox::Lease};
use openclaw_kernels::KernelError;
use openclaw_model::{CheckpointError, StepReport, StoredVersion, Trainer, TrainerState, fingerprint};
use tokio::runtime::Handle;
use tracing::{Span, debug, debug_span, error, field::Empty, info, warn};

use super::{OptimizerArguments, agreement, batch, thread::TrainingEnded};
use crate::{
    breaker::{Canary, CanaryScore, Tripped},
    engine::{Device, PolicyWeights},
    publisher::{Publish, Version},
    resume::{Resume, ResumeError, chain},
};

/// Characters of a fingerprint that are shown.
const SHOWN: usize = 16;

/// Why learning cannot go on from what is in memory.
#[derive(Debug, thiserror::Error)]
pub(super) enum LearnError {
    #[error("the device failed")]
    Device(#[from] KernelError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Folder(#[from] CheckpointError),
    #[error(transparent)]
    Resume(#[from] ResumeError),
    #[error("the canary cannot be asked: {0}")]
    Canary(String),
    #[error("the journal does not know the step that it is told of")]
    Unknown,
}

impl From<LearnError> for TrainingEnded {
    fn from(error: LearnError) -> Self {
        Self(chain(&error))
    }
}

/// A batch, and the log-probs of its responses under the base version where the method asks for them.
pub(super) struct Batch {
    pub leases: Vec<Lease<Sample>>,
    pub references: Vec<Vec<f32>>,
}

pub(super) struct Learner {
    arguments: OptimizerArguments,
    runtime: Handle,
    trainer: Trainer<Device>,
    canary: Canary,
    /// What the next step starts from, where no folder has it.
    unsaved: Option<TrainerState>,
    /// The version that the next step starts from.
    version: u64,
    /// The one whose folder has what it starts from: an earlier one where the run lost steps that had no checkpoint.
    folder: u64,
    fingerprint: String,
    /// [`crate::publisher::Versions::epoch`] that it belongs to.
    epoch: u64,
    /// The last step.
    step: u64,
    /// Mean entropy of the last batch, nats.
    entropy: f64,
    /// Samples of steps that live in memory alone.
    held: Vec<Lease<Sample>>,
    unsaved_steps: u64,
    /// Steps since moments were written.
    steps_without_moments: u64,
}

impl Learner {
    /// Goes on from the newest version that is whole.
    pub fn resume(
        arguments: OptimizerArguments,
        mut trainer: Trainer<Device>,
        runtime: Handle,
    ) -> Result<Self, LearnError> {
        let (folders, journal) = (&arguments.folders, &arguments.journal);
        let versions = arguments.versions.clone();
        // Nobody returns to a version between the look and the epoch that is noted.
        let change = runtime.block_on(versions.change());
        let found = runtime.block_on(async {
            let found = Resume::find(folders, journal).await?;
            found.record(folders, journal).await?;
            Ok::<_, ResumeError>(found)
        })?;
        if let Some(stored) = &found.stored {
            trainer.restore(&stored.state)?;
            tell_of_moments(stored);
        }
        let end_ids = folders.end_ids.clone();
        let canary = Canary::new(&arguments.config.breaker, arguments.text.clone(), end_ids);
        let print = fingerprint(&folders.config, &trainer.view()?.weights);
        let learner = Self {
            fingerprint: print,
            canary: canary.map_err(LearnError::Canary)?,
            // Moments that were borrowed of an earlier version are in no folder with these weights.
            unsaved: found.stored.and_then(|stored| (!stored.own_moments).then_some(stored.state)),
            version: found.number,
            folder: found.base,
            epoch: change.epoch(),
            step: runtime.block_on(journal.last_step())?,
            entropy: 0.0,
            held: Vec::new(),
            unsaved_steps: 0,
            steps_without_moments: 0,
            arguments,
            runtime,
            trainer,
        };
        let announced = learner.runtime.block_on(learner.arguments.journal.current_version())?;
        if learner.version != announced.map_or(0, |row| row.number) {
            learner.announce(found.step)?;
        }
        Ok(learner)
    }

    /// Takes a step and commits it, unless it is withheld, or an earlier version was returned to meanwhile.
    pub fn learn(&mut self, batch: Batch) -> Result<(), LearnError> {
        self.follow_rollback()?;
        let batch = self.lease(batch)?;
        if batch.leases.is_empty() {
            return Ok(());
        }
        fault::point("optimizer.before_step");
        let step = self.step + 1;
        let samples = batch.leases.len();
        let span = |lease: &Lease<Sample>| {
            let turn = &lease.turn.id;
            debug_span!("train", %turn, step, samples, version = Empty, withheld = Empty)
        };
        let spans: Vec<Span> = batch.leases.iter().map(span).collect();
        let (report, canary) = self.train(step, &batch)?;
        let tripped = self.arguments.config.breaker.check(&report, self.entropy, canary);
        self.entropy = report.entropy;
        fault::point("optimizer.after_step");
        match tripped {
            Some(tripped) => {
                for span in &spans {
                    span.record("withheld", tripped.what);
                }
                self.withhold(report, tripped, batch.leases)
            }
            None => {
                self.commit(report, batch.leases)?;
                for span in &spans {
                    span.record("version", self.version);
                }
                Ok(())
            }
        }
    }

    /// Makes the current version durable, if it is not; returns its number.
    pub fn keep(&mut self) -> Result<u64, LearnError> {
        self.follow_rollback()?;
        if self.unsaved_steps == 0 {
            if self.steps_without_moments > 0 {
                self.add_moments()?;
                self.unsaved = None;
            }
            return Ok(self.version);
        }
        self.save(self.version, self.step, &self.fingerprint, true)?;
        let kept = Record::VersionKept { version: self.version, turns: turns(&self.held) };
        if !self.record_in_epoch(kept)? {
            return Ok(self.arguments.versions.number());
        }
        (self.folder, self.unsaved, self.steps_without_moments) = (self.version, None, 0);
        self.release_held();
        Ok(self.version)
    }

    /// When an earlier version was returned to: forgets what was learnt since, and gives its samples back.
    fn follow_rollback(&mut self) -> Result<(), LearnError> {
        let versions = self.arguments.versions.clone();
        let change = self.runtime.block_on(versions.change());
        if change.epoch() == self.epoch {
            return Ok(());
        }
        self.unsaved = None;
        self.restore(&versions.current(), tell_of_moments)?;
        self.fingerprint = fingerprint(&self.arguments.folders.config, &self.trainer.view()?.weights);
        (self.version, self.epoch) = (versions.number(), change.epoch());
        self.folder = self.version;
        self.canary.forget();
        self.entropy = 0.0;
        (self.unsaved_steps, self.steps_without_moments) = (0, 0);
        let abandoned = std::mem::take(&mut self.held);
        info!(
            version = self.version,
            samples_given_back = abandoned.len(),
            "training goes on from an earlier version"
        );
        Ok(())
    }

    /// The next step starts from a version, as its folder has it, or from what no folder has yet.
    fn restore(&mut self, version: &Version, tell: impl FnOnce(&StoredVersion)) -> Result<(), LearnError> {
        let state = match (&self.unsaved, version.number) {
            (Some(unsaved), _) => return Ok(self.trainer.restore(unsaved)?),
            (None, 0) => TrainerState::fresh(version.weights.to_host(self.trainer.transformer())?),
            (None, number) => {
                let stored = self.arguments.folders.load(number)?;
                tell(&stored);
                stored.state
            }
        };
        Ok(self.trainer.restore(&state)?)
    }

    /// Keeps of the batch what may be learnt from, once.
    fn lease(&self, Batch { leases, references }: Batch) -> Result<Batch, LearnError> {
        let mut batch = self.trainable(Batch { leases, references })?;
        while !batch.leases.is_empty() {
            let leased = Record::BatchLeased { step: self.step + 1, turns: turns(&batch.leases) };
            match self.runtime.block_on(self.arguments.journal.record(leased))? {
                Recorded::Done => break,
                // A person took a turn out, or wrote its hint, since the look.
                Recorded::Stale => batch = self.trainable(batch)?,
            }
        }
        self.heed(&mut batch)?;
        Ok(batch)
    }

    fn trainable(&self, Batch { leases, references }: Batch) -> Result<Batch, LearnError> {
        let journal = &self.arguments.journal;
        let trainable = self.runtime.block_on(journal.trainable(&turns(&leases)))?;
        let mut wanted: BTreeSet<TurnId> = trainable.into_iter().collect();
        for held in &self.held {
            wanted.remove(&held.turn.id);
        }
        let mut batch = Batch { leases: Vec::new(), references: Vec::new() };
        for (lease, reference) in leases.into_iter().zip(references) {
            if wanted.remove(&lease.turn.id) {
                batch.leases.push(lease);
                batch.references.push(reference);
            } else {
                // Delivered twice, learnt from before its reader died, or not to be learnt from any more.
                lease.ack();
            }
        }
        Ok(batch)
    }

    /// A person's rating or hint may have come after the sample was sent; none comes once it is leased.
    fn heed(&self, batch: &mut Batch) -> Result<(), LearnError> {
        let turns = turns(&batch.leases);
        let overruled = self.runtime.block_on(self.arguments.journal.overruled(&turns))?;
        for sample in overruled {
            let lease = batch.leases.iter_mut().find(|lease| lease.turn.id == sample.turn.id);
            lease.expect("it was asked for").replace(sample);
        }
        Ok(())
    }

    fn train(&mut self, step: u64, batch: &Batch) -> Result<(StepReport, Option<CanaryScore>), LearnError> {
        let started = Instant::now();
        let trainer = &mut self.trainer;
        let sings = self.canary.is_due(step);
        if sings {
            let weights = || trainer.weights().map(Arc::new).map_err(|error| error.to_string());
            self.canary.hear_good(trainer.transformer(), weights).map_err(LearnError::Canary)?;
        }
        let method = &self.arguments.config.method;
        let samples = batch.leases.iter().map(|lease| &**lease);
        let sequences = batch::sequences(method, samples, &batch.references);
        let report = trainer.step(&sequences, &batch::objective(method))?;
        // Numbered by the run: an earlier version that was returned to brings its own count along.
        let step_number = u32::try_from(step).unwrap_or(u32::MAX);
        let truncated_fraction = batch::truncated_fraction(batch.leases.iter().map(|lease| &**lease));
        let report = StepReport { step: step_number, truncated_fraction, ..report };
        metrics::histogram!("openclaw_optimizer_step_seconds").record(started.elapsed().as_secs_f64());
        observe(&report);
        if !sings || report.skipped {
            return Ok((report, None));
        }
        let started = Instant::now();
        let weights = Arc::new(trainer.weights()?);
        let (score, answers) =
            self.canary.hear(trainer.transformer(), &weights).map_err(LearnError::Canary)?;
        if self.arguments.config.breaker.check(&report, self.entropy, Some(score)).is_none() {
            self.canary.accept(answers);
        }
        let took = started.elapsed();
        debug!(step, drop = score.drop, degenerate = score.degenerate, ?took, "the canary was asked");
        metrics::histogram!("openclaw_optimizer_canary_seconds").record(took.as_secs_f64());
        metrics::gauge!("openclaw_optimizer_canary_drop_nats").set(score.drop);
        metrics::gauge!("openclaw_optimizer_canary_degenerate_ratio").set(score.degenerate);
        Ok((report, Some(score)))
    }

    fn withhold(
        &mut self,
        report: StepReport,
        tripped: Tripped,
        leases: Vec<Lease<Sample>>,
    ) -> Result<(), LearnError> {
        let config = &self.arguments.folders.config;
        let fingerprint = fingerprint(config, &self.trainer.view()?.weights);
        let Version { weights, .. } = self.arguments.versions.current();
        self.restore(&Version { number: self.folder, weights }, |_| ())?;
        let (step, reason) = (self.step + 1, tripped.to_string());
        warn!(step, reason, samples = leases.len(), version = self.version, "a version is withheld");
        metrics::counter!("openclaw_optimizer_versions_withheld_total", "reason" => tripped.what)
            .increment(1);
        count_step("withheld");
        let turns = turns(&leases);
        self.record(Record::StepWithheld { step, turns, reason, report, fingerprint })?;
        self.step = step;
        agreement::count(leases.iter().map(|lease| &**lease));
        leases.into_iter().for_each(Lease::ack);
        Ok(())
    }

    fn commit(&mut self, report: StepReport, leases: Vec<Lease<Sample>>) -> Result<(), LearnError> {
        let step = self.step + 1;
        let version = self.runtime.block_on(self.arguments.journal.last_version_number())? + 1;
        let fingerprint = fingerprint(&self.arguments.folders.config, &self.trainer.view()?.weights);
        let moments_first = self.arguments.config.moments_every_steps == 0;
        let checkpoint = self.is_to_be_saved(leases.len())
            && match self.save(version, step, &fingerprint, moments_first) {
                Ok(()) => true,
                // Its samples are held, and the next step tries again.
                Err(error) if self.has_room_for(2 * leases.len()) => {
                    error!(version, error = chain(&error), "a version cannot be kept");
                    metrics::counter!("openclaw_optimizer_checkpoints_failed_total").increment(1);
                    false
                }
                Err(error) => return Err(error),
            };
        fault::point("optimizer.after_checkpoint");

        let turns = match checkpoint {
            true => turns(self.held.iter().chain(&leases)),
            false => turns(&leases),
        };
        let samples = leases.len();
        let commit = StepCommit {
            step,
            version,
            base: self.version,
            turns,
            batch: samples as u64,
            report,
            fingerprint: fingerprint.clone(),
            checkpoint,
        };
        if !self.record_in_epoch(Record::StepCompleted(commit))? {
            // The leases are dropped: the samples come back, for a step from the version that was returned to.
            info!(step, "a step is not committed: an earlier version was returned to");
            return Ok(());
        }
        fault::point("optimizer.after_commit");
        count_step("committed");
        agreement::count(leases.iter().map(|lease| &**lease));
        self.held.extend(leases);
        self.unsaved_steps += 1;
        if checkpoint {
            self.release_held();
        }
        let print = &fingerprint[..SHOWN];
        let (loss, grad_norm) = (rounded(report.loss), rounded(report.grad_norm));
        let (kl, drift) = (rounded(report.kl), rounded(report.policy_kl));
        info!(step, samples, version, fingerprint = print, loss, grad_norm, kl, drift, "step completed");
        (self.step, self.version, self.fingerprint) = (step, version, fingerprint);
        self.steps_without_moments += 1;
        let whole = checkpoint && moments_first;
        if whole {
            self.steps_without_moments = 0;
        }
        if checkpoint {
            self.folder = version;
        }
        self.arguments.reports.send_replace(Some(report));
        self.announce(step)?;
        let due = self.steps_without_moments >= self.arguments.config.moments_every_steps;
        let whole = whole || (checkpoint && due && self.added_moments());
        self.unsaved = if whole { None } else { Some(self.trainer.state()?) };
        Ok(())
    }

    /// Whether the moments of the version are on the disk now. Without them, the next step tries again.
    fn added_moments(&mut self) -> bool {
        fault::point("optimizer.before_moments");
        let added = self.add_moments();
        if let Err(error) = &added {
            error!(version = self.version, error = chain(error), "moments cannot be kept");
            metrics::counter!("openclaw_optimizer_checkpoints_failed_total").increment(1);
        }
        added.is_ok()
    }

    fn add_moments(&mut self) -> Result<(), LearnError> {
        self.arguments.folders.add_moments(self.version, self.trainer.view()?)?;
        self.steps_without_moments = 0;
        Ok(())
    }

    fn announce(&self, step: u64) -> Result<(), LearnError> {
        let weights: PolicyWeights = Arc::new(self.trainer.weights()?);
        let version = Version { number: self.version, weights };
        let publish = Publish { version, step, epoch: self.epoch };
        self.runtime.block_on(self.arguments.publisher.send(publish));
        Ok(())
    }

    fn is_to_be_saved(&self, samples: usize) -> bool {
        self.unsaved_steps + 1 >= self.arguments.config.checkpoint_every_steps
            || !self.has_room_for(2 * samples)
    }

    /// Whether this many more samples may be held: half of the inbox stays for those that come.
    fn has_room_for(&self, samples: usize) -> bool {
        self.held.len() + samples <= self.arguments.samples.status().capacity / 2
    }

    fn save(&self, version: u64, step: u64, fingerprint: &str, moments: bool) -> Result<(), LearnError> {
        let started = Instant::now();
        let (folders, view) = (&self.arguments.folders, self.trainer.view()?);
        let staged = match moments {
            true => folders.stage(version, step, fingerprint, view)?,
            false => folders.stage_weights(version, step, fingerprint, view)?,
        };
        fault::point("optimizer.checkpoint_half_written");
        staged.publish()?;
        metrics::histogram!("openclaw_optimizer_checkpoint_seconds").record(started.elapsed().as_secs_f64());
        Ok(())
    }

    fn release_held(&mut self) {
        self.unsaved_steps = 0;
        self.held.drain(..).for_each(Lease::ack);
    }

    /// Records, unless an earlier version was returned to meanwhile.
    fn record_in_epoch(&self, record: Record) -> Result<bool, LearnError> {
        let change = self.runtime.block_on(self.arguments.versions.change());
        let unchanged = change.epoch() == self.epoch;
        if unchanged {
            self.record(record)?;
        }
        Ok(unchanged)
    }

    fn record(&self, record: Record) -> Result<(), LearnError> {
        match self.runtime.block_on(self.arguments.journal.record(record))? {
            Recorded::Done => Ok(()),
            Recorded::Stale => Err(LearnError::Unknown),
        }
    }
}

/// Four digits behind the point: what a log line needs of a number.
pub fn rounded(number: f64) -> f64 {
    // Adding 0 takes the sign from -0.
    (number * 1e4).round() / 1e4 + 0.0
}

/// An older version has let go of the optimizer's moments.
fn tell_of_moments(stored: &StoredVersion) {
    if !stored.own_moments && stored.state.step == 0 {
        let version = stored.manifest.number;
        info!(version, "training starts with empty moments: only the newest version keeps them");
    }
}

fn turns<'a>(leases: impl IntoIterator<Item = &'a Lease<Sample>>) -> Vec<TurnId> {
    leases.into_iter().map(|lease| lease.turn.id.clone()).collect()
}

fn observe(report: &StepReport) {
    metrics::counter!("openclaw_optimizer_trained_tokens_total").increment(report.rows as u64);
    metrics::counter!("openclaw_optimizer_processed_tokens_total").increment(report.tokens as u64);
    metrics::gauge!("openclaw_optimizer_loss").set(report.loss);
    metrics::gauge!("openclaw_optimizer_policy_loss").set(report.policy_loss);
    metrics::gauge!("openclaw_optimizer_ratio_mean").set(report.ratio);
    metrics::gauge!("openclaw_optimizer_ratio_max").set(report.max_ratio);
    metrics::gauge!("openclaw_optimizer_grad_norm").set(report.grad_norm);
    metrics::gauge!("openclaw_optimizer_entropy_nats").set(report.entropy);
    metrics::gauge!("openclaw_optimizer_kl_nats").set(report.kl);
    metrics::gauge!("openclaw_optimizer_drift_nats").set(report.policy_kl.abs());
    metrics::gauge!("openclaw_optimizer_clip_ratio").set(report.clip_fraction);
    metrics::gauge!("openclaw_optimizer_truncated_ratio").set(report.truncated_fraction);
}

fn count_step(outcome: &'static str) {
    metrics::counter!("openclaw_optimizer_steps_total", "outcome" => outcome).increment(1);
}
