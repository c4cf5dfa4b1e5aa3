//! `POST /v1/sessions/end`: a client says that a conversation is over, with `X-Session-Id` or the body's `session_id`.
//! For clients that learn of it behind the last reply, where no request is left to carry `X-Session-Done`.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Request, State},
};
use serde_json::{Map, Value, json};

use super::{Shared, body, errors::ApiError, marks::request_marks};
use crate::sessions::{ArrivedRequest, RequestMarks};

/// The handler; it answers after the commit. A session that nobody knows has ended already.
pub async fn post(State(shared): State<Arc<Shared>>, request: Request) -> Result<Json<Value>, ApiError> {
    let (parts, body) = request.into_parts();
    let body = body::receive_small(&parts.headers, body, shared.config.max_body_bytes).await?;
    let fields = if body.trim_ascii().is_empty() { Map::new() } else { body::read_object(&body)? };
    let stated = request_marks(&parts.headers, &fields, false);
    if !stated.names_its_session() {
        return Err(ApiError::invalid("session_id", "'session_id' or X-Session-Id must name the session."));
    }
    let marks = RequestMarks {
        turn_type: Some("side".to_owned()),
        session_done: true,
        session_header: stated.session_header,
        session_body: stated.session_body,
        ..RequestMarks::default()
    };
    let ended = shared.sessions.end(ArrivedRequest::new(marks, Arc::default(), false)).await;
    let session = ended.ok_or_else(|| ApiError::not_kept("The end of the session"))?;
    Ok(Json(json!({"object": "session", "session_id": session.0, "status": "ended"})))
}
