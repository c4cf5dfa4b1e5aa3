//! Items of a response's input as chat messages: what the assistant thought, said and called one after another is one
//! message.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::{super::errors::ApiError, fields::wrong};

/// Appends an input's messages; items that nothing is known of are counted.
pub fn messages_of(
    input: &Value,
    messages: &mut Vec<Value>,
    unseen: &mut BTreeMap<&'static str, u64>,
) -> Result<(), ApiError> {
    let items = match input {
        Value::String(text) => {
            messages.push(json!({"role": "user", "content": text}));
            return Ok(());
        }
        Value::Array(items) => items,
        other => return Err(wrong("input", "a string or an array of items", other)),
    };
    // The message that further items of the assistant belong to.
    let mut open = false;
    for (i, item) in items.iter().enumerate() {
        let path = format!("input[{i}]");
        let fields = item.as_object().ok_or_else(|| wrong(&path, "an object", item))?;
        let text = |name: &str| {
            let value = fields.get(name).unwrap_or(&Value::Null);
            value.as_str().ok_or_else(|| wrong(&format!("{path}.{name}"), "a string", value))
        };
        match fields.get("type").and_then(Value::as_str) {
            None | Some("message") => {
                let role = text("role")?;
                if !matches!(role, "user" | "system" | "developer" | "assistant") {
                    let path = format!("{path}.role");
                    let message = format!("Invalid value for '{path}': '{role}'.");
                    return Err(ApiError::invalid(path, message));
                }
                let content = fields.get("content").unwrap_or(&Value::Null);
                let content = content_of(content, &format!("{path}.content"))?;
                if role != "assistant" {
                    open = false;
                    messages.push(json!({"role": role, "content": content}));
                    continue;
                }
                let message = assistant(messages, &mut open, |last| {
                    last["content"].is_null() && last.get("tool_calls").is_none()
                });
                message["content"] = content;
            }
            Some("reasoning") => {
                let thought = thought_of(item);
                let message = assistant(messages, &mut open, |last| {
                    last["content"].is_null()
                        && last.get("tool_calls").is_none()
                        && last.get("reasoning_content").is_none()
                });
                if !thought.is_empty() {
                    message["reasoning_content"] = thought.into();
                }
            }
            Some(kind @ ("function_call" | "custom_tool_call")) => {
                let arguments = if kind == "function_call" {
                    text("arguments")?.to_owned()
                } else {
                    json!({"input": text("input")?}).to_string()
                };
                let function = json!({"name": text("name")?, "arguments": arguments});
                let call = json!({"id": text("call_id")?, "type": "function", "function": function});
                let message = assistant(messages, &mut open, |_| true);
                match &mut message["tool_calls"] {
                    Value::Array(calls) => calls.push(call),
                    calls => *calls = json!([call]),
                }
            }
            Some("function_call_output" | "custom_tool_call_output") => {
                open = false;
                let output = fields.get("output").unwrap_or(&Value::Null);
                let content = content_of(output, &format!("{path}.output"))?;
                messages.push(json!({"role": "tool", "tool_call_id": text("call_id")?, "content": content}));
            }
            // A call of a tool that only OpenAI runs, say.
            Some(_) => *unseen.entry("item").or_default() += 1,
        }
    }
    // A thought alone, which nothing followed, is no message.
    let said = |message: &Value| !message["content"].is_null() || message.get("tool_calls").is_some();
    messages.retain(|message| message["role"] != "assistant" || said(message));
    Ok(())
}

/// The assistant's open message, if it can take more of this kind; else a new one.
fn assistant<'a>(
    messages: &'a mut Vec<Value>,
    open: &mut bool,
    fits: impl Fn(&Value) -> bool,
) -> &'a mut Value {
    if !*open || !messages.last().is_some_and(fits) {
        messages.push(json!({"role": "assistant", "content": null}));
        *open = true;
    }
    messages.last_mut().expect("one was pushed if there was none")
}

fn content_of(content: &Value, path: &str) -> Result<Value, ApiError> {
    match content {
        Value::String(_) => Ok(content.clone()),
        Value::Array(parts) => {
            for (i, part) in parts.iter().enumerate() {
                let path = format!("{path}[{i}]");
                let fields = part.as_object().ok_or_else(|| wrong(&path, "an object", part))?;
                let kind = fields.get("type").unwrap_or(&Value::Null);
                kind.as_str().ok_or_else(|| wrong(&format!("{path}.type"), "a string", kind))?;
            }
            Ok(content.clone())
        }
        other => Err(wrong(path, "a string or an array of parts", other)),
    }
}

fn thought_of(item: &Value) -> String {
    let parts = item["content"].as_array().filter(|parts| !parts.is_empty());
    let parts = parts.or_else(|| item["summary"].as_array()).into_iter().flatten();
    parts.filter_map(|part| part["text"].as_str()).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(input: Value) -> (Vec<Value>, BTreeMap<&'static str, u64>) {
        let (mut messages, mut unseen) = (Vec::new(), BTreeMap::new());
        messages_of(&input, &mut messages, &mut unseen).expect("a fine input");
        (messages, unseen)
    }

    #[test]
    fn what_the_assistant_did_at_once_is_one_message() {
        let (messages, unseen) = read(json!([
            {"role": "user", "content": [{"type": "input_text", "text": "weather?"}]},
            {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I look."}]},
            {"type": "function_call", "call_id": "c1", "name": "get", "arguments": "{\"a\": 1}"},
            {"type": "function_call", "call_id": "c2", "name": "get", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": "rain"},
            {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "sun"}]},
            {"type": "web_search_call", "id": "ws_1"},
            {"role": "assistant", "content": "Rain."},
            {"role": "assistant", "content": "And sun."},
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "left alone"}]},
            {"role": "user", "content": "thanks"}]));
        let call = |id: &str, arguments: &str| json!({"id": id, "type": "function", "function": {"name": "get", "arguments": arguments}});
        assert_eq!(
            messages,
            [
                json!({"role": "user", "content": [{"type": "input_text", "text": "weather?"}]}),
                json!({"role": "assistant", "content": [{"type": "output_text", "text": "I look."}],
                    "reasoning_content": "hm", "tool_calls": [call("c1", "{\"a\": 1}"), call("c2", "{}")]}),
                json!({"role": "tool", "tool_call_id": "c1", "content": "rain"}),
                json!({"role": "tool", "tool_call_id": "c2", "content": [{"type": "input_text", "text": "sun"}]}),
                json!({"role": "assistant", "content": "Rain."}),
                json!({"role": "assistant", "content": "And sun."}),
                json!({"role": "user", "content": "thanks"}),
            ]
        );
        assert_eq!(unseen, BTreeMap::from([("item", 1)]));
    }

    #[test]
    fn an_error_names_the_item() {
        for (input, param) in [
            (json!(5), "input"),
            (json!(["x"]), "input[0]"),
            (json!([{"role": "king", "content": "x"}]), "input[0].role"),
            (json!([{"role": "user"}]), "input[0].content"),
            (json!([{"role": "user", "content": [{"text": "x"}]}]), "input[0].content[0].type"),
            (json!([{"type": "function_call", "name": "f", "arguments": "{}"}]), "input[0].call_id"),
            (json!([{"type": "function_call", "call_id": "c", "arguments": {}}]), "input[0].arguments"),
            (json!([{"type": "function_call_output", "output": "x"}]), "input[0].call_id"),
            (json!([{"type": "function_call_output", "call_id": "c"}]), "input[0].output"),
        ] {
            let error = messages_of(&input, &mut Vec::new(), &mut BTreeMap::new()).expect_err(param);
            assert_eq!(error.param.as_deref(), Some(param), "{input}");
        }
    }
}
