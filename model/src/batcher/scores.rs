//! Scores of given tokens over the serving pool: in pieces like a prompt, through the same prefix cache, in steps
//! between those that serve.

use std::time::Instant;

use openclaw_kernels::{Backend, KernelError};

use super::{Batcher, SequenceId, SubmitError};
use crate::pace::Load;
use crate::schedule::Chunk;
use crate::scoring::ScoredRows;
use crate::serving::{ScoreRequest, Scored};

/// Scores that are being computed.
pub(super) struct Scoring {
    request: ScoreRequest,
    scored: Scored,
}

impl Scoring {
    /// The next position whose hidden state is wanted: it predicts the token behind it.
    fn next(&self) -> usize {
        self.request.start - 1 + self.scored.logprobs.len()
    }
}

impl<B: Backend> Batcher<B> {
    /// Queues tokens to be scored, under the newest weights at the time when that begins.
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
        // The last token predicts nothing that is asked for.
        self.schedule.add_scoring(id, request.ids[..tokens - 1].to_vec(), start - 1);
        self.scorings.insert(id, Scoring { request, scored: Scored::default() });
        Ok(SequenceId(id))
    }

    /// Computes a piece of the scores that are wanted, oldest first, and returns those that are complete.
    pub fn step_scores(&mut self) -> Result<Vec<(SequenceId, Scored)>, KernelError> {
        let load = if self.is_idle() { Load::Scores } else { Load::ScoresBetweenSteps };
        let started = Instant::now();
        let chunks = self.schedule.plan_scoring(self.epoch, self.allowance(load));
        self.run_each(&chunks, Self::run_scores)?;
        self.observe(load, &chunks, started);
        let mut complete = Vec::new();
        for Chunk { id, epoch, .. } in chunks {
            let scoring = &self.scorings[&id];
            if scoring.next() == scoring.request.ids.len() - 1 {
                let Scoring { scored, .. } = self.scorings.remove(&id).expect("just looked at");
                self.schedule.remove(id);
                let policy_version = self.live[&epoch].version;
                complete.push((SequenceId(id), Scored { policy_version, ..scored }));
            }
        }
        self.retire_weights();
        Ok(complete)
    }

    /// Whether scores are wanted.
    pub fn is_scoring(&self) -> bool {
        !self.scorings.is_empty()
    }

    /// One forward pass with one set of weights, and the scores of what it reached.
    fn run_scores(&mut self, epoch: u64, chunks: &[Chunk]) -> Result<(), KernelError> {
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
        let weights = &self.live[&epoch].weights;
        let rows = wanted.iter().map(|(_, rows)| rows);
        let scored = self.transformer.score_paged(weights, &mut self.pool, &step, rows)?;
        let ids: Vec<u64> = wanted.into_iter().map(|(id, _)| id).collect();
        for (id, scored) in ids.into_iter().zip(scored) {
            self.scorings.get_mut(&id).expect("its rows were wanted").scored.append(scored);
        }
        for chunk in chunks {
            self.schedule.computed(chunk);
            self.stats.computed_tokens += chunk.new as u64;
        }
        Ok(())
    }
}
