//! A request for a message.

use serde_json::{Value, json};

use super::{
    super::{
        super::{
            errors::ApiError,
            person::{UserId, user_id},
        },
        ask::{Ask, Asked, ToolChoice},
        fields::{Fields, boolean, given, integer, object, stops, string, wrong},
    },
    blocks,
    writer::MessagesWriter,
};

/// Reads a body's fields.
pub fn read(fields: &mut Fields) -> Result<(Ask, MessagesWriter), ApiError> {
    let Some(max_tokens) = integer(fields, "max_tokens", 1, i64::MAX)? else {
        return Err(ApiError::invalid("max_tokens", "Missing required parameter: 'max_tokens'."));
    };
    let ask = Ask { max_tokens: Some(usize::try_from(max_tokens).unwrap_or(usize::MAX)), ..shown(fields)? };
    Ok((ask, MessagesWriter::default()))
}

/// What the model is shown.
pub fn shown(fields: &mut Fields) -> Result<Ask, ApiError> {
    format(fields)?;
    let tools = blocks::tools(fields)?;
    let mut ask = Ask { tool_choice: tool_choice(fields, &tools)?, tools, ..Ask::read(fields)? };
    let one_at_most = object(fields, "tool_choice")?
        .is_some_and(|it| it.get("disable_parallel_tool_use") == Some(&true.into()));
    if one_at_most {
        ask.shape.parallel_tool_calls = Some(false);
    }
    ask.stop = stops(fields, "stop_sequences")?;
    if let Some(thinking) = object(fields, "thinking")? {
        let kind = string(thinking, "type")?;
        // `adaptive` leaves it to the model.
        let enabled = match kind.as_deref() {
            Some("enabled") => Some(true),
            Some("disabled") => Some(false),
            _ => None,
        };
        if let Some(enabled) = enabled {
            ask.template_kwargs.entry("enable_thinking").or_insert(enabled.into());
        }
    }
    let messages = blocks::messages(fields, &mut ask.unseen)?;
    let system = blocks::system(fields)?;
    fields.remove("messages");
    ask.asked = Asked::Messages(system.into_iter().chain(messages).collect());
    name_session(fields);
    Ok(ask)
}

/// `output_format`, or `output_config.format`, says what chat completions say with `response_format`.
fn format(fields: &mut Fields) -> Result<(), ApiError> {
    let config = object(fields, "output_config")?.and_then(|config| given(config, "format"));
    let Some(format) = given(fields, "output_format").or(config).cloned() else { return Ok(()) };
    let stated = format.as_object().ok_or_else(|| wrong("output_format", "an object", &format))?;
    if stated.get("type").and_then(Value::as_str) != Some("json_schema") {
        let message = "Invalid value for 'output_format.type': only json_schema is supported.";
        return Err(ApiError::invalid("output_format.type", message));
    }
    let schema = stated.get("schema").unwrap_or(&Value::Null);
    let format = json!({"type": "json_schema", "json_schema": {"schema": schema, "strict": true}});
    fields.insert("response_format".to_owned(), format);
    Ok(())
}

/// `metadata.user_id` names the person, and Claude Code's the session within.
fn name_session(fields: &mut Fields) {
    let Some(UserId { person, session }) = user_id(fields) else { return };
    if let Some(session) = session {
        fields.entry("conversation").or_insert(session.into());
    }
    if !person.is_empty() {
        fields.entry("user").or_insert(person.into());
    }
}

fn tool_choice(fields: &Fields, tools: &[Value]) -> Result<ToolChoice, ApiError> {
    let Some(choice) = object(fields, "tool_choice")? else { return Ok(ToolChoice::Auto) };
    let kind = choice.get("type").unwrap_or(&Value::Null);
    let kind = kind.as_str().ok_or_else(|| wrong("tool_choice.type", "a string", kind))?;
    boolean(choice, "disable_parallel_tool_use")?;
    let choice = match kind {
        "auto" => ToolChoice::Auto,
        "none" => ToolChoice::None,
        "any" => ToolChoice::Required,
        "tool" => match given(choice, "name") {
            Some(Value::String(name)) => ToolChoice::Function(name.clone()),
            name => return Err(wrong("tool_choice.name", "a string", name.unwrap_or(&Value::Null))),
        },
        other => {
            let message =
                format!("Invalid value for 'tool_choice.type': '{other}' is none of auto, any, tool, none.");
            return Err(ApiError::invalid("tool_choice.type", message));
        }
    };
    choice.among(tools)
}
