//! `GET /v1/responses/{id}`: a response as the journal has it, whatever protocol its turn was answered in.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
};
use openclaw_journal::TurnId;
use serde_json::{Map, Value};

use super::{
    super::{
        super::{Shared, errors::ApiError, models::unix_secs, recall},
        Head, Reply,
    },
    writer::ResponsesWriter,
};
use crate::conversation::parts;

/// The handler. What the request said of itself is not kept, and not said again.
pub async fn get(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    let (turn, completed) = recall::turn(&shared, &TurnId(id.into())).await?;
    let completion = &turn.completion;
    let head = Head {
        id: turn.id.clone(),
        created: unix_secs(completed),
        model: shared.config.served_model.clone(),
        session: turn.session.clone(),
        policy_version: completion.policy_version,
        choices: 1,
        prompt_ids: completion.prompt_ids.clone(),
        prompt_logprobs: None,
        tokenizer: shared.tokenizer.clone(),
    };
    let reply = Reply {
        choice: 0,
        turn: turn.id.clone(),
        parts: parts(&turn),
        reason: completion.finish_reason,
        stopped_by: None,
        tokens: Vec::new(),
        text: completion.text.clone(),
        drawn: completion.response_ids.len(),
        cached: 0,
    };
    let known = [("temperature", completion.temperature.into()), ("completed_at", head.created.into())];
    let known: Map<String, Value> = known.map(|(name, value)| (name.to_owned(), value)).into_iter().collect();
    let writer = ResponsesWriter::new(known, Vec::new(), true);
    Ok(Json(writer.response(&head, Some(&reply))))
}
