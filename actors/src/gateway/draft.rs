//! A reply as it grows: exact tokens for training, parsed text for the client.

use openclaw_journal::{Completion, TurnId};
use openclaw_model::{FinishReason, OutputDelta, OutputParser, ParserConfig, TokenLogprob};

/// Of a call's id, which has 24 with its number: so many are the turn's.
const CALL_DIGITS: usize = 22;

/// What a reply consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Reasoning.
    Reasoning(String),
    /// Words for the reader.
    Content(String),
    /// A tool call.
    Call {
        /// A new id.
        id: String,
        /// The tool's name.
        name: String,
        /// JSON text.
        arguments: String,
    },
}

/// See the file's header.
#[derive(Debug)]
pub struct Draft {
    /// What the ids of its calls begin with.
    calls: String,
    parser: OutputParser,
    response_ids: Vec<u32>,
    rollout_logprobs: Vec<f32>,
    policy_logprobs: Vec<f32>,
    text: String,
    parts: Vec<Part>,
    /// Drawn tokens that nobody has taken yet; `None` when the client wants none.
    tokens: Option<Vec<TokenLogprob>>,
}

impl Draft {
    /// An empty reply.
    pub fn new(turn: &TurnId, parser: ParserConfig, wants_tokens: bool) -> Self {
        let digits = turn.0.bytes().rev().take_while(u8::is_ascii_alphanumeric).take(CALL_DIGITS).count();
        Self {
            calls: format!("call{:0>CALL_DIGITS$}", &turn.0[turn.0.len() - digits..]),
            parser: OutputParser::new(parser),
            response_ids: Vec::new(),
            rollout_logprobs: Vec::new(),
            policy_logprobs: Vec::new(),
            text: String::new(),
            parts: Vec::new(),
            tokens: wants_tokens.then(Vec::new),
        }
    }

    /// Takes a drawn token and the text that became certain with it.
    pub fn push(&mut self, token: TokenLogprob, text: &str) -> Vec<OutputDelta> {
        self.response_ids.push(token.id);
        self.rollout_logprobs.push(token.logprob);
        self.policy_logprobs.push(token.policy_logprob);
        if let Some(tokens) = &mut self.tokens {
            tokens.push(token);
        }
        self.text.push_str(text);
        let mut deltas = self.parser.push(text);
        self.keep(&mut deltas);
        deltas
    }

    /// Takes the text held back until the end.
    pub fn close(&mut self, text: &str) -> Vec<OutputDelta> {
        self.text.push_str(text);
        let mut deltas = self.parser.push(text);
        deltas.extend(self.parser.finish());
        self.keep(&mut deltas);
        deltas
    }

    fn keep(&mut self, deltas: &mut [OutputDelta]) {
        for delta in deltas {
            match (delta, self.parts.last_mut()) {
                (OutputDelta::Reasoning(more), Some(Part::Reasoning(text)))
                | (OutputDelta::Content(more), Some(Part::Content(text))) => text.push_str(more),
                (OutputDelta::Reasoning(text), _) => self.parts.push(Part::Reasoning(text.clone())),
                (OutputDelta::Content(text), _) => self.parts.push(Part::Content(text.clone())),
                (OutputDelta::ToolCallStart { id, name, index }, _) => {
                    // It follows from the turn, so that whoever reads the turn again finds it.
                    *id = format!("{}{index:02x}", self.calls);
                    let (id, name, arguments) = (id.clone(), name.clone(), String::new());
                    self.parts.push(Part::Call { id, name, arguments });
                }
                (OutputDelta::ToolCallArguments { arguments: more, .. }, last) => match last {
                    Some(Part::Call { arguments, .. }) => arguments.push_str(more),
                    _ => unreachable!("a call's arguments follow its start"),
                },
            }
        }
    }

    /// The tokens since the last call, if the client wants them.
    pub fn take_tokens(&mut self) -> Vec<TokenLogprob> {
        self.tokens.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Ids of the tokens drawn.
    pub fn response_ids(&self) -> &[u32] {
        &self.response_ids
    }

    /// What it consists of so far, in order.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The text as drawn.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What was drawn, exactly.
    pub fn into_completion(
        self,
        prompt_ids: Vec<u32>,
        policy_version: u64,
        temperature: f32,
        finish_reason: FinishReason,
    ) -> Completion {
        Completion {
            prompt_ids,
            response_ids: self.response_ids,
            rollout_logprobs: self.rollout_logprobs,
            policy_logprobs: Some(self.policy_logprobs),
            policy_version,
            temperature,
            finish_reason,
            text: self.text,
            split: self.parser.split().clone(),
        }
    }
}
