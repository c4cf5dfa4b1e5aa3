//! Rows of a problem set, one JSON object a line, as DAPO's math sets are published. A line that cannot be used
//! is an error, never a row left out: a set that shrinks in silence is another set.
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::io::{BufRead, Read};
use std::path::{Path, PathBuf};

/// Longest line that is read, in bytes.
pub const LINE_BYTES_MAX: usize = 4 << 20;

/// Most rows that are read from one file.
pub const ROWS_MAX: usize = 2_000_000;

/// Who may speak in a prompt.
pub const ROLES: [&str; 3] = ["system", "user", "assistant"];

/// A problem and its answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// What the policy is given; a prompt that is bare text is one message of the user.
    pub prompt: Vec<PromptMessage>,
    /// What the boxed answer must be, as written in the row.
    pub label: String,
    /// Every other key, `reward_model` without its `ground_truth` included.
    pub extra: Map<String, Value>,
}

/// One message of a prompt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromptMessage {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// Its text.
    pub content: String,
}

/// A line that is no row.
#[derive(Debug, thiserror::Error)]
#[error("{}:{line}: {fault}", file.display())]
pub struct RowError {
    /// The file, as it was named by the caller.
    pub file: PathBuf,
    /// Counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub fault: RowFault,
}

/// Why a line is no row; every variant names its key.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum RowFault {
    #[error("cannot read: {0}")]
    Read(std::io::Error),
    #[error("longer than {LINE_BYTES_MAX} bytes")]
    TooLong,
    #[error("more than {ROWS_MAX} rows")]
    TooMany,
    #[error("not a JSON object: {0}")]
    Json(serde_json::Error),
    #[error("no key `{0}`")]
    Missing(&'static str),
    #[error("key `{key}` is {found}, expected {expected}")]
    Kind { key: String, found: &'static str, expected: &'static str },
    #[error("key `{key}` is {found:?}, expected one of {}", ROLES.join(", "))]
    Role { key: String, found: String },
    #[error("key `{0}` is empty")]
    Empty(String),
    #[error("key `label` says {label:?} but `reward_model.ground_truth` says {ground_truth:?}")]
    TwoLabels { label: String, ground_truth: String },
}

/// The rows of `reader`; `file` is what errors call it. Blank lines are skipped.
pub fn read_rows(file: &Path, mut reader: impl BufRead) -> Result<Vec<Row>, RowError> {
    let at = |line, fault| RowError { file: file.to_owned(), line, fault };
    let mut rows = Vec::new();
    let mut bytes = Vec::new();
    for line in 1.. {
        bytes.clear();
        let limit = LINE_BYTES_MAX as u64 + 1;
        let read = reader
            .by_ref()
            .take(limit)
            .read_until(b'\n', &mut bytes)
            .map_err(|error| at(line, RowFault::Read(error)))?;
        if read == 0 {
            break;
        }
        if bytes.len() > LINE_BYTES_MAX {
            return Err(at(line, RowFault::TooLong));
        }
        if bytes.trim_ascii().is_empty() {
            continue;
        }
        if rows.len() == ROWS_MAX {
            return Err(at(line, RowFault::TooMany));
        }
        rows.push(parse_row(&bytes).map_err(|fault| at(line, fault))?);
    }
    Ok(rows)
}

/// The row in one line.
pub fn parse_row(line: &[u8]) -> Result<Row, RowFault> {
    let mut row: Map<String, Value> = serde_json::from_slice(line).map_err(RowFault::Json)?;
    let prompt = prompt(row.shift_remove("prompt").ok_or(RowFault::Missing("prompt"))?)?;
    let label = row.shift_remove("label").map(|value| scalar("label", value)).transpose()?;
    let ground_truth = match row.get_mut("reward_model") {
        None => None,
        Some(Value::Object(model)) => model
            .shift_remove("ground_truth")
            .map(|value| scalar("reward_model.ground_truth", value))
            .transpose()?,
        Some(other) => return Err(wrong_kind("reward_model", other, "an object")),
    };
    let label = match (label, ground_truth) {
        (Some(label), Some(ground_truth)) if label != ground_truth => {
            return Err(RowFault::TwoLabels { label, ground_truth });
        }
        (Some(label), _) | (None, Some(label)) => label,
        (None, None) => return Err(RowFault::Missing("label` or `reward_model.ground_truth")),
    };
    Ok(Row { prompt, label, extra: row })
}

fn prompt(value: Value) -> Result<Vec<PromptMessage>, RowFault> {
    match value {
        Value::String(text) if text.trim().is_empty() => Err(RowFault::Empty("prompt".into())),
        Value::String(content) => Ok(vec![PromptMessage { role: "user".into(), content }]),
        Value::Array(messages) if messages.is_empty() => Err(RowFault::Empty("prompt".into())),
        Value::Array(messages) => messages.into_iter().enumerate().map(message).collect(),
        other => Err(wrong_kind("prompt", &other, "text or a list of messages")),
    }
}

fn message((at, value): (usize, Value)) -> Result<PromptMessage, RowFault> {
    let Value::Object(mut message) = value else {
        return Err(wrong_kind(format!("prompt[{at}]"), &value, "an object"));
    };
    let mut text = |key: &str| match message.shift_remove(key) {
        Some(Value::String(text)) => Ok(text),
        other => Err(wrong_kind(format!("prompt[{at}].{key}"), &other.unwrap_or(Value::Null), "text")),
    };
    let (role, content) = (text("role")?, text("content")?);
    if !ROLES.contains(&role.as_str()) {
        return Err(RowFault::Role { key: format!("prompt[{at}].role"), found: role });
    }
    Ok(PromptMessage { role, content })
}

/// Labels are text, but a set written from a table has them as numbers.
fn scalar(key: &str, value: Value) -> Result<String, RowFault> {
    match value {
        Value::String(text) if text.trim().is_empty() => Err(RowFault::Empty(key.into())),
        Value::String(text) => Ok(text),
        Value::Number(number) => Ok(number.to_string()),
        other => Err(wrong_kind(key, &other, "text or a number")),
    }
}

fn wrong_kind(key: impl Into<String>, value: &Value, expected: &'static str) -> RowFault {
    let found = match value {
        Value::Null => "missing or null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
    RowFault::Kind { key: key.into(), found, expected }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rows(text: &str) -> Result<Vec<Row>, String> {
        read_rows(Path::new("set.jsonl"), text.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn both_places_of_the_answer_and_both_kinds_of_prompt_are_read() {
        let text = concat!(
            r#"{"prompt":[{"role":"user","content":"1+1?"}],"reward_model":{"ground_truth":"2","style":"rule"},"ability":"MATH"}"#,
            "\n\n",
            r#"{"prompt":"2+2?","label":4}"#,
        );
        let rows = rows(text).unwrap();
        assert_eq!(rows.len(), 2);
        assert_eq!((rows[0].label.as_str(), rows[1].label.as_str()), ("2", "4"));
        assert_eq!(rows[0].prompt[0].content, "1+1?");
        assert_eq!(rows[1].prompt, [PromptMessage { role: "user".into(), content: "2+2?".into() }]);
        assert_eq!(
            Value::Object(rows[0].extra.clone()).to_string(),
            r#"{"reward_model":{"style":"rule"},"ability":"MATH"}"#
        );
    }

    #[test]
    fn an_error_names_file_line_and_key() {
        let bad = |line: &str| rows(&format!("{}\n{line}\n", r#"{"prompt":"a","label":"1"}"#)).unwrap_err();
        for (line, says) in [
            (r#"{"label":"1"}"#, "set.jsonl:2: no key `prompt`"),
            (r#"{"prompt":"a"}"#, "set.jsonl:2: no key `label` or `reward_model.ground_truth`"),
            (
                r#"{"prompt":3,"label":"1"}"#,
                "set.jsonl:2: key `prompt` is a number, expected text or a list of messages",
            ),
            (
                r#"{"prompt":[{"role":"user"}],"label":"1"}"#,
                "set.jsonl:2: key `prompt[0].content` is missing or null, expected text",
            ),
            (
                r#"{"prompt":[{"role":"tool","content":"b"}],"label":"1"}"#,
                "set.jsonl:2: key `prompt[0].role` is \"tool\", expected one of system, user, assistant",
            ),
            (
                r#"{"prompt":"a","label":["1"]}"#,
                "set.jsonl:2: key `label` is a list, expected text or a number",
            ),
            (r#"{"prompt":"a","label":" "}"#, "set.jsonl:2: key `label` is empty"),
            (
                r#"{"prompt":"a","reward_model":"1"}"#,
                "set.jsonl:2: key `reward_model` is text, expected an object",
            ),
            (
                r#"{"prompt":"a","label":"1","reward_model":{"ground_truth":"2"}}"#,
                r#"set.jsonl:2: key `label` says "1" but `reward_model.ground_truth` says "2""#,
            ),
        ] {
            assert_eq!(bad(line), says);
        }
        assert!(bad("{").starts_with("set.jsonl:2: not a JSON object: "));
    }

    #[test]
    fn a_line_without_end_is_refused_before_it_fills_memory() {
        let endless = std::io::BufReader::new(std::io::repeat(b'['));
        let error = read_rows(Path::new("x"), endless).unwrap_err();
        assert!(matches!(error.fault, RowFault::TooLong), "{error}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_rows_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read_rows(Path::new("x"), &bytes[..]);
        }
    }
}
