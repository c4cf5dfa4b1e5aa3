//! `POST /v1/feedback`: thumbs or words on a response become its next state.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Request, State},
    http::HeaderMap,
};
use openclaw_journal::TurnId;
use serde_json::{Value, json};

use super::{Shared, body, errors::ApiError, marks::request_marks};
use crate::sessions::{Feedback, FeedbackOutcome};

/// Longer remarks are refused: they become part of a judge's prompt.
const MAX_TEXT_BYTES: usize = 16 * 1024;

/// What a body may hold. Words under another name would be lost.
const FIELDS: [&str; 5] = ["id", "rating", "text", "no_train", "user"];

/// The handler; it answers after the commit.
pub async fn post(State(shared): State<Arc<Shared>>, request: Request) -> Result<Json<Value>, ApiError> {
    let (parts, body) = request.into_parts();
    let body = body::receive_small(&parts.headers, body, shared.config.max_body_bytes).await?;
    let feedback = parse(&parts.headers, &body)?;
    let id = feedback.turn.clone();
    let outcome = match feedback {
        Feedback { rating: None, text: None, .. } => Some(FeedbackOutcome::NotTrained),
        feedback => shared.sessions.feedback(feedback).await,
    };
    let status = match outcome {
        None => return Err(ApiError::not_kept("The feedback")),
        Some(FeedbackOutcome::Unknown) => {
            let message = format!("There is no response with the id `{id}`, or it is too old.");
            return Err(ApiError {
                param: Some("id".to_owned()),
                ..ApiError::not_found("unknown_response", message)
            });
        }
        Some(FeedbackOutcome::Applied | FeedbackOutcome::Repeated) => "applied",
        Some(FeedbackOutcome::TooLate) => "too_late",
        Some(FeedbackOutcome::NotTrained) => "not_trained",
    };
    metrics::counter!("openclaw_gateway_feedback_total", "status" => status).increment(1);
    Ok(Json(json!({"object": "feedback", "id": id.0, "applied": status == "applied", "status": status})))
}

/// Words that come with `X-No-Train` are left out; without a rating nothing is left.
fn parse(headers: &HeaderMap, body: &[u8]) -> Result<Feedback, ApiError> {
    let body: Value = body::read(body)
        .map_err(|error| ApiError::not_json(format!("The body is not valid JSON: {error}.")))?;
    let Some(fields) = body.as_object() else {
        return Err(ApiError::not_json("The body is not a JSON object."));
    };
    if let Some(field) = fields.keys().find(|field| !FIELDS.contains(&&***field)) {
        let message = format!("Feedback has no '{field}': it takes {}.", FIELDS.join(", "));
        return Err(ApiError::invalid(field, message));
    }
    if matches!(body["no_train"], Value::Array(_) | Value::Object(_)) {
        return Err(ApiError::invalid("no_train", "'no_train' must be true or false."));
    }
    let id = body["id"].as_str().ok_or_else(|| ApiError::invalid("id", "'id' must be a response's id."))?;
    let rating = match &body["rating"] {
        Value::Null => None,
        Value::String(rating) if rating == "up" || rating == "+1" => Some(1),
        Value::String(rating) if rating == "down" || rating == "-1" => Some(-1),
        rating => match rating.as_i64() {
            Some(1) => Some(1),
            Some(-1) => Some(-1),
            _ => return Err(ApiError::invalid("rating", "'rating' must be \"up\", \"down\", 1 or -1.")),
        },
    };
    let text = match &body["text"] {
        Value::Null => None,
        Value::String(text) if text.len() > MAX_TEXT_BYTES => {
            let message = format!("'text' has {} bytes; at most {MAX_TEXT_BYTES} are possible.", text.len());
            return Err(ApiError::invalid("text", message));
        }
        Value::String(text) => Some(text.trim().to_owned()).filter(|text| !text.is_empty()),
        _ => return Err(ApiError::invalid("text", "'text' must be a string.")),
    };
    if rating.is_none() && text.is_none() {
        return Err(ApiError::invalid("rating", "Feedback needs a 'rating' or a 'text'."));
    }
    let text = text.filter(|_| !request_marks(headers, fields, false).no_train);
    Ok(Feedback { turn: TurnId(id.into()), rating, text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thumbs_and_words_are_read() {
        let read = |body: Value| parse(&HeaderMap::new(), body.to_string().as_bytes());
        for (rating, value) in [(json!("up"), 1), (json!(1), 1), (json!("down"), -1), (json!(-1), -1)] {
            let feedback = read(json!({"id": "x", "rating": rating})).expect("a rating");
            assert_eq!((feedback.rating, feedback.text), (Some(value), None));
        }
        let words = read(json!({"id": "x", "text": " too long "})).expect("words");
        assert_eq!((words.rating, words.text.as_deref()), (None, Some("too long")));
        let private = json!({"id": "x", "text": "my code word", "rating": -1, "no_train": true});
        let private = read(private).expect("a rating");
        assert_eq!((private.rating, private.text), (Some(-1), None), "what is private is no evidence");
        for (body, param) in [
            (json!({"rating": 1}), "id"),
            (json!({"id": "x"}), "rating"),
            (json!({"id": "x", "text": " "}), "rating"),
            (json!({"id": "x", "rating": 5}), "rating"),
            (json!({"id": "x", "text": 5}), "text"),
            (json!({"id": "x", "rating": 1, "hint": "shorter"}), "hint"),
            (json!({"id": "x", "rating": 1, "no_train": [1]}), "no_train"),
        ] {
            assert_eq!(read(body).expect_err(param).param.as_deref(), Some(param));
        }
    }
}
