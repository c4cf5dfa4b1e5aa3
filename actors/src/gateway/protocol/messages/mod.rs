//! Anthropic's Messages: what Claude Code and its like speak.

mod blocks;
mod count;
mod read;
mod writer;

use axum::{Json, http::StatusCode, response::IntoResponse};
use serde_json::{Value, json};

pub use self::count::count_tokens;
use self::writer::MessagesWriter;
use super::{super::errors::ApiError, Ask, Protocol, fields::Fields};

/// `POST /v1/messages`.
#[derive(Debug)]
pub struct Messages;

impl Protocol for Messages {
    const NAME: &'static str = "messages";
    const ID_PREFIX: &'static str = "msg_";
    type Writer = MessagesWriter;

    fn read(fields: &mut Fields) -> Result<(Ask, MessagesWriter), ApiError> {
        read::read(fields)
    }
}

/// An error in Anthropic's shape.
pub fn error_body(error: &ApiError) -> Value {
    let kind = match error.status {
        StatusCode::UNAUTHORIZED => "authentication_error",
        StatusCode::FORBIDDEN => "permission_error",
        StatusCode::NOT_FOUND => "not_found_error",
        StatusCode::PAYLOAD_TOO_LARGE => "request_too_large",
        StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
        StatusCode::SERVICE_UNAVAILABLE => "overloaded_error",
        status if status.is_server_error() => "api_error",
        _ => "invalid_request_error",
    };
    json!({"type": "error", "error": {"type": kind, "message": error.message}, "request_id": null})
}

/// A response to this format's clients: errors are put into their shape, wherever on the way they came from.
pub fn in_shape(response: axum::response::Response) -> axum::response::Response {
    let Some(error) = response.extensions().get::<ApiError>() else { return response };
    let mut shaped = (response.status(), Json(error_body(error))).into_response();
    for (name, value) in response.headers() {
        if name != axum::http::header::CONTENT_LENGTH {
            shaped.headers_mut().insert(name, value.clone());
        }
    }
    shaped
}
