//! A reply as it grows: exact tokens for training, parsed text for the client.

use openclaw_journal::Completion;
use openclaw_model::{FinishReason, OutputDelta, OutputParser, ParserConfig, TokenLogprob, Tokenizer};
use serde_json::{Map, Value, json};

/// JSON has no infinity; this is how OpenAI writes "never".
const LEAST_LOGPROB: f32 = -9999.0;

/// See the file's header.
#[derive(Debug)]
pub struct Draft {
    parser: OutputParser,
    response_ids: Vec<u32>,
    rollout_logprobs: Vec<f32>,
    policy_logprobs: Vec<f32>,
    text: String,
    content: String,
    reasoning: String,
    calls: Vec<Call>,
    /// `logprobs.content` entries that no chunk has carried yet; `None` when the client wants none.
    logprobs: Option<Vec<Value>>,
}

#[derive(Debug)]
struct Call {
    id: String,
    name: String,
    arguments: String,
}

impl Draft {
    /// An empty reply.
    pub fn new(parser: ParserConfig, wants_logprobs: bool) -> Self {
        Self {
            parser: OutputParser::new(parser),
            response_ids: Vec::new(),
            rollout_logprobs: Vec::new(),
            policy_logprobs: Vec::new(),
            text: String::new(),
            content: String::new(),
            reasoning: String::new(),
            calls: Vec::new(),
            logprobs: wants_logprobs.then(Vec::new),
        }
    }

    /// Takes a drawn token and the text that became certain with it.
    pub fn push(&mut self, token: &TokenLogprob, text: &str, tokenizer: &Tokenizer) -> Vec<OutputDelta> {
        self.response_ids.push(token.id);
        self.rollout_logprobs.push(token.logprob);
        self.policy_logprobs.push(token.policy_logprob);
        if let Some(entries) = &mut self.logprobs {
            entries.push(logprob_entry(token, tokenizer));
        }
        self.text.push_str(text);
        let deltas = self.parser.push(text);
        self.keep(&deltas);
        deltas
    }

    /// Takes the text held back until the end.
    pub fn close(&mut self, text: &str) -> Vec<OutputDelta> {
        self.text.push_str(text);
        let mut deltas = self.parser.push(text);
        deltas.extend(self.parser.finish());
        self.keep(&deltas);
        deltas
    }

    fn keep(&mut self, deltas: &[OutputDelta]) {
        for delta in deltas {
            match delta {
                OutputDelta::Reasoning(text) => self.reasoning.push_str(text),
                OutputDelta::Content(text) => self.content.push_str(text),
                OutputDelta::ToolCallStart { id, name, .. } => {
                    self.calls.push(Call { id: id.clone(), name: name.clone(), arguments: String::new() });
                }
                OutputDelta::ToolCallArguments { index, arguments } => {
                    if let Some(call) = self.calls.get_mut(*index) {
                        call.arguments.push_str(arguments);
                    }
                }
            }
        }
    }

    /// `logprobs` of the tokens since the last call; null when the client wants none.
    pub fn take_logprobs(&mut self) -> Value {
        match &mut self.logprobs {
            Some(entries) if !entries.is_empty() => {
                json!({"content": std::mem::take(entries), "refusal": null})
            }
            Some(_) | None => Value::Null,
        }
    }

    /// Tokens drawn.
    pub fn tokens(&self) -> usize {
        self.response_ids.len()
    }

    /// OpenAI's word for the end.
    pub fn finish_reason(&self, reason: FinishReason) -> &'static str {
        match reason {
            FinishReason::Length => "length",
            _ if !self.calls.is_empty() => "tool_calls",
            _ => "stop",
        }
    }

    /// The reply as an assistant message.
    pub fn message(&self) -> Value {
        let mut message = Map::new();
        message.insert("role".into(), "assistant".into());
        let no_content = self.content.is_empty() && !self.calls.is_empty();
        message.insert("content".into(), if no_content { Value::Null } else { self.content.as_str().into() });
        if !self.reasoning.is_empty() {
            message.insert("reasoning_content".into(), self.reasoning.as_str().into());
        }
        if !self.calls.is_empty() {
            let call = |call: &Call| {
                let function = json!({"name": call.name, "arguments": call.arguments});
                json!({"id": call.id, "type": "function", "function": function})
            };
            message.insert("tool_calls".into(), self.calls.iter().map(call).collect());
        }
        Value::Object(message)
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

/// The `delta` of a chunk.
pub fn delta_json(delta: OutputDelta) -> Value {
    match delta {
        OutputDelta::Reasoning(text) => json!({"reasoning_content": text}),
        OutputDelta::Content(text) => json!({"content": text}),
        OutputDelta::ToolCallStart { index, id, name } => {
            let function = json!({"name": name, "arguments": ""});
            json!({"tool_calls": [{"index": index, "id": id, "type": "function", "function": function}]})
        }
        OutputDelta::ToolCallArguments { index, arguments } => {
            json!({"tool_calls": [{"index": index, "function": {"arguments": arguments}}]})
        }
    }
}

/// The model's own log-probabilities, before temperature and truncation: what OpenAI reports, and what the
/// alternatives are measured in. Training compares with the whole distribution at the temperature of the request.
fn logprob_entry(token: &TokenLogprob, tokenizer: &Tokenizer) -> Value {
    let named = |id: u32, logprob: f32| {
        let bytes = tokenizer.token_bytes(id);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        json!({"token": text, "logprob": logprob.max(LEAST_LOGPROB), "bytes": bytes})
    };
    let mut entry = named(token.id, token.raw_logprob);
    entry["top_logprobs"] = token.top.iter().map(|&(id, logprob)| named(id, logprob)).collect();
    entry
}
