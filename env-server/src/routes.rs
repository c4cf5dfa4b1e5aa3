//! The routes of leases: those of the published environment servers, and what we have added.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Path, Query, Request, State},
    http::{
        HeaderValue, StatusCode,
        header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER},
    },
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bytes::Bytes;
use openclaw_environments::{wire, world::Split};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use subtle::ConstantTimeEq;

use crate::{
    leases::{Reply, fingerprint},
    meters, openenv, published,
    server::{Fault, Server, Wanted, reply},
    stage::{Place, Stage},
};

/// Of one request.
const BODY_BYTES: usize = 8 << 20;
/// Of a name in a request.
const NAME_BYTES: usize = 256;
/// After how long another try for a slot may do, in seconds.
const RETRY_SECS: u32 = 1;

/// All of them.
pub fn router(server: Arc<Server>) -> Router {
    let locked = Router::new()
        .route("/allocate", post(allocate))
        .route("/heartbeat", post(heartbeat))
        .route("/interrupt", post(interrupt))
        .route("/reset", post(reset))
        .route("/step", post(step))
        .route("/evaluate", post(evaluate))
        .route("/close", post(close))
        .route("/exec_tool", post(published::exec_tool))
        .route("/exec", post(published::exec))
        .route("/diff", post(published::diff))
        .route("/get_obs", post(published::get_obs))
        .route("/environments", get(environments))
        .route("/task", get(task))
        .route("/image/{sha256}", get(image))
        .route("/images", get(images))
        .route("/status", get(status))
        .route("/metrics", get(recorded))
        .merge(openenv::router())
        .layer(middleware::from_fn_with_state(server.clone(), unlock));
    Router::new()
        .route("/healthz", get(async || answer(reply(200, &json!({"ok": true})))))
        .route("/health", get(async || answer(reply(200, &json!({"status": "healthy"})))))
        .merge(locked)
        .with_state(server)
}

/// Lets through whoever shows the token.
async fn unlock(State(server): State<Arc<Server>>, request: Request, next: Next) -> Response {
    let shown = request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes).unwrap_or_default();
    let shown = shown.strip_prefix(b"Bearer ").unwrap_or_default();
    if bool::from(shown.ct_eq(server.config.token.as_bytes())) {
        return next.run(request).await;
    }
    meters::denied("UNAUTHORIZED");
    let told =
        json!({"ok": false, "error": "authorization: the server's token is needed", "code": "UNAUTHORIZED"});
    answer(reply(401, &told))
}

/// An answer as it goes out.
pub fn answer(reply: Reply) -> Response {
    let status = StatusCode::from_u16(reply.status).expect("a status of ours");
    let mut response = (status, [(CONTENT_TYPE, "application/json")], reply.body).into_response();
    if status == StatusCode::TOO_MANY_REQUESTS {
        response.headers_mut().insert(RETRY_AFTER, RETRY_SECS.into());
    }
    response
}

/// An answer, or why there is none.
pub fn settle(result: Result<Reply, Fault>) -> Response {
    answer(result.unwrap_or_else(|fault| {
        let reply = fault.reply();
        if let Fault::Denied(denied) = fault {
            meters::denied(denied.code());
        }
        reply
    }))
}

/// A request: its fields, and what tells it apart from another of the same name.
pub struct Asked {
    fields: Map<String, Value>,
    bytes: Bytes,
}

impl Asked {
    /// Reads one.
    pub async fn read(body: Body) -> Result<Self, Fault> {
        let bad = |why: String| Fault::Request(why);
        let bytes = to_bytes(body, BODY_BYTES)
            .await
            .map_err(|_| bad(format!("no whole body of at most {BODY_BYTES} bytes")))?;
        match serde_json::from_slice(&bytes) {
            Ok(Value::Object(fields)) => Ok(Self { fields, bytes }),
            Ok(_) => Err(bad("the body is no object".to_owned())),
            Err(error) => Err(bad(format!("the body is no JSON: {error}"))),
        }
    }

    /// A field that is a name, if it is there.
    pub fn name(&self, key: &str) -> Result<Option<&str>, Fault> {
        match self.fields.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(name)) if name.len() <= NAME_BYTES => Ok(Some(name)),
            Some(_) => Err(Fault::Request(format!("{key}: no text of at most {NAME_BYTES} bytes"))),
        }
    }

    /// The lease that is asked.
    pub fn lease_id(&self) -> Result<&str, Fault> {
        self.name("lease_id")?.ok_or_else(|| Fault::Request("lease_id: missing".to_owned()))
    }

    /// Whether a field is there.
    pub fn has(&self, key: &str) -> bool {
        self.fields.get(key).is_some_and(|value| !value.is_null())
    }

    /// Takes a field out.
    pub fn take(&mut self, key: &str) -> Option<Value> {
        self.fields.remove(key).filter(|value| !value.is_null())
    }

    /// A span of time in seconds, if it is there; what is not above 0 is none, as the published servers have it.
    pub fn seconds(&self, key: &str) -> Result<Option<Duration>, Fault> {
        match self.fields.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => seconds(key, value),
        }
    }

    /// Asks the world of the lease.
    pub async fn of(
        &self,
        server: &Server,
        route: &str,
        job: impl FnOnce(&mut Stage) -> Result<Value, Fault> + Send + 'static,
    ) -> Result<Reply, Fault> {
        let name = self.name("request_id")?;
        server.ask(self.lease_id()?, name, fingerprint(route, &self.bytes), job).await
    }
}

fn seconds(key: &str, value: &Value) -> Result<Option<Duration>, Fault> {
    let seconds = value.as_f64().ok_or_else(|| Fault::Request(format!("{key}: no number of seconds")))?;
    // More than a day is no limit of anybody's.
    Ok((seconds > 0.0).then(|| Duration::from_secs_f64(seconds.min(24.0 * 3600.0))))
}

async fn allocate(State(server): State<Arc<Server>>, body: Body) -> Response {
    let asked = async {
        let asked = Asked::read(body).await?;
        // Each of the published servers has its own name for it.
        let mut task_key = None;
        for key in ["task_key", "instance_id", "episode_id"] {
            task_key = task_key.or(asked.name(key)?);
        }
        let wanted = Wanted {
            env: asked.name("env")?,
            user: asked.name("user")?,
            task_key: task_key.unwrap_or("any"),
            request_id: asked.name("request_id")?,
            ttl: asked.seconds("ttl_secs")?,
        };
        let allocated = server.allocate(&wanted)?;
        let expires = SystemTime::now() + allocated.ttl;
        let expires = expires.duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(reply(
            200,
            &json!({
                "ok": true, "lease_id": allocated.id, "reused": allocated.reused,
                "ttl_secs": allocated.ttl.as_secs_f64(), "expires_at_ms": expires.as_millis() as u64,
            }),
        ))
    };
    settle(asked.await)
}

async fn heartbeat(State(server): State<Arc<Server>>, body: Body) -> Response {
    let asked = async {
        let ttl = server.heartbeat(Asked::read(body).await?.lease_id()?)?;
        Ok(reply(200, &json!({"ok": true, "ttl_secs": ttl.as_secs_f64()})))
    };
    settle(asked.await)
}

async fn interrupt(State(server): State<Arc<Server>>, body: Body) -> Response {
    let asked = async {
        server.interrupt(Asked::read(body).await?.lease_id()?)?;
        Ok(reply(200, &json!({"ok": true})))
    };
    settle(asked.await)
}

async fn reset(State(server): State<Arc<Server>>, body: Body) -> Response {
    let asked = async {
        let mut asked = Asked::read(body).await?;
        let place = place(&mut asked)?;
        let timeouts = asked.take("task_timeouts").unwrap_or_default();
        let limit = |name: &str| match timeouts.get(name) {
            Some(value) => seconds(&format!("task_timeouts.{name}"), value),
            None => Ok(None),
        };
        let (limit, evaluation) = (limit("reset_session")?, limit("eval")?);
        if asked.has("limits") {
            return Err(Fault::Request("limits: those of the environment hold".to_owned()));
        }
        asked
            .of(&server, "reset", move |stage| {
                if let Some(limit) = limit {
                    stage.at_most(limit);
                }
                stage.evaluation_at_most(evaluation);
                Ok(stage.reset(&place)?)
            })
            .await
    };
    settle(asked.await)
}

/// Which task a reset means: `task` with `split` and `number`, `seed` or `id`, or `task_meta` with `task_name`.
fn place(asked: &mut Asked) -> Result<Place, Fault> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct TaskForm {
        split: Option<String>,
        number: Option<u64>,
        seed: Option<u64>,
        id: Option<String>,
    }
    let bad = |why: String| Fault::Request(why);
    let outer =
        asked.take("seed").map(|seed| seed.as_u64().ok_or_else(|| bad("seed: no number from 0".to_owned())));
    let outer = outer.transpose()?;
    if let Some(task) = asked.take("task") {
        let form: TaskForm = serde_json::from_value(task).map_err(|error| bad(format!("task: {error}")))?;
        let split = match form.split {
            None => Split::Train,
            Some(name) => wire::split(&name).ok_or_else(|| bad(format!("task.split: \"{name}\" is none")))?,
        };
        return match (form.number, form.seed.or(outer), form.id) {
            (Some(number), None, None) => Ok(Place::Number(split, number)),
            (None, Some(seed), None) => Ok(Place::Seed(split, seed)),
            (None, None, Some(id)) => Ok(Place::Named(id)),
            _ => Err(bad("task: one of number, seed and id".to_owned())),
        };
    }
    if let Some(meta) = asked.take("task_meta") {
        if outer.is_some() {
            return Err(bad("seed: task_meta names a task already".to_owned()));
        }
        let name = meta["task_name"].as_str().or(meta["task_path"].as_str());
        let name = name.ok_or_else(|| bad("task_meta.task_name: missing".to_owned()))?;
        return Ok(Place::Named(name.to_owned()));
    }
    match outer {
        Some(seed) => Ok(Place::Seed(Split::Train, seed)),
        None => Err(bad("task: missing".to_owned())),
    }
}

async fn step(State(server): State<Arc<Server>>, body: Body) -> Response {
    let asked = async {
        let mut asked = Asked::read(body).await?;
        if asked.seconds("sleep_after_execution")?.is_some() {
            let why = "sleep_after_execution: a world answers when it has acted, and not later";
            return Err(Fault::Request(why.to_owned()));
        }
        let action = asked.take("action").ok_or_else(|| Fault::Request("action: missing".to_owned()))?;
        let action =
            wire::read_action(action).map_err(|problem| Fault::Request(format!("action: {problem}")))?;
        asked
            .of(&server, "step", move |stage| {
                let mut told = wire::outcome(&stage.step(&action)?);
                let (steps, _) = stage.progress();
                told["ok"] = true.into();
                told["info"] = json!({"steps": steps});
                Ok(told)
            })
            .await
    };
    settle(asked.await)
}

async fn evaluate(State(server): State<Arc<Server>>, body: Body) -> Response {
    let asked = async {
        let asked = Asked::read(body).await?;
        published::refuse_foreign_evaluation(&asked)?;
        asked
            .of(&server, "evaluate", |stage| {
                let verdict = stage.evaluate()?;
                Ok(json!({"ok": true, "score": wire::score(&verdict), "verdict": wire::verdict(&verdict)?}))
            })
            .await
    };
    settle(asked.await)
}

async fn close(State(server): State<Arc<Server>>, body: Body) -> Response {
    let asked = async {
        let asked = Asked::read(body).await?;
        let id = asked.lease_id()?.to_owned();
        // Whoever asked may leave: what was begun is ended.
        let closed = tokio::spawn(async move { server.close(&id).await });
        let found = closed.await.unwrap_or_default();
        Ok(reply(200, &json!({"ok": true, "found": found})))
    };
    settle(asked.await)
}

async fn environments(State(server): State<Arc<Server>>) -> Response {
    blocking(move || Ok(json!({"ok": true, "environments": server.listed()}))).await
}

#[derive(Deserialize)]
struct TaskQuery {
    env: Option<String>,
    user: Option<String>,
    split: String,
    number: u64,
}

async fn task(State(server): State<Arc<Server>>, Query(query): Query<TaskQuery>) -> Response {
    blocking(move || {
        let (_, environment) = server.environment(query.env.as_deref(), query.user.as_deref())?;
        let split = wire::split(&query.split);
        let split = split.ok_or_else(|| Fault::Request(format!("split: \"{}\" is none", query.split)))?;
        let task = environment.task(split, query.number)?;
        Ok(json!({"ok": true, "task": wire::task(&task)}))
    })
    .await
}

/// Environments may read files: what is asked of them runs where that is allowed.
pub async fn blocking(work: impl FnOnce() -> Result<Value, Fault> + Send + 'static) -> Response {
    let done = tokio::task::spawn_blocking(work).await;
    let broken = |error: tokio::task::JoinError| {
        Err(openclaw_environments::world::WorldError::Broken(error.to_string()).into())
    };
    settle(done.unwrap_or_else(broken).map(|value| reply(200, &value)))
}

async fn image(State(server): State<Arc<Server>>, Path(sha256): Path<String>) -> Response {
    let found = server.images().get(&sha256);
    match found {
        Some((bytes, media_type)) => {
            let media_type = HeaderValue::try_from(&*media_type)
                .unwrap_or(HeaderValue::from_static("application/octet-stream"));
            ([(CONTENT_TYPE, media_type)], bytes).into_response()
        }
        None => {
            let told = json!({"ok": false, "error": "there is no such image, or its lease has ended", "code": "NO_IMAGE"});
            answer(reply(404, &told))
        }
    }
}

async fn images(State(server): State<Arc<Server>>) -> Response {
    let images: Vec<&str> =
        server.config.environments.values().filter_map(|served| served.image.as_deref()).collect();
    answer(reply(200, &json!({"ok": true, "images": images, "count": images.len()})))
}

async fn status(State(server): State<Arc<Server>>) -> Response {
    let ((leases, ending), images) = (server.count(), server.images().count());
    let limits = &server.config.limits;
    answer(reply(
        200,
        &json!({
            "ok": true,
            "pool": {
                "leases": leases, "ending": ending, "images": images, "task_slots": limits.task_slots,
                "run_slots": limits.run_slots, "ttl_secs": limits.ttl_secs,
            },
            "environments": server.config.environments.keys().collect::<Vec<_>>(),
        }),
    ))
}

async fn recorded() -> Response {
    match meters::record() {
        Some(handle) => {
            ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], handle.render()).into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
