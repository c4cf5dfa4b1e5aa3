//! Turns that were answered before, for requests that name one.

use std::{sync::Arc, time::SystemTime};

use futures::future::BoxFuture;
use openclaw_journal::{SessionId, Turn, TurnId};

use super::{Shared, errors::ApiError};

/// In the id of an answer that no later request may name, as its client wishes. The journal has it all the same.
pub const UNSTORED: &str = "unstored_";

/// What is looked for.
#[derive(Clone, Debug)]
pub enum Recalled {
    /// The turn of this name.
    Turn(TurnId),
    /// The last turn of this conversation, side turns aside.
    LastOf(SessionId),
}

/// Finds a turn in the journal, and when it was completed, if the journal has it.
pub type Recall = Arc<
    dyn Fn(Recalled) -> BoxFuture<'static, Result<Option<(Arc<Turn>, SystemTime)>, String>> + Send + Sync,
>;

/// The turn of this name.
pub async fn turn(shared: &Shared, id: &TurnId) -> Result<(Arc<Turn>, SystemTime), ApiError> {
    let found = if id.0.contains(UNSTORED) { None } else { find(shared, Recalled::Turn(id.clone())).await? };
    found.ok_or_else(|| {
        let shown: String = id.0.chars().take(100).collect();
        let message = format!("There is no response with the id `{shown}`, or it is too old.");
        ApiError::not_found("response_not_found", message)
    })
}

/// The last turn of a conversation, if it has one.
pub async fn last_turn(shared: &Shared, session: &SessionId) -> Result<Option<Arc<Turn>>, ApiError> {
    Ok(find(shared, Recalled::LastOf(session.clone())).await?.map(|(turn, _)| turn))
}

async fn find(shared: &Shared, what: Recalled) -> Result<Option<(Arc<Turn>, SystemTime)>, ApiError> {
    let Some(recall) = &shared.recall else { return Ok(None) };
    recall(what).await.map_err(|problem| {
        tracing::warn!(problem, "a turn cannot be read");
        ApiError::unavailable("The journal cannot be read now.")
    })
}
