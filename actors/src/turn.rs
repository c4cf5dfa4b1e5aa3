//! What a conversation leaves behind: turns, next states, verdicts, hints and samples.

use std::{fmt, sync::Arc};

use openclaw_model::FinishReason;
use serde::{Deserialize, Serialize};
use serde_json::Value;

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
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    /// The rendered prompt.
    pub prompt_ids: Vec<u32>,
    /// The drawn tokens, the end token included.
    pub response_ids: Vec<u32>,
    /// Log-probability of each drawn token under the distribution it was drawn from.
    pub rollout_logprobs: Vec<f32>,
    /// The version of the weights that drew every token.
    pub policy_version: u64,
    /// Sampling temperature.
    pub temperature: f32,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// The response's text as drawn: markers of thinking and tool calls included, end token excluded.
    pub text: String,
}

/// One assistant response and the request it answered.
#[derive(Clone, Debug)]
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
    pub messages: Arc<Vec<Value>>,
    /// The request's tools, as rendered.
    pub tools: Arc<Vec<Value>>,
    /// `chat_template_kwargs` of the request, as rendered.
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
    /// An explicit rating, from `POST /v1/feedback`: +1 or -1. No judge is asked then.
    pub rating: Option<i8>,
    /// A tool reported an error.
    pub is_error: bool,
}

/// Asks the pipeline to judge a turn whose next state is known.
#[derive(Clone, Debug)]
pub struct Evaluate {
    /// The main turn.
    pub turn: Arc<Turn>,
    /// What followed it.
    pub next_state: NextState,
}

/// One sample of the judge: +1, -1 or 0, or none when it could not be read.
pub type Vote = Option<i8>;

/// The majority of the votes, and how it came about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// +1, -1 or 0; `None` when no vote could be read.
    pub reward: Option<i8>,
    /// The votes; empty when a rule decided, unless a person overruled them.
    pub votes: Vec<Vote>,
    /// Which rule decided, if one did: `empty`, `truncated`, `repeat`, `tool_error`, `rating`.
    pub rule: Option<String>,
}

/// Distillation targets of one response token: the student's top-k ids and what both say of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidates {
    /// Ids, best first.
    pub ids: Vec<u32>,
    /// log p_old of each id.
    pub old_logprobs: Vec<f32>,
    /// log p_teacher of each id, under the hinted prompt.
    pub teacher_logprobs: Vec<f32>,
}

/// The teacher's view of one turn.
#[derive(Clone, Debug, PartialEq)]
pub struct TeacherSignal {
    /// The hint it was shown.
    pub hint: String,
    /// log p_teacher of each response token under the hinted prompt.
    pub logprobs: Vec<f32>,
    /// log p of each response token under the plain prompt, by the same scoring code.
    pub old_logprobs: Vec<f32>,
    /// The student's top-k ids per response token; empty when the method needs none.
    pub student_top: Vec<Candidates>,
    /// The teacher's top-k ids per response token; empty when the method needs none.
    pub teacher_top: Vec<Candidates>,
}

/// A judged turn, ready for the optimizer. Signals, not advantages: the method makes those.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The turn.
    pub turn: Arc<Turn>,
    /// Its verdict.
    pub verdict: Verdict,
    /// The teacher's signal, when a hint was found.
    pub teacher: Option<TeacherSignal>,
}
