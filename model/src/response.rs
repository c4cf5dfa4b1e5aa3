//! One response while it grows: draws its tokens, words them, and knows when it ends.

use crate::detokenizer::IncrementalDetokenizer;
use crate::sampler::{NotFinite, Sampler, SamplingError};
use crate::serving::{FinishReason, GenerateRequest, TokenLogprob};
use crate::stop_strings::{StopMatcher, StopStep};
use crate::tokenizer::Tokenizer;

/// A request's own state between steps.
#[derive(Debug)]
pub(crate) struct Response {
    sampler: Sampler,
    detokenizer: IncrementalDetokenizer,
    stop: StopMatcher,
    remaining_tokens: usize,
}

/// A drawn token, the text that became certain with it, and the end if it was the last.
#[derive(Debug)]
pub(crate) struct Drawn {
    pub token: TokenLogprob,
    pub text: String,
    pub end: Option<End>,
}

/// Why a response ended, and the text held back until then.
#[derive(Debug)]
pub(crate) struct End {
    pub reason: FinishReason,
    pub text: String,
}

impl Response {
    /// `room` is what the context leaves for the response.
    pub fn new(request: &GenerateRequest, room: usize, tokenizer: Tokenizer) -> Result<Self, SamplingError> {
        Ok(Self {
            sampler: Sampler::new(request.sampling.clone(), request.top_logprobs)?,
            detokenizer: IncrementalDetokenizer::new(tokenizer),
            stop: StopMatcher::new(request.stop.clone()),
            remaining_tokens: request.max_new_tokens.min(room),
        })
    }

    /// Takes in a token that was drawn elsewhere, as if it had been drawn here.
    pub fn redraw(&mut self, id: u32, end_ids: &[u32]) -> Option<End> {
        self.sampler.skip_draw();
        self.take(id, end_ids).1
    }

    /// Draws the next token.
    pub fn draw(&mut self, logits: &[f32], end_ids: &[u32]) -> Result<Drawn, NotFinite> {
        let token = self.sampler.draw(logits)?;
        let (text, end) = self.take(token.id, end_ids);
        Ok(Drawn { token, text, end })
    }

    /// The text that became certain with a token, and the end if it was the last.
    fn take(&mut self, id: u32, end_ids: &[u32]) -> (String, Option<End>) {
        self.remaining_tokens = self.remaining_tokens.saturating_sub(1);
        if end_ids.contains(&id) {
            return (String::new(), Some(End { reason: FinishReason::Stop, ..self.end() }));
        }
        let StopStep { text, stopped } = self.stop.push(&self.detokenizer.push(id));
        let end = if stopped {
            Some(End { reason: FinishReason::Stop, text: String::new() })
        } else {
            (self.remaining_tokens == 0).then(|| self.end())
        };
        (text, end)
    }

    /// The end for want of room, unless the last held-back text completes a stop string.
    fn end(&mut self) -> End {
        let StopStep { mut text, stopped } = self.stop.push(&self.detokenizer.finish());
        if stopped {
            return End { reason: FinishReason::Stop, text };
        }
        text.push_str(&self.stop.finish());
        End { reason: FinishReason::Length, text }
    }
}
