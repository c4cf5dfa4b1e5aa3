//! A message as Anthropic writes it, whole and as events.

use openclaw_model::{FinishReason, OutputDelta, exact_json};
use serde_json::{Value, json};

use super::{
    super::{super::errors::ApiError, Event, Head, Part, Piece, Reply, Writer},
    error_body,
};

/// See the file's header.
#[derive(Debug, Default)]
pub struct MessagesWriter {
    /// The kind of block that is being told, and how many were told before.
    open: Option<Kind>,
    told: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Thinking,
    ToolUse,
}

impl MessagesWriter {
    /// Opens a block unless one of this kind is open, and ends another one.
    fn block(&mut self, kind: Kind, block: Value) -> Vec<Event> {
        if self.open == Some(kind) && kind != Kind::ToolUse {
            return Vec::new();
        }
        let mut events = Vec::from_iter(self.end_block());
        self.open = Some(kind);
        let start = json!({"type": "content_block_start", "index": self.told, "content_block": block});
        events.push(Event::named("content_block_start", &start));
        events
    }

    fn end_block(&mut self) -> Option<Event> {
        self.open.take()?;
        let stop = json!({"type": "content_block_stop", "index": self.told});
        self.told += 1;
        Some(Event::named("content_block_stop", &stop))
    }

    fn delta(&self, delta: Value) -> Event {
        let body = json!({"type": "content_block_delta", "index": self.told, "delta": delta});
        Event::named("content_block_delta", &body)
    }
}

impl Writer for MessagesWriter {
    fn begin(&mut self, head: &Head) -> Vec<Event> {
        let message = json!({"id": head.id.0, "type": "message", "role": "assistant", "model": head.model,
            "content": [], "stop_reason": null, "stop_sequence": null, "usage": usage(head.prompt_ids.len(), 0, 0),
            "session_id": head.session.0, "policy_version": head.policy_version});
        vec![
            Event::named("message_start", &json!({"type": "message_start", "message": message})),
            Event::named("ping", &json!({"type": "ping"})),
        ]
    }

    fn piece(&mut self, _: &Head, piece: Piece) -> Vec<Event> {
        match piece.delta {
            OutputDelta::Content(text) => {
                let mut events = self.block(Kind::Text, json!({"type": "text", "text": ""}));
                events.push(self.delta(json!({"type": "text_delta", "text": text})));
                events
            }
            OutputDelta::Reasoning(text) => {
                let block = json!({"type": "thinking", "thinking": "", "signature": ""});
                let mut events = self.block(Kind::Thinking, block);
                events.push(self.delta(json!({"type": "thinking_delta", "thinking": text})));
                events
            }
            OutputDelta::ToolCallStart { id, name, .. } => {
                let block = json!({"type": "tool_use", "id": id, "name": name, "input": {}});
                self.block(Kind::ToolUse, block)
            }
            OutputDelta::ToolCallArguments { arguments, .. } => {
                vec![self.delta(json!({"type": "input_json_delta", "partial_json": arguments}))]
            }
        }
    }

    fn end(&mut self, head: &Head, reply: &Reply) -> Vec<Event> {
        let (stop_reason, stop_sequence) = stop(reply);
        let delta = json!({"stop_reason": stop_reason, "stop_sequence": stop_sequence});
        let usage = usage(head.prompt_ids.len(), reply.cached, reply.drawn);
        let body = json!({"type": "message_delta", "delta": delta, "usage": usage});
        self.end_block().into_iter().chain([Event::named("message_delta", &body)]).collect()
    }

    fn close(&mut self, _: &Head, _: &[Reply]) -> Vec<Event> {
        vec![Event::named("message_stop", &json!({"type": "message_stop"}))]
    }

    fn broken(&mut self, error: &ApiError) -> Event {
        Event::named("error", &error_body(error))
    }

    fn whole(&mut self, head: &Head, replies: Vec<Reply>) -> Value {
        let reply = replies.into_iter().next().expect("there is one answer");
        let (stop_reason, stop_sequence) = stop(&reply);
        let usage = usage(head.prompt_ids.len(), reply.cached, reply.drawn);
        let content = reply.parts.iter().cloned().map(|part| match part {
            Part::Content(text) => json!({"type": "text", "text": text}),
            Part::Reasoning(text) => json!({"type": "thinking", "thinking": text, "signature": ""}),
            Part::Call { id, name, arguments } => {
                json!({"type": "tool_use", "id": id, "name": name, "input": input(&arguments)})
            }
        });
        let content: Vec<Value> = content.collect();
        json!({"id": head.id.0, "type": "message", "role": "assistant", "model": head.model, "content": content,
            "stop_reason": stop_reason, "stop_sequence": stop_sequence, "usage": usage,
            "session_id": head.session.0, "policy_version": head.policy_version})
    }
}

fn stop(reply: &Reply) -> (&'static str, Option<&str>) {
    match (&reply.stopped_by, reply.reason) {
        (_, FinishReason::Length) => ("max_tokens", None),
        (Some(stop), _) => ("stop_sequence", Some(stop)),
        (None, _) if reply.has_calls() => ("tool_use", None),
        (None, _) => ("end_turn", None),
    }
}

/// A call's arguments, numbers as they were written.
fn input(arguments: &str) -> Value {
    exact_json::read(arguments).ok().filter(Value::is_object).unwrap_or_else(|| json!({}))
}

/// Tokens read from the cache are not among the input tokens.
fn usage(prompt: usize, cached: usize, drawn: usize) -> Value {
    json!({"input_tokens": prompt - cached, "cache_creation_input_tokens": 0, "cache_read_input_tokens": cached,
        "output_tokens": drawn})
}
