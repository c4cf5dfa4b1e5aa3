//! OpenEnv's socket: a connection is a lease, an episode begins with `reset` and its last step carries the verdict.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{
        Path, Query, State,
        ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade},
    },
    response::Response,
    routing::get,
};
use openclaw_environments::{
    wire,
    world::{Action, Observation, Split, Tool, text_of},
};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::time::{MissedTickBehavior, interval};

use crate::{
    leases::Denied,
    meters,
    routes::blocking,
    server::{Fault, Server, Wanted},
    stage::{Place, Stage},
};

/// Of one message.
const MESSAGE_BYTES: usize = 8 << 20;
/// Messages that wait for the one that is being answered.
const WAITING: usize = 16;

#[derive(Deserialize)]
struct Which {
    env: Option<String>,
}

/// The routes; each also below `/env/NAME`, for a client that knows nothing but an address.
pub fn router() -> Router<Arc<Server>> {
    let plain = Router::new()
        .route("/ws", get(socket))
        .route("/metadata", get(metadata))
        .route("/schema", get(schema))
        .route("/state", get(state));
    let named = Router::new()
        .route("/env/{env}/ws", get(socket_of))
        .route("/env/{env}/metadata", get(metadata_of))
        .route("/env/{env}/schema", get(schema))
        .route("/env/{env}/state", get(state));
    plain.merge(named)
}

async fn socket(
    State(server): State<Arc<Server>>,
    Query(which): Query<Which>,
    upgrade: WebSocketUpgrade,
) -> Response {
    let upgrade = upgrade.max_message_size(MESSAGE_BYTES).max_frame_size(MESSAGE_BYTES);
    upgrade.on_upgrade(move |socket| attend(server, which.env, socket))
}

async fn socket_of(
    State(server): State<Arc<Server>>,
    Path(env): Path<String>,
    upgrade: WebSocketUpgrade,
) -> Response {
    socket(State(server), Query(Which { env: Some(env) }), upgrade).await
}

async fn metadata(State(server): State<Arc<Server>>, Query(which): Query<Which>) -> Response {
    blocking(move || {
        let (name, environment) = server.environment(which.env.as_deref(), None)?;
        let spec = environment.spec();
        let about = openclaw_environments::registry::KINDS.iter().find(|kind| kind.name == spec.kind);
        let about = about.map_or("", |kind| kind.about);
        Ok(json!({
            "name": name, "description": about, "version": env!("CARGO_PKG_VERSION"), "kind": spec.kind,
            "steps": spec.steps,
            "tasks": {"train": environment.tasks(Split::Train), "held_out": environment.tasks(Split::HeldOut)},
        }))
    })
    .await
}

async fn metadata_of(State(server): State<Arc<Server>>, Path(env): Path<String>) -> Response {
    metadata(State(server), Query(Which { env: Some(env) })).await
}

async fn schema() -> Response {
    blocking(|| {
        let call = json!({
            "type": "object", "required": ["name"],
            "properties": {
                "id": {"type": "string"}, "name": {"type": "string"}, "arguments": {"type": "object"},
            },
        });
        let action = json!({
            "title": "Action", "type": "object",
            "description": "Calls of the tools that the first observation offers, or a message, which ends most tasks",
            "oneOf": [{"required": ["tool_calls"]}, {"required": ["message"]}],
            "properties": {
                "tool_calls": {"type": "array", "minItems": 1, "items": call},
                "message": {"type": "string"},
                "metadata": {"type": "object"},
            },
        });
        let parts = json!({"type": "array", "items": {"type": "object"}});
        let observation = json!({
            "title": "Observation", "type": "object",
            "properties": {
                "text": {"type": "string", "description": "All that is seen, in words"},
                "results": {"type": "array", "description": "What each call gave", "items": {"type": "object"}},
                "parts": parts,
                "messages": {"type": "array", "description": "At first: what the agent is told", "items": {"type": "object"}},
                "tools": {"type": "array", "description": "At first: what it may call", "items": {"type": "object"}},
                "metadata": {"type": "object"},
            },
        });
        let state = json!({
            "title": "State", "type": "object",
            "properties": {
                "episode_id": {"type": ["string", "null"]}, "step_count": {"type": "integer"},
                "task_id": {"type": ["string", "null"]}, "done": {"type": "boolean"},
            },
        });
        Ok(json!({"action": action, "observation": observation, "state": state}))
    })
    .await
}

/// Of no session: each has its own, by its socket.
async fn state() -> Response {
    blocking(|| Ok(json!({"episode_id": null, "step_count": 0}))).await
}

/// What is sent back.
fn told(kind: &str, data: Value) -> Value {
    json!({"type": kind, "data": data})
}

fn error(code: &str, message: &str) -> Value {
    told("error", json!({"message": message, "code": code}))
}

async fn attend(server: Arc<Server>, env: Option<String>, mut socket: WebSocket) {
    let task_key = format!("socket-{:016x}", rand::random::<u64>());
    let wanted = Wanted { env: env.as_deref(), task_key: &task_key, ..Wanted::default() };
    let allocated = match server.allocate(&wanted) {
        Ok(allocated) => allocated,
        Err(fault) => {
            let code = match fault {
                Fault::Denied(Denied::TaskSlots | Denied::RunSlots) => "CAPACITY_REACHED",
                Fault::Request(_) => "SESSION_ERROR",
                _ => "FACTORY_ERROR",
            };
            if let Fault::Denied(denied) = fault {
                meters::denied(denied.code());
            }
            leave(socket, Some(error(code, &fault.to_string()))).await;
            return;
        }
    };
    let session = Session { server: server.clone(), lease_id: allocated.id.clone(), episode_id: None };
    session.talk(&mut socket, allocated.ttl).await;
    // Its world may still be ending when the socket has closed.
    let id = allocated.id;
    tokio::spawn(async move { server.close(&id).await });
    leave(socket, None).await;
}

async fn leave(mut socket: WebSocket, last: Option<Value>) {
    let last = last.map(|last| Message::text(last.to_string()));
    let close = Message::Close(Some(CloseFrame { code: 1000, reason: "".into() }));
    for message in last.into_iter().chain([close]) {
        if let Err(error) = socket.send(message).await {
            tracing::debug!(%error, "a socket broke");
            return;
        }
    }
}

/// A lease, and who named its episode.
struct Session {
    server: Arc<Server>,
    lease_id: String,
    episode_id: Option<String>,
}

impl Session {
    /// Until the client leaves, or its lease ends: the socket is asked for a sign of life as often as needed.
    async fn talk(mut self, socket: &mut WebSocket, ttl: Duration) {
        let mut beat = interval((ttl / 3).max(Duration::from_millis(10)));
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut waiting: VecDeque<String> = VecDeque::new();
        loop {
            // What the client sends while it is being answered waits; that it leaves does not.
            let message = match waiting.pop_front() {
                Some(message) => message,
                None => match self.listen(socket, &mut beat).await {
                    Some(message) => message,
                    None => return,
                },
            };
            let Some(asked) = self.read(&message) else { return };
            let answer = match asked {
                Ok(work) => {
                    let mut work = std::pin::pin!(work);
                    loop {
                        tokio::select! {
                            answer = &mut work => break answer,
                            heard = self.listen(socket, &mut beat) => match heard {
                                Some(message) if waiting.len() < WAITING => waiting.push_back(message),
                                _ => return,
                            },
                        }
                    }
                }
                Err(answer) => answer,
            };
            if socket.send(Message::text(answer.to_string())).await.is_err() {
                return;
            }
        }
    }

    /// The next message; none where the client has left, or the lease has ended.
    async fn listen(&self, socket: &mut WebSocket, beat: &mut tokio::time::Interval) -> Option<String> {
        loop {
            tokio::select! {
                _ = beat.tick() => {
                    // Nobody answers where nobody is, and the lease ends.
                    self.server.is_live(&self.lease_id).then_some(())?;
                    socket.send(Message::Ping(Default::default())).await.ok()?;
                }
                heard = socket.recv() => {
                    let heard = heard?.ok()?;
                    self.server.heartbeat(&self.lease_id).ok()?;
                    match heard {
                        Message::Text(text) => return Some(text.as_str().to_owned()),
                        Message::Binary(bytes) => return Some(String::from_utf8_lossy(&bytes).into_owned()),
                        Message::Ping(_) | Message::Pong(_) => {}
                        Message::Close(_) => return None,
                    }
                }
            }
        }
    }

    /// What a message asks for; none where it says goodbye.
    #[allow(clippy::type_complexity, reason = "a future has no name")]
    fn read(&mut self, message: &str) -> Option<Result<impl Future<Output = Value> + Send + use<>, Value>> {
        #[derive(Deserialize)]
        struct Form {
            #[serde(default)]
            r#type: String,
            #[serde(default)]
            data: Map<String, Value>,
        }
        let value: Value = match serde_json::from_str(message) {
            Ok(value) => value,
            Err(problem) => return Some(Err(error("INVALID_JSON", &format!("Invalid JSON: {problem}")))),
        };
        let form: Form = match serde_json::from_value(value) {
            Ok(form) => form,
            Err(problem) => return Some(Err(error("VALIDATION_ERROR", &problem.to_string()))),
        };
        let invalid = |problem: String| Some(Err(error("VALIDATION_ERROR", &problem)));
        let job = match form.r#type.as_str() {
            "close" => return None,
            "reset" => match reset(&form.data) {
                Ok((place, episode_id)) => {
                    self.episode_id = episode_id;
                    Job::Reset(place)
                }
                Err(problem) => return invalid(problem),
            },
            "step" => match wire::read_action(Value::Object(form.data)) {
                Ok(action) => Job::Step(action),
                Err(problem) => return invalid(problem),
            },
            "state" => Job::State(self.episode_id.clone()),
            other => return Some(Err(error("UNKNOWN_TYPE", &format!("Unknown message type: {other}")))),
        };
        let (server, lease_id) = (self.server.clone(), self.lease_id.clone());
        Some(Ok(async move {
            let asked = server.ask(&lease_id, None, 0, move |stage| job.done(stage)).await;
            match asked {
                Ok(reply) if reply.status == 200 => {
                    serde_json::from_slice(&reply.body).expect("an answer of ours is JSON")
                }
                Ok(reply) => {
                    let told: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
                    error("EXECUTION_ERROR", told["error"].as_str().unwrap_or("it failed"))
                }
                Err(fault) => error("SESSION_ERROR", &fault.to_string()),
            }
        }))
    }
}

/// Which task a reset means, and how the client calls the episode.
fn reset(data: &Map<String, Value>) -> Result<(Place, Option<String>), String> {
    let number = |key: &str| match data.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value.as_u64().map(Some).ok_or_else(|| format!("{key}: no number from 0")),
    };
    let text = |key: &str| match data.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.len() <= 255 => Ok(Some(text.clone())),
        Some(_) => Err(format!("{key}: no text of at most 255 bytes")),
    };
    let known = ["task_id", "task_index", "split", "seed", "episode_id"];
    if let Some(unknown) = data.keys().find(|key| !known.contains(&key.as_str())) {
        return Err(format!("{unknown}: unknown; a reset has {}", known.join(", ")));
    }
    let split = match text("split")? {
        None => Split::Train,
        Some(name) => wire::split(&name).ok_or_else(|| format!("split: \"{name}\" is none"))?,
    };
    let place = match (text("task_id")?, number("task_index")?, number("seed")?) {
        (Some(id), None, _) => Place::Named(id),
        (None, Some(number), _) => Place::Number(split, number),
        (None, None, Some(seed)) => Place::Seed(split, seed),
        // Whoever does not care gets one of many.
        (None, None, None) => Place::Seed(split, rand::random()),
        (Some(_), Some(_), _) => return Err("task_id: there is a task_index, too".to_owned()),
    };
    Ok((place, text("episode_id")?))
}

/// What is asked of the world of a socket.
enum Job {
    Reset(Place),
    Step(Action),
    State(Option<String>),
}

impl Job {
    fn done(self, stage: &mut Stage) -> Result<Value, Fault> {
        match self {
            Self::Reset(place) => {
                stage.reset(&place)?;
                let task = stage.task()?.clone();
                let seen = stage.seen()?.clone();
                let mut observation = seen_as(&seen);
                let said = task.opening.iter().map(|said| text_of(&said.parts));
                let first = (!seen.parts.is_empty()).then(|| text_of(&seen.parts));
                observation["text"] = said.chain(first).collect::<Vec<_>>().join("\n\n").into();
                observation["messages"] = task.opening.iter().map(|said| said.message()).collect();
                observation["tools"] = task.tools.iter().map(Tool::function).collect();
                observation["metadata"] =
                    json!({"task_id": *task.id, "split": task.split.name(), "task_index": task.number});
                Ok(told("observation", json!({"observation": observation, "reward": null, "done": false})))
            }
            Self::Step(action) => {
                if stage.progress().1 {
                    let mut observation =
                        seen_as(&Observation::text("The task is over: reset begins another."));
                    observation["metadata"] = json!({"over": true});
                    return Ok(told(
                        "observation",
                        json!({"observation": observation, "reward": null, "done": true}),
                    ));
                }
                let outcome = stage.step(&action)?;
                let mut observation = seen_as(&outcome.observation);
                let rule = outcome.rule.map(|rule| json!({"score": rule.score, "reason": rule.reason}));
                let mut metadata = json!({"rule": rule});
                let (steps, _) = stage.progress();
                let last = outcome.done || steps >= stage.most_steps();
                let mut reward = Value::Null;
                if last {
                    stage.finish();
                    let verdict = wire::verdict(&stage.evaluate()?)?;
                    reward = verdict["reward"].clone();
                    metadata["verdict"] = verdict;
                    metadata["limit"] = (!outcome.done).into();
                }
                observation["metadata"] = metadata;
                Ok(told("observation", json!({"observation": observation, "reward": reward, "done": last})))
            }
            Self::State(episode_id) => {
                let (steps, done) = stage.progress();
                let task_id = stage.task().ok().map(|task| task.id.to_string());
                Ok(told(
                    "state",
                    json!({"episode_id": episode_id, "step_count": steps, "task_id": task_id, "done": done}),
                ))
            }
        }
    }
}

/// An observation, with all of it in words beside its parts. Images are fetched by their `url`.
fn seen_as(seen: &Observation) -> Value {
    let mut value = wire::observation(seen);
    let address = |part: &mut Value| {
        if let Some(sha256) = part["sha256"].as_str() {
            part["url"] = format!("/image/{sha256}").into();
        }
    };
    for part in value["parts"].as_array_mut().into_iter().flatten() {
        address(part);
    }
    for result in value["results"].as_array_mut().into_iter().flatten() {
        for part in result["parts"].as_array_mut().into_iter().flatten() {
            address(part);
        }
    }
    value["text"] = wire::words(seen).into();
    value
}
