//! Which conversation a request says it belongs to. First that exists: `X-Session-Id`, body `session_id`,
//! `prompt_cache_key` or an affinity header, the `Runtime:` line of the first user message, then the names that clients
//! and proxies have for a conversation. A request that says nothing is recognised by its history (see `conversations`);
//! `user` and `safety_identifier` name a person, whose histories are told from those of others.

use openclaw_journal::{OWN_SESSIONS, SessionId};
use serde_json::Value;

use super::{name::Name, transcript::message_text};

/// Longer names are replaced by their hash: they come from outside and are kept.
const MAX_SESSION_ID_BYTES: usize = 256;

/// What a request's headers and body say about it, beside its messages.
#[derive(Clone, Debug, Default)]
pub struct RequestMarks {
    /// Header `X-Session-Id`.
    pub session_header: Option<String>,
    /// Body `session_id`.
    pub session_body: Option<String>,
    /// Body `prompt_cache_key`, else header `session_id`, else `x-session-affinity`.
    pub cache_key: Option<String>,
    /// A conversation's name in another field or header, see `gateway/marks.rs`.
    pub conversation: Option<String>,
    /// Body `safety_identifier` or `user`: who speaks, in whatever conversation.
    pub person: Option<String>,
    /// The client says that it sends the request again.
    pub retry: bool,
    /// Header `X-Turn-Type`, else body `turn_type`.
    pub turn_type: Option<String>,
    /// The request named the model id for side turns.
    pub side_model: bool,
    /// Header `X-Session-Done` or body `session_done`: this is the session's last turn.
    pub session_done: bool,
    /// Header `X-No-Train`: answer, do not learn.
    pub no_train: bool,
}

impl RequestMarks {
    /// It has `X-Session-Id` or `session_id`, and no empty one.
    pub(crate) fn names_its_session(&self) -> bool {
        [&self.session_header, &self.session_body].into_iter().flatten().any(|id| !id.trim().is_empty())
    }

    /// What it says that it is, in small letters.
    pub(super) fn stated_type(&self) -> Option<String> {
        self.turn_type.as_deref().map(|kind| kind.trim().to_ascii_lowercase())
    }

    /// It says itself that it is part of the conversation.
    pub(super) fn states_main(&self) -> bool {
        self.stated_type().as_deref() == Some("main")
    }
}

/// The session a request names, if it names one.
pub fn stated_session(marks: &RequestMarks, messages: &[Value]) -> Option<SessionId> {
    let header = marks.session_header.as_deref();
    let cache_key = marks.cache_key.as_deref().filter(|key| names_a_session(key)).map(without_counter);
    [header, marks.session_body.as_deref(), cache_key]
        .into_iter()
        .flatten()
        .map(str::trim)
        .find(|id| !id.is_empty())
        .map(session_id)
        .or_else(|| Runtime::of_first_user(messages)?.session().map(session_id))
        .or_else(|| marks.conversation.as_deref().map(str::trim).filter(|id| !id.is_empty()).map(session_id))
}

fn session_id(id: &str) -> SessionId {
    // No client is an agent of the node's own.
    if id.len() <= MAX_SESSION_ID_BYTES && !id.starts_with(OWN_SESSIONS) {
        return SessionId(id.into());
    }
    let [first, second] = [1, 2].map(|half| Name::new().number(half).text(id).finish());
    SessionId(format!("long-{first:016x}{second:016x}").into())
}

/// `<uuid>:<n>`: OpenClaw counts its compactions behind the id. Others name channels in that way.
fn without_counter(key: &str) -> &str {
    match key.rsplit_once(':') {
        Some((id, n)) if uuid::Uuid::try_parse(id).is_ok() && n.parse::<u32>().is_ok() => id,
        _ => key,
    }
}

/// Cache keys of whole channels or jobs outlive their sessions.
fn names_a_session(cache_key: &str) -> bool {
    !["openclaw-webchat-", "openclaw-cron-"].iter().any(|start| cache_key.starts_with(start))
}

/// The line `Runtime: agent=… | session=… | sessionId=… | …` that OpenClaw appends to a session's first user message.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Runtime {
    session_key: Option<String>,
    session_id: Option<String>,
}

impl Runtime {
    /// Reads it from the first user message.
    pub fn of_first_user(messages: &[Value]) -> Option<Self> {
        Self::of_first(messages, |role| role == "user")
    }

    /// Reads it from the first system message, where clients of early 2026 put it.
    pub fn of_system(messages: &[Value]) -> Option<Self> {
        Self::of_first(messages, |role| role == "system" || role == "developer")
    }

    fn of_first(messages: &[Value], role: impl Fn(&str) -> bool) -> Option<Self> {
        let first = messages.iter().find(|m| m.get("role").and_then(Value::as_str).is_some_and(&role))?;
        Self::parse(&message_text(first))
    }

    /// The last such line counts: a person's text above it could imitate one.
    fn parse(text: &str) -> Option<Self> {
        let line = text.lines().rev().find_map(|line| {
            let fields = &line[line.rfind("Runtime:")? + "Runtime:".len()..];
            fields.contains("agent=").then_some(fields)
        })?;
        let mut runtime = Self::default();
        for (key, value) in line.split('|').filter_map(|field| field.trim().split_once('=')) {
            match key {
                "session" => runtime.session_key = Some(value.to_owned()),
                "sessionId" => runtime.session_id = Some(value.to_owned()),
                _ => {}
            }
        }
        Some(runtime)
    }

    /// The key that names the kind of run: `agent:main:…`, `…:cron:…`, `…:subagent:…`.
    pub fn session_key(&self) -> Option<&str> {
        self.session_key.as_deref()
    }

    fn session(&self) -> Option<&str> {
        self.session_id.as_deref().or(self.session_key.as_deref()).filter(|id| !id.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn session(marks: RequestMarks, first_user: &str) -> Option<String> {
        let messages =
            [json!({"role": "system", "content": "s"}), json!({"role": "user", "content": first_user})];
        stated_session(&marks, &messages).map(|id| id.to_string())
    }

    const RUNTIME: &str =
        "hello\n\nRuntime: agent=main | session=agent:main:g7 | sessionId=11-22 | host=h | model=m";

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn the_order_of_sources_is_header_body_cache_key_runtime_and_other_names() {
        let mut marks = RequestMarks {
            session_header: some("telegram:111"),
            session_body: some("from-body"),
            cache_key: some("0b8e6c1c-6a57-4d3e-9d0f-2f4a8c1d7e55:2"),
            conversation: some("from-elsewhere"),
            person: some("ada"),
            ..RequestMarks::default()
        };
        assert_eq!(session(marks.clone(), RUNTIME), some("telegram:111"), "a channel's number is its name");
        marks.session_header = some("  ");
        assert_eq!(session(marks.clone(), RUNTIME), some("from-body"));
        marks.session_body = None;
        assert_eq!(session(marks.clone(), RUNTIME), some("0b8e6c1c-6a57-4d3e-9d0f-2f4a8c1d7e55"));
        marks.cache_key = some("telegram:222");
        assert_eq!(session(marks.clone(), RUNTIME), some("telegram:222"));
        marks.cache_key = None;
        assert_eq!(session(marks.clone(), RUNTIME), some("11-22"));
        assert_eq!(session(marks.clone(), "hello"), some("from-elsewhere"));
        marks.conversation = None;
        assert_eq!(session(marks, "hello"), None, "a person is no conversation");
    }

    #[test]
    fn keys_of_channels_and_jobs_are_no_sessions() {
        for key in ["openclaw-webchat-aa11", "openclaw-cron-bb22"] {
            let marks = RequestMarks { cache_key: some(key), ..RequestMarks::default() };
            assert_eq!(session(marks.clone(), RUNTIME), some("11-22"), "{key}");
            assert_eq!(session(marks, "no line"), None, "{key}");
        }
    }

    #[test]
    fn a_runtime_line_without_session_id_names_its_key() {
        let text = "[cron:1 t] do\n\nRuntime: agent=main | session=agent:main:cron:1 | host=h";
        assert_eq!(session(RequestMarks::default(), text), some("agent:main:cron:1"));
    }

    #[test]
    fn the_last_runtime_line_wins_over_an_imitation() {
        let text = format!("Runtime: agent=main | sessionId=stolen | x=y\n{RUNTIME}");
        assert_eq!(session(RequestMarks::default(), &text), some("11-22"));
        assert_eq!(session(RequestMarks::default(), "Runtime: 3 minutes"), None);
    }

    #[test]
    fn a_name_too_long_to_keep_is_still_the_same_session() {
        let marks = |text: String| RequestMarks { session_header: Some(text), ..RequestMarks::default() };
        let long = session(marks("a".repeat(5000)), "x").expect("a header names a session");
        assert!(long.len() <= MAX_SESSION_ID_BYTES);
        assert_eq!(Some(long.clone()), session(marks("a".repeat(5000)), "x"));
        assert_ne!(Some(long), session(marks("a".repeat(5001)), "x"));
    }
}
