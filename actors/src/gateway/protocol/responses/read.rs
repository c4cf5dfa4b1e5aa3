//! A request for a response. Tools that only OpenAI runs are left out, as other servers do: their clients offer them to
//! everyone.

use openclaw_journal::TurnId;
use serde_json::{Map, Value, json};

use super::{
    super::{
        super::errors::ApiError,
        ask::{Ask, Asked, Continues, ToolChoice},
        fields::{Fields, boolean, given, integer, object, string, wrong},
        shape,
    },
    items::messages_of,
    writer::ResponsesWriter,
};

/// What a response says again of its request.
const ECHOED: [&str; 17] = [
    "instructions",
    "max_output_tokens",
    "max_tool_calls",
    "metadata",
    "parallel_tool_calls",
    "previous_response_id",
    "prompt_cache_key",
    "reasoning",
    "safety_identifier",
    "service_tier",
    "temperature",
    "text",
    "tool_choice",
    "tools",
    "top_p",
    "truncation",
    "user",
];

/// Reads a body's fields; the input is taken out.
pub fn read(fields: &mut Fields) -> Result<(Ask, ResponsesWriter), ApiError> {
    refuse(fields)?;
    format(fields)?;
    let store = boolean(fields, "store")?.unwrap_or(true);
    let echo: Map<String, Value> =
        ECHOED.iter().filter_map(|name| Some(((*name).to_owned(), given(fields, name)?.clone()))).collect();
    let (tools, custom) = tools(fields)?;
    let mut ask = Ask {
        tool_choice: tool_choice(fields, &tools)?,
        tools,
        continues: continues(fields)?,
        unstored: !store,
        max_tokens: integer(fields, "max_output_tokens", 1, i64::MAX)?
            .map(|tokens| usize::try_from(tokens).unwrap_or(usize::MAX)),
        ..Ask::read(fields)?
    };
    let instructions = string(fields, "instructions")?;
    let mut messages: Vec<Value> =
        instructions.into_iter().map(|text| json!({"role": "system", "content": text})).collect();
    let input = fields.remove("input").filter(|input| !input.is_null());
    let missing = || ApiError::invalid("input", "Missing required parameter: 'input'.");
    messages_of(&input.ok_or_else(missing)?, &mut messages, &mut ask.unseen)?;
    if messages.iter().all(|message| message["role"] == "system") && ask.continues.is_none() {
        return Err(ApiError::invalid("input", "'input' is empty: there is nothing to answer."));
    }
    ask.asked = Asked::Messages(messages);
    Ok((ask, ResponsesWriter::new(echo, custom, store)))
}

/// What would change the answer and is not done.
fn refuse(fields: &Fields) -> Result<(), ApiError> {
    if boolean(fields, "background")?.unwrap_or(false) {
        return Err(ApiError::invalid("background", "'background' is not supported: wait or stream."));
    }
    for name in ["prompt", "context_management"] {
        if given(fields, name).is_some() {
            return Err(ApiError::invalid(name, format!("'{name}' is not supported.")));
        }
    }
    let included = given(fields, "include").and_then(Value::as_array).into_iter().flatten();
    if included.filter_map(Value::as_str).any(|what| what == "message.output_text.logprobs") {
        let message = "Log-probabilities are told by /v1/chat/completions and /v1/completions.";
        return Err(ApiError::invalid("include", message));
    }
    Ok(())
}

/// `text.format` says what chat completions say with `response_format`.
fn format(fields: &mut Fields) -> Result<(), ApiError> {
    let Some(text) = object(fields, "text")? else { return Ok(()) };
    let Some(format) = given(text, "format").cloned() else { return Ok(()) };
    let stated = format.as_object().ok_or_else(|| wrong("text.format", "an object", &format))?;
    let format = match stated.get("type").and_then(Value::as_str) {
        Some("json_schema") => json!({"type": "json_schema", "json_schema": stated}),
        _ => format,
    };
    fields.insert("response_format".to_owned(), format);
    Ok(())
}

fn continues(fields: &Fields) -> Result<Option<Continues>, ApiError> {
    let previous = string(fields, "previous_response_id")?;
    let conversation = match given(fields, "conversation") {
        None => None,
        Some(Value::String(name)) => Some(name.clone()),
        Some(value) => {
            let id = object(fields, "conversation")?.and_then(|it| it.get("id")).and_then(Value::as_str);
            Some(id.ok_or_else(|| wrong("conversation.id", "a string", &value["id"]))?.to_owned())
        }
    };
    match (previous, conversation) {
        (Some(_), Some(_)) => Err(ApiError::invalid(
            "previous_response_id",
            "'previous_response_id' and 'conversation' cannot both say what came before.",
        )),
        (Some(id), None) => Ok(Some(Continues::Turn(TurnId(id.into())))),
        (None, Some(name)) => Ok(Some(Continues::Session(name))),
        (None, None) => Ok(None),
    }
}

/// Functions as chat tools, and the names of those that take a text and not arguments.
fn tools(fields: &Fields) -> Result<(Vec<Value>, Vec<String>), ApiError> {
    let Some(value) = given(fields, "tools") else { return Ok(Default::default()) };
    let given_tools = value.as_array().ok_or_else(|| wrong("tools", "an array", value))?;
    let (mut tools, mut custom) = (Vec::new(), Vec::new());
    for (i, tool) in given_tools.iter().enumerate() {
        let path = format!("tools[{i}]");
        let fields = tool.as_object().ok_or_else(|| wrong(&path, "an object", tool))?;
        let kind = fields.get("type").unwrap_or(&Value::Null);
        let kind = kind.as_str().ok_or_else(|| wrong(&format!("{path}.type"), "a string", kind))?;
        if !matches!(kind, "function" | "custom") {
            metrics::counter!("openclaw_gateway_tools_skipped_total").increment(1);
            continue;
        }
        let name = fields.get("name").unwrap_or(&Value::Null);
        let name = name.as_str().ok_or_else(|| wrong(&format!("{path}.name"), "a string", name))?;
        let mut function = Map::from_iter([("name".to_owned(), name.into())]);
        let kept = ["description", "parameters", "strict"].iter();
        function.extend(kept.filter_map(|key| Some(((*key).to_owned(), fields.get(*key)?.clone()))));
        function.retain(|_, value| !value.is_null());
        if kind == "custom" {
            custom.push(name.to_owned());
            let input = json!({"type": "object", "properties": {"input": {"type": "string"}},
                "required": ["input"]});
            function.insert("parameters".into(), input);
        }
        tools.push(json!({"type": "function", "function": function}));
    }
    Ok((tools, custom))
}

fn tool_choice(fields: &Fields, tools: &[Value]) -> Result<ToolChoice, ApiError> {
    let choice = match given(fields, "tool_choice") {
        None => return Ok(ToolChoice::Auto),
        Some(Value::String(choice)) => ToolChoice::of_word("tool_choice", choice)?,
        Some(Value::Object(choice)) => match choice.get("type").and_then(Value::as_str) {
            Some("function" | "custom") => match choice.get("name") {
                Some(Value::String(name)) => ToolChoice::Function(name.clone()),
                name => {
                    return Err(wrong("tool_choice.name", "a string", name.unwrap_or(&Value::Null)));
                }
            },
            Some("allowed_tools") => shape::allowed_tools(choice)?.unwrap_or_default(),
            // One that only OpenAI runs.
            _ => ToolChoice::Auto,
        },
        Some(other) => return Err(wrong("tool_choice", "a string or an object", other)),
    };
    // Of tools that only OpenAI runs none may be left.
    if tools.is_empty() { Ok(ToolChoice::Auto) } else { choice.among(tools) }
}
