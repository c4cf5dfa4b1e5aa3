//! The operator's verbs as HTTP: `GET` for what is looked at, `POST` for what changes something.

use std::sync::Arc;

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, Request, State},
    http::StatusCode,
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use openclaw_actors::gateway::ApiKey;
use serde_json::{Value, json};

use super::operator::{Command, Done, Operator};
use crate::{
    page::{self, Page},
    refusal::{Refusal, RefusalKind},
    topology::did_you_mean,
};

/// Every verb and the page's data, to whoever can connect.
pub fn router<O: Operator>(operator: Arc<O>, page: Option<Page>) -> Router {
    let verbs = Router::new()
        .route("/status", get(async |State(operator): State<Arc<O>>| operator.status().await.map(Json)))
        .route("/dead", get(async |State(operator): State<Arc<O>>| operator.dead().await.map(Json)))
        .route(
            "/dead/{turn}",
            get(async |State(operator): State<Arc<O>>, Path(turn): Path<String>| {
                operator.dead_turn(turn).await.map(Json)
            })
            .post(async |operator: State<Arc<O>>, Path(verb): Path<String>, body: Bytes| {
                command::<O>(operator, Path(format!("dead/{verb}")), body).await
            }),
        )
        .route("/versions", get(async |State(operator): State<Arc<O>>| operator.versions().await.map(Json)))
        .route("/wishes", get(async |State(operator): State<Arc<O>>| operator.wishes().await.map(Json)))
        .route("/audit", get(async |State(operator): State<Arc<O>>| operator.audit().await.map(Json)))
        .route("/{*verb}", post(command::<O>))
        .fallback(async || Refusal::new(RefusalKind::Unknown, "no such verb"))
        .method_not_allowed_fallback(async || {
            Refusal::new(
                RefusalKind::Usage,
                "GET status, dead, versions, wishes or audit; POST everything else",
            )
        })
        .with_state(operator);
    verbs.merge(page.map(page::router).unwrap_or_default())
}

/// The same to whoever sends the token, and the page itself to everyone.
pub fn on_port(private: Router, token: ApiKey) -> Router {
    let private = private.layer(middleware::from_fn_with_state(Arc::new(token), require_token));
    page::guarded(private.merge(page::assets()))
}

async fn require_token(State(token): State<Arc<ApiKey>>, request: Request, next: Next) -> Response {
    if token.admits(request.headers()) {
        return next.run(request).await;
    }
    let message = "send `Authorization: Bearer TOKEN`; the token lies in admin.token in the run's folder";
    Refusal::new(RefusalKind::Unauthorized, message).into_response()
}

async fn command<O: Operator>(
    State(operator): State<Arc<O>>,
    Path(verb): Path<String>,
    body: Bytes,
) -> Result<Json<Done>, Refusal> {
    if !Command::VERBS.contains(&verb.as_str()) {
        let hint = did_you_mean(&verb, Command::VERBS);
        return Err(Refusal::new(RefusalKind::Unknown, format!("no verb `{verb}`{hint}")));
    }
    let body: Value = if body.is_empty() { Ok(json!({})) } else { serde_json::from_slice(&body) }
        .map_err(|error| usage(&verb, &error))?;
    let command = Command::from_request(&verb, body).map_err(|error| usage(&verb, &error))?;
    // In a task of its own: an operator who leaves in the middle must not leave a command half done.
    let done = tokio::spawn(async move { operator.operate(command).await });
    done.await.unwrap_or_else(|panic| Err(Refusal::failed(panic))).map(Json)
}

fn usage(verb: &str, error: &serde_json::Error) -> Refusal {
    Refusal::new(RefusalKind::Usage, format!("{verb}: {error}"))
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = match self.kind {
            RefusalKind::Usage => StatusCode::BAD_REQUEST,
            RefusalKind::Unauthorized => StatusCode::UNAUTHORIZED,
            RefusalKind::Unknown => StatusCode::NOT_FOUND,
            RefusalKind::NotNow => StatusCode::CONFLICT,
            RefusalKind::NeverHere => StatusCode::UNPROCESSABLE_ENTITY,
            RefusalKind::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, Json(json!({ "error": self }))).into_response()
    }
}
