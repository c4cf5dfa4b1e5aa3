//! One response while it grows: draws its tokens, words them, and knows when it ends.

use crate::constraint::{ConstraintFailed, Matching};
use crate::detokenizer::IncrementalDetokenizer;
use crate::sampler::{Allowed, NotFinite, Sampler, SamplingError};
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
    matching: Option<Matching>,
    drawn_tokens: usize,
    min_tokens: usize,
    ignore_eos: bool,
}

/// A response that cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DrawError {
    #[error(transparent)]
    NotFinite(#[from] NotFinite),
    #[error(transparent)]
    Constraint(#[from] ConstraintFailed),
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
        let GenerateRequest { prompt_ids, sampling, constraint, .. } = request;
        let mut sampler = Sampler::new(sampling.clone(), request.top_logprobs)?;
        sampler.read_prompt(prompt_ids);
        Ok(Self {
            sampler,
            detokenizer: IncrementalDetokenizer::new(tokenizer),
            stop: StopMatcher::new(request.stop.clone()),
            remaining_tokens: request.max_new_tokens.min(room),
            matching: constraint.as_ref().map(|constraint| Matching::new(constraint, prompt_ids)),
            drawn_tokens: 0,
            min_tokens: sampling.min_tokens,
            ignore_eos: sampling.ignore_eos,
        })
    }

    /// Takes in a token that was drawn elsewhere, as if it had been drawn here.
    pub fn redraw(&mut self, id: u32, end_ids: &[u32]) -> Result<Option<End>, ConstraintFailed> {
        self.sampler.skip_draw(id);
        // Where a text is forced, its tokens are those of the draw.
        self.matching.iter_mut().for_each(Matching::force);
        Ok(self.take(id, end_ids)?.1)
    }

    /// What of the next draw can be done while the model computes its logits, if there is such.
    pub fn before_draw(&mut self) -> Option<impl FnOnce() + Send + '_> {
        let matching = self.matching.as_mut().filter(|matching| matching.is_to_look_ahead())?;
        Some(|| matching.look_ahead())
    }

    /// Draws the next token.
    pub fn draw(&mut self, logits: &[f32], end_ids: &[u32]) -> Result<Drawn, DrawError> {
        let withheld = self.ignore_eos || self.drawn_tokens < self.min_tokens;
        let allowed = match &mut self.matching {
            Some(matching) => matching.allowed(logits, end_ids, withheld)?,
            None => Allowed { not: if withheld { end_ids } else { &[] }, ..Allowed::default() },
        };
        let token = self.sampler.draw_among(logits, allowed)?;
        let (text, end) = self.take(token.id, end_ids)?;
        Ok(Drawn { token, text, end })
    }

    /// The text that became certain with a token, and the end if it was the last.
    fn take(&mut self, id: u32, end_ids: &[u32]) -> Result<(String, Option<End>), ConstraintFailed> {
        self.remaining_tokens = self.remaining_tokens.saturating_sub(1);
        self.drawn_tokens += 1;
        if end_ids.contains(&id) {
            return Ok((String::new(), Some(End { reason: FinishReason::Stop, ..self.end() })));
        }
        let mut complete = false;
        if let Some(matching) = &mut self.matching {
            matching.take(id)?;
            complete = matching.is_complete();
        }
        let text = self.detokenizer.push(id);
        let StopStep { text, stopped } = if self.drawn_tokens > self.min_tokens {
            self.stop.push(&text)
        } else {
            StopStep { text, stopped: false }
        };
        let end = if stopped {
            Some(End { reason: FinishReason::Stop, text: String::new() })
        } else if complete && (self.remaining_tokens == 0 || end_ids.is_empty()) {
            // What the end token would say is certain.
            Some(End { reason: FinishReason::Stop, ..self.end() })
        } else {
            (self.remaining_tokens == 0).then(|| self.end())
        };
        Ok((text, end))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serving::SamplingParams;
    use crate::train_bpe;

    const END: u32 = 0;

    fn response(sampling: SamplingParams, stop: &[&str]) -> Response {
        let tokenizer = train_bpe(std::iter::empty(), 257, &["<|im_end|>"]).expect("256 bytes and one");
        let request = GenerateRequest {
            prompt_ids: vec![1],
            drawn_ids: Vec::new(),
            sampling: SamplingParams { temperature: 0.0, ..sampling },
            max_new_tokens: 12,
            stop: stop.iter().map(|&stop| stop.to_owned()).collect(),
            top_logprobs: 0,
            constraint: None,
        };
        Response::new(&request, 100, tokenizer).expect("parameters in range")
    }

    /// The text of a response in whose every step the end is likeliest, and then `a`.
    fn text_of(mut response: Response) -> (String, FinishReason) {
        let tokenizer = train_bpe(std::iter::empty(), 257, &["<|im_end|>"]).expect("256 bytes and one");
        let a = tokenizer.encode("a").expect("a byte")[0];
        let mut logits = vec![0.0; 257];
        (logits[END as usize], logits[a as usize]) = (9.0, 8.0);
        let mut text = String::new();
        loop {
            let drawn = response.draw(&logits, &[END]).expect("finite logits");
            text.push_str(&drawn.text);
            if let Some(end) = drawn.end {
                return (text + &end.text, end.reason);
            }
        }
    }

    #[test]
    fn before_min_tokens_nothing_ends_a_response() {
        let least = |min_tokens| SamplingParams { min_tokens, ..Default::default() };
        assert_eq!(text_of(response(least(0), &[])), (String::new(), FinishReason::Stop));
        assert_eq!(text_of(response(least(5), &[])), ("aaaaa".to_owned(), FinishReason::Stop));
        // The stop string begins behind the fifth token.
        let ignoring = SamplingParams { ignore_eos: true, ..least(5) };
        assert_eq!(text_of(response(ignoring, &["aa"])), ("aaaaa".to_owned(), FinishReason::Stop));
    }

    #[test]
    fn without_an_end_token_a_response_is_as_long_as_it_may_be() {
        let sampling = SamplingParams { ignore_eos: true, ..Default::default() };
        assert_eq!(text_of(response(sampling, &[])), ("a".repeat(12), FinishReason::Length));
    }
}
