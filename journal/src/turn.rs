//! What was said: turns and what followed them.

use std::{fmt, sync::Arc};

use openclaw_model::{FinishReason, ReplySplit};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::spill::json_text;

/// Names a turn for good; made by the gateway, shown to clients as the completion's id.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TurnId(pub Arc<str>);

impl fmt::Display for TurnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Names a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionId(pub Arc<str>);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a turn may be trained on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TurnKind {
    /// Part of the conversation: trainable.
    Main,
    /// Answered, never trained on: titles, compactions, heartbeats.
    Side,
}

/// What the policy drew, exactly: token in, token out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Completion {
    /// The rendered prompt.
    pub prompt_ids: Vec<u32>,
    /// The drawn tokens, the end token included.
    pub response_ids: Vec<u32>,
    /// Log-probability of each drawn token under the distribution it was drawn from.
    pub rollout_logprobs: Vec<f32>,
    /// Log-probability of each drawn token under the policy: the whole distribution at the temperature that is trained
    /// at, whatever top-p, top-k, min-p or a greedy draw left of it. None where only the one drawn from is known.
    pub policy_logprobs: Option<Vec<f32>>,
    /// The version of the weights that drew every token.
    pub policy_version: u64,
    /// Sampling temperature.
    pub temperature: f32,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// The response's text as drawn: markers of thinking and tool calls included, end token excluded.
    pub text: String,
    /// Where its thinking, words and calls lie.
    pub split: ReplySplit,
}

/// By so much may a token be likelier where it was drawn than under the policy without that being truncation: the two
/// are rounded apart.
const TRUNCATED_NATS: f32 = 1e-4;

impl Completion {
    /// What ratios, drift and importance weights compare a trainer's log-probs with.
    pub fn compared_logprobs(&self) -> &[f32] {
        self.policy_logprobs.as_deref().unwrap_or(&self.rollout_logprobs)
    }

    /// The temperature that it is scored and trained at: the one it was drawn at, and 1 for a greedy draw.
    pub fn trained_temperature(&self) -> f32 {
        if self.temperature < f32::MIN_POSITIVE { 1.0 } else { self.temperature }
    }

    /// Tokens that were drawn from less than the whole distribution: greedily, or from what top-p, top-k or min-p left.
    pub fn truncated_tokens(&self) -> usize {
        if self.temperature < f32::MIN_POSITIVE {
            return self.response_ids.len();
        }
        let pairs = self.rollout_logprobs.iter().zip(self.compared_logprobs());
        pairs.filter(|(drawn, policy)| **drawn > **policy + TRUNCATED_NATS).count()
    }

    /// What a reader sees of it: what stands behind its thinking, tool calls included.
    pub fn answer(&self) -> &str {
        self.split.answer(&self.text)
    }
}

/// One assistant response and the request it answered.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Turn {
    /// Its name.
    pub id: TurnId,
    /// Its conversation.
    pub session: SessionId,
    /// Number of this main turn in its session, from 1.
    pub index: u32,
    /// Whether it may be trained on.
    pub kind: TurnKind,
    /// `X-No-Train: 1` keeps a turn out of the samples.
    pub trainable: bool,
    /// The request's messages as rendered: normalised roles, text contents, transient carriers included.
    #[serde(with = "json_text")]
    pub messages: Arc<Vec<Value>>,
    /// The request's tools, as rendered.
    #[serde(with = "json_text")]
    pub tools: Arc<Vec<Value>>,
    /// `chat_template_kwargs` of the request, as rendered.
    #[serde(with = "json_text")]
    pub template_kwargs: Arc<serde_json::Map<String, Value>>,
    /// What was drawn.
    pub completion: Completion,
}

/// Who produced a next state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NextStateKind {
    /// A person's (or simulated person's) message.
    User,
    /// One or more tool results.
    Tool,
    /// `POST /v1/feedback`.
    Feedback,
}

/// What followed a turn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NextState {
    /// Who produced it.
    pub kind: NextStateKind,
    /// Its text; several messages are joined by blank lines.
    pub text: String,
    /// An explicit rating, from `POST /v1/feedback` or a rule: +1 or -1. No judge is asked then.
    pub rating: Option<i8>,
    /// A tool reported an error.
    pub is_error: bool,
    /// The rating is a rule's of the environment, and this is why; none where a person gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_rule: Option<String>,
    /// What a screen showed, of a step that acted on one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub screen: Option<Screen>,
}

/// A screen around a step. Its images are named by the SHA-256 of their bytes, which lie in the run's folder of images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Screen {
    /// What it showed before.
    pub before: Option<String>,
    /// What it showed then.
    pub after: String,
    /// Where the step has pointed last, from 0 at the left and at the top to 1.
    pub point: Option<(f32, f32)>,
}
