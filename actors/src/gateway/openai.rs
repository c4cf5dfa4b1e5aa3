//! A chat completion request: read from JSON, every wrong value named. Unknown fields are accepted and ignored.

use axum::http::HeaderMap;
use openclaw_model::{ChatTemplate, exact_json};
use serde_json::{Map, Value};

use super::{
    body,
    errors::ApiError,
    shape::{self, Shape},
};
use crate::sessions::RequestMarks;

const MAX_STOPS: usize = 16;
const MAX_TOP_LOGPROBS: usize = 20;
const ROLES: [&str; 6] = ["system", "developer", "user", "assistant", "tool", "function"];

/// What the client asked for; `None` where it left the choice to the server.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChatRequest {
    /// Name of the model.
    pub model: Option<String>,
    /// As sent.
    pub messages: Vec<Value>,
    /// As sent.
    pub tools: Vec<Value>,
    /// Whether and which tools may be called.
    pub tool_choice: ToolChoice,
    /// Answer token by token.
    pub stream: bool,
    /// Send a usage chunk at the end of a stream.
    pub include_usage: bool,
    /// Sampling temperature.
    pub temperature: Option<f32>,
    /// See [`openclaw_model::SamplingParams`].
    pub top_p: Option<f32>,
    /// See [`openclaw_model::SamplingParams`].
    pub top_k: Option<usize>,
    /// See [`openclaw_model::SamplingParams`].
    pub min_p: Option<f32>,
    /// Makes the draw repeatable.
    pub seed: Option<u64>,
    /// Most tokens of the answer.
    pub max_tokens: Option<usize>,
    /// Strings that end the answer.
    pub stop: Vec<String>,
    /// Report log-probabilities.
    pub logprobs: bool,
    /// Alternatives per token.
    pub top_logprobs: usize,
    /// Further variables of the chat template.
    pub template_kwargs: Map<String, Value>,
    /// What form the answer must have.
    pub shape: Shape,
}

/// Which tools the model is shown and may call; see [`shape::constraint`] for what forces it to.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum ToolChoice {
    /// The model decides.
    #[default]
    Auto,
    /// Tools are neither shown to the model nor looked for in its answer.
    None,
    /// The model calls some tool.
    Required,
    /// The model calls this tool.
    Function(String),
    /// The model sees these tools alone, and calls some of them if it must.
    Allowed {
        /// Which.
        names: Vec<String>,
        /// Whether it must.
        required: bool,
    },
}

impl ChatRequest {
    /// Reads a body.
    pub fn parse(body: &[u8]) -> Result<(Self, Map<String, Value>), ApiError> {
        let mut fields = match body::read_request(body) {
            Ok(Value::Object(fields)) => fields,
            Ok(other) => {
                return Err(ApiError::not_json(format!(
                    "The body is {}, not a JSON object.",
                    a_kind(&other)
                )));
            }
            Err(error) => return Err(ApiError::not_json(format!("The body is not valid JSON: {error}."))),
        };
        shape::modernize(&mut fields)?;
        let shape = Shape::parse(&fields)?;
        let tools = tools(&fields)?;
        let logprobs = boolean(&fields, "logprobs")?.unwrap_or(false);
        let request = Self {
            model: string(&fields, "model")?,
            messages: messages(&mut fields)?,
            tool_choice: tool_choice(&fields, &tools)?,
            tools,
            stream: boolean(&fields, "stream")?.unwrap_or(false),
            include_usage: include_usage(&fields)?,
            temperature: number(&fields, "temperature", 0.0, 2.0)?,
            top_p: number(&fields, "top_p", 0.0, 1.0)?,
            top_k: top_k(&fields)?,
            min_p: number(&fields, "min_p", 0.0, 1.0)?,
            seed: integer(&fields, "seed", i64::MIN, i64::MAX)?.map(|seed| seed as u64),
            max_tokens: max_tokens(&fields)?,
            stop: stop(&fields)?,
            logprobs,
            top_logprobs: top_logprobs(&fields, logprobs)?,
            template_kwargs: template_kwargs(&fields)?,
            shape,
        };
        if integer(&fields, "n", 1, i64::MAX)?.is_some_and(|n| n != 1) {
            return Err(ApiError::invalid("n", "Only n = 1 is supported: send several requests instead."));
        }
        Ok((request, fields))
    }

    /// The tools that the model is shown.
    pub fn shown_tools(&self) -> Vec<Value> {
        let named = |names: &[String]| {
            let is_named =
                |tool: &&Value| tool_name(tool).is_some_and(|name| names.iter().any(|of| of == name));
            self.tools.iter().filter(is_named).cloned().collect()
        };
        match &self.tool_choice {
            ToolChoice::None => Vec::new(),
            ToolChoice::Auto | ToolChoice::Required => self.tools.clone(),
            ToolChoice::Function(name) => named(std::slice::from_ref(name)),
            ToolChoice::Allowed { names, .. } => named(names),
        }
    }
}

/// Headers in which clients and proxies name a conversation.
const CONVERSATION_HEADERS: [&str; 8] = [
    "x-conversation-id",
    "conversation_id",
    "x-thread-id",
    "x-litellm-session-id",
    "x-openwebui-chat-id",
    "helicone-session-id",
    "x-claude-code-session-id",
    "x-chat-id",
];
/// Fields of a body, and of its `metadata`, in which they do.
const CONVERSATION_FIELDS: [&str; 6] =
    ["session_id", "conversation", "conversation_id", "chat_id", "thread_id", "litellm_session_id"];

/// What headers and body say of the request's place among others.
pub fn request_marks(headers: &HeaderMap, fields: &Map<String, Value>, side_model: bool) -> RequestMarks {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let text = |name: &str| fields.get(name).and_then(Value::as_str).map(str::to_owned);
    let name_in = |fields: &Map<String, Value>, names: &[&str]| {
        names.iter().find_map(|name| {
            let value = fields.get(*name)?;
            // The responses API names it by an object, too.
            value.as_str().or_else(|| value.get("id")?.as_str()).map(str::to_owned)
        })
    };
    let metadata = || name_in(fields.get("metadata")?.as_object()?, &CONVERSATION_FIELDS);
    let flag = |value: &str| matches!(value.trim().to_ascii_lowercase().as_str(), "1" | "true" | "yes");
    let body_flag = |name: &str| match fields.get(name) {
        Some(Value::Bool(set)) => *set,
        Some(Value::Number(number)) => number.as_i64() == Some(1),
        Some(Value::String(text)) => flag(text),
        _ => false,
    };
    RequestMarks {
        session_header: header("x-session-id"),
        session_body: text("session_id"),
        cache_key: text("prompt_cache_key")
            .or_else(|| header("session_id"))
            .or_else(|| header("x-session-affinity")),
        conversation: CONVERSATION_HEADERS
            .into_iter()
            .find_map(header)
            .or_else(|| name_in(fields, &CONVERSATION_FIELDS[1..]))
            .or_else(metadata),
        person: text("safety_identifier").or_else(|| text("user")),
        // OpenAI's SDKs count from 0.
        retry: header("x-stainless-retry-count").is_some_and(|count| count.trim() != "0"),
        turn_type: header("x-turn-type").or_else(|| text("turn_type")),
        side_model,
        session_done: header("x-session-done").is_some_and(|value| flag(&value)) || body_flag("session_done"),
        no_train: header("x-no-train").is_some_and(|value| flag(&value)) || body_flag("no_train"),
    }
}

type Fields = Map<String, Value>;

/// A field's value; null counts as left out.
pub(super) fn given<'a>(fields: &'a Fields, name: &str) -> Option<&'a Value> {
    fields.get(name).filter(|value| !value.is_null())
}

pub(super) fn wrong(path: &str, expected: &str, value: &Value) -> ApiError {
    ApiError::invalid(
        path,
        format!("Invalid value for '{path}': expected {expected}, got {}.", a_kind(value)),
    )
}

fn a_kind(value: &Value) -> &'static str {
    match value {
        _ if exact_json::literal(value).is_some() => "a number out of range",
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(number) if number.is_f64() => "a number",
        Value::Number(_) => "an integer",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

pub(super) fn string(fields: &Fields, name: &str) -> Result<Option<String>, ApiError> {
    let Some(value) = given(fields, name) else { return Ok(None) };
    value.as_str().map(|text| Some(text.to_owned())).ok_or_else(|| wrong(name, "a string", value))
}

pub(super) fn boolean(fields: &Fields, name: &str) -> Result<Option<bool>, ApiError> {
    let Some(value) = given(fields, name) else { return Ok(None) };
    value.as_bool().map(Some).ok_or_else(|| wrong(name, "a boolean", value))
}

pub(super) fn object<'a>(fields: &'a Fields, name: &str) -> Result<Option<&'a Fields>, ApiError> {
    let Some(value) = given(fields, name) else { return Ok(None) };
    value.as_object().map(Some).ok_or_else(|| wrong(name, "an object", value))
}

/// Variables of the template. What the server sets itself a request may not: it is said elsewhere in the request, or
/// nowhere.
fn template_kwargs(fields: &Fields) -> Result<Map<String, Value>, ApiError> {
    let field = "chat_template_kwargs";
    let kwargs = object(fields, field)?.cloned().unwrap_or_default();
    match kwargs.keys().find(|name| ChatTemplate::owns(name)) {
        Some(name) => {
            let param = format!("{field}.{name}");
            let message = format!("'{param}' cannot be set: the server sets '{name}' of the chat template.");
            Err(ApiError::invalid(&param, message))
        }
        None => Ok(kwargs),
    }
}

pub(super) fn number(fields: &Fields, name: &str, least: f64, most: f64) -> Result<Option<f32>, ApiError> {
    let Some(value) = given(fields, name) else { return Ok(None) };
    let number = value.as_f64().ok_or_else(|| wrong(name, "a number", value))?;
    if !(least..=most).contains(&number) {
        let message = format!("Invalid value for '{name}': {number} is not between {least} and {most}.");
        return Err(ApiError::invalid(name, message));
    }
    Ok(Some(number as f32))
}

pub(super) fn integer(fields: &Fields, name: &str, least: i64, most: i64) -> Result<Option<i64>, ApiError> {
    let Some(value) = given(fields, name) else { return Ok(None) };
    // Some clients write whole numbers as 256.0.
    let whole =
        value.as_f64().filter(|number| number.fract() == 0.0 && number.abs() < 9e15).map(|n| n as i64);
    let number = value.as_i64().or(whole).ok_or_else(|| wrong(name, "an integer", value))?;
    if !(least..=most).contains(&number) {
        let message = format!("Invalid value for '{name}': {number} is out of range.");
        return Err(ApiError::invalid(name, message));
    }
    Ok(Some(number))
}

fn top_k(fields: &Fields) -> Result<Option<usize>, ApiError> {
    // -1 is how vLLM and SGLang say "all".
    Ok(integer(fields, "top_k", -1, i64::MAX)?.map(|k| usize::try_from(k).unwrap_or(0)))
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

fn include_usage(fields: &Fields) -> Result<bool, ApiError> {
    let Some(options) = object(fields, "stream_options")? else { return Ok(false) };
    let Some(value) = given(options, "include_usage") else { return Ok(false) };
    value.as_bool().ok_or_else(|| wrong("stream_options.include_usage", "a boolean", value))
}

fn stop(fields: &Fields) -> Result<Vec<String>, ApiError> {
    let stops = match given(fields, "stop") {
        None => return Ok(Vec::new()),
        Some(Value::String(stop)) => vec![stop.clone()],
        Some(Value::Array(stops)) => {
            let text = |(i, stop): (usize, &Value)| {
                let path = format!("stop[{i}]");
                stop.as_str().map(str::to_owned).ok_or_else(|| wrong(&path, "a string", stop))
            };
            stops.iter().enumerate().map(text).collect::<Result<_, _>>()?
        }
        Some(other) => return Err(wrong("stop", "a string or an array of strings", other)),
    };
    if stops.len() > MAX_STOPS {
        let message = format!("'stop' has {} strings; at most {MAX_STOPS} are possible.", stops.len());
        return Err(ApiError::invalid("stop", message));
    }
    if stops.iter().any(String::is_empty) {
        return Err(ApiError::invalid("stop", "A string of 'stop' is empty: it would end every answer."));
    }
    Ok(stops)
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

pub(super) fn tool_name(tool: &Value) -> Option<&str> {
    let name = tool.get("function")?.get("name")?;
    name.as_str().filter(|_| exact_json::literal(name).is_none())
}

fn tool_choice(fields: &Fields, tools: &[Value]) -> Result<ToolChoice, ApiError> {
    let choice = match given(fields, "tool_choice") {
        None => return Ok(ToolChoice::Auto),
        Some(Value::String(choice)) => match choice.as_str() {
            "auto" => ToolChoice::Auto,
            "none" => ToolChoice::None,
            "required" | "any" => ToolChoice::Required,
            other => {
                let message =
                    format!("Invalid value for 'tool_choice': '{other}' is none of none, auto, required.");
                return Err(ApiError::invalid("tool_choice", message));
            }
        },
        Some(value @ Value::Object(fields)) => match (shape::allowed_tools(fields)?, tool_name(value)) {
            (Some(allowed), _) => allowed,
            (None, Some(name)) => ToolChoice::Function(name.to_owned()),
            (None, None) => {
                return Err(wrong("tool_choice.function.name", "a string", &value["function"]["name"]));
            }
        },
        Some(other) => return Err(wrong("tool_choice", "a string or an object", other)),
    };
    let named = match &choice {
        ToolChoice::Function(name) => std::slice::from_ref(name),
        ToolChoice::Allowed { names, .. } => names,
        _ => &[],
    };
    let missing = named.iter().find(|name| !tools.iter().any(|tool| tool_name(tool) == Some(name)));
    match (&choice, missing) {
        (ToolChoice::Required, _) if tools.is_empty() => {
            Err(ApiError::invalid("tool_choice", "'tool_choice' is 'required', but there are no 'tools'."))
        }
        (_, Some(name)) => {
            let message = format!("'tool_choice' names the function '{name}', which is not among 'tools'.");
            Err(ApiError::invalid("tool_choice", message))
        }
        _ => Ok(choice),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use serde_json::json;

    use super::*;

    fn with(name: &str, value: Value) -> Result<ChatRequest, ApiError> {
        let mut body = json!({"messages": [{"role": "user", "content": "hi"}]});
        body[name] = value;
        ChatRequest::parse(body.to_string().as_bytes()).map(|(request, _)| request)
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
            ("n", json!(2), "n"),
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
            assert_eq!(ChatRequest::parse(body.as_bytes()).expect_err(body).code, Some("invalid_json"));
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
        let (request, _) = ChatRequest::parse(body.to_string().as_bytes()).expect("a fine request");
        assert_eq!(
            (request.max_tokens, request.top_k, request.temperature),
            (Some(178220), Some(0), Some(0.0))
        );
        assert_eq!((request.stop.as_slice(), request.seed), (&["END".to_owned()][..], Some(-3_i64 as u64)));
        assert_eq!((request.stream, request.include_usage, request.top_logprobs), (true, true, 2));
        assert_eq!(request.shown_tools(), [json!({"function": {"name": "read"}})]);
        assert_eq!(request.template_kwargs["enable_thinking"], json!(true));
    }

    #[test]
    fn with_tool_choice_none_the_model_sees_no_tools() {
        let body = json!({"messages": [{"role": "user", "content": "hi"}], "tool_choice": "none",
            "tools": [{"type": "function", "function": {"name": "exec"}}]});
        let (request, _) = ChatRequest::parse(body.to_string().as_bytes()).expect("a fine request");
        assert_eq!((request.tools.len(), request.shown_tools().len()), (1, 0));
    }

    #[test]
    fn marks_come_from_headers_and_body() {
        let mut headers = HeaderMap::new();
        headers.insert("x-session-id", HeaderValue::from_static("h:1"));
        headers.insert("session_id", HeaderValue::from_static("affinity"));
        headers.insert("x-no-train", HeaderValue::from_static("1"));
        let body = json!({"session_id": "b", "user": "u", "turn_type": "side", "session_done": true,
            "metadata": {"thread_id": "t"}});
        let marks = request_marks(&headers, body.as_object().expect("an object literal"), false);
        assert_eq!(marks.session_header.as_deref(), Some("h:1"));
        assert_eq!(marks.session_body.as_deref(), Some("b"));
        assert_eq!(marks.cache_key.as_deref(), Some("affinity"));
        assert_eq!(marks.conversation.as_deref(), Some("t"));
        assert_eq!((marks.person.as_deref(), marks.turn_type.as_deref()), (Some("u"), Some("side")));
        assert!(marks.session_done && marks.no_train && !marks.side_model);
    }
}
