//! `GET /v1/models`: the names this server answers to.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{
    Json,
    extract::{Path, State},
};
use serde_json::{Value, json};

use super::{Shared, errors::ApiError};

/// The names, and what each stands for.
#[derive(Clone, Debug)]
pub struct ServedModels {
    names: Vec<String>,
    side: String,
    context_length: usize,
    created: u64,
}

impl ServedModels {
    /// The served name first, then its aliases, then the name for side turns: `<served name>-side`.
    pub fn new(served: &str, aliases: &[String], context_length: usize) -> Self {
        let mut names = vec![served.to_owned()];
        names.extend(aliases.iter().filter(|alias| *alias != served).cloned());
        Self { names, side: format!("{served}-side"), context_length, created: unix_secs(SystemTime::now()) }
    }

    /// The name in the response, and whether it marks a side turn. A request that names no model means the served one.
    pub fn resolve(&self, model: Option<&str>) -> Result<(String, bool), ApiError> {
        match model {
            None => Ok((self.names[0].clone(), false)),
            Some(model) if model == self.side => Ok((model.to_owned(), true)),
            Some(model) if self.names.iter().any(|name| name == model) => Ok((model.to_owned(), false)),
            Some(model) => Err(ApiError::unknown_model(model)),
        }
    }

    fn describe(&self, id: &str) -> Value {
        json!({"id": id, "object": "model", "created": self.created, "owned_by": "openclaw-rl",
            "root": self.names[0], "max_model_len": self.context_length})
    }
}

/// All names.
pub async fn list(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let models = &shared.models;
    let data: Vec<Value> =
        models.names.iter().chain(std::iter::once(&models.side)).map(|id| models.describe(id)).collect();
    Json(json!({"object": "list", "data": data}))
}

/// One name, which may hold slashes.
pub async fn show(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let (id, _) = shared.models.resolve(Some(&id))?;
    Ok(Json(shared.models.describe(&id)))
}

/// Seconds since 1970.
pub fn unix_secs(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
