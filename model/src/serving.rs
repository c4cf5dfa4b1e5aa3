//! What a serving engine is asked and what it answers.

use std::sync::Arc;

use crate::constraint::Constraint;

/// How tokens are drawn. `temperature` 0 is greedy.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingParams {
    /// Divides the logits before the softmax; 0 takes the largest logit.
    pub temperature: f32,
    /// Keeps the smallest set of tokens whose probability reaches this, in (0, 1].
    pub top_p: f32,
    /// Keeps the k most likely tokens; 0 keeps all.
    pub top_k: usize,
    /// Drops tokens less likely than this share of the most likely one, in [0, 1).
    pub min_p: f32,
    /// Makes the draw repeatable: same seed, prompt and weights give the same tokens.
    pub seed: Option<u64>,
    /// Added to the logits of single tokens, in [-100, 100].
    pub logit_bias: Arc<[(u32, f32)]>,
    /// Divides the positive logits of every token of the prompt or of the response so far, and multiplies their negative
    /// ones; above 0, and 1 does nothing. As `transformers` does (`RepetitionPenaltyLogitsProcessor`, after
    /// arXiv:1909.05858).
    pub repetition_penalty: f32,
    /// Taken off a token's logit once for each time that the response has it, in [-2, 2]. As OpenAI's API defines it.
    pub frequency_penalty: f32,
    /// Taken off a token's logit if the response has it at all, in [-2, 2]. As OpenAI's API defines it.
    pub presence_penalty: f32,
    /// Before so many tokens no end token can be drawn, and no stop string ends the response.
    pub min_tokens: usize,
    /// No end token can be drawn, so that the response is as long as it may be.
    pub ignore_eos: bool,
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            seed: None,
            logit_bias: Arc::default(),
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            min_tokens: 0,
            ignore_eos: false,
        }
    }
}

/// Asks for one response.
#[derive(Clone, Debug)]
pub struct GenerateRequest {
    /// Token ids of the rendered prompt; at least one.
    pub prompt_ids: Vec<u32>,
    /// The response's beginning, where another engine ended under it; else empty. The response goes on as if this
    /// engine had drawn it: the events start behind it, a stop string may begin in it, and a seed's stream is where it
    /// was. Its tokens count in `max_new_tokens`.
    pub drawn_ids: Vec<u32>,
    /// How to draw.
    pub sampling: SamplingParams,
    /// Most tokens of the response, the end token included; at least one.
    pub max_new_tokens: usize,
    /// The response ends before the first of these strings.
    pub stop: Vec<String>,
    /// How many alternatives to report per token.
    pub top_logprobs: usize,
    /// What the response must be, behind its thinking. An end token is possible where that is complete, and there alone;
    /// where nothing else is possible any more it is, whatever `min_tokens` and `ignore_eos` say.
    pub constraint: Option<Constraint>,
}

/// Why a response ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model drew an end token, or a stop string was reached.
    Stop,
    /// `max_new_tokens` or the context was reached.
    Length,
    /// The receiver went away.
    Cancelled,
}

/// One drawn token.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprob {
    /// The token.
    pub id: u32,
    /// Log-probability under exactly the distribution it was drawn from (constraint, bias, penalties, temperature, top-p,
    /// top-k, min-p).
    pub logprob: f32,
    /// Log-probability under the model's whole distribution, neither constrained nor penalised, at the temperature that
    /// the response is trained at, which is 1 for a greedy draw: what a trainer compares itself with.
    pub policy_logprob: f32,
    /// Log-probability under the model's untempered softmax.
    pub raw_logprob: f32,
    /// The most likely tokens under the untempered softmax, best first.
    pub top: Vec<(u32, f32)>,
}

/// What a generation reports, in order: any number of `Token`, then one `Finished` or `Failed`.
#[derive(Clone, Debug)]
pub enum GenerateEvent {
    /// One more token and the text that became certain with it (complete UTF-8, no part of a stop string,
    /// no special end token; may be empty).
    Token {
        /// The token.
        token: TokenLogprob,
        /// Text to append.
        text: String,
        /// The version of the weights that drew it, the same for every token of a response.
        policy_version: u64,
    },
    /// The end.
    Finished {
        /// Why.
        reason: FinishReason,
        /// Text held back until now.
        text: String,
        /// The version of the weights that drew every token of this response.
        policy_version: u64,
        /// Prompt tokens found in the prefix cache.
        cached_tokens: usize,
    },
    /// The engine could not go on.
    Failed {
        /// Why, for the log and the client.
        error: String,
        /// It is the request, not the engine: asked again, it would end here again.
        by_request: bool,
    },
}

/// Asks for the log-probabilities of given ids.
#[derive(Clone, Debug, Default)]
pub struct ScoreRequest {
    /// The whole sequence.
    pub ids: Vec<u32>,
    /// Scores positions `start..ids.len()`; position 0 has no log-probability, so `start >= 1`.
    pub start: usize,
    /// Divides the logits; the sampling temperature of the response. 0 reads as 1.
    pub temperature: f32,
    /// How many of the most likely ids to report per position.
    pub top_k: usize,
    /// Ids whose log-probability is wanted per position: empty, or one list per scored position.
    pub candidates: Vec<Vec<u32>>,
    /// The same ids will be scored again, with candidates that follow from these scores: the model is not run again then,
    /// unless many others came between or newer weights were loaded.
    pub asked_again: bool,
}

/// Log-probabilities of `ids[start..]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scored {
    /// One per scored position: log p(ids\[i\] | ids\[..i\]).
    pub logprobs: Vec<f32>,
    /// Entropy of the distribution at each scored position, in nats.
    pub entropy: Vec<f32>,
    /// The `top_k` most likely ids per scored position, best first.
    pub top: Vec<Vec<(u32, f32)>>,
    /// Log-probabilities of the request's `candidates`.
    pub candidates: Vec<Vec<f32>>,
    /// Version of the weights that scored.
    pub policy_version: u64,
}

impl Scored {
    /// Takes in the scores of the tokens that come next.
    pub(crate) fn append(&mut self, mut next: Self) {
        self.logprobs.append(&mut next.logprobs);
        self.entropy.append(&mut next.entropy);
        self.top.append(&mut next.top);
        self.candidates.append(&mut next.candidates);
    }
}
