//! What headers and body say of a request's place among others, whatever format it has.

use axum::http::HeaderMap;
use serde_json::{Map, Value};

use crate::sessions::RequestMarks;

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

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use serde_json::json;

    use super::*;

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
