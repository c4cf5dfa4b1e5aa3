//! `POST /v1/episodes/begin` and `/v1/episodes/end`: an agent outside says that the answers of a session are steps towards
//! an end, and how it came out.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{Request, State},
    http::HeaderMap,
};
use openclaw_journal::{
    Episode, EpisodeId, EpisodeState, Group, Journal, JournalError, Outcome, Record, Recorded, SessionId,
};
use serde_json::{Map, Value, json};
use tokio::time::timeout;
use tracing::warn;

use super::{Shared, body, errors::ApiError, marks::request_marks};
use crate::sessions::ArrivedRequest;

/// How long a client waits for the journal before it is told to say it again.
const PATIENCE: Duration = Duration::from_secs(5);
/// Most bytes of a name.
const MAX_NAME_BYTES: usize = 256;
/// Most bytes of a reason.
const MAX_REASON_BYTES: usize = 1024;
/// Most numbers of an outcome.
const MAX_NUMBERS: usize = 64;
/// Most episodes of a group.
const MAX_GROUP: u64 = 4096;

/// Where episodes are written down.
#[derive(Clone)]
pub struct Episodes {
    /// The run's.
    pub journal: Journal,
    /// The method learns from what a judge makes of each step.
    pub judged: bool,
}

/// The handler of `begin`; it answers after the commit. Said again, it changes nothing.
pub async fn begin(State(shared): State<Arc<Shared>>, request: Request) -> Result<Json<Value>, ApiError> {
    let (headers, fields) = read(&shared, request).await?;
    let episodes = kept(&shared)?;
    let session = session(&headers, &fields)?
        .unwrap_or_else(|| SessionId(format!("episode-{}", uuid::Uuid::new_v4().simple()).into()));
    let id = name(&fields, "id")?.unwrap_or_else(|| format!("ep-{}", uuid::Uuid::new_v4().simple()));
    let group = match (name(&fields, "group")?, whole(&fields, "group_size")?) {
        (None, None) => None,
        (Some(name), Some(of @ 1..=MAX_GROUP)) => Some(Group { name: name.into(), of: of as u32 }),
        (None, _) => return Err(ApiError::invalid("group", "'group_size' needs the name of a 'group'.")),
        (Some(_), of) => {
            let found = of.map_or("missing".to_owned(), |of| of.to_string());
            let message = format!("'group_size' is {found}; a group has from 1 to {MAX_GROUP} episodes.");
            return Err(ApiError::invalid("group_size", message));
        }
    };
    let task = name(&fields, "task")?
        .ok_or_else(|| ApiError::invalid("task", "'task' must name what is to be done."))?;
    let episode = Episode {
        id: EpisodeId(id.into()),
        session,
        environment: name(&fields, "environment")?.unwrap_or_else(|| "external".to_owned()).into(),
        task: task.into(),
        seed: whole(&fields, "seed")?,
        group,
        judged: episodes.judged,
    };
    if record(episodes, Record::EpisodeBegan { episode: episode.clone() }).await? == Recorded::Stale {
        let known = found(episodes.journal.episode(&episode.id).await)?;
        match known {
            Some((row, _)) if row.episode == episode && row.state == EpisodeState::Open => {}
            Some(_) => {
                let message = format!("There is another episode with the id `{}`.", episode.id);
                return Err(ApiError::invalid("id", message));
            }
            None => {
                let message = format!("The session `{}` is in an episode already.", episode.session);
                return Err(ApiError::invalid("session_id", message));
            }
        }
    }
    Ok(Json(json!({
        "object": "episode", "id": episode.id.0, "session_id": episode.session.0, "status": "open",
    })))
}

/// The handler of `end`; it answers after the commit. Said again, it changes nothing.
pub async fn end(State(shared): State<Arc<Shared>>, request: Request) -> Result<Json<Value>, ApiError> {
    let (headers, fields) = read(&shared, request).await?;
    let episodes = kept(&shared)?;
    let state = outcome(&fields)?;
    let unknown = |what: String| ApiError {
        param: Some("id".to_owned()),
        ..ApiError::not_found("unknown_episode", format!("There is no episode {what}."))
    };
    let row = match (name(&fields, "id")?, session(&headers, &fields)?) {
        (Some(id), _) => {
            let row = found(episodes.journal.episode(&EpisodeId(id.as_str().into())).await)?;
            row.map(|(row, _)| row).ok_or_else(|| unknown(format!("with the id `{id}`")))?
        }
        (None, Some(session)) => {
            let row = found(episodes.journal.episode_in(&session).await)?;
            row.ok_or_else(|| unknown(format!("of the session `{session}`")))?
        }
        (None, None) => {
            return Err(ApiError::invalid("id", "'id', 'session_id' or X-Session-Id must name the episode."));
        }
    };
    let episode = row.episode.id;
    let said = match state.clone() {
        EpisodeState::Ended(outcome) => Record::EpisodeEnded { episode: episode.clone(), outcome },
        EpisodeState::Abandoned(reason) => Record::EpisodeAbandoned { episode: episode.clone(), reason },
        EpisodeState::Open => unreachable!("an end is one or the other"),
    };
    if record(episodes, said).await? == Recorded::Stale {
        let known = found(episodes.journal.episode(&episode).await)?;
        if known.is_none_or(|(row, _)| row.state != state) {
            return Err(ApiError::invalid("id", format!("The episode `{episode}` has ended otherwise.")));
        }
    }
    let status = if matches!(state, EpisodeState::Ended(_)) { "ended" } else { "abandoned" };
    Ok(Json(json!({
        "object": "episode", "id": episode.0, "session_id": row.episode.session.0, "status": status,
    })))
}

async fn read(shared: &Shared, request: Request) -> Result<(HeaderMap, Map<String, Value>), ApiError> {
    let (parts, body) = request.into_parts();
    let body = body::receive_small(&parts.headers, body, shared.config.max_body_bytes).await?;
    let fields = body::read_object(&body)?;
    Ok((parts.headers, fields))
}

fn kept(shared: &Shared) -> Result<&Episodes, ApiError> {
    shared.episodes.as_ref().ok_or_else(|| ApiError::not_kept("The episode"))
}

fn found<T>(read: Result<T, JournalError>) -> Result<T, ApiError> {
    read.map_err(|error| {
        warn!(error = error.line(), "an episode cannot be read");
        ApiError::unavailable("The journal cannot be read now.")
    })
}

async fn record(episodes: &Episodes, record: Record) -> Result<Recorded, ApiError> {
    let told = match &record {
        Record::EpisodeBegan { .. } => "begun",
        Record::EpisodeEnded { .. } => "ended",
        _ => "abandoned",
    };
    match timeout(PATIENCE, episodes.journal.record(record)).await {
        Ok(Ok(recorded)) => {
            if recorded == Recorded::Done {
                metrics::counter!("openclaw_episodes_total", "state" => told).increment(1);
            }
            Ok(recorded)
        }
        Ok(Err(error)) => {
            warn!(error = error.line(), "what was said of an episode is not kept");
            Err(ApiError::not_kept("The episode"))
        }
        Err(_) => Err(ApiError::not_kept("The episode")),
    }
}

/// As the turns of its requests have it.
fn session(headers: &HeaderMap, fields: &Map<String, Value>) -> Result<Option<SessionId>, ApiError> {
    name(fields, "session_id")?;
    let marks = request_marks(headers, fields, false);
    Ok(marks
        .names_its_session()
        .then(|| ArrivedRequest::new(marks, Arc::default(), false).without_session().session))
}

fn outcome(fields: &Map<String, Value>) -> Result<EpisodeState, ApiError> {
    if let Some(reason) = text(fields, "abandoned", MAX_REASON_BYTES)? {
        if fields.contains_key("reward") {
            return Err(ApiError::invalid("reward", "An episode that is 'abandoned' has no 'reward'."));
        }
        return Ok(EpisodeState::Abandoned(reason));
    }
    let finite = |value: &Value| value.as_f64().filter(|number| (*number as f32).is_finite());
    let reward = fields.get("reward").and_then(finite).ok_or_else(|| {
        ApiError::invalid("reward", "'reward' must be a number: how good the outcome is, such as 1 or -1.")
    })?;
    let success = match fields.get("success") {
        None | Some(Value::Null) => None,
        Some(Value::Bool(success)) => Some(*success),
        Some(_) => return Err(ApiError::invalid("success", "'success' must be true or false.")),
    };
    let mut numbers = BTreeMap::new();
    match fields.get("numbers") {
        None | Some(Value::Null) => {}
        Some(Value::Object(given)) if given.len() <= MAX_NUMBERS => {
            for (name, value) in given {
                let number = finite(value).filter(|_| name.len() <= MAX_NAME_BYTES);
                let refused = || {
                    let shown: String = name.chars().take(MAX_NAME_BYTES).collect();
                    ApiError::invalid(format!("numbers.{shown}"), "It must be a number with a short name.")
                };
                numbers.insert(name.clone(), number.ok_or_else(refused)?);
            }
        }
        Some(_) => {
            let message = format!("'numbers' must be an object of at most {MAX_NUMBERS} numbers.");
            return Err(ApiError::invalid("numbers", message));
        }
    }
    Ok(EpisodeState::Ended(Outcome { reward: reward as f32, success, numbers }))
}

fn name(fields: &Map<String, Value>, key: &str) -> Result<Option<String>, ApiError> {
    text(fields, key, MAX_NAME_BYTES)
}

fn text(fields: &Map<String, Value>, key: &str, most: usize) -> Result<Option<String>, ApiError> {
    match fields.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if !text.trim().is_empty() && text.len() <= most => Ok(Some(text.clone())),
        Some(_) => {
            let message = format!("'{key}' must be a text of at most {most} bytes, and no empty one.");
            Err(ApiError::invalid(key, message))
        }
    }
}

fn whole(fields: &Map<String, Value>, key: &str) -> Result<Option<u64>, ApiError> {
    match fields.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_u64() {
            Some(number) => Ok(Some(number)),
            None => Err(ApiError::invalid(key, format!("'{key}' must be a whole number from 0."))),
        },
    }
}
