//! A response as OpenAI writes it, whole and as events.

use std::time::SystemTime;

use openclaw_model::{FinishReason, OutputDelta};
use serde_json::{Map, Value, json};

use super::super::{
    super::{errors::ApiError, models::unix_secs},
    Event, Head, Part, Piece, Reply, Writer,
};

/// See the file's header.
#[derive(Debug)]
pub struct ResponsesWriter {
    /// What is said again of the request.
    echo: Map<String, Value>,
    /// Tools that take a text and not arguments.
    custom: Vec<String>,
    store: bool,
    /// Number of the next event.
    sequence: u64,
    /// The item that is being told, and how many were told before.
    open: Option<Part>,
    told: usize,
    /// As it was when the stream began, for the event that breaks it.
    begun: Value,
}

impl ResponsesWriter {
    pub(super) fn new(echo: Map<String, Value>, custom: Vec<String>, store: bool) -> Self {
        Self { echo, custom, store, sequence: 0, open: None, told: 0, begun: Value::Null }
    }

    fn event(&mut self, name: &'static str, mut fields: Value) -> Event {
        fields["type"] = name.into();
        fields["sequence_number"] = self.sequence.into();
        self.sequence += 1;
        Event::named(name, &fields)
    }

    /// An event about the item that is being told.
    fn item_event(&mut self, head: &Head, name: &'static str, mut fields: Value) -> Event {
        let part = self.open.as_ref().expect("an item is being told");
        fields["item_id"] = self.item_id(head, part, self.told).into();
        fields["output_index"] = self.told.into();
        if !matches!(part, Part::Call { .. }) {
            fields["content_index"] = 0.into();
        }
        self.event(name, fields)
    }

    fn begin_item(&mut self, head: &Head, part: Part) -> Vec<Event> {
        let mut item = self.item(head, &part, self.told);
        item["status"] = "in_progress".into();
        if let Some(content) = item.get_mut("content") {
            *content = json!([]);
        }
        let part = self.open.insert(part);
        let content = content_part(part, "");
        let mut events =
            vec![self.event("response.output_item.added", json!({"output_index": self.told, "item": item}))];
        if let Some(content) = content {
            events.push(self.item_event(head, "response.content_part.added", json!({"part": content})));
        }
        events
    }

    fn end_item(&mut self, head: &Head) -> Vec<Event> {
        let Some(part) = &self.open else { return Vec::new() };
        let item = self.item(head, part, self.told);
        let mut events = match part.clone() {
            Part::Content(text) => {
                let done = json!({"text": text, "logprobs": []});
                vec![self.item_event(head, "response.output_text.done", done)]
            }
            Part::Reasoning(text) => {
                vec![self.item_event(head, "response.reasoning_text.done", json!({"text": text}))]
            }
            Part::Call { name, .. } if self.custom.contains(&name) => {
                let done = json!({"input": item["input"]});
                vec![self.item_event(head, "response.custom_tool_call_input.done", done)]
            }
            Part::Call { name, arguments, .. } => {
                let done = json!({"name": name, "arguments": arguments});
                vec![self.item_event(head, "response.function_call_arguments.done", done)]
            }
        };
        if let Some(content) = item.get("content").map(|content| content[0].clone()) {
            events.push(self.item_event(head, "response.content_part.done", json!({"part": content})));
        }
        let done = json!({"output_index": self.told, "item": item});
        events.push(self.event("response.output_item.done", done));
        self.open = None;
        self.told += 1;
        events
    }

    fn item_id(&self, head: &Head, part: &Part, index: usize) -> String {
        let kind = match part {
            Part::Content(_) => "msg",
            Part::Reasoning(_) => "rs",
            Part::Call { name, .. } if self.custom.contains(name) => "ctc",
            Part::Call { .. } => "fc",
        };
        format!("{kind}_{}{index:02x}", head.digits())
    }

    /// An item of the output.
    pub(super) fn item(&self, head: &Head, part: &Part, index: usize) -> Value {
        let id = self.item_id(head, part, index);
        match part {
            Part::Content(text) => json!({"id": id, "type": "message", "status": "completed",
                "role": "assistant", "content": [content_part(part, text)]}),
            Part::Reasoning(text) => json!({"id": id, "type": "reasoning", "status": "completed",
                "summary": [], "content": [content_part(part, text)]}),
            Part::Call { id: call_id, name, arguments } if self.custom.contains(name) => {
                let input = serde_json::from_str::<Value>(arguments).ok();
                let input = input.and_then(|input| Some(input["input"].as_str()?.to_owned()));
                json!({"id": id, "type": "custom_tool_call", "status": "completed", "call_id": call_id,
                    "name": name, "input": input.unwrap_or_else(|| arguments.clone())})
            }
            Part::Call { id: call_id, name, arguments } => json!({"id": id, "type": "function_call",
                "status": "completed", "call_id": call_id, "name": name, "arguments": arguments}),
        }
    }

    /// The response so far; ended, it has a reply.
    pub(super) fn response(&self, head: &Head, reply: Option<&Reply>) -> Value {
        let cut = reply.is_some_and(|reply| reply.reason == FinishReason::Length);
        let status = match reply {
            None => "in_progress",
            Some(_) if cut => "incomplete",
            Some(_) => "completed",
        };
        let mut output: Vec<Value> = Vec::new();
        for (index, part) in reply.into_iter().flat_map(|reply| reply.parts.iter().enumerate()) {
            output.push(self.item(head, part, index));
        }
        match output.last_mut() {
            Some(last) if cut => last["status"] = "incomplete".into(),
            // Clients look for a message.
            None if reply.is_some() => output.push(self.item(head, &Part::Content(String::new()), 0)),
            _ => {}
        }
        let mut response = json!({
            "id": head.id.0, "object": "response", "created_at": head.created, "status": status,
            "completed_at": reply.map(|_| unix_secs(SystemTime::now()).max(head.created)), "background": false, "error": null,
            "incomplete_details": cut.then(|| json!({"reason": "max_output_tokens"})),
            "instructions": null, "max_output_tokens": null, "max_tool_calls": null, "model": head.model,
            "output": output, "parallel_tool_calls": true, "previous_response_id": null,
            "prompt_cache_key": null, "reasoning": {"effort": null, "summary": null},
            "safety_identifier": null, "service_tier": "default", "store": self.store, "temperature": 1.0,
            "text": {"format": {"type": "text"}}, "tool_choice": "auto", "tools": [], "top_logprobs": 0,
            "top_p": 1.0, "truncation": "disabled", "usage": reply.map(|reply| usage(head, reply)),
            "user": null, "metadata": {}, "session_id": head.session.0, "policy_version": head.policy_version,
        });
        for (name, value) in &self.echo {
            response[name.as_str()] = value.clone();
        }
        response
    }
}

impl Writer for ResponsesWriter {
    fn begin(&mut self, head: &Head) -> Vec<Event> {
        self.begun = self.response(head, None);
        let told = || json!({"response": self.begun});
        let (created, progress) = (told(), told());
        vec![self.event("response.created", created), self.event("response.in_progress", progress)]
    }

    fn piece(&mut self, head: &Head, piece: Piece) -> Vec<Event> {
        let mut events = Vec::new();
        let is_custom = matches!(&self.open, Some(Part::Call { name, .. }) if self.custom.contains(name));
        let delta = match piece.delta {
            OutputDelta::Content(text) => {
                if !matches!(self.open, Some(Part::Content(_))) {
                    events.extend(self.end_item(head));
                    events.extend(self.begin_item(head, Part::Content(String::new())));
                }
                let delta = json!({"delta": text, "logprobs": []});
                events.push(self.item_event(head, "response.output_text.delta", delta));
                text
            }
            OutputDelta::Reasoning(text) => {
                if !matches!(self.open, Some(Part::Reasoning(_))) {
                    events.extend(self.end_item(head));
                    events.extend(self.begin_item(head, Part::Reasoning(String::new())));
                }
                events.push(self.item_event(head, "response.reasoning_text.delta", json!({"delta": text})));
                text
            }
            OutputDelta::ToolCallStart { id, name, .. } => {
                events.extend(self.end_item(head));
                events.extend(self.begin_item(head, Part::Call { id, name, arguments: String::new() }));
                String::new()
            }
            // Its text is known when the arguments are complete.
            OutputDelta::ToolCallArguments { arguments, .. } if is_custom => arguments,
            OutputDelta::ToolCallArguments { arguments, .. } => {
                let delta = json!({"delta": arguments});
                events.push(self.item_event(head, "response.function_call_arguments.delta", delta));
                arguments
            }
        };
        let open = self.open.as_mut().expect("every delta has an item");
        let (Part::Content(text) | Part::Reasoning(text) | Part::Call { arguments: text, .. }) = open;
        text.push_str(&delta);
        events
    }

    fn end(&mut self, head: &Head, reply: &Reply) -> Vec<Event> {
        let mut events = Vec::new();
        if reply.parts.is_empty() {
            events.extend(self.begin_item(head, Part::Content(String::new())));
        }
        events.extend(self.end_item(head));
        let cut = reply.reason == FinishReason::Length;
        let name = if cut { "response.incomplete" } else { "response.completed" };
        let response = self.response(head, Some(reply));
        events.push(self.event(name, json!({"response": response})));
        events
    }

    fn close(&mut self, _: &Head, _: &[Reply]) -> Vec<Event> {
        Vec::new()
    }

    fn broken(&mut self, error: &ApiError) -> Event {
        let mut response = std::mem::take(&mut self.begun);
        response["status"] = "failed".into();
        let code = error.code.unwrap_or("server_error");
        response["error"] = json!({"code": code, "message": error.message});
        self.event("response.failed", json!({"response": response}))
    }

    fn whole(&mut self, head: &Head, replies: Vec<Reply>) -> Value {
        self.response(head, replies.first())
    }
}

fn content_part(part: &Part, text: &str) -> Option<Value> {
    match part {
        Part::Content(_) => {
            Some(json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []}))
        }
        Part::Reasoning(_) => Some(json!({"type": "reasoning_text", "text": text})),
        Part::Call { .. } => None,
    }
}

fn usage(head: &Head, reply: &Reply) -> Value {
    let (input, output) = (head.prompt_ids.len(), reply.drawn);
    let thought = reply.parts.iter().map(|part| match part {
        Part::Reasoning(text) => head.tokenizer.encode(text).map_or(0, |ids| ids.len()),
        _ => 0,
    });
    let thought: usize = thought.sum();
    json!({"input_tokens": input, "input_tokens_details": {"cached_tokens": reply.cached},
        "output_tokens": output, "output_tokens_details": {"reasoning_tokens": thought.min(output)},
        "total_tokens": input + output})
}
