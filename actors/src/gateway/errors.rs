//! What a client is told when its request cannot be answered, in OpenAI's shape. Clients retry 408, 429 and 5xx, some
//! with a rewritten message, and disable a key after a 401: those statuses are kept for what really is so.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

/// An error with its status, as `{"error": {message, type, param, code}}`.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiError {
    /// HTTP status.
    pub status: StatusCode,
    /// OpenAI's `type`.
    pub kind: &'static str,
    /// OpenAI's `code`.
    pub code: Option<&'static str>,
    /// The field that is wrong.
    pub param: Option<String>,
    /// For people.
    pub message: String,
    /// When to try again.
    pub retry_after_secs: Option<u64>,
}

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Self { status, kind, code: None, param: None, message: message.into(), retry_after_secs: None }
    }

    /// 400, naming the field.
    pub fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        let param = Some(param.into());
        Self { param, ..Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message) }
    }

    /// 400 for an answer that cannot be ended in the form that its request asks for.
    pub fn form(failure: &str) -> Self {
        let message = format!(
            "An answer was begun that cannot be ended in the form that is asked for (response_format, tools, \
             structured_outputs): {failure}."
        );
        Self { code: Some("form"), ..Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message) }
    }

    /// 400 for a body that is not a JSON object.
    pub fn not_json(message: impl Into<String>) -> Self {
        Self {
            code: Some("invalid_json"),
            ..Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message)
        }
    }

    /// 400 for a prompt that leaves no room for an answer.
    pub fn context_length(prompt_tokens: usize, context_length: usize) -> Self {
        Self::too_long(format!("{prompt_tokens} tokens"), context_length)
    }

    /// The same, where it was not counted how long the prompt is.
    pub fn context_length_at_least(prompt_tokens: usize, context_length: usize) -> Self {
        Self::too_long(format!("at least {prompt_tokens} tokens"), context_length)
    }

    fn too_long(made: String, context_length: usize) -> Self {
        let message = format!(
            "This model's maximum context length is {context_length} tokens, and the messages and tools make \
             {made}, which leaves no room for an answer. Shorten the messages."
        );
        Self { code: Some("context_length_exceeded"), ..Self::invalid("messages", message) }
    }

    /// 401.
    pub fn unauthorized() -> Self {
        let message = "Missing or wrong API key: send `Authorization: Bearer KEY`.";
        Self {
            code: Some("invalid_api_key"),
            ..Self::new(StatusCode::UNAUTHORIZED, "authentication_error", message)
        }
    }

    /// 403 for a web page from elsewhere.
    pub fn foreign_page() -> Self {
        let message = "Web pages from elsewhere may not use a gateway without an API key.";
        Self { code: Some("foreign_origin"), ..Self::new(StatusCode::FORBIDDEN, "permission_error", message) }
    }

    /// 403 for a name that is not this machine's.
    pub fn foreign_name() -> Self {
        let message =
            "A gateway without an API key answers to localhost and to addresses, not to other names.";
        Self { code: Some("foreign_host"), ..Self::new(StatusCode::FORBIDDEN, "permission_error", message) }
    }

    /// 415 for a body that is not said to be JSON.
    pub fn not_said_to_be_json() -> Self {
        let message = "A POST needs `Content-Type: application/json`.";
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        Self { code: Some("unsupported_media_type"), ..Self::new(status, "invalid_request_error", message) }
    }

    /// 404 for a model nobody serves.
    pub fn unknown_model(model: &str) -> Self {
        let shown: String = model.chars().take(100).collect();
        Self {
            code: Some("model_not_found"),
            param: Some("model".to_owned()),
            ..Self::new(
                StatusCode::NOT_FOUND,
                "invalid_request_error",
                format!("The model `{shown}` does not exist."),
            )
        }
    }

    /// 404 for something else.
    pub fn not_found(code: &'static str, message: impl Into<String>) -> Self {
        Self { code: Some(code), ..Self::new(StatusCode::NOT_FOUND, "invalid_request_error", message) }
    }

    /// 405.
    pub fn wrong_method() -> Self {
        Self {
            code: Some("method_not_allowed"),
            ..Self::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "invalid_request_error",
                "Wrong method for this route.",
            )
        }
    }

    /// 408.
    pub fn slow_body() -> Self {
        let message = "The request body did not arrive in time.";
        Self {
            code: Some("request_timeout"),
            ..Self::new(StatusCode::REQUEST_TIMEOUT, "invalid_request_error", message)
        }
    }

    /// 413.
    pub fn too_large(limit_bytes: usize) -> Self {
        Self {
            code: Some("request_too_large"),
            ..Self::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "invalid_request_error",
                format!("The request body is larger than {limit_bytes} bytes."),
            )
        }
    }

    /// 429: come back.
    pub fn busy(retry_after_secs: u64) -> Self {
        let message = "All places are taken and the queue is full or slow. Try again later.";
        Self {
            code: Some("rate_limit_exceeded"),
            retry_after_secs: Some(retry_after_secs),
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", message)
        }
    }

    /// 503: the model has been away for longer than a request waits.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self {
            code: Some("model_unavailable"),
            retry_after_secs: Some(5),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", message)
        }
    }

    /// 503: the journal does not take what a client said, or is to be told. Said again, it counts once.
    pub fn not_kept(what: &str) -> Self {
        let message = format!("{what} cannot be recorded now: the journal does not write. Send it again.");
        Self { code: Some("journal_unavailable"), ..Self::unavailable(message) }
    }

    /// 500.
    pub fn internal(message: impl Into<String>) -> Self {
        Self {
            code: Some("internal_error"),
            ..Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", message)
        }
    }

    /// The body, also sent as the last event of a stream that broke.
    pub fn body(&self) -> Value {
        json!({"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}})
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        // For formats that write it otherwise.
        response.extensions_mut().insert(self.clone());
        let headers = response.headers_mut();
        if let Some(secs) = self.retry_after_secs {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(secs));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
