//! Serves many requests at once over one paged pool: each step draws a token for every running response and
//! computes a piece of the prompts that wait. Given tokens are scored over the same pool, in pieces too, by steps
//! of their own. New weights stand beside the old ones until their last sequence ends.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use openclaw_kernels::ops::PagedSegment;
use openclaw_kernels::{Backend, KernelError};
use rayon::prelude::*;

use crate::constraint::ConstraintFailed;
use crate::pace::{Cost, Load, Paces};
use crate::pass::PassWeights;
use crate::response::{DrawError, Drawn, End, Response};
use crate::sampler::SamplingError;
use crate::schedule::{Chunk, Schedule, ScheduleLimits, UNLIMITED};
use crate::serving::{FinishReason, GenerateEvent, GenerateRequest};
use crate::tokenizer::Tokenizer;
use crate::transformer::{KvPool, PagedStep, Transformer, Weights};

mod scores;

use scores::{Again, Kept, Scoring};

/// Limits of a [`Batcher`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatcherConfig {
    /// Most tokens computed in one step; at least `max_sequences`.
    pub max_batch_tokens: usize,
    /// Most requests that run at once.
    pub max_sequences: usize,
    /// Blocks of the key-value pool, shared by all requests and by the prefix cache.
    pub kv_blocks: usize,
    /// Tokens of a block.
    pub block_size: usize,
    /// Most requests that wait to run.
    pub max_waiting: usize,
    /// How long a step should take while replies are drawn, which is the gap between two of their tokens: prompts
    /// are cut accordingly. None cuts them by `max_batch_tokens` alone, so that steps do not depend on the clock.
    pub step_time: Option<Duration>,
}

/// A [`Batcher`] that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum BatcherError {
    /// A limit out of range.
    #[error("{key} is {value}, expected {expected}")]
    Config {
        /// Field of [`BatcherConfig`].
        key: &'static str,
        /// Its value.
        value: usize,
        /// What it may be.
        expected: String,
    },
    /// The device has no room for the pool.
    #[error("cannot allocate the key-value pool")]
    Pool(#[source] KernelError),
}

/// A request that cannot be served.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SubmitError {
    /// A request for scores that names no tokens to score.
    #[error("scores cannot begin at {start} in {tokens} tokens")]
    Start {
        /// First token to score.
        start: usize,
        /// Length of the sequence.
        tokens: usize,
    },
    /// Neither no candidates nor a list for each scored token.
    #[error("candidates for {found} tokens, expected {expected}")]
    Candidates {
        /// Lists of candidates.
        found: usize,
        /// Tokens to score.
        expected: usize,
    },
    /// Nothing to continue.
    #[error("the prompt is empty")]
    EmptyPrompt,
    /// No token may be drawn.
    #[error("max_new_tokens is 0, expected at least 1")]
    NoNewTokens,
    /// The prompt leaves no room for a single token.
    #[error("the prompt has {prompt_tokens} tokens, the context {context_tokens}")]
    ContextLengthExceeded {
        /// Length of the prompt.
        prompt_tokens: usize,
        /// Most tokens of prompt and response together.
        context_tokens: usize,
    },
    /// An id that the model has no embedding for.
    #[error("token id {id} is outside the vocabulary of {vocab_size}")]
    UnknownToken {
        /// The id.
        id: u32,
        /// Number of ids.
        vocab_size: usize,
    },
    /// A sampling parameter out of range.
    #[error(transparent)]
    Sampling(#[from] SamplingError),
    /// The tokens drawn so far are not of the constraint.
    #[error(transparent)]
    Constraint(#[from] ConstraintFailed),
    /// Try again later.
    #[error("{waiting} requests are waiting already")]
    QueueFull {
        /// How many.
        waiting: usize,
    },
}

/// Names a request inside one [`Batcher`]; later requests have larger numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceId(pub u64);

/// What a [`Batcher`] has done so far, and what its pool holds now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatcherStats {
    /// Tokens drawn.
    pub generated_tokens: u64,
    /// Tokens run through the model, drawn ones and recomputed ones included.
    pub computed_tokens: u64,
    /// Times the model was run, once for each base that a step's versions have.
    pub passes: u64,
    /// Prompt tokens of the requests that have run.
    pub prompt_tokens: u64,
    /// Those of them that the prefix cache knew.
    pub cached_tokens: u64,
    /// Times a request lost its blocks to an older one and had to be computed again.
    pub preemptions: u64,
    /// Blocks that running requests hold.
    pub kv_blocks_used: usize,
    /// Blocks that only the prefix cache holds.
    pub kv_blocks_cached: usize,
    /// Blocks of the pool.
    pub kv_blocks_total: usize,
}

/// One published set of weights.
struct Live<B: Backend> {
    version: u64,
    weights: Arc<Weights<B>>,
}

/// Continuous batching on one device; see the module.
pub struct Batcher<B: Backend> {
    transformer: Transformer<B>,
    tokenizer: Tokenizer,
    end_ids: Vec<u32>,
    config: BatcherConfig,
    pool: KvPool<B>,
    schedule: Schedule,
    paces: Option<Paces>,
    responses: HashMap<u64, Response>,
    scorings: HashMap<u64, Scoring>,
    kept: VecDeque<Kept>,
    /// Scores of kept hidden states, the oldest first.
    again: VecDeque<Again>,
    /// By epoch, the number of the load: a version that is loaded twice never meets its old keys and values.
    live: BTreeMap<u64, Live<B>>,
    epoch: u64,
    next_id: u64,
    events: Vec<(SequenceId, GenerateEvent)>,
    stats: BatcherStats,
}

/// Of a pass over chunks that share a base.
fn pass_weights<'a, B: Backend>(live: &'a BTreeMap<u64, Live<B>>, chunks: &[Chunk]) -> PassWeights<'a, B> {
    PassWeights::mixed(chunks.iter().map(|chunk| (&*live[&chunk.epoch].weights, chunk.new)))
}

impl BatcherConfig {
    fn validate(&self) -> Result<(), BatcherError> {
        let slots = self.kv_blocks.saturating_mul(self.block_size);
        let most_blocks = u32::MAX as usize / self.block_size.max(1);
        let rules = [
            ("max_sequences", self.max_sequences, self.max_sequences > 0, "at least 1".into()),
            (
                "max_batch_tokens",
                self.max_batch_tokens,
                self.max_batch_tokens >= self.max_sequences,
                format!("at least max_sequences ({})", self.max_sequences),
            ),
            ("block_size", self.block_size, self.block_size > 0, "at least 1".into()),
            ("kv_blocks", self.kv_blocks, slots >= 2, "room for two tokens".into()),
            (
                "kv_blocks",
                self.kv_blocks,
                self.kv_blocks <= most_blocks,
                format!("at most {most_blocks} of {} tokens", self.block_size),
            ),
            ("max_waiting", self.max_waiting, self.max_waiting > 0, "at least 1".into()),
        ];
        for (key, value, valid, expected) in rules {
            if !valid {
                return Err(BatcherError::Config { key, value, expected });
            }
        }
        Ok(())
    }
}

impl<B: Backend> Batcher<B> {
    /// Allocates the pool. A response ends at any of `end_ids`.
    pub fn new(
        transformer: Transformer<B>,
        tokenizer: Tokenizer,
        end_ids: Vec<u32>,
        config: BatcherConfig,
        version: u64,
        weights: Arc<Weights<B>>,
    ) -> Result<Self, BatcherError> {
        config.validate()?;
        let pool = transformer.kv_pool(config.kv_blocks, config.block_size).map_err(BatcherError::Pool)?;
        let cost = Cost::of(&transformer.config);
        let schedule = Schedule::new(ScheduleLimits {
            max_batch_tokens: config.max_batch_tokens,
            max_sequences: config.max_sequences,
            blocks: config.kv_blocks,
            block_size: config.block_size,
            cost,
        });
        Ok(Self {
            transformer,
            tokenizer,
            end_ids,
            config,
            pool,
            schedule,
            paces: config.step_time.map(|step_time| Paces::new(&cost, step_time)),
            responses: HashMap::new(),
            scorings: HashMap::new(),
            kept: VecDeque::new(),
            again: VecDeque::new(),
            live: BTreeMap::from([(0, Live { version, weights })]),
            epoch: 0,
            next_id: 0,
            events: Vec::new(),
            stats: BatcherStats::default(),
        })
    }

    /// Queues a request.
    pub fn submit(&mut self, request: GenerateRequest) -> Result<SequenceId, SubmitError> {
        let (prompt_tokens, context_tokens) = (request.prompt_ids.len(), self.context_tokens());
        if prompt_tokens == 0 {
            return Err(SubmitError::EmptyPrompt);
        }
        if request.max_new_tokens == 0 {
            return Err(SubmitError::NoNewTokens);
        }
        if prompt_tokens >= context_tokens {
            return Err(SubmitError::ContextLengthExceeded { prompt_tokens, context_tokens });
        }
        let biased = request.sampling.logit_bias.iter().map(|(id, _)| id);
        self.check_ids(request.prompt_ids.iter().chain(&request.drawn_ids).chain(biased))?;
        let mut response = Response::new(&request, context_tokens - prompt_tokens, self.tokenizer.clone())?;
        if self.waiting() >= self.config.max_waiting {
            return Err(SubmitError::QueueFull { waiting: self.waiting() });
        }
        let id = self.new_id();
        for &drawn in &request.drawn_ids {
            if let Some(End { reason, text }) = response.redraw(drawn, &self.end_ids)? {
                // The engine that drew it ended before it could say so.
                let policy_version = self.version();
                let finished = GenerateEvent::Finished { reason, text, policy_version, cached_tokens: 0 };
                self.events.push((SequenceId(id), finished));
                return Ok(SequenceId(id));
            }
        }
        self.schedule.add(id, [request.prompt_ids, request.drawn_ids].concat());
        self.responses.insert(id, response);
        Ok(SequenceId(id))
    }

    /// Ends a request whose receiver has gone; the next step reports a reply as cancelled. One that has ended stays so.
    pub fn cancel(&mut self, id: SequenceId) {
        self.again.retain(|again| again.id != id.0);
        if self.scorings.remove(&id.0).is_some() {
            self.schedule.remove(id.0);
        } else if self.responses.remove(&id.0).is_some() {
            self.finish(id.0, End { reason: FinishReason::Cancelled, text: String::new() });
        }
        self.retire_weights();
    }

    /// Computes one step and returns what happened since the last. After an error nothing is lost: the next step
    /// tries the same again.
    pub fn step(&mut self) -> Result<Vec<(SequenceId, GenerateEvent)>, KernelError> {
        let replies = self.schedule.is_decoding();
        let load = if replies { Load::PromptsBesideReplies } else { Load::Prompts };
        let started = Instant::now();
        let chunks = self.schedule.plan(self.epoch, self.allowance(load));
        self.run_each(&chunks, Self::run)?;
        self.observe(load, &chunks, started);
        self.retire_weights();
        Ok(std::mem::take(&mut self.events))
    }

    fn allowance(&self, load: Load) -> f64 {
        self.paces.as_ref().map_or(UNLIMITED, |paces| paces.of(load).allowance())
    }

    fn observe(&mut self, load: Load, chunks: &[Chunk], started: Instant) {
        let work = self.schedule.work(chunks);
        if let Some(paces) = self.paces.as_mut().filter(|_| work > 0.0) {
            paces.of_mut(load).observe(work, started.elapsed());
        }
    }

    /// One pass for each base: versions that are adapters on one share it.
    fn run_each(
        &mut self,
        chunks: &[Chunk],
        run: impl Fn(&mut Self, &[Chunk]) -> Result<(), KernelError>,
    ) -> Result<(), KernelError> {
        let mut chunks = chunks.to_vec();
        // Those of one version are neighbours, and one product with its adapter.
        chunks.sort_by_key(|chunk| chunk.epoch);
        let mut passes: Vec<Vec<Chunk>> = Vec::new();
        for chunk in chunks {
            let base = |chunk: &Chunk| &self.live[&chunk.epoch].weights.base;
            match passes.iter_mut().find(|pass| Arc::ptr_eq(base(&pass[0]), base(&chunk))) {
                Some(pass) => pass.push(chunk),
                None => passes.push(vec![chunk]),
            }
        }
        self.stats.passes += passes.len() as u64;
        passes.iter().try_for_each(|chunks| run(self, chunks))
    }

    /// Serves new requests with these weights from now on; running ones end on theirs.
    pub fn load(&mut self, version: u64, weights: Arc<Weights<B>>) {
        let old = self.epoch;
        self.epoch += 1;
        self.kept.clear();
        self.live.insert(self.epoch, Live { version, weights });
        // What running responses hold stays until they end.
        self.schedule.forget(old);
        self.retire_weights();
    }

    /// Whether a step has nothing to do and nothing to report.
    pub fn is_idle(&self) -> bool {
        self.responses.is_empty() && self.events.is_empty()
    }

    /// Most tokens of a prompt and its response together: the model's positions, or the pool if that is smaller.
    pub fn context_tokens(&self) -> usize {
        self.transformer.config.max_positions.min(self.config.kv_blocks * self.config.block_size)
    }

    /// Version of the weights that new requests are served with.
    pub fn version(&self) -> u64 {
        self.live[&self.epoch].version
    }

    /// Versions in memory, oldest first: the newest, and those that a response still runs on.
    pub fn live_versions(&self) -> Vec<u64> {
        self.live.values().map(|live| live.version).collect()
    }

    /// Requests that hold blocks.
    pub fn running(&self) -> usize {
        self.schedule.running()
    }

    /// Requests that hold none yet, or none any more.
    pub fn waiting(&self) -> usize {
        self.schedule.waiting()
    }

    /// Where it computes.
    pub fn device(&self) -> &B {
        &self.transformer.backend
    }

    /// Totals since the start, and the pool's use now.
    pub fn stats(&self) -> BatcherStats {
        let cache = self.schedule.cache();
        BatcherStats {
            preemptions: self.schedule.preemptions(),
            kv_blocks_used: cache.used(),
            kv_blocks_cached: cache.idle(),
            kv_blocks_total: self.config.kv_blocks,
            ..self.stats
        }
    }

    /// One forward pass, and a draw for every sequence that reached its last token.
    fn run(&mut self, chunks: &[Chunk]) -> Result<(), KernelError> {
        let step = self.paged_step(chunks);
        let mut drawing: Vec<_> = (chunks.iter().filter(|chunk| chunk.draws))
            .map(|chunk| {
                let response = self.responses.remove(&chunk.id);
                (chunk.id, response.expect("a running sequence has a response"))
            })
            .collect();
        let logits = self.logits(chunks, &step, &mut drawing);
        let logits = match logits {
            Ok(logits) => logits,
            Err(error) => {
                self.responses.extend(drawing);
                return Err(error);
            }
        };

        for chunk in chunks {
            self.schedule.computed(chunk);
            self.stats.computed_tokens += chunk.new as u64;
        }
        let versions = chunks.iter().filter(|chunk| chunk.draws).map(|chunk| self.live[&chunk.epoch].version);
        let versions: Vec<u64> = versions.collect();
        let (end_ids, vocab_size) = (&self.end_ids, self.transformer.config.vocab_size);
        let drawn: Vec<_> = self.transformer.backend.scope(|| {
            let rows = logits.par_chunks_exact(vocab_size);
            drawing.par_iter_mut().zip(rows).map(|((_, response), row)| response.draw(row, end_ids)).collect()
        });
        for (((id, response), policy_version), drawn) in drawing.into_iter().zip(versions).zip(drawn) {
            match drawn {
                Ok(Drawn { token, text, end }) => {
                    self.schedule.push(id, token.id);
                    self.stats.generated_tokens += 1;
                    let event = GenerateEvent::Token { token, text, policy_version };
                    self.events.push((SequenceId(id), event));
                    match end {
                        Some(end) => self.finish(id, end),
                        None => drop(self.responses.insert(id, response)),
                    }
                }
                Err(error) => {
                    self.release(id);
                    let by_request = matches!(error, DrawError::Constraint(_));
                    let failed = GenerateEvent::Failed { error: error.to_string(), by_request };
                    self.events.push((SequenceId(id), failed));
                }
            }
        }
        Ok(())
    }

    /// The forward pass. What draws need beside it is computed at the same time.
    fn logits(
        &mut self,
        chunks: &[Chunk],
        step: &PagedStep,
        drawing: &mut [(u64, Response)],
    ) -> Result<Vec<f32>, KernelError> {
        let weights = pass_weights(&self.live, chunks);
        let beside: Vec<_> = drawing.iter_mut().filter_map(|(_, response)| response.before_draw()).collect();
        let (transformer, pool) = (&self.transformer, &mut self.pool);
        if beside.is_empty() {
            return transformer.forward_mixed(&weights, pool, step);
        }
        transformer.backend.scope(|| {
            rayon::in_place_scope(|scope| {
                beside.into_iter().for_each(|work| scope.spawn(|_| work()));
                transformer.forward_mixed(&weights, pool, step)
            })
        })
    }

    fn paged_step(&self, chunks: &[Chunk]) -> PagedStep {
        let mut step = PagedStep::default();
        for chunk in chunks {
            let sequence = self.schedule.sequence(chunk.id);
            let positions = chunk.start..chunk.start + chunk.new;
            step.segments.push(PagedSegment {
                row: step.ids.len(),
                new: chunk.new,
                past: chunk.start,
                table: step.block_tables.len(),
            });
            step.ids.extend_from_slice(&sequence.tokens[positions.clone()]);
            for position in positions {
                let block = sequence.table[position / self.config.block_size] as usize;
                let slot = block * self.config.block_size + position % self.config.block_size;
                step.positions.push(position as u32);
                step.slots.push(slot as u32);
            }
            step.block_tables.extend_from_slice(&sequence.table);
            if chunk.draws {
                step.logit_rows.push(step.ids.len() as u32 - 1);
            }
        }
        step
    }

    fn check_ids<'a>(&self, mut ids: impl Iterator<Item = &'a u32>) -> Result<(), SubmitError> {
        let vocab_size = self.transformer.config.vocab_size;
        match ids.find(|&&id| id as usize >= vocab_size) {
            Some(&id) => Err(SubmitError::UnknownToken { id, vocab_size }),
            None => Ok(()),
        }
    }

    fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id - 1
    }

    fn finish(&mut self, id: u64, End { reason, text }: End) {
        let (version, cached_tokens) = self.release(id);
        let finished = GenerateEvent::Finished { reason, text, policy_version: version, cached_tokens };
        self.events.push((SequenceId(id), finished));
    }

    /// Gives a sequence's blocks back; returns the version it ran on and the prompt tokens it did not compute.
    fn release(&mut self, id: u64) -> (u64, usize) {
        let sequence = self.schedule.remove(id).expect("every response is scheduled until it ends");
        let Some(epoch) = sequence.epoch else { return (self.version(), 0) };
        self.stats.prompt_tokens += sequence.prompt_tokens as u64;
        self.stats.cached_tokens += sequence.cached_tokens as u64;
        (self.live[&epoch].version, sequence.cached_tokens)
    }

    /// Drops weights that no sequence needs any more, and what was computed with them.
    fn retire_weights(&mut self) {
        let (schedule, newest) = (&mut self.schedule, self.epoch);
        self.live.retain(|&epoch, _| {
            let needed = epoch == newest || schedule.uses(epoch);
            if !needed {
                schedule.forget(epoch);
            }
            needed
        });
    }
}
