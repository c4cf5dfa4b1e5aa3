//! A chat completion request: read from JSON, every wrong value named. Unknown fields are accepted and ignored.

use serde_json::Value;

use super::{
    super::{
        super::errors::ApiError,
        ask::{Ask, Asked, ToolChoice, tool_name},
        fields::{Fields, boolean, given, integer, object, wrong},
        shape,
    },
    ChatWriter,
};

const MAX_TOP_LOGPROBS: usize = 20;
const MAX_CHOICES: i64 = 16;
const ROLES: [&str; 6] = ["system", "developer", "user", "assistant", "tool", "function"];

/// Reads a body's fields; the messages are taken out.
pub fn read(fields: &mut Fields) -> Result<(Ask, ChatWriter), ApiError> {
    let legacy_call = given(fields, "functions").is_some();
    shape::modernize(fields)?;
    shape::check_tools(fields)?;
    if boolean(fields, "echo")?.unwrap_or(false) {
        return Err(ApiError::invalid("echo", "'echo' is not supported: leave it out."));
    }
    let tools = tools(fields)?;
    let logprobs = boolean(fields, "logprobs")?.unwrap_or(false);
    let token_ids = boolean(fields, "return_token_ids")?.unwrap_or(false);
    let ask = Ask {
        tool_choice: tool_choice(fields, &tools)?,
        tools,
        choices: choices(fields)?,
        max_tokens: max_tokens(fields)?,
        wants_tokens: logprobs || token_ids,
        top_logprobs: top_logprobs(fields, logprobs)?,
        prompt_logprobs: prompt_logprobs(fields)?,
        asked: Asked::Messages(messages(fields)?),
        ..Ask::read(fields)?
    };
    if ask.stream && ask.prompt_logprobs.is_some() {
        let message = "'prompt_logprobs' cannot be streamed.";
        return Err(ApiError::invalid("prompt_logprobs", message));
    }
    let writer = ChatWriter {
        include_usage: include_usage(fields)?,
        logprobs,
        token_ids,
        legacy_call,
        several: ask.choices > 1,
        ids_told: false,
    };
    Ok((ask, writer))
}

/// What the model is shown.
pub fn prompt_ask(fields: &mut Fields) -> Result<Ask, ApiError> {
    let tools = tools(fields)?;
    let asked = Asked::Messages(messages(fields)?);
    Ok(Ask { tool_choice: tool_choice(fields, &tools)?, tools, asked, ..Ask::read(fields)? })
}

/// `n`.
pub fn choices(fields: &Fields) -> Result<usize, ApiError> {
    Ok(integer(fields, "n", 1, MAX_CHOICES)?.map_or(1, |n| n as usize))
}

/// vLLM's `prompt_logprobs`.
pub fn prompt_logprobs(fields: &Fields) -> Result<Option<usize>, ApiError> {
    Ok(integer(fields, "prompt_logprobs", 0, MAX_TOP_LOGPROBS as i64)?.map(|count| count as usize))
}

fn max_tokens(fields: &Fields) -> Result<Option<usize>, ApiError> {
    let old = integer(fields, "max_tokens", 1, i64::MAX)?;
    let new = integer(fields, "max_completion_tokens", 1, i64::MAX)?;
    Ok(new.or(old).map(|tokens| usize::try_from(tokens).unwrap_or(usize::MAX)))
}

fn top_logprobs(fields: &Fields, logprobs: bool) -> Result<usize, ApiError> {
    let count = integer(fields, "top_logprobs", 0, MAX_TOP_LOGPROBS as i64)?.unwrap_or(0) as usize;
    if count > 0 && !logprobs {
        return Err(ApiError::invalid("top_logprobs", "'top_logprobs' needs 'logprobs' to be true."));
    }
    Ok(count)
}

/// `stream_options.include_usage`.
pub fn include_usage(fields: &Fields) -> Result<bool, ApiError> {
    let Some(options) = object(fields, "stream_options")? else { return Ok(false) };
    let Some(value) = given(options, "include_usage") else { return Ok(false) };
    value.as_bool().ok_or_else(|| wrong("stream_options.include_usage", "a boolean", value))
}

/// Taken out of the fields: a long history is held once.
fn messages(fields: &mut Fields) -> Result<Vec<Value>, ApiError> {
    let Some(value) = given(fields, "messages") else {
        return Err(ApiError::invalid("messages", "Missing required parameter: 'messages'."));
    };
    let messages = value.as_array().ok_or_else(|| wrong("messages", "an array of objects", value))?;
    if messages.is_empty() {
        return Err(ApiError::invalid("messages", "'messages' is empty: there is nothing to answer."));
    }
    for (i, message) in messages.iter().enumerate() {
        let path = format!("messages[{i}]");
        let fields = message.as_object().ok_or_else(|| wrong(&path, "an object", message))?;
        check_message(&path, fields)?;
    }
    let Some(Value::Array(messages)) = fields.remove("messages") else { unreachable!("looked at above") };
    Ok(messages)
}

fn check_message(path: &str, fields: &Fields) -> Result<(), ApiError> {
    let role_path = format!("{path}.role");
    let role = fields.get("role").unwrap_or(&Value::Null);
    let role = role.as_str().ok_or_else(|| wrong(&role_path, "a string", role))?;
    if !ROLES.contains(&role) {
        let message = format!("Invalid value for '{role_path}': '{role}' is none of {}.", ROLES.join(", "));
        return Err(ApiError::invalid(role_path, message));
    }
    let content_path = format!("{path}.content");
    match fields.get("content") {
        Some(Value::String(_)) => {}
        Some(Value::Array(parts)) => check_parts(&content_path, parts)?,
        None | Some(Value::Null) if role == "assistant" || role == "tool" => {}
        other => {
            let value = other.unwrap_or(&Value::Null);
            return Err(wrong(&content_path, "a string or an array of parts", value));
        }
    }
    match fields.get("tool_calls") {
        None | Some(Value::Null | Value::Array(_)) => Ok(()),
        Some(other) => Err(wrong(&format!("{path}.tool_calls"), "an array", other)),
    }
}

fn check_parts(path: &str, parts: &[Value]) -> Result<(), ApiError> {
    for (i, part) in parts.iter().enumerate() {
        let path = format!("{path}[{i}]");
        let fields = part.as_object().ok_or_else(|| wrong(&path, "an object", part))?;
        let kind = fields.get("type").unwrap_or(&Value::Null);
        let kind = kind.as_str().ok_or_else(|| wrong(&format!("{path}.type"), "a string", kind))?;
        let text = fields.get("text").unwrap_or(&Value::Null);
        if kind == "text" && !text.is_string() {
            return Err(wrong(&format!("{path}.text"), "a string", text));
        }
    }
    Ok(())
}

fn tools(fields: &Fields) -> Result<Vec<Value>, ApiError> {
    let Some(value) = given(fields, "tools") else { return Ok(Vec::new()) };
    let tools = value.as_array().ok_or_else(|| wrong("tools", "an array", value))?;
    for (i, tool) in tools.iter().enumerate() {
        if !tool.is_object() {
            return Err(wrong(&format!("tools[{i}]"), "an object", tool));
        }
        if tool_name(tool).is_none() {
            let path = format!("tools[{i}].function.name");
            let message = format!("Missing or wrong value for '{path}': a tool is a function with a name.");
            return Err(ApiError::invalid(path, message));
        }
    }
    Ok(tools.clone())
}

fn tool_choice(fields: &Fields, tools: &[Value]) -> Result<ToolChoice, ApiError> {
    let choice = match given(fields, "tool_choice") {
        None => return Ok(ToolChoice::Auto),
        Some(Value::String(choice)) => ToolChoice::of_word("tool_choice", choice)?,
        Some(value @ Value::Object(fields)) => match (shape::allowed_tools(fields)?, tool_name(value)) {
            (Some(allowed), _) => allowed,
            (None, Some(name)) => ToolChoice::Function(name.to_owned()),
            (None, None) => {
                return Err(wrong("tool_choice.function.name", "a string", &value["function"]["name"]));
            }
        },
        Some(other) => return Err(wrong("tool_choice", "a string or an object", other)),
    };
    choice.among(tools)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::super::fields::object_of, *};

    fn read_body(body: &Value) -> Result<(Ask, ChatWriter), ApiError> {
        read(&mut object_of(body.to_string().as_bytes())?)
    }

    fn with(name: &str, value: Value) -> Result<Ask, ApiError> {
        let mut body = json!({"messages": [{"role": "user", "content": "hi"}]});
        body[name] = value;
        read_body(&body).map(|(ask, _)| ask)
    }

    #[test]
    fn every_wrong_value_is_a_400_that_names_its_field() {
        let tool = json!({"type": "function", "function": {"name": "exec"}});
        for (name, value, param) in [
            ("model", json!(7), "model"),
            ("messages", json!("hi"), "messages"),
            ("messages", json!([]), "messages"),
            ("messages", json!(null), "messages"),
            ("messages", json!(["hi"]), "messages[0]"),
            ("messages", json!([{"content": "hi"}]), "messages[0].role"),
            ("messages", json!([{"role": "king", "content": "hi"}]), "messages[0].role"),
            ("messages", json!([{"role": "user"}]), "messages[0].content"),
            ("messages", json!([{"role": "user", "content": 5}]), "messages[0].content"),
            (
                "messages",
                json!([{"role": "user", "content": [{"type": "text"}]}]),
                "messages[0].content[0].text",
            ),
            ("messages", json!([{"role": "assistant", "tool_calls": "x"}]), "messages[0].tool_calls"),
            ("stream", json!("yes"), "stream"),
            ("stream_options", json!({"include_usage": 1}), "stream_options.include_usage"),
            ("temperature", json!("hot"), "temperature"),
            ("temperature", json!(2.5), "temperature"),
            ("top_p", json!(-0.1), "top_p"),
            ("top_k", json!(1.5), "top_k"),
            ("min_p", json!([]), "min_p"),
            ("seed", json!("x"), "seed"),
            ("max_tokens", json!(0), "max_tokens"),
            ("max_completion_tokens", json!("many"), "max_completion_tokens"),
            ("stop", json!(5), "stop"),
            ("stop", json!(["a", 5]), "stop[1]"),
            ("stop", json!([""]), "stop"),
            ("stop", json!(vec!["x"; 17]), "stop"),
            ("logprobs", json!(3), "logprobs"),
            ("top_logprobs", json!(3), "top_logprobs"),
            ("n", json!(17), "n"),
            ("n", json!(0), "n"),
            ("tools", json!({}), "tools"),
            ("tools", json!([{"type": "function"}]), "tools[0].function.name"),
            ("tool_choice", json!("sometimes"), "tool_choice"),
            ("tool_choice", json!("required"), "tool_choice"),
            ("tool_choice", tool.clone(), "tool_choice"),
            ("chat_template_kwargs", json!([]), "chat_template_kwargs"),
            ("chat_template_kwargs", json!({"messages": []}), "chat_template_kwargs.messages"),
            ("chat_template_kwargs", json!({"a": 1, "tools": null}), "chat_template_kwargs.tools"),
            (
                "chat_template_kwargs",
                json!({"add_generation_prompt": false}),
                "chat_template_kwargs.add_generation_prompt",
            ),
            ("chat_template_kwargs", json!({"eos_token": ""}), "chat_template_kwargs.eos_token"),
            ("chat_template_kwargs", json!({"chat_template": "x"}), "chat_template_kwargs.chat_template"),
        ] {
            let error = with(name, value.clone()).expect_err(name);
            assert_eq!(
                (error.status.as_u16(), error.param.as_deref()),
                (400, Some(param)),
                "{name} = {value}"
            );
        }
        for body in ["{", "[]", "\"x\"", ""] {
            assert_eq!(object_of(body.as_bytes()).expect_err(body).code, Some("invalid_json"));
        }
    }

    #[test]
    fn what_clients_really_send_is_read() {
        let body = json!({
            "model": "policy", "stream": true, "stream_options": {"include_usage": true}, "store": false, "n": 1,
            "messages": [{"role": "developer", "content": [{"type": "text", "text": "s"}]},
                {"role": "user", "content": [{"type": "text", "text": "look"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]},
                {"role": "assistant", "content": null, "tool_calls": []}, {"role": "tool", "content": "x"}],
            "tools": [{"type": "function", "function": {"name": "exec"}}, {"function": {"name": "read"}}],
            "tool_choice": {"type": "function", "function": {"name": "read"}}, "max_completion_tokens": 178220,
            "max_tokens": 5, "stop": "END", "seed": -3, "top_k": -1, "temperature": 0, "logprobs": true,
            "top_logprobs": 2, "reasoning_effort": "high", "chat_template_kwargs": {"enable_thinking": true}});
        let (request, writer) = read_body(&body).expect("a fine request");
        assert_eq!(
            (request.max_tokens, request.top_k, request.temperature),
            (Some(178220), Some(0), Some(0.0))
        );
        assert_eq!((request.stop.as_slice(), request.seed), (&["END".to_owned()][..], Some(-3_i64 as u64)));
        assert_eq!((request.stream, writer.include_usage, request.top_logprobs), (true, true, 2));
        assert_eq!(request.shown_tools(), [json!({"function": {"name": "read"}})]);
        assert_eq!(request.template_kwargs["enable_thinking"], json!(true));
    }

    #[test]
    fn with_tool_choice_none_the_model_sees_no_tools() {
        let body = json!({"messages": [{"role": "user", "content": "hi"}], "tool_choice": "none",
            "tools": [{"type": "function", "function": {"name": "exec"}}]});
        let (request, _) = read_body(&body).expect("a fine request");
        assert_eq!((request.tools.len(), request.shown_tools().len()), (1, 0));
    }
}
