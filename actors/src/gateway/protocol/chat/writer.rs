//! A chat completion as OpenAI writes it. Beside OpenAI's fields stand `session_id` and `policy_version`.

use openclaw_model::{FinishReason, OutputDelta, TokenLogprob};
use serde_json::{Map, Value, json};

use super::super::{
    super::errors::ApiError,
    Event, Head, Part, Piece, Reply, Writer,
    logprobs::{prompt_entries, token_entry},
};

/// See the file's header.
#[derive(Debug)]
pub struct ChatWriter {
    /// A stream ends with a chunk of token counts.
    pub include_usage: bool,
    /// `logprobs`.
    pub logprobs: bool,
    /// `return_token_ids`.
    pub token_ids: bool,
    /// The client asked with `functions`, and is answered with `function_call`.
    pub legacy_call: bool,
    /// `n` is more than one: each choice names its turn.
    pub several: bool,
    /// The stream has told the prompt's ids.
    pub ids_told: bool,
}

impl Writer for ChatWriter {
    fn begin(&mut self, head: &Head) -> Vec<Event> {
        let choices = 0..head.choices;
        choices
            .map(|choice| self.delta(head, choice, json!({"role": "assistant", "content": ""}), &[]))
            .collect()
    }

    fn piece(&mut self, head: &Head, piece: Piece) -> Vec<Event> {
        let delta = self.delta_of(piece.delta);
        vec![self.delta(head, piece.choice, delta, &piece.tokens)]
    }

    fn end(&mut self, head: &Head, reply: &Reply) -> Vec<Event> {
        let finish_reason = self.finish_reason(reply);
        let mut choice = self.choice(head, reply.choice, &reply.tokens, ("delta", json!({})));
        choice.insert("finish_reason".into(), finish_reason.into());
        if self.several {
            choice.insert("turn_id".into(), (*reply.turn.0).into());
        }
        vec![self.chunk(head, json!([choice]), Value::Null)]
    }

    fn close(&mut self, head: &Head, replies: &[Reply]) -> Vec<Event> {
        let usage = self.include_usage.then(|| self.chunk(head, json!([]), usage(head, replies)));
        usage.into_iter().chain([Event::done()]).collect()
    }

    fn broken(&mut self, error: &ApiError) -> Event {
        Event::of(&error.body())
    }

    fn whole(&mut self, head: &Head, replies: Vec<Reply>) -> Value {
        let mut body = envelope(head, "chat.completion");
        let usage = usage(head, &replies);
        let choices = replies.into_iter().map(|reply| {
            let finish_reason = self.finish_reason(&reply);
            let message = ("message", self.message(&reply.parts));
            let mut choice = self.choice(head, reply.choice, &reply.tokens, message);
            choice.insert("finish_reason".into(), finish_reason.into());
            if self.several {
                choice.insert("turn_id".into(), (*reply.turn.0).into());
            }
            Value::Object(choice)
        });
        body.insert("choices".into(), choices.collect());
        body.insert("usage".into(), usage);
        if self.token_ids {
            body.insert("prompt_token_ids".into(), head.prompt_ids.as_slice().into());
        }
        if let Some(prompt) = &head.prompt_logprobs {
            body.insert("prompt_logprobs".into(), prompt_entries(head, prompt));
        }
        Value::Object(body)
    }
}

impl ChatWriter {
    fn delta(&mut self, head: &Head, choice: usize, delta: Value, tokens: &[TokenLogprob]) -> Event {
        let mut choice = self.choice(head, choice, tokens, ("delta", delta));
        choice.insert("finish_reason".into(), Value::Null);
        self.chunk(head, json!([choice]), Value::Null)
    }

    fn choice(
        &self,
        head: &Head,
        index: usize,
        tokens: &[TokenLogprob],
        (name, said): (&str, Value),
    ) -> Map<String, Value> {
        let mut choice = Map::new();
        choice.insert("index".into(), index.into());
        choice.insert(name.into(), said);
        let entries = || tokens.iter().map(|token| token_entry(token, &head.tokenizer)).collect::<Vec<_>>();
        let told = self.logprobs && !tokens.is_empty();
        let logprobs = told.then(|| json!({"content": entries(), "refusal": null}));
        choice.insert("logprobs".into(), logprobs.unwrap_or_default());
        if self.token_ids {
            choice.insert("token_ids".into(), tokens.iter().map(|token| token.id).collect());
        }
        choice
    }

    fn chunk(&mut self, head: &Head, choices: Value, usage: Value) -> Event {
        let mut chunk = envelope(head, "chat.completion.chunk");
        chunk.insert("choices".into(), choices);
        if self.include_usage {
            chunk.insert("usage".into(), usage);
        }
        if self.token_ids && !std::mem::replace(&mut self.ids_told, true) {
            chunk.insert("prompt_token_ids".into(), head.prompt_ids.as_slice().into());
        }
        Event::of(&Value::Object(chunk))
    }

    fn delta_of(&self, delta: OutputDelta) -> Value {
        let function = |function: Value, index: usize, id: Option<String>| match (self.legacy_call, id) {
            (true, _) => json!({"function_call": function}),
            (false, Some(id)) => {
                json!({"tool_calls": [{"index": index, "id": id, "type": "function", "function": function}]})
            }
            (false, None) => json!({"tool_calls": [{"index": index, "function": function}]}),
        };
        match delta {
            OutputDelta::Reasoning(text) => json!({"reasoning_content": text}),
            OutputDelta::Content(text) => json!({"content": text}),
            OutputDelta::ToolCallStart { index, id, name } => {
                function(json!({"name": name, "arguments": ""}), index, Some(id))
            }
            OutputDelta::ToolCallArguments { index, arguments } => {
                function(json!({"arguments": arguments}), index, None)
            }
        }
    }

    fn message(&self, parts: &[Part]) -> Value {
        let mut message = message(parts);
        if let Some(fields) = message.as_object_mut() {
            if self.legacy_call
                && let Some(calls) = fields.shift_remove("tool_calls")
            {
                fields.insert("function_call".into(), calls[0]["function"].clone());
            }
            fields.insert("refusal".into(), Value::Null);
        }
        message
    }

    fn finish_reason(&self, reply: &Reply) -> &'static str {
        match reply.reason {
            FinishReason::Length => "length",
            _ if !reply.has_calls() => "stop",
            _ if self.legacy_call => "function_call",
            _ => "tool_calls",
        }
    }
}

/// A reply as an assistant message.
pub fn message(parts: &[Part]) -> Value {
    let (mut content, mut reasoning, mut calls) = (String::new(), String::new(), Vec::new());
    for part in parts {
        match part {
            Part::Reasoning(text) => reasoning.push_str(text),
            Part::Content(text) => content.push_str(text),
            Part::Call { id, name, arguments } => {
                let function = json!({"name": name, "arguments": arguments});
                calls.push(json!({"id": id, "type": "function", "function": function}));
            }
        }
    }
    let mut message = Map::new();
    message.insert("role".into(), "assistant".into());
    let no_content = content.is_empty() && !calls.is_empty();
    message.insert("content".into(), if no_content { Value::Null } else { content.into() });
    if !reasoning.is_empty() {
        message.insert("reasoning_content".into(), reasoning.into());
    }
    if !calls.is_empty() {
        message.insert("tool_calls".into(), calls.into());
    }
    Value::Object(message)
}

/// What every body and chunk begins with.
pub fn envelope(head: &Head, object: &str) -> Map<String, Value> {
    let mut envelope = Map::new();
    envelope.insert("id".into(), (*head.id.0).into());
    envelope.insert("object".into(), object.into());
    envelope.insert("created".into(), head.created.into());
    envelope.insert("model".into(), head.model.as_str().into());
    envelope.insert("session_id".into(), (*head.session.0).into());
    envelope.insert("policy_version".into(), head.policy_version.into());
    // What OpenAI calls the configuration that a seed is repeatable with.
    envelope.insert("system_fingerprint".into(), format!("v{}", head.policy_version).into());
    envelope
}

/// Token counts over all replies.
pub fn usage(head: &Head, replies: &[Reply]) -> Value {
    let prompt = head.prompt_ids.len();
    let drawn: usize = replies.iter().map(|reply| reply.drawn).sum();
    let cached = replies.iter().map(|reply| reply.cached).max().unwrap_or(0);
    json!({
        "prompt_tokens": prompt,
        "completion_tokens": drawn,
        "total_tokens": prompt + drawn,
        "prompt_tokens_details": {"cached_tokens": cached},
    })
}
