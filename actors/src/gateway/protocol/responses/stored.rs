//! Responses and their items as the journal has them.

use std::{collections::HashMap, sync::Arc};

use axum::{
    Json,
    extract::{Path, State},
};
use openclaw_journal::{Turn, TurnId};
use serde_json::{Map, Value};

use super::{
    super::{
        super::{Shared, errors::ApiError, models::unix_secs, recall},
        Head, Protocol, Reply,
        fields::{Fields, wrong},
    },
    Responses,
    writer::ResponsesWriter,
};
use crate::conversation::parts;

/// Digits of a response's id in the id of an item, which its number follows.
const DIGITS: usize = 32;

/// Puts items that an input names by their ids in their place: their ids follow from the response's.
pub async fn resolve_references(fields: &mut Fields, shared: &Shared) -> Result<(), ApiError> {
    let Some(Value::Array(items)) = fields.get_mut("input") else { return Ok(()) };
    let mut known: HashMap<TurnId, Arc<Turn>> = HashMap::new();
    for (i, item) in items.iter_mut().enumerate() {
        if item["type"] != "item_reference" {
            continue;
        }
        let path = format!("input[{i}].id");
        let id = item["id"].as_str().ok_or_else(|| wrong(&path, "a string", &item["id"]))?.to_owned();
        let place = place_of(&id);
        let found = match place {
            Some((response, index)) => {
                let turn = match known.get(&response) {
                    Some(turn) => turn.clone(),
                    None => recall::turn(shared, &response).await?.0,
                };
                known.insert(response, turn.clone());
                item_of(shared, &turn, index)
            }
            None => None,
        };
        *item = found.ok_or_else(|| {
            let shown: String = id.chars().take(100).collect();
            ApiError {
                param: Some(path),
                ..ApiError::not_found("item_not_found", format!("There is no item `{shown}`."))
            }
        })?;
    }
    Ok(())
}

/// A response, and which of its items.
fn place_of(id: &str) -> Option<(TurnId, usize)> {
    let (_, rest) = id.rsplit_once('_')?;
    let (digits, index) = rest.split_at_checked(DIGITS)?;
    Some((TurnId(format!("{}{digits}", Responses::ID_PREFIX).into()), usize::from_str_radix(index, 16).ok()?))
}

fn item_of(shared: &Shared, turn: &Turn, index: usize) -> Option<Value> {
    let part = parts(turn).into_iter().nth(index)?;
    let writer = ResponsesWriter::new(Map::new(), Vec::new(), true);
    Some(writer.item(&head_of(shared, turn, 0), &part, index))
}

fn head_of(shared: &Shared, turn: &Turn, created: u64) -> Head {
    Head {
        id: turn.id.clone(),
        created,
        model: shared.config.served_model.clone(),
        session: turn.session.clone(),
        policy_version: turn.completion.policy_version,
        choices: 1,
        prompt_ids: turn.completion.prompt_ids.clone(),
        prompt_logprobs: None,
        tokenizer: shared.tokenizer.clone(),
    }
}

/// `GET /v1/responses/{id}`, whatever format its turn was answered in. What the request said of itself is not kept, and
/// not said again.
pub async fn get(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    let (turn, completed) = recall::turn(&shared, &TurnId(id.into())).await?;
    let completion = &turn.completion;
    let head = head_of(&shared, &turn, unix_secs(completed));
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
