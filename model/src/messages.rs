//! Chat messages as clients send them, brought to the one form that chat templates expect.

use std::{borrow::Cow, collections::BTreeMap};

use serde_json::{Map, Value};

use crate::{exact_json, text_error::TextError};

const ROLES: [&str; 4] = ["system", "user", "assistant", "tool"];

/// Checks messages and brings them to the form that templates expect: role `developer` becomes `system`, content
/// becomes a string (parts joined by a newline, null empty; see [`unseen_parts`] for what is no text), tool call arguments become an object where their text
/// is one, and null fields go. Fields it does not know stay.
pub fn normalize_messages(messages: &[Value]) -> Result<Vec<Value>, TextError> {
    messages.iter().enumerate().map(|(i, message)| normalize(message, &format!("messages[{i}]"))).collect()
}

/// How many parts of messages are no text, by what they are: an image, audio, a video or a file. The model is shown a
/// placeholder for each.
pub fn unseen_parts(messages: &[Value]) -> BTreeMap<&'static str, u64> {
    let parts = messages.iter().filter_map(|message| message.get("content")?.as_array()).flatten();
    let mut unseen = BTreeMap::new();
    for kind in parts.filter_map(|part| unseen_kind(part.get("type")?.as_str()?)) {
        *unseen.entry(kind).or_default() += 1;
    }
    unseen
}

/// What a part of this type is, where it is known and no text.
fn unseen_kind(part: &str) -> Option<&'static str> {
    Some(match part {
        "image_url" | "input_image" | "image" => "image",
        "input_audio" | "audio_url" | "audio" => "audio",
        "video_url" | "input_video" | "video" => "video",
        "file" | "input_file" => "file",
        _ => return None,
    })
}

fn normalize(message: &Value, path: &str) -> Result<Value, TextError> {
    let Value::Object(fields) = message else {
        return Err(invalid(path, format!("is {}, not an object", kind(message))));
    };
    let mut fields = fields.clone();

    let role_path = format!("{path}.role");
    let role = match fields.get("role") {
        Some(Value::String(role)) if role == "developer" => "system".to_owned(),
        Some(Value::String(role)) if ROLES.contains(&role.as_str()) => role.clone(),
        Some(Value::String(role)) => {
            return Err(invalid(
                &role_path,
                format!("is {role:?}, not one of {}, developer", ROLES.join(", ")),
            ));
        }
        Some(other) => return Err(invalid(&role_path, format!("is {}, not a string", kind(other)))),
        None => return Err(invalid(&role_path, "is missing".into())),
    };

    let content_path = format!("{path}.content");
    let content = match fields.get("content") {
        None if role != "assistant" => return Err(invalid(&content_path, "is missing".into())),
        content => text_of(content.unwrap_or(&Value::Null), &content_path)?,
    };
    fields.insert("role".into(), role.into());
    fields.insert("content".into(), content.into());

    let reasoning = fields.get("reasoning_content").or_else(|| fields.get("reasoning")).cloned();
    fields.shift_remove("reasoning_content");
    match reasoning {
        None | Some(Value::Null) => {}
        Some(Value::String(reasoning)) => {
            fields.insert("reasoning_content".into(), reasoning.into());
        }
        Some(other) => {
            let problem = format!("is {}, not a string", kind(&other));
            return Err(invalid(&format!("{path}.reasoning_content"), problem));
        }
    }

    match fields.shift_remove("tool_calls") {
        None | Some(Value::Null) => {}
        Some(Value::Array(calls)) => {
            let calls = calls.iter().enumerate();
            let calls: Result<Vec<_>, _> = calls
                .map(|(i, call)| normalize_tool_call(call, &format!("{path}.tool_calls[{i}]")))
                .collect();
            fields.insert("tool_calls".into(), Value::Array(calls?));
        }
        Some(other) => {
            return Err(invalid(&format!("{path}.tool_calls"), format!("is {}, not a list", kind(&other))));
        }
    }
    Ok(Value::Object(fields))
}

fn text_of(content: &Value, path: &str) -> Result<String, TextError> {
    match content {
        Value::Null => Ok(String::new()),
        Value::String(text) => Ok(text.clone()),
        Value::Array(parts) => {
            let mut texts = Vec::with_capacity(parts.len());
            for (i, part) in parts.iter().enumerate() {
                texts.push(text_of_part(part, &format!("{path}[{i}]"))?);
            }
            Ok(texts.join("\n"))
        }
        other => Err(invalid(path, format!("is {}, not a string, a list or null", kind(other)))),
    }
}

fn text_of_part<'a>(part: &'a Value, path: &str) -> Result<Cow<'a, str>, TextError> {
    let Value::Object(fields) = part else {
        return Err(invalid(path, format!("is {}, not an object", kind(part))));
    };
    let key = match fields.get("type").and_then(Value::as_str) {
        Some("text" | "input_text" | "output_text") => "text",
        Some("refusal") => "refusal",
        Some(other) => {
            return match unseen_kind(other) {
                // A 400 would come again with every later request, whose history holds the part.
                Some(unseen) => Ok(format!("[{unseen} not shown]").into()),
                None => Err(invalid(&format!("{path}.type"), format!("is {other:?}, which is not known"))),
            };
        }
        None => return Err(invalid(&format!("{path}.type"), "is missing".into())),
    };
    match fields.get(key) {
        Some(Value::String(text)) => Ok(text.into()),
        Some(other) => Err(invalid(&format!("{path}.{key}"), format!("is {}, not a string", kind(other)))),
        None => Err(invalid(&format!("{path}.{key}"), "is missing".into())),
    }
}

fn normalize_tool_call(call: &Value, path: &str) -> Result<Value, TextError> {
    let Value::Object(call) = call else {
        return Err(invalid(path, format!("is {}, not an object", kind(call))));
    };
    let mut call = call.clone();
    let Some(Value::Object(function)) = call.get_mut("function") else {
        return Err(invalid(&format!("{path}.function"), "is not an object".into()));
    };
    if !matches!(function.get("name"), Some(Value::String(_))) {
        return Err(invalid(&format!("{path}.function.name"), "is not a string".into()));
    }
    let arguments = match function.get("arguments") {
        None | Some(Value::Null) => Value::Object(Map::new()),
        Some(Value::Object(arguments)) => Value::Object(arguments.clone()),
        Some(Value::String(text)) => match exact_json::read(text) {
            Ok(arguments @ Value::Object(_)) => arguments,
            _ if text.trim().is_empty() => Value::Object(Map::new()),
            _ => Value::String(text.clone()),
        },
        Some(other) => {
            let problem = format!("is {}, not a string or an object", kind(other));
            return Err(invalid(&format!("{path}.function.arguments"), problem));
        }
    };
    function.insert("arguments".into(), arguments);
    Ok(Value::Object(call))
}

fn invalid(field: &str, problem: String) -> TextError {
    TextError::Message { field: field.into(), problem }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn client_forms_become_template_forms() {
        let given = [
            json!({"role": "developer", "content": "be brief"}),
            json!({"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}),
            json!({"role": "assistant", "content": null, "reasoning_content": null, "refusal": null, "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{\"x\": [1, 2.0]}"}},
                {"id": "c2", "type": "function", "function": {"name": "g", "arguments": "not json"}},
                {"id": "c3", "type": "function", "function": {"name": "h", "arguments": ""}}]}),
            json!({"role": "tool", "tool_call_id": "c1", "content": ""}),
            json!({"role": "assistant", "reasoning": "hm", "tool_calls": null}),
        ];
        let expected = [
            json!({"role": "system", "content": "be brief"}),
            json!({"role": "user", "content": "a\nb"}),
            json!({"role": "assistant", "content": "", "refusal": null, "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "f", "arguments": {"x": [1, 2.0]}}},
                {"id": "c2", "type": "function", "function": {"name": "g", "arguments": "not json"}},
                {"id": "c3", "type": "function", "function": {"name": "h", "arguments": {}}}]}),
            json!({"role": "tool", "tool_call_id": "c1", "content": ""}),
            json!({"role": "assistant", "content": "", "reasoning": "hm", "reasoning_content": "hm"}),
        ];
        assert_eq!(normalize_messages(&given).unwrap(), expected);
        assert_eq!(normalize_messages(&expected).unwrap(), expected);
    }

    #[test]
    fn what_is_no_text_has_a_placeholder_and_is_counted() {
        let part = |kind: &str| json!({"type": kind, kind: {"url": "data:;base64,AA=="}});
        let text = json!({"type": "text", "text": "what is this?"});
        let messages = [
            json!({"role": "user", "content": [part("image_url"), text, part("input_image")]}),
            json!({"role": "tool", "content": [part("file")]}),
            json!({"role": "user", "content": [part("input_audio"), part("video_url")]}),
        ];
        let normal = normalize_messages(&messages).unwrap();
        let contents = normal.iter().map(|message| message["content"].as_str().unwrap());
        assert_eq!(
            Vec::from_iter(contents),
            [
                "[image not shown]\nwhat is this?\n[image not shown]",
                "[file not shown]",
                "[audio not shown]\n[video not shown]"
            ]
        );
        let counted = [("audio", 1), ("file", 1), ("image", 2), ("video", 1)];
        assert_eq!(Vec::from_iter(unseen_parts(&messages)), counted);
        assert!(unseen_parts(&normal).is_empty());
    }

    #[test]
    fn an_error_names_the_field() {
        let user = json!({"role": "user", "content": "x"});
        let cases = [
            (json!("hi"), "messages[1] is a string, not an object"),
            (json!({"content": "x"}), "messages[1].role is missing"),
            (json!({"role": 3, "content": "x"}), "messages[1].role is a number, not a string"),
            (
                json!({"role": "robot", "content": "x"}),
                "messages[1].role is \"robot\", not one of system, user, assistant, tool, developer",
            ),
            (json!({"role": "user"}), "messages[1].content is missing"),
            (
                json!({"role": "user", "content": {"a": 1}}),
                "messages[1].content is an object, not a string, a list or null",
            ),
            (
                json!({"role": "user", "content": [{"type": "hologram", "hologram": {"url": "x"}}]}),
                "messages[1].content[0].type is \"hologram\", which is not known",
            ),
            (
                json!({"role": "user", "content": [{"type": "text", "text": 1}]}),
                "messages[1].content[0].text is a number, not a string",
            ),
            (
                json!({"role": "assistant", "tool_calls": {}}),
                "messages[1].tool_calls is an object, not a list",
            ),
            (
                json!({"role": "assistant", "tool_calls": [{"function": {"arguments": "{}"}}]}),
                "messages[1].tool_calls[0].function.name is not a string",
            ),
            (
                json!({"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": [1]}}]}),
                "messages[1].tool_calls[0].function.arguments is a list, not a string or an object",
            ),
            (
                json!({"role": "assistant", "reasoning_content": 1}),
                "messages[1].reasoning_content is a number, not a string",
            ),
        ];
        for (message, expected) in cases {
            assert_eq!(normalize_messages(&[user.clone(), message]).unwrap_err().to_string(), expected);
        }
    }
}
