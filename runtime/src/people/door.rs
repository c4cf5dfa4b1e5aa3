//! Where everyone comes in: finds whose a request is, and hands it to that person's node as it came. What the node answers
//! goes back piece by piece.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderMap, Method, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use futures::StreamExt;
use openclaw_actors::gateway::{ApiError, ApiKey, cors_layer, in_messages_shape, person_named, refused};
use serde_json::{Map, Value, json};
use tokio::sync::{Semaphore, watch};
use tracing::{debug, warn};

use super::{
    house::{House, NoPlace, Visit},
    person::Person,
};
use crate::topology::{AdapterBy, Gateway};

/// The header that names a person whose body does not.
const PERSON_HEADER: &str = "x-user-id";
/// Headers of one connection, not of what is said on it.
const OF_A_CONNECTION: [header::HeaderName; 8] = [
    header::CONNECTION,
    header::HOST,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::TE,
    header::TRAILER,
    // The door has looked who asks.
    header::ORIGIN,
];

/// What all requests share.
pub struct Door {
    house: Arc<House>,
    by: AdapterBy,
    api_key: Option<ApiKey>,
    allow_origins: Vec<String>,
    max_body_bytes: usize,
    served_model: String,
    /// One for each request that is read, waits or is answered.
    places: Arc<Semaphore>,
    most: usize,
    in_flight: watch::Sender<usize>,
    http: reqwest::Client,
}

impl Door {
    /// Of a house, as `[actors.gateway]` says.
    pub fn new(
        house: Arc<House>,
        by: AdapterBy,
        gateway: &Gateway,
        in_flight: watch::Sender<usize>,
    ) -> anyhow::Result<Self> {
        let api_key = match &gateway.api_key_env {
            Some(variable) => {
                let key = std::env::var(variable).ok().and_then(ApiKey::new);
                Some(
                    key.ok_or_else(|| anyhow::anyhow!("actors.gateway.api_key_env: ${variable} is not set"))?,
                )
            }
            None => None,
        };
        let most = gateway.max_in_flight.saturating_add(gateway.queue_depth).min(Semaphore::MAX_PERMITS);
        Ok(Self {
            house,
            by,
            api_key,
            allow_origins: gateway.allow_origins.clone(),
            max_body_bytes: gateway.max_body_bytes,
            served_model: gateway.served_model.clone(),
            places: Arc::new(Semaphore::new(most)),
            most,
            in_flight,
            http: reqwest::Client::builder().no_proxy().build()?,
        })
    }

    /// All routes: those of a node, and whether somebody serves.
    pub fn router(self: Arc<Self>) -> anyhow::Result<Router> {
        let cors = cors_layer(&self.allow_origins, self.api_key.is_some()).map_err(anyhow::Error::msg)?;
        let router = Router::new()
            .route("/health", get(health))
            .route("/healthz", get(health))
            .fallback(pass_on)
            .layer(middleware::from_fn_with_state(self.clone(), check));
        let router = match cors {
            Some(cors) => router.layer(cors),
            None => router,
        };
        Ok(router.with_state(self))
    }

    /// The name that a request says, if it says one.
    fn person(&self, headers: &HeaderMap, body: &Map<String, Value>) -> Result<Option<String>, ApiError> {
        match &self.by {
            AdapterBy::User => match person_named(body) {
                Some(name) => Ok(Some(name)),
                None => in_header(headers, PERSON_HEADER),
            },
            AdapterBy::Header(name) => in_header(headers, name.as_str()),
        }
    }
}

/// A name in a header. One that cannot be read is nobody's, and is not taken for whoever has none.
fn in_header(headers: &HeaderMap, name: &str) -> Result<Option<String>, ApiError> {
    let mut values = headers.get_all(name).iter();
    let (first, second) = (values.next(), values.next());
    let Some(value) = first else { return Ok(None) };
    let read = std::str::from_utf8(value.as_bytes()).ok().filter(|_| second.is_none());
    read.map(|name| Some(name.to_owned())).ok_or_else(|| {
        ApiError::invalid(
            name,
            format!("The header '{name}' must be there once, in UTF-8: it says whose the request is."),
        )
    })
}

async fn check(State(door): State<Arc<Door>>, request: Request, next: Next) -> Response {
    let is_messages = request.uri().path().trim_start_matches("/v1").starts_with("/messages");
    let response = match refused(door.api_key.as_ref(), &door.allow_origins, &request) {
        Some(error) => error.into_response(),
        None => next.run(request).await,
    };
    if is_messages { in_messages_shape(response) } else { response }
}

/// Says that the door is open, and how many are awake.
async fn health(State(door): State<Arc<Door>>) -> Json<Value> {
    Json(json!({
        "status": "ok",
        "model": door.served_model,
        "people_awake": door.house.awake(),
        "in_flight": door.most - door.places.available_permits(),
    }))
}

/// A request that is under way; counts it as long as its answer lasts.
struct UnderWay {
    _place: tokio::sync::OwnedSemaphorePermit,
    in_flight: watch::Sender<usize>,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.in_flight.send_modify(|count| *count -= 1);
    }
}

async fn pass_on(State(door): State<Arc<Door>>, request: Request) -> Result<Response, ApiError> {
    let place = door.places.clone().try_acquire_owned().map_err(|_| ApiError::busy(1))?;
    door.in_flight.send_modify(|count| *count += 1);
    let under_way = UnderWay { _place: place, in_flight: door.in_flight.clone() };
    let (head, body) = request.into_parts();
    if has_dots(head.uri.path()) {
        return Err(ApiError::not_found("unknown_url", "Unknown request URL."));
    }
    let body = axum::body::to_bytes(body, door.max_body_bytes).await;
    let body = body.map_err(|_| ApiError::too_large(door.max_body_bytes))?;
    // What cannot be read the node refuses with its reason.
    let fields: Map<String, Value> = serde_json::from_slice(&body).unwrap_or_default();
    let named = door.person(&head.headers, &fields)?;
    drop(fields);
    // What is asked of nobody in particular, such as the list of models, anyone can answer.
    let anyones = named.is_none() && of_nobody(&head.method, head.uri.path());
    let visit = match anyones.then(|| door.house.enter_any()).flatten() {
        Some(visit) => visit,
        None => door.house.enter(&Person::named(named.as_deref())).await.map_err(told)?,
    };
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    answer(&door, visit, under_way, &head.method, path, &head.headers, body).await
}

/// Nothing of it is a person's.
fn of_nobody(method: &Method, path: &str) -> bool {
    let path = path.strip_prefix("/v1").unwrap_or(path);
    let looks = ["/models", "/openapi.json"].contains(&path) || path.starts_with("/models/");
    (method == Method::GET && looks) || ["/tokenize", "/detokenize"].contains(&path)
}

/// It leads elsewhere than it says.
fn has_dots(path: &str) -> bool {
    path.split('/').any(|part| matches!(&*part.to_ascii_lowercase().replace("%2e", "."), "." | ".."))
}

async fn answer(
    door: &Door,
    mut visit: Visit,
    under_way: UnderWay,
    method: &Method,
    path: &str,
    headers: &HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    let mut passed = headers.clone();
    OF_A_CONNECTION.iter().for_each(|name| drop(passed.remove(name)));
    let mut retried = false;
    let answered = loop {
        let url = url(visit.address, path);
        let sent =
            door.http.request(method.clone(), url).headers(passed.clone()).body(body.clone()).send().await;
        match sent {
            Ok(answered) => break answered,
            // It had not answered, and has ended: the one that comes back has not heard it. Who was heard all the same, by one
            // that ended before it could say so, is told from a repetition by what tells a client's own.
            Err(error) if !retried => {
                debug!(%error, "a person's node broke off");
                retried = true;
                if !visit.came_back().await {
                    return Err(broken_off(&error));
                }
            }
            Err(error) => return Err(broken_off(&error)),
        }
    };
    let (status, mut heads) = (answered.status(), answered.headers().clone());
    for name in [header::CONNECTION, header::TRANSFER_ENCODING] {
        heads.remove(name);
    }
    let pieces = answered.bytes_stream().map(move |piece| {
        let _until_the_end = (&visit, &under_way);
        piece
    });
    let mut response = Response::new(Body::from_stream(pieces));
    *response.status_mut() = StatusCode::from_u16(status.as_u16()).unwrap_or(StatusCode::BAD_GATEWAY);
    *response.headers_mut() = heads;
    Ok(response)
}

fn broken_off(error: &reqwest::Error) -> ApiError {
    warn!(%error, "a person's node broke off");
    ApiError::unavailable("The model went away in the middle. Try again.")
}

fn url(address: SocketAddr, path: &str) -> String {
    format!("http://{address}{path}")
}

fn told(error: NoPlace) -> ApiError {
    let status = match &error {
        NoPlace::TooMany { .. } => StatusCode::FORBIDDEN,
        NoPlace::AllBusy { .. } | NoPlace::Down { .. } => StatusCode::SERVICE_UNAVAILABLE,
    };
    warn!("{error}");
    let mut told = ApiError::unavailable(error.to_string());
    if status == StatusCode::FORBIDDEN {
        told = ApiError {
            status,
            kind: "permission_error",
            code: Some("too_many_people"),
            retry_after_secs: None,
            ..told
        };
    }
    told
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn what_anyone_may_answer_is_told_from_what_is_a_persons() {
        for path in ["/v1/models", "/models/policy", "/openapi.json"] {
            assert!(of_nobody(&Method::GET, path), "{path}");
        }
        assert!(of_nobody(&Method::POST, "/v1/tokenize"));
        for path in ["/v1/responses/resp_1", "/v1/modelsx", "/v1/v1/models", "/health"] {
            assert!(!of_nobody(&Method::GET, path), "{path}");
        }
        assert!(!of_nobody(&Method::POST, "/v1/models"));
        for path in ["/v1/models/../responses/resp_1", "/v1/models/%2E%2e/responses/resp_1", "/./v1/models"] {
            assert!(has_dots(path), "{path}");
        }
        assert!(!has_dots("/v1/models/a..b"));
    }

    #[test]
    fn a_name_in_a_header_is_read_whole_or_refused() {
        let mut headers = HeaderMap::new();
        assert_eq!(in_header(&headers, "x-user-id"), Ok(None));
        let utf8 = HeaderValue::from_bytes("Łukasz".as_bytes()).expect("a header carries it");
        headers.insert("x-user-id", utf8);
        assert_eq!(in_header(&headers, "x-user-id"), Ok(Some("Łukasz".to_owned())));
        headers.append("x-user-id", HeaderValue::from_static("ada"));
        assert_eq!(in_header(&headers, "x-user-id").expect_err("two names").status, StatusCode::BAD_REQUEST);
        headers.insert("x-user-id", HeaderValue::from_bytes(&[b'a', 0xff]).expect("a header carries it"));
        assert!(in_header(&headers, "x-user-id").is_err());
    }
}
