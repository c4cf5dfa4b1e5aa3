//! Log-probabilities of given tokens, by the forward pass that training uses or by the one that serves.

use std::ops::Range;

use openclaw_kernels::{
    Backend, KernelError,
    ops::{Candidates, Head, LinearShape, Score, ScoreOut, TopK},
};

use crate::{
    base::{Base, Matrix},
    pass::PassWeights,
    serving::{ScoreRequest, Scored},
    transformer::{KvPool, PagedStep, Transformer, Weights},
};

type Result<T> = std::result::Result<T, KernelError>;

/// Rows of a serving step whose hidden states predict tokens that are to be scored.
pub(crate) struct ScoredRows<'a> {
    pub request: &'a ScoreRequest,
    /// First row in the step.
    pub row: usize,
    /// Their positions in the sequence, each one before the token that it predicts.
    pub positions: Range<usize>,
}

impl<B: Backend> Transformer<B> {
    /// Scores `request.ids[request.start..]`; `policy_version` of the answer is left at 0.
    ///
    /// Fails when `start` is 0 or beyond the sequence, when `candidates` is neither empty nor one list per
    /// scored position, and when the sequence is longer than the context.
    pub fn score(&self, weights: &Weights<B>, request: &ScoreRequest) -> Result<Scored> {
        let op = "score";
        let (start, len) = (request.start, request.ids.len());
        if start == 0 || start >= len {
            let what = format!("start is {start}, expected 1 to {} for {len} ids", len.saturating_sub(1));
            return Err(KernelError::Argument { op, what });
        }
        if !request.candidates.is_empty() && request.candidates.len() != len - start {
            let (found, expected) = (request.candidates.len(), len - start);
            return Err(KernelError::Shape { op, what: "candidates", found, expected });
        }
        self.backend.scope(|| self.score_here(weights, request))
    }

    fn score_here(&self, weights: &Weights<B>, request: &ScoreRequest) -> Result<Scored> {
        // The last token predicts nothing that is asked for.
        let batch = self.ragged(std::iter::once(&request.ids[..request.ids.len() - 1]))?;
        let hidden = self.hidden_states(weights, &batch)?;
        let (width, row) = (self.config.hidden_size, request.start - 1);
        let hidden = self.backend.view(&hidden, row * width..batch.tokens * width);
        self.score_rows(&weights.base, request, row..batch.tokens, hidden)
    }

    /// Scores the tokens behind `positions` by the final hidden states at these, `[positions, hidden]`, of an earlier run.
    pub(crate) fn score_again(
        &self,
        weights: &Weights<B>,
        request: &ScoreRequest,
        positions: Range<usize>,
        hidden: &[f32],
    ) -> Result<Scored> {
        self.backend.scope(|| {
            let hidden = self.backend.upload(hidden)?;
            self.score_rows(&weights.base, request, positions, self.all(&hidden))
        })
    }

    /// Runs new tokens over the pool as [`Transformer::forward_paged`] does; scores what their hidden states predict, and
    /// returns these for requests that are asked again.
    pub(crate) fn score_paged<'a>(
        &self,
        weights: &PassWeights<'_, B>,
        pool: &mut KvPool<B>,
        step: &PagedStep,
        wanted: impl Iterator<Item = &'a ScoredRows<'a>> + Send,
    ) -> Result<Vec<(Scored, Vec<f32>)>> {
        self.backend.scope(|| {
            let (x, _) = self.residual_paged(weights, pool, step)?;
            let mut wanted = wanted.peekable();
            if wanted.peek().is_none() {
                return Ok(Vec::new());
            }
            let hidden = self.norm(weights.base, &self.layout.norm, &x)?;
            let width = self.config.hidden_size;
            wanted
                .map(|ScoredRows { request, row, positions }| {
                    let rows = row * width..(row + positions.len()) * width;
                    let view = || self.backend.view(&hidden, rows.clone());
                    let kept = if request.asked_again { self.backend.download(view())? } else { Vec::new() };
                    Ok((self.score_rows(weights.base, request, positions.clone(), view())?, kept))
                })
                .collect()
        })
    }

    /// Scores the tokens behind `positions` from the final hidden states at these.
    fn score_rows<'a>(
        &'a self,
        base: &'a Base<B>,
        request: &ScoreRequest,
        positions: Range<usize>,
        hidden: B::View<'a, f32>,
    ) -> Result<Scored> {
        let b = &self.backend;
        let rows = positions.len();
        let temperature = if request.temperature == 0.0 { 1.0 } else { request.temperature };
        let shape = LinearShape {
            temperature,
            ..b.linear_shape(rows, self.config.hidden_size, self.config.vocab_size)
        };
        let first = positions.start + 1 - request.start;
        let candidates = match &request.candidates[..] {
            [] => &[],
            all => &all[first..first + rows],
        };

        let targets: Vec<i32> =
            request.ids[positions.start + 1..=positions.end].iter().map(|id| *id as i32).collect();
        let targets = b.upload(&targets)?;
        let widest = candidates.iter().map(Vec::len).max().unwrap_or(0);
        let mut candidate_ids = vec![-1i32; rows * widest];
        for (ids, slots) in candidates.iter().zip(candidate_ids.chunks_mut(widest.max(1))) {
            for (id, slot) in ids.iter().zip(slots) {
                *slot = *id as i32;
            }
        }
        let candidate_ids = b.upload(&candidate_ids)?;
        let top_k = request.top_k.min(self.config.vocab_size);
        let mut scratch = b.uninitialized::<f32>(shape.scratch_len())?;
        let mut logprobs = b.zeros::<f32>(rows)?;
        let mut lse = b.zeros::<f32>(rows)?;
        let mut entropy = b.zeros::<f32>(rows)?;
        let mut candidate_logprobs = b.zeros::<f32>(rows * widest)?;
        let mut top_ids = b.zeros::<i32>(rows * top_k)?;
        let mut top_logprobs = b.zeros::<f32>(rows * top_k)?;
        let score = Score {
            targets: b.view(&targets, 0..rows),
            candidates: (widest > 0)
                .then(|| Candidates { k: widest, ids: b.view(&candidate_ids, 0..rows * widest) }),
        };
        let scratch = self.all_mut(&mut scratch);
        let out = ScoreOut {
            logprobs: self.all_mut(&mut logprobs),
            lse: self.all_mut(&mut lse),
            entropy: Some(self.all_mut(&mut entropy)),
            candidates: (widest > 0).then(|| self.all_mut(&mut candidate_logprobs)),
            top: (top_k > 0).then(|| TopK {
                k: top_k,
                ids: b.view_mut(&mut top_ids, 0..rows * top_k),
                logprobs: self.all_mut(&mut top_logprobs),
            }),
        };
        match base.matrix(b, &self.layout.head) {
            Matrix::F32(weight) => b.linear_logprob(shape, score, Head { hidden, weight }, scratch, out),
            Matrix::Bf16(weight) => b.linear_logprob(shape, score, Head { hidden, weight }, scratch, out),
        }?;
        let top_ids = b.download(b.view(&top_ids, 0..rows * top_k))?;
        let top_logprobs = b.download(self.all(&top_logprobs))?;
        let candidate_logprobs = b.download(self.all(&candidate_logprobs))?;
        let top = match top_k {
            0 => Vec::new(),
            k => top_ids
                .chunks(k)
                .zip(top_logprobs.chunks(k))
                .map(|(ids, logprobs)| {
                    let pairs = ids.iter().zip(logprobs).filter(|(id, _)| **id >= 0);
                    pairs.map(|(id, logprob)| (*id as u32, *logprob)).collect()
                })
                .collect(),
        };
        let candidates = candidates
            .iter()
            .zip(candidate_logprobs.chunks(widest.max(1)))
            .map(|(ids, logprobs)| logprobs[..ids.len()].to_vec())
            .collect();
        Ok(Scored {
            logprobs: b.download(self.all(&logprobs))?,
            entropy: b.download(self.all(&entropy))?,
            top,
            candidates,
            policy_version: 0,
        })
    }
}
