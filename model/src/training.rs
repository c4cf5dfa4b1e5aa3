//! Training, of all weights or of an adapter alone: row losses over ragged micro-batches, gradient clipping, AdamW.

mod rows;
mod state;

use std::{ops::Range, sync::Arc};

use openclaw_kernels::{
    Backend, Float, KernelError,
    ops::{AdamW, ClipRange, Head, HeadGradients, KlKind, LinearShape, RowStat},
};
use serde::{Deserialize, Serialize};

use self::rows::DeviceRows;
pub use self::state::{StateView, TrainerState};
use crate::{
    adapter::Adapter,
    base::{Base, Matrix},
    transformer::{LayerTrace, Transformer, Weights},
};

type Result<T> = std::result::Result<T, KernelError>;

/// What one token of a [`TrainSequence`] is trained on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TrainRow {
    /// Which token of the sequence is predicted, at least 1.
    pub position: usize,
    /// Weight in the sum of losses; see `openclaw_kernels::ops::sample_mean_weights`.
    pub weight: f32,
    /// Advantage of the taken token.
    pub advantage: f32,
    /// Its log-prob under the policy that is improved upon.
    pub old_logprob: f32,
    /// Truncated importance weight, 1 when on policy.
    pub importance: f32,
    /// Its log-prob under the reference model; read only when the objective has a KL term.
    pub reference_logprob: f32,
    /// Further tokens of the same position; read only when the objective has a candidate term.
    pub candidates: Vec<TrainCandidate>,
}

/// One of several tokens that a position is trained on.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TrainCandidate {
    /// The token.
    pub id: u32,
    /// Its weight (vocabulary policy loss).
    pub weight: f32,
    /// Its advantage (vocabulary policy loss).
    pub advantage: f32,
    /// Its log-prob under the policy that is improved upon (vocabulary policy loss).
    pub old_logprob: f32,
    /// Its log-prob under the teacher (reverse KL).
    pub teacher_logprob: f32,
}

/// A sequence and the rows of it that are trained.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TrainSequence {
    /// Prompt and response.
    pub ids: Vec<u32>,
    /// The trained positions, ascending.
    pub rows: Vec<TrainRow>,
    /// Divides the logits: the temperature the response was sampled at.
    pub temperature: f32,
}

/// What is minimised.
#[derive(Clone, Debug, PartialEq)]
pub enum Objective {
    /// `-log p` of each row's token: supervised training.
    CrossEntropy,
    /// The clipped policy gradient and what may join it.
    Policy(PolicyObjective),
}

impl Objective {
    /// A row's loss without the KL, entropy and candidate terms.
    fn policy_part(&self, stat: &RowStat) -> f32 {
        let Self::Policy(policy) = self else { return stat.loss };
        let kl = policy.kl.map_or(0.0, |(_, coef)| coef * stat.kl);
        let candidates = match policy.candidates {
            Some(CandidateObjective::Policy { coef, .. } | CandidateObjective::ReverseKl { coef }) => {
                coef * stat.candidates
            }
            None => 0.0,
        };
        stat.loss - kl - candidates + policy.entropy_coef * stat.entropy
    }
}

/// Options of the policy objective.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyObjective {
    /// What is minimised for the taken tokens.
    pub surrogate: SurrogateKind,
    /// Clip of the taken token's ratio.
    pub clip: ClipRange,
    /// KL estimator and coefficient.
    pub kl: Option<(KlKind, f32)>,
    /// Weight of the entropy bonus.
    pub entropy_coef: f32,
    /// Loss over each row's candidates.
    pub candidates: Option<CandidateObjective>,
}

/// Which surrogate of the policy's improvement is minimised; see [`openclaw_kernels::ops::Surrogate`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SurrogateKind {
    /// The ratio of each token, clipped.
    #[default]
    Ppo,
    /// The log-prob of each token, weighted by its clipped ratio.
    Cispo,
    /// The ratio of each sequence, clipped.
    Gspo,
}

/// Loss over each row's candidates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum CandidateObjective {
    /// Per-vocabulary clipped policy loss.
    Policy {
        /// Weight of the term.
        coef: f32,
        /// Clip of each candidate's ratio.
        clip: ClipRange,
    },
    /// Reverse KL over the candidates and a tail bin.
    ReverseKl {
        /// Weight of the term.
        coef: f32,
    },
}

/// Hyper-parameters of the optimizer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdamWConfig {
    /// Learning rate.
    pub learning_rate: f32,
    /// Decay rates of the moments.
    pub betas: (f32, f32),
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Decoupled weight decay, of matrices only.
    pub weight_decay: f32,
    /// Largest gradient norm; a larger gradient is scaled down to it.
    pub grad_clip: f32,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self { learning_rate: 1e-4, betas: (0.9, 0.98), eps: 1e-8, weight_decay: 0.1, grad_clip: 1.0 }
    }
}

/// What a step did. Means are over rows, by their weights in the loss where it is the loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepReport {
    /// Number of the step, from 1.
    pub step: u32,
    /// The weighted loss.
    pub loss: f64,
    /// Its part that the rewards ask for: without the KL, entropy and candidate terms.
    pub policy_loss: f64,
    /// Mean of `new / old`, how much likelier the taken tokens are than when they were drawn.
    pub ratio: f64,
    /// The largest of these.
    pub max_ratio: f64,
    /// Norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Mean entropy of the trained rows, nats.
    pub entropy: f64,
    /// Mean KL estimate, nats.
    pub kl: f64,
    /// Mean of `old - new` log-probs, the usual estimate of KL(old | new).
    pub policy_kl: f64,
    /// Share of rows whose policy gradient was clipped.
    pub clip_fraction: f64,
    /// Share of the trained tokens that were drawn greedily or from a part of the distribution. The trainer does not
    /// know: whoever has the samples fills it in.
    pub truncated_fraction: f64,
    /// Trained rows.
    pub rows: usize,
    /// Tokens run through the model.
    pub tokens: usize,
    /// Loss or gradient was not finite: the weights were left as they are.
    pub skipped: bool,
}

/// Weights being trained, and the optimizer's state.
pub struct Trainer<B: Backend> {
    transformer: Transformer<B>,
    weights: Weights<B>,
    grads: B::Buffer<f32>,
    first: B::Buffer<f32>,
    second: B::Buffer<f32>,
    config: AdamWConfig,
    step: u32,
    /// Most tokens run through the model at once.
    pub micro_batch_tokens: usize,
    /// Keep only each layer's input and recompute the rest in the backward.
    pub recompute: bool,
}

#[derive(Default)]
struct Sums {
    loss: f64,
    policy_loss: f64,
    ratio: f64,
    max_ratio: f64,
    entropy: f64,
    kl: f64,
    policy_kl: f64,
    clipped: usize,
    rows: usize,
    tokens: usize,
}

impl<B: Backend> Trainer<B> {
    /// Trains all weights: starts from `flat`, with empty moments.
    pub fn new(transformer: Transformer<B>, flat: &[f32], config: AdamWConfig) -> Result<Self> {
        let weights = Weights::from_host(&transformer, flat)?;
        Self::start(transformer, weights, config)
    }

    /// Trains what is trained of `weights`, which keep their values: the adapter if there is one, and then no gradient,
    /// moment or copy of the base exists; or else a copy of all.
    pub fn of(transformer: Transformer<B>, weights: &Weights<B>, config: AdamWConfig) -> Result<Self> {
        let weights = weights.with(&transformer, &weights.to_host(&transformer)?)?;
        Self::start(transformer, weights, config)
    }

    fn start(transformer: Transformer<B>, weights: Weights<B>, config: AdamWConfig) -> Result<Self> {
        let b = transformer.backend.clone();
        let n = b.len(weights.trained()?);
        Ok(Self {
            weights,
            grads: b.zeros(n)?,
            first: b.zeros(n)?,
            second: b.zeros(n)?,
            config,
            step: 0,
            micro_batch_tokens: 4096,
            recompute: false,
            transformer,
        })
    }

    /// The model's shape and device.
    pub fn transformer(&self) -> &Transformer<B> {
        &self.transformer
    }

    /// The hyper-parameters, for schedules.
    pub fn config_mut(&mut self) -> &mut AdamWConfig {
        &mut self.config
    }

    /// A copy of the weights as they are now.
    pub fn weights(&self) -> Result<Weights<B>> {
        let (b, trained) = (&self.transformer.backend, self.weights.trained()?);
        let mut copy = b.uninitialized(b.len(trained))?;
        b.copy(self.transformer.all_mut(&mut copy), self.transformer.all(trained))?;
        Ok(match &self.weights.adapter {
            None => Weights { base: Arc::new(Base::F32(copy)), adapter: None },
            Some(adapter) => {
                let adapter = Adapter::of(b, adapter.layout.clone(), copy)?;
                Weights { base: self.weights.base.clone(), adapter: Some(adapter) }
            }
        })
    }

    /// Replaces what is trained; the optimizer's moments stay.
    pub fn set_weights(&mut self, flat: &[f32]) -> Result<()> {
        self.weights = self.weights.with(&self.transformer, flat)?;
        Ok(())
    }

    /// The gradients accumulated since the last step, on the host.
    pub fn gradients(&self) -> Result<Vec<f32>> {
        self.transformer.backend.download(self.transformer.all(&self.grads))
    }

    /// Accumulates gradients over the batch, clips them and takes one AdamW step.
    ///
    /// Fails without a step, and with the gradients cleared, when the device fails. A loss or gradient that is
    /// not finite skips the step: see [`StepReport::skipped`].
    pub fn step(&mut self, batch: &[TrainSequence], objective: &Objective) -> Result<StepReport> {
        let backend = self.transformer.backend.clone();
        backend.scope(|| {
            let outcome = self.accumulate(batch, objective).and_then(|report| self.update(report));
            let cleared = self.transformer.backend.fill(self.transformer.all_mut(&mut self.grads), 0.0);
            let report = outcome?;
            cleared?;
            Ok(report)
        })
    }

    /// Adds the batch's gradients to those accumulated so far; the report has no step and no norm.
    pub fn accumulate(&mut self, batch: &[TrainSequence], objective: &Objective) -> Result<StepReport> {
        let mut sums = Sums::default();
        for micro_batch in self.micro_batches(batch) {
            self.run(&micro_batch, objective, &mut sums)?;
        }
        let rows = sums.rows.max(1) as f64;
        Ok(StepReport {
            loss: sums.loss,
            policy_loss: sums.policy_loss,
            ratio: sums.ratio / rows,
            max_ratio: sums.max_ratio,
            entropy: sums.entropy / rows,
            kl: sums.kl / rows,
            policy_kl: sums.policy_kl / rows,
            clip_fraction: sums.clipped as f64 / rows,
            rows: sums.rows,
            tokens: sums.tokens,
            ..StepReport::default()
        })
    }

    /// Sequences of equal temperature, together no longer than the budget (a single longer one stands alone).
    fn micro_batches<'a>(&self, batch: &'a [TrainSequence]) -> Vec<Vec<&'a TrainSequence>> {
        let mut sorted: Vec<&TrainSequence> = batch.iter().filter(|s| !s.rows.is_empty()).collect();
        sorted.sort_by(|a, b| a.temperature.total_cmp(&b.temperature));
        let mut groups: Vec<Vec<&TrainSequence>> = Vec::new();
        let mut tokens = 0;
        for sequence in sorted {
            match groups.last_mut() {
                Some(group)
                    if group[0].temperature == sequence.temperature
                        && tokens + sequence.ids.len() <= self.micro_batch_tokens =>
                {
                    tokens += sequence.ids.len();
                    group.push(sequence);
                }
                _ => {
                    tokens = sequence.ids.len();
                    groups.push(vec![sequence]);
                }
            }
        }
        groups
    }

    fn run(&mut self, batch: &[&TrainSequence], objective: &Objective, sums: &mut Sums) -> Result<()> {
        let transformer = &self.transformer;
        let (b, config) = (&transformer.backend, &transformer.config);
        let weights = &self.weights;
        let ragged = transformer.ragged(batch.iter().map(|s| s.ids.as_slice()))?;
        let rows = DeviceRows::new(transformer, batch, &ragged.sequences)?;

        let ids = transformer.ids(&ragged.ids);
        let mut inputs = vec![transformer.embed(&weights.base, ids, ragged.tokens)?];
        let mut traces: Vec<Option<LayerTrace<B>>> = Vec::new();
        for index in 0..config.layers {
            let (output, trace) = transformer.layer_forward(weights, index, &inputs[index], &ragged)?;
            inputs.push(output);
            traces.push((!self.recompute).then_some(trace));
        }
        let last = inputs.pop().expect("the embedding is there");
        let selected_rows = transformer.ids(&rows.selected);
        let selected = transformer.rows(transformer.all(&last), selected_rows, rows.count)?;
        let normed = transformer.norm(&weights.base, &transformer.layout.norm, &selected)?;

        let shape = LinearShape {
            temperature: batch[0].temperature,
            ..b.linear_shape(rows.count, config.hidden_size, config.vocab_size)
        };
        let to_weight = (&mut self.grads, weights.gradient(&transformer.layout.head));
        let hidden = transformer.all(&normed);
        let head = match weights.base.matrix(b, &transformer.layout.head) {
            Matrix::F32(weight) => {
                head_loss(transformer, shape, Head { hidden, weight }, &rows, objective, to_weight)?
            }
            Matrix::Bf16(weight) => {
                head_loss(transformer, shape, Head { hidden, weight }, &rows, objective, to_weight)?
            }
        };
        let (d_normed, stats) = head;
        let grads = &mut self.grads;
        let mut d_selected = b.zeros(rows.count * config.hidden_size)?;
        let norm = &transformer.layout.norm;
        transformer.norm_backward(weights, grads, norm, &selected, &d_normed, &mut d_selected)?;
        let mut d = b.zeros(ragged.tokens * config.hidden_size)?;
        let target = transformer.all_mut(&mut d);
        b.embedding_backward(config.hidden_size, selected_rows, transformer.all(&d_selected), target)?;
        for index in (0..config.layers).rev() {
            let trace = match traces.pop().flatten() {
                Some(trace) => trace,
                None => transformer.layer_forward(weights, index, &inputs[index], &ragged)?.1,
            };
            transformer.layer_backward(weights, grads, index, &inputs[index], &trace, &ragged, &mut d)?;
        }
        if weights.adapter.is_none() {
            transformer.embed_backward(grads, &ragged.ids, &d)?;
        }
        // Waits for the device, so it comes when all of its work is queued.
        rows.add_stats(&b.download(b.view(&stats, 0..rows.count))?, objective, sums);
        sums.tokens += ragged.tokens;
        Ok(())
    }

    fn update(&mut self, report: StepReport) -> Result<StepReport> {
        let transformer = &self.transformer;
        let b = &transformer.backend;
        let grad_norm = b.sum_squares(transformer.all(&self.grads))?.sqrt();
        if !grad_norm.is_finite() || !report.loss.is_finite() {
            return Ok(StepReport { step: self.step, grad_norm, skipped: true, ..report });
        }
        self.step += 1;
        let clip = f64::from(self.config.grad_clip);
        let grad_scale = if grad_norm > clip { clip / grad_norm } else { 1.0 };
        let (runs, trained) = match &mut self.weights.adapter {
            None => {
                let base =
                    Arc::get_mut(&mut self.weights.base).expect("nobody shares the trainer's own weights");
                (transformer.layout.runs(), base.trained_mut()?)
            }
            // Matrices alone.
            Some(adapter) => (vec![(true, 0..adapter.layout.len())], &mut adapter.flat),
        };
        for (is_matrix, range) in runs {
            let step = AdamW {
                learning_rate: self.config.learning_rate,
                betas: self.config.betas,
                eps: self.config.eps,
                weight_decay: if is_matrix { self.config.weight_decay } else { 0.0 },
                step: self.step,
                grad_scale: grad_scale as f32,
            };
            b.adamw(
                step,
                b.view_mut(trained, range.clone()),
                b.view(&self.grads, range.clone()),
                b.view_mut(&mut self.first, range.clone()),
                b.view_mut(&mut self.second, range),
            )?;
        }
        Ok(StepReport { step: self.step, grad_norm, ..report })
    }
}

/// The loss through the head: adds to the gradient of its weight, which is empty where that is frozen; returns that of the
/// hidden states, and what happened in each row.
#[allow(clippy::type_complexity)]
fn head_loss<B: Backend, W: Float>(
    transformer: &Transformer<B>,
    shape: LinearShape,
    head: Head<B::View<'_, f32>, B::View<'_, W>>,
    rows: &DeviceRows<B>,
    objective: &Objective,
    (grads, of_weight): (&mut B::Buffer<f32>, Range<usize>),
) -> Result<(B::Buffer<f32>, B::Buffer<RowStat>)> {
    let b = &transformer.backend;
    let mut scratch = b.uninitialized(shape.scratch_len())?;
    let ratios = match objective {
        Objective::Policy(PolicyObjective { surrogate: SurrogateKind::Gspo, .. }) => {
            Some(rows.sequence_ratios(b, shape, head, &mut scratch)?)
        }
        _ => None,
    };
    let mut d_hidden = b.zeros(rows.count * shape.width)?;
    let mut stats = b.zeros::<RowStat>(rows.count)?;
    b.linear_loss(
        shape,
        rows.loss(transformer, objective, ratios.as_ref()),
        head,
        HeadGradients {
            scratch: transformer.all_mut(&mut scratch),
            d_hidden: transformer.all_mut(&mut d_hidden),
            d_weight: b.view_mut(grads, of_weight),
            stats: b.view_mut(&mut stats, 0..rows.count),
        },
    )?;
    Ok((d_hidden, stats))
}
