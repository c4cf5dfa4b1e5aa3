//! The wire formats that clients speak, over one neutral ask and answer: sessions, judging, tools, thinking and
//! log-probs are the same for all. A further format is a file here and a line in `routes`.

pub mod ask;
pub mod chat;
pub mod completions;
pub mod fields;
pub mod generate;
pub mod logprobs;
pub mod messages;
pub mod responses;
pub mod shape;

use axum::response::sse;
use openclaw_journal::{SessionId, TurnId};
use openclaw_model::{FinishReason, OutputDelta, TokenLogprob, Tokenizer};
use serde_json::Value;

pub use self::ask::{Ask, Asked, Continues};
use self::fields::Fields;
pub use super::draft::Part;
use super::{Shared, errors::ApiError};

/// A wire format: how a request is read. How its answer is written is its [`Writer`].
pub trait Protocol: 'static {
    /// Of metrics and spans.
    const NAME: &'static str;
    /// What the ids of its answers begin with; 32 hexadecimal digits follow.
    const ID_PREFIX: &'static str;
    /// Writes the answer.
    type Writer: Writer;

    /// Puts what a body names and the journal has into its place.
    fn resolve(fields: &mut Fields, shared: &Shared) -> impl Future<Output = Result<(), ApiError>> + Send {
        let _ = (fields, shared);
        std::future::ready(Ok(()))
    }

    /// Reads a body, and names what is wrong with it. What the ask holds may be taken out of the fields; what names
    /// the session stays there.
    fn read(fields: &mut Fields) -> Result<(Ask, Self::Writer), ApiError>;
}

/// What is known of an answer before its first token.
#[derive(Clone, Debug)]
pub struct Head {
    /// The answer's name, and its first turn's.
    pub id: TurnId,
    /// Unix time, in seconds.
    pub created: u64,
    /// The model's name as it was asked for.
    pub model: String,
    /// The conversation.
    pub session: SessionId,
    /// The version that draws, or drew.
    pub policy_version: u64,
    /// So many answers.
    pub choices: usize,
    /// The rendered prompt.
    pub prompt_ids: Vec<u32>,
    /// Of each token of the prompt but the first, where the client wants them.
    pub prompt_logprobs: Option<PromptLogprobs>,
    /// Spells tokens.
    pub tokenizer: Tokenizer,
}

/// Log-probabilities of a prompt, from its second token on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PromptLogprobs {
    /// One per token.
    pub logprobs: Vec<f32>,
    /// The most likely ones at each place.
    pub top: Vec<Vec<(u32, f32)>>,
}

impl Head {
    /// The 32 digits of its id, for the ids of its items.
    pub fn digits(&self) -> &str {
        self.id.0.rsplit(['-', '_']).next().unwrap_or_default()
    }
}

/// More of a reply.
#[derive(Debug)]
pub struct Piece {
    /// Which of the answers.
    pub choice: usize,
    /// What it adds.
    pub delta: OutputDelta,
    /// The tokens drawn since the last piece, if they are wanted.
    pub tokens: Vec<TokenLogprob>,
}

/// A reply that is complete and recorded.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Which of the answers.
    pub choice: usize,
    /// Its turn.
    pub turn: TurnId,
    /// What it consists of, in order.
    pub parts: Vec<Part>,
    /// Why it ended.
    pub reason: FinishReason,
    /// The string that ended it, if one did.
    pub stopped_by: Option<String>,
    /// The tokens that no piece has carried, if they are wanted.
    pub tokens: Vec<TokenLogprob>,
    /// The drawn text, marks of thinking and calls included.
    pub text: String,
    /// Tokens drawn.
    pub drawn: usize,
    /// Prompt tokens that needed no computing.
    pub cached: usize,
}

impl Reply {
    /// Whether it calls a tool.
    pub fn has_calls(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Call { .. }))
    }
}

/// One server-sent event.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Its `event:` line, if it has one.
    pub name: Option<&'static str>,
    /// Its `data:` line.
    pub data: String,
}

impl Event {
    /// Without a name.
    pub fn of(body: &Value) -> Self {
        // JSON text has no line breaks, so it is one line.
        Self { name: None, data: body.to_string() }
    }

    /// What ends OpenAI's streams.
    pub fn done() -> Self {
        Self { name: None, data: "[DONE]".to_owned() }
    }

    /// With a name.
    pub fn named(name: &'static str, body: &Value) -> Self {
        Self { name: Some(name), data: body.to_string() }
    }
}

impl From<Event> for sse::Event {
    fn from(event: Event) -> Self {
        // The name first, as clients that read line by line expect it.
        let lines = event.name.map_or_else(Self::default, |name| Self::default().event(name));
        lines.data(event.data)
    }
}

/// Writes one answer, whole or as a stream.
pub trait Writer: Send + 'static {
    /// What opens a stream.
    fn begin(&mut self, head: &Head) -> Vec<Event>;

    /// What a piece adds to a stream.
    fn piece(&mut self, head: &Head, piece: Piece) -> Vec<Event>;

    /// What ends a reply in a stream.
    fn end(&mut self, head: &Head, reply: &Reply) -> Vec<Event>;

    /// What ends a stream, all replies of which have ended.
    fn close(&mut self, head: &Head, replies: &[Reply]) -> Vec<Event>;

    /// What a stream breaks with.
    fn broken(&mut self, error: &ApiError) -> Event;

    /// The body of an answer that is no stream.
    fn whole(&mut self, head: &Head, replies: Vec<Reply>) -> Value;
}
