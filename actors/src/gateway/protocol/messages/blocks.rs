//! Anthropic's blocks as chat messages, and their tools as chat tools.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::super::{
    super::errors::ApiError,
    fields::{Fields, given, wrong},
};

type Unseen = BTreeMap<&'static str, u64>;

/// A system prompt: a text, or blocks of text.
pub fn system(fields: &Fields) -> Result<Option<Value>, ApiError> {
    let Some(value) = given(fields, "system") else { return Ok(None) };
    let text = text_of(value, "system", &mut Unseen::new())?;
    Ok(Some(json!({"role": "system", "content": text})))
}

/// The messages of a request.
pub fn messages(fields: &Fields, unseen: &mut Unseen) -> Result<Vec<Value>, ApiError> {
    let Some(value) = given(fields, "messages") else {
        return Err(ApiError::invalid("messages", "Missing required parameter: 'messages'."));
    };
    let given_messages = value.as_array().ok_or_else(|| wrong("messages", "an array of objects", value))?;
    if given_messages.is_empty() {
        return Err(ApiError::invalid("messages", "'messages' is empty: there is nothing to answer."));
    }
    let mut messages = Vec::with_capacity(given_messages.len());
    for (i, message) in given_messages.iter().enumerate() {
        let path = format!("messages[{i}]");
        let message = message.as_object().ok_or_else(|| wrong(&path, "an object", message))?;
        let role = message.get("role").unwrap_or(&Value::Null);
        let content = message.get("content").unwrap_or(&Value::Null);
        let content_path = format!("{path}.content");
        match role.as_str() {
            Some("user") => user(content, &content_path, unseen, &mut messages)?,
            Some("assistant") => messages.push(assistant(content, &content_path, unseen)?),
            Some("system") => {
                let text = text_of(content, &content_path, unseen)?;
                messages.push(json!({"role": "system", "content": text}));
            }
            Some(other) => {
                let path = format!("{path}.role");
                let message = format!("Invalid value for '{path}': '{other}' is none of user, assistant.");
                return Err(ApiError::invalid(path, message));
            }
            None => return Err(wrong(&format!("{path}.role"), "a string", role)),
        }
    }
    Ok(messages)
}

/// Results of tools come first, as messages of their own.
fn user(content: &Value, path: &str, unseen: &mut Unseen, messages: &mut Vec<Value>) -> Result<(), ApiError> {
    let Value::Array(blocks) = content else {
        let text = text_of(content, path, unseen)?;
        messages.push(json!({"role": "user", "content": text}));
        return Ok(());
    };
    let mut said = Vec::new();
    for (i, block) in blocks.iter().enumerate() {
        let path = format!("{path}[{i}]");
        if kind(block, &path)? != "tool_result" {
            said.push(block.clone());
            continue;
        }
        let id = &block["tool_use_id"];
        let id = id.as_str().ok_or_else(|| wrong(&format!("{path}.tool_use_id"), "a string", id))?;
        let text = match &block["content"] {
            Value::Null => String::new(),
            result => text_of(result, &format!("{path}.content"), unseen)?,
        };
        let mut result = json!({"role": "tool", "tool_call_id": id, "content": text});
        if block["is_error"] == true {
            result["is_error"] = true.into();
        }
        messages.push(result);
    }
    if !said.is_empty() || blocks.is_empty() {
        let text = text_of(&Value::Array(said), path, unseen)?;
        messages.push(json!({"role": "user", "content": text}));
    }
    Ok(())
}

fn assistant(content: &Value, path: &str, unseen: &mut Unseen) -> Result<Value, ApiError> {
    let Value::Array(blocks) = content else {
        return Ok(json!({"role": "assistant", "content": text_of(content, path, unseen)?}));
    };
    let (mut said, mut thought, mut calls) = (Vec::new(), String::new(), Vec::new());
    for (i, block) in blocks.iter().enumerate() {
        let path = format!("{path}[{i}]");
        let text = |name: &str| {
            let value = &block[name];
            value.as_str().ok_or_else(|| wrong(&format!("{path}.{name}"), "a string", value))
        };
        match kind(block, &path)? {
            "thinking" => thought.push_str(text("thinking")?),
            "redacted_thinking" => {}
            "tool_use" => {
                let input = block["input"].as_object();
                let input =
                    input.ok_or_else(|| wrong(&format!("{path}.input"), "an object", &block["input"]))?;
                let function = json!({"name": text("name")?, "arguments": input});
                calls.push(json!({"id": text("id")?, "type": "function", "function": function}));
            }
            _ => said.push(block.clone()),
        }
    }
    let text = text_of(&Value::Array(said), path, unseen)?;
    let mut message = json!({"role": "assistant", "content": text});
    if !thought.is_empty() {
        message["reasoning_content"] = thought.into();
    }
    if !calls.is_empty() {
        message["tool_calls"] = calls.into();
    }
    Ok(message)
}

/// Blocks of text joined by new lines; what is no text becomes a placeholder, and is counted.
fn text_of(content: &Value, path: &str, unseen: &mut Unseen) -> Result<String, ApiError> {
    let blocks = match content {
        Value::String(text) => return Ok(text.clone()),
        Value::Array(blocks) => blocks,
        other => return Err(wrong(path, "a string or an array of blocks", other)),
    };
    let mut texts = Vec::with_capacity(blocks.len());
    for (i, block) in blocks.iter().enumerate() {
        let path = format!("{path}[{i}]");
        let not_shown = match kind(block, &path)? {
            "text" => {
                let text = &block["text"];
                let text = text.as_str().ok_or_else(|| wrong(&format!("{path}.text"), "a string", text))?;
                texts.push(text.to_owned());
                continue;
            }
            "image" => "image",
            // A document of plain text is one.
            "document" if block["source"]["type"] == "text" => {
                texts.extend(block["source"]["data"].as_str().map(str::to_owned));
                continue;
            }
            "document" => "file",
            "search_result" => {
                texts.push(text_of(&block["content"], &format!("{path}.content"), unseen)?);
                continue;
            }
            // What tools that only Anthropic runs have left.
            _ => {
                *unseen.entry("block").or_default() += 1;
                continue;
            }
        };
        *unseen.entry(not_shown).or_default() += 1;
        texts.push(format!("[{not_shown} not shown]"));
    }
    Ok(texts.join("\n"))
}

fn kind<'a>(block: &'a Value, path: &str) -> Result<&'a str, ApiError> {
    let fields = block.as_object().ok_or_else(|| wrong(path, "an object", block))?;
    let kind = fields.get("type").unwrap_or(&Value::Null);
    kind.as_str().ok_or_else(|| wrong(&format!("{path}.type"), "a string", kind))
}

/// Tools as chat tools. Those that only Anthropic runs are left out.
pub fn tools(fields: &Fields) -> Result<Vec<Value>, ApiError> {
    let Some(value) = given(fields, "tools") else { return Ok(Vec::new()) };
    let given_tools = value.as_array().ok_or_else(|| wrong("tools", "an array", value))?;
    let mut tools = Vec::with_capacity(given_tools.len());
    for (i, tool) in given_tools.iter().enumerate() {
        let path = format!("tools[{i}]");
        let fields = tool.as_object().ok_or_else(|| wrong(&path, "an object", tool))?;
        let kind = given(fields, "type");
        let kind =
            kind.map(|kind| kind.as_str().ok_or_else(|| wrong(&format!("{path}.type"), "a string", kind)));
        if !matches!(kind.transpose()?, None | Some("custom")) {
            metrics::counter!("openclaw_gateway_tools_skipped_total").increment(1);
            continue;
        }
        let name = fields.get("name").unwrap_or(&Value::Null);
        let name = name.as_str().ok_or_else(|| wrong(&format!("{path}.name"), "a string", name))?;
        let schema = fields.get("input_schema").unwrap_or(&Value::Null);
        if !schema.is_object() {
            return Err(wrong(&format!("{path}.input_schema"), "an object", schema));
        }
        let mut function = Map::from_iter([("name".to_owned(), name.into())]);
        function.extend(given(fields, "description").map(|text| ("description".to_owned(), text.clone())));
        function.insert("parameters".into(), schema.clone());
        function.extend(given(fields, "strict").map(|strict| ("strict".to_owned(), strict.clone())));
        tools.push(json!({"type": "function", "function": function}));
    }
    Ok(tools)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(messages_given: Value) -> (Vec<Value>, Unseen) {
        let mut unseen = Unseen::new();
        let fields = Map::from_iter([("messages".to_owned(), messages_given)]);
        let read = messages(&fields, &mut unseen).expect("fine messages");
        (read, unseen)
    }

    #[test]
    fn blocks_become_chat_messages() {
        let (messages, unseen) = read(json!([
            {"role": "user", "content": [{"type": "text", "text": "weather?"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}}]},
            {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm", "signature": ""},
                {"type": "text", "text": "I look."}, {"type": "tool_use", "id": "t1", "name": "get", "input": {"a": 1}}]},
            {"role": "user", "content": [{"type": "text", "text": "be quick"},
                {"type": "tool_result", "tool_use_id": "t1", "is_error": true,
                    "content": [{"type": "text", "text": "no net"}]}]},
            {"role": "assistant", "content": "Sorry."},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t2"}]}]));
        let call =
            json!({"id": "t1", "type": "function", "function": {"name": "get", "arguments": {"a": 1}}});
        assert_eq!(
            messages,
            [
                json!({"role": "user", "content": "weather?\n[image not shown]"}),
                json!({"role": "assistant", "content": "I look.", "reasoning_content": "hm", "tool_calls": [call]}),
                json!({"role": "tool", "tool_call_id": "t1", "content": "no net", "is_error": true}),
                json!({"role": "user", "content": "be quick"}),
                json!({"role": "assistant", "content": "Sorry."}),
                json!({"role": "tool", "tool_call_id": "t2", "content": ""}),
            ]
        );
        assert_eq!(unseen, Unseen::from([("image", 1)]));
    }

    #[test]
    fn an_error_names_the_block() {
        for (content, param) in [
            (json!(5), "messages[0].content"),
            (json!(["x"]), "messages[0].content[0]"),
            (json!([{"text": "x"}]), "messages[0].content[0].type"),
            (json!([{"type": "text"}]), "messages[0].content[0].text"),
            (json!([{"type": "tool_result", "content": "x"}]), "messages[0].content[0].tool_use_id"),
        ] {
            let fields =
                Map::from_iter([("messages".to_owned(), json!([{"role": "user", "content": content}]))]);
            let error = messages(&fields, &mut Unseen::new()).expect_err(param);
            assert_eq!(error.param.as_deref(), Some(param), "{content}");
        }
    }

    #[test]
    fn tools_that_only_anthropic_runs_are_left_out() {
        let given = json!({"tools": [{"type": "web_search_20250305", "name": "web_search"},
            {"name": "get", "description": "d", "input_schema": {"type": "object"}}]});
        let function = json!({"name": "get", "description": "d", "parameters": {"type": "object"}});
        let tools = tools(given.as_object().expect("an object literal")).expect("fine tools");
        assert_eq!(tools, [json!({"type": "function", "function": function})]);
    }
}
