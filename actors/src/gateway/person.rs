//! Who a request is from, in whatever format.

use serde_json::{Map, Value};

/// What `metadata.user_id` of Anthropic's format says.
#[derive(Debug, PartialEq, Eq)]
pub struct UserId {
    /// Who.
    pub person: String,
    /// In which session, where a client tells it in the same breath.
    pub session: Option<String>,
}

/// Claude Code writes `user_.._session_ID`, or an object as text; others write a name.
pub fn user_id(fields: &Map<String, Value>) -> Option<UserId> {
    let id = fields.get("metadata")?.get("user_id")?.as_str()?;
    if let Ok(Value::Object(parts)) = serde_json::from_str(id) {
        let text = |key: &str| parts.get(key).and_then(Value::as_str).map(str::to_owned);
        let known = || ["account_uuid", "user_id", "device_id"].into_iter().find_map(text);
        if let Some(session) = text("session_id") {
            return Some(UserId { person: known().unwrap_or_default(), session: Some(session) });
        }
    }
    let (person, session) = match id.rsplit_once("_session_") {
        Some((person, session)) => (person, Some(session.to_owned())),
        None => (id, None),
    };
    Some(UserId { person: person.to_owned(), session })
}

/// The person that a body names: `safety_identifier`, `user`, or `metadata.user_id`, which keeps its name from one session
/// to the next.
pub fn person_named(fields: &Map<String, Value>) -> Option<String> {
    let is_a_name = |name: &String| !name.trim().is_empty();
    let text = |name: &str| fields.get(name).and_then(Value::as_str).map(str::to_owned).filter(is_a_name);
    let in_metadata = || user_id(fields).map(|id| id.person).filter(is_a_name);
    text("safety_identifier").or_else(|| text("user")).or_else(in_metadata)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_person_keeps_the_name_from_session_to_session() {
        let of = |body: Value| person_named(body.as_object().expect("an object literal"));
        assert_eq!(of(json!({"safety_identifier": "s", "user": "u"})).as_deref(), Some("s"));
        assert_eq!(of(json!({"user": "ada", "metadata": {"user_id": "other"}})).as_deref(), Some("ada"));
        assert_eq!(of(json!({"safety_identifier": "", "user": "u"})).as_deref(), Some("u"));
        assert_eq!(of(json!({"metadata": {"user_id": "ada"}})).as_deref(), Some("ada"));
        for session in ["1f2e", "77aa"] {
            let id = format!("user_aa_account_bb_session_{session}");
            assert_eq!(of(json!({"metadata": {"user_id": id}})).as_deref(), Some("user_aa_account_bb"));
            let id = json!({"device_id": "d", "account_uuid": "a", "session_id": session}).to_string();
            assert_eq!(of(json!({"metadata": {"user_id": id}})).as_deref(), Some("a"));
        }
        for nobody in [json!({}), json!({"user": " "}), json!({"user": 7}), json!({"metadata": "x"})] {
            assert_eq!(of(nobody), None);
        }
    }
}
