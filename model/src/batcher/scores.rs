//! Scores of given tokens over the serving pool: in pieces like a prompt, through the same prefix cache, in steps
//! between those that serve.

use std::time::Instant;

use openclaw_kernels::{Backend, KernelError};

use super::{Batcher, Live, SequenceId, SubmitError, pass_weights};
use crate::pace::Load;
use crate::schedule::Chunk;
use crate::scoring::ScoredRows;
use crate::serving::{ScoreRequest, Scored};

/// Scores that are being computed.
pub(super) struct Scoring {
    request: ScoreRequest,
    scored: Scored,
    /// Final hidden states so far, for requests that are asked again.
    hidden: Vec<f32>,
}

/// Final hidden states of ids that will be asked about again.
pub(super) struct Kept {
    epoch: u64,
    ids: Vec<u32>,
    start: usize,
    hidden: Vec<f32>,
}

/// Scores by hidden states that were kept, as far as they have come.
pub(super) struct Again {
    pub id: u64,
    request: ScoreRequest,
    kept: Kept,
    scored: Scored,
}

/// Positions that are scored between two steps by hidden states that were kept.
const AGAIN_ROWS: usize = 64;
/// Most scored ids whose hidden states are kept; the oldest go first.
const MOST_KEPT: usize = 8;
/// Most bytes of hidden states that are kept of one.
const MOST_KEPT_BYTES: usize = 32 << 20;

impl Scoring {
    /// The next position whose hidden state is wanted: it predicts the token behind it.
    fn next(&self) -> usize {
        self.request.start - 1 + self.scored.logprobs.len()
    }
}

impl<B: Backend> Batcher<B> {
    /// Queues tokens to be scored, under the newest weights at the time when that begins; what was asked before, under those
    /// it was scored under.
    pub fn submit_score(&mut self, request: ScoreRequest) -> Result<SequenceId, SubmitError> {
        let (start, tokens) = (request.start, request.ids.len());
        if start == 0 || start >= tokens {
            return Err(SubmitError::Start { start, tokens });
        }
        if !request.candidates.is_empty() && request.candidates.len() != tokens - start {
            return Err(SubmitError::Candidates {
                found: request.candidates.len(),
                expected: tokens - start,
            });
        }
        let context_tokens = self.context_tokens();
        if tokens > context_tokens {
            return Err(SubmitError::ContextLengthExceeded { prompt_tokens: tokens, context_tokens });
        }
        self.check_ids(request.ids.iter())?;
        let id = self.new_id();
        let is_kept = |kept: &Kept| kept.start == start && kept.ids == request.ids;
        if let Some(at) = self.kept.iter().position(is_kept) {
            let kept = self.kept.remove(at).expect("it was just found");
            self.again.push_back(Again { id, request, kept, scored: Scored::default() });
        } else {
            self.begin_scoring(id, request);
        }
        Ok(SequenceId(id))
    }

    fn begin_scoring(&mut self, id: u64, request: ScoreRequest) {
        let (start, tokens) = (request.start, request.ids.len());
        // The last token predicts nothing that is asked for.
        self.schedule.add_scoring(id, request.ids[..tokens - 1].to_vec(), start - 1);
        self.scorings.insert(id, Scoring { request, scored: Scored::default(), hidden: Vec::new() });
    }

    /// Computes a piece of the scores that are wanted, oldest first, and returns those that are complete.
    pub fn step_scores(&mut self) -> Result<Vec<(SequenceId, Scored)>, KernelError> {
        if !self.again.is_empty() {
            return Ok(self.score_kept()?.into_iter().collect());
        }
        let load = if self.is_idle() { Load::Scores } else { Load::ScoresBetweenSteps };
        let started = Instant::now();
        let chunks = self.schedule.plan_scoring(self.epoch, self.allowance(load));
        self.run_each(&chunks, Self::run_scores)?;
        self.observe(load, &chunks, started);
        let mut complete = Vec::new();
        for Chunk { id, epoch, .. } in chunks {
            let scoring = &self.scorings[&id];
            if scoring.next() == scoring.request.ids.len() - 1 {
                let Scoring { request, scored, hidden } = self.scorings.remove(&id).expect("just looked at");
                self.schedule.remove(id);
                self.keep(epoch, request, hidden);
                let policy_version = self.live[&epoch].version;
                complete.push((SequenceId(id), Scored { policy_version, ..scored }));
            }
        }
        self.retire_weights();
        Ok(complete)
    }

    /// Whether scores are wanted.
    pub fn is_scoring(&self) -> bool {
        !self.scorings.is_empty() || !self.again.is_empty()
    }

    fn keep(&mut self, epoch: u64, request: ScoreRequest, hidden: Vec<f32>) {
        if !request.asked_again || epoch != self.epoch || size_of_val(&*hidden) > MOST_KEPT_BYTES {
            return;
        }
        self.kept.push_back(Kept { epoch, ids: request.ids, start: request.start, hidden });
        if self.kept.len() > MOST_KEPT {
            self.kept.pop_front();
        }
    }

    /// Scores some of what is known up to the last product, the oldest first; returns what is complete by that.
    fn score_kept(&mut self) -> Result<Option<(SequenceId, Scored)>, KernelError> {
        let Some(Again { request, kept, scored, .. }) = self.again.front_mut() else { return Ok(None) };
        let Some(Live { version, weights }) = self.live.get(&kept.epoch) else {
            // Nobody runs on those weights any more: it is a question to the newest.
            let Again { id, request, .. } = self.again.pop_front().expect("just looked at");
            self.begin_scoring(id, request);
            return Ok(None);
        };
        let (from, count) = (scored.logprobs.len(), request.ids.len() - request.start);
        let to = (from + AGAIN_ROWS).min(count);
        let width = kept.hidden.len() / count;
        let hidden = &kept.hidden[from * width..to * width];
        let positions = request.start - 1 + from..request.start - 1 + to;
        scored.append(self.transformer.score_again(weights, request, positions, hidden)?);
        if to < count {
            return Ok(None);
        }
        let policy_version = *version;
        let Again { id, scored, .. } = self.again.pop_front().expect("just looked at");
        Ok(Some((SequenceId(id), Scored { policy_version, ..scored })))
    }

    /// One forward pass, and the scores of what it reached.
    fn run_scores(&mut self, chunks: &[Chunk]) -> Result<(), KernelError> {
        let step = self.paged_step(chunks);
        let mut wanted = Vec::new();
        for (chunk, segment) in chunks.iter().zip(&step.segments) {
            let scoring = &self.scorings[&chunk.id];
            let positions = scoring.next()..chunk.start + chunk.new;
            if !positions.is_empty() {
                let row = segment.row + positions.start - chunk.start;
                wanted.push((chunk.id, ScoredRows { request: &scoring.request, row, positions }));
            }
        }
        let weights = pass_weights(&self.live, chunks);
        let rows = wanted.iter().map(|(_, rows)| rows);
        let scored = self.transformer.score_paged(&weights, &mut self.pool, &step, rows)?;
        let ids: Vec<u64> = wanted.into_iter().map(|(id, _)| id).collect();
        for (id, (scored, mut hidden)) in ids.into_iter().zip(scored) {
            let scoring = self.scorings.get_mut(&id).expect("its rows were wanted");
            scoring.scored.append(scored);
            scoring.hidden.append(&mut hidden);
        }
        for chunk in chunks {
            self.schedule.computed(chunk);
            self.stats.computed_tokens += chunk.new as u64;
        }
        Ok(())
    }
}
