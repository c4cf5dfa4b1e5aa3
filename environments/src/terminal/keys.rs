//! Takes keys out of a table one by one: a wrong kind is an error that names file and key, and what nobody took
//! is listed at the end. TOML, YAML and JSON all come here as JSON values.
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Longest time that a task may ask for, in seconds: a week.
const SECS_MAX: f64 = 7.0 * 86_400.0;

/// A key that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}: key `{key}` {fault}")]
pub struct KeyError {
    /// `task.toml`, `task.yaml`, ...
    pub file: &'static str,
    /// With the tables around it: `verifier.timeout_sec`.
    pub key: String,
    /// What is wrong with it.
    pub fault: String,
}

pub(super) struct Keys<'a> {
    file: &'static str,
    path: String,
    table: Map<String, Value>,
    unknown: &'a mut Vec<String>,
}

impl<'a> Keys<'a> {
    pub(super) fn new(file: &'static str, table: Map<String, Value>, unknown: &'a mut Vec<String>) -> Self {
        Self { file, path: String::new(), table, unknown }
    }

    pub(super) fn error(&self, key: &str, fault: impl Into<String>) -> KeyError {
        KeyError { file: self.file, key: format!("{}{key}", self.path), fault: fault.into() }
    }

    fn kind(&self, key: &str, found: &Value, expected: &str) -> KeyError {
        self.error(key, format!("is {}, expected {expected}", kind_of(found)))
    }

    pub(super) fn any(&mut self, key: &str) -> Option<Value> {
        self.table.shift_remove(key).filter(|value| !value.is_null())
    }

    pub(super) fn text(&mut self, key: &str) -> Result<Option<String>, KeyError> {
        match self.any(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.kind(key, &other, "text")),
        }
    }

    /// Text, or a number as it is written: versions are both.
    pub(super) fn text_or_number(&mut self, key: &str) -> Result<Option<String>, KeyError> {
        match self.any(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(Value::Number(number)) => Ok(Some(number.to_string())),
            Some(other) => Err(self.kind(key, &other, "text")),
        }
    }

    pub(super) fn bool(&mut self, key: &str) -> Result<Option<bool>, KeyError> {
        match self.any(key) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(value)),
            Some(other) => Err(self.kind(key, &other, "true or false")),
        }
    }

    /// What came from a TOML or YAML `nan` is null here and refused: it is not the same as no number.
    pub(super) fn number(&mut self, key: &str) -> Result<Option<f64>, KeyError> {
        match self.table.shift_remove(key) {
            None => Ok(None),
            Some(value) => match value.as_f64().filter(|number| number.is_finite()) {
                Some(number) => Ok(Some(number)),
                None => Err(self.kind(key, &value, "a finite number")),
            },
        }
    }

    /// A time above 0, up to a week.
    pub(super) fn secs(&mut self, key: &str) -> Result<Option<f64>, KeyError> {
        match self.number(key)? {
            Some(secs) if secs <= 0.0 || secs > SECS_MAX => {
                Err(self.error(key, format!("is {secs} s, expected more than 0 and at most {SECS_MAX} s")))
            }
            secs => Ok(secs),
        }
    }

    pub(super) fn count(&mut self, key: &str) -> Result<Option<u64>, KeyError> {
        match self.table.shift_remove(key) {
            None => Ok(None),
            // A whole number written with a point is still one.
            Some(value) => {
                let whole = value.as_f64().filter(|n| n.fract() == 0.0 && (0.0..=1e15).contains(n));
                match value.as_u64().or(whole.map(|n| n as u64)) {
                    Some(number) => Ok(Some(number)),
                    None => Err(self.kind(key, &value, "a whole number, 0 or more")),
                }
            }
        }
    }

    pub(super) fn texts(&mut self, key: &str) -> Result<Vec<String>, KeyError> {
        let items = self.list(key)?;
        let mut texts = Vec::with_capacity(items.len());
        for (at, item) in items.into_iter().enumerate() {
            match item {
                Value::String(text) => texts.push(text),
                other => return Err(self.kind(&format!("{key}[{at}]"), &other, "text")),
            }
        }
        Ok(texts)
    }

    pub(super) fn list(&mut self, key: &str) -> Result<Vec<Value>, KeyError> {
        match self.any(key) {
            None => Ok(Vec::new()),
            Some(Value::Array(items)) => Ok(items),
            Some(other) => Err(self.kind(key, &other, "a list")),
        }
    }

    /// Names and texts; numbers and booleans become text, as in an environment.
    pub(super) fn env(&mut self, key: &str) -> Result<BTreeMap<String, String>, KeyError> {
        let mut env = BTreeMap::new();
        for (name, value) in self.object(key)? {
            let text = match value {
                Value::String(text) => text,
                Value::Number(number) => number.to_string(),
                Value::Bool(value) => value.to_string(),
                other => return Err(self.kind(&format!("{key}.{name}"), &other, "text")),
            };
            env.insert(name, text);
        }
        Ok(env)
    }

    pub(super) fn object(&mut self, key: &str) -> Result<Map<String, Value>, KeyError> {
        match self.any(key) {
            None => Ok(Map::new()),
            Some(Value::Object(table)) => Ok(table),
            Some(other) => Err(self.kind(key, &other, "a table")),
        }
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// The table at `key`, empty if there is none; `finish` it like this one.
    pub(super) fn table(&mut self, key: &str) -> Result<Keys<'_>, KeyError> {
        let table = self.object(key)?;
        Ok(Keys { file: self.file, path: format!("{}{key}.", self.path), table, unknown: self.unknown })
    }

    /// `item` of the list at `key`, which must be a table.
    pub(super) fn element(&mut self, key: &str, at: usize, item: Value) -> Result<Keys<'_>, KeyError> {
        let key = format!("{key}[{at}]");
        match item {
            Value::Object(table) => Ok(Keys {
                file: self.file,
                path: format!("{}{key}.", self.path),
                table,
                unknown: self.unknown,
            }),
            other => Err(self.kind(&key, &other, "a table")),
        }
    }

    /// Lists what nobody took.
    pub(super) fn finish(self) {
        self.unknown.extend(self.table.keys().map(|key| format!("{}{key}", self.path)));
    }
}

pub(super) fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a table",
    }
}
