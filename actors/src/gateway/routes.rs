//! Which path leads where, and what every request passes on its way: the panic net, the key, the counters.

use std::{any::Any, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{Request, State},
    http::{HeaderValue, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use openclaw_journal::panics::panic_message;
use serde_json::{Value, json};
use tower_http::catch_panic::CatchPanicLayer;
use tracing::error;

use super::{
    Shared, answer,
    auth::refused,
    episodes,
    errors::ApiError,
    feedback, models,
    protocol::{
        Protocol,
        chat::Chat,
        completions::Completions,
        generate::Generate,
        messages::{self, Messages},
        responses::{self, Responses},
    },
    session_end, tokens,
};

/// Of the metrics: what a path's last part is called. `chat/completions` and `completions` are told apart.
const ROUTES: [(&str, &str); 15] = [
    ("/chat/completions", Chat::NAME),
    ("/responses", Responses::NAME),
    ("/messages", Messages::NAME),
    ("/messages/count_tokens", "count_tokens"),
    ("/completions", Completions::NAME),
    ("/inference/v1/generate", Generate::NAME),
    ("/tokenize", "tokenize"),
    ("/detokenize", "detokenize"),
    ("/feedback", "feedback"),
    ("/sessions/end", "session_end"),
    ("/episodes/begin", "episode_begin"),
    ("/episodes/end", "episode_end"),
    ("/openapi.json", "openapi"),
    ("/health", "health"),
    ("/healthz", "health"),
];

/// What is there with `/v1` before it and without.
fn api() -> Router<Arc<Shared>> {
    Router::new()
        .route("/chat/completions", post(answer::post::<Chat>))
        .route("/responses", post(answer::post::<Responses>))
        .route("/responses/{id}", get(responses::get))
        .route("/messages", post(answer::post::<Messages>))
        .route("/messages/count_tokens", post(messages::count_tokens))
        .route("/completions", post(answer::post::<Completions>))
        .route("/tokenize", post(tokens::tokenize))
        .route("/detokenize", post(tokens::detokenize))
        .route("/feedback", post(feedback::post))
        .route("/sessions/end", post(session_end::post))
        .route("/episodes/begin", post(episodes::begin))
        .route("/episodes/end", post(episodes::end))
        .route("/models", get(models::list))
        .route("/models/{*id}", get(models::show))
}

/// All routes.
pub fn router(shared: Arc<Shared>) -> Router {
    let router = Router::new()
        .merge(api())
        .nest("/v1", api())
        .route("/inference/v1/generate", post(answer::post::<Generate>))
        .route("/health", get(health))
        .route("/healthz", get(health))
        .route("/openapi.json", get(openapi))
        .fallback(unknown_route)
        .method_not_allowed_fallback(async || ApiError::wrong_method())
        .layer(CatchPanicLayer::custom(after_panic))
        .layer(middleware::from_fn_with_state(shared.clone(), check_key))
        .layer(middleware::from_fn(count));
    let router = match &shared.cors {
        Some(cors) => router.layer(cors.clone()),
        None => router,
    };
    router.layer(middleware::from_fn_with_state(shared.clone(), close_when_leaving)).with_state(shared)
}

/// Says that the gateway serves, and how the policy is: a model that restarts is no reason to be taken out of a load
/// balancer, because requests wait for it.
async fn health(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let engines: Vec<_> = shared.engines.iter().map(|engine| engine.status()).collect();
    let mut reasons: Vec<String> = Vec::new();
    if shared.journal_fails() {
        reasons.push("the journal cannot be written: replies may be lost with the process".to_owned());
    }
    for (engine, status) in shared.engines.iter().zip(&engines) {
        let stuck = |silent: &Duration| silent.as_secs() >= shared.config.engine_silence_secs;
        if let Some(silent) = status.silent.filter(stuck) {
            reasons.push(format!("{} does not answer for {} s", engine.name(), silent.as_secs()));
        }
    }
    Json(json!({
        "status": if reasons.is_empty() { "ok" } else { "degraded" },
        "reasons": reasons,
        "model": shared.config.served_model,
        "policy_version": engines.iter().map(|engine| engine.version).max(),
        "engines_up": engines.iter().filter(|engine| engine.up).count(),
        "in_flight": shared.admission.in_flight(),
        "queued": shared.admission.waiting(),
    }))
}

/// What this API is, for programs.
async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], include_str!("openapi.json")).into_response()
}

async fn unknown_route(request: Request) -> ApiError {
    let path: String = request.uri().path().chars().take(200).collect();
    ApiError::not_found("unknown_url", format!("Unknown request URL: {} {path}.", request.method()))
}

async fn check_key(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let config = &shared.config;
    match refused(config.api_key.as_ref(), &config.allow_origins, &request) {
        Some(error) => error.into_response(),
        None => next.run(request).await,
    }
}

/// So that the client's next request finds the successor.
async fn close_when_leaving(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    if !*shared.open.borrow() || shared.open.has_changed().is_err() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

async fn count(request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let path = path.strip_prefix("/v1").unwrap_or(path).to_owned();
    let known = ROUTES.iter().find(|(route, _)| *route == path).map(|(_, name)| *name);
    let route = known.unwrap_or_else(|| match path.split('/').nth(1) {
        Some("models") => "models",
        Some("responses") => "response",
        _ => "other",
    });
    let mut response = next.run(request).await;
    if path.starts_with("/messages") {
        response = messages::in_shape(response);
    }
    let status = response.status().as_u16().to_string();
    metrics::counter!("openclaw_gateway_requests_total", "route" => route, "status" => status).increment(1);
    response
}

fn after_panic(panic: Box<dyn Any + Send + 'static>) -> Response {
    error!(message = panic_message(panic), "a request's handler panicked");
    ApiError::internal("The server failed on this request.").into_response()
}
