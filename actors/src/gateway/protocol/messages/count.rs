//! `POST /v1/messages/count_tokens`: how long a prompt is.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Request, State},
};
use serde_json::{Value, json};

use super::{
    super::super::{Shared, errors::ApiError, tokens},
    read,
};

/// The handler.
pub async fn count_tokens(
    State(shared): State<Arc<Shared>>,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    let ids = tokens::prompt_ids(&shared, request, read::shown).await?;
    Ok(Json(json!({"input_tokens": ids.len()})))
}
