//! Tasks in the format of OSWorld: read as they are, with what this desktop cannot give named when they are read.
mod check;
mod command;
mod getter;
mod matching;
mod metric;
mod pyautogui;
mod set;
mod step;
mod task;

pub use self::{
    check::{Check, Conj, Rule},
    command::Command,
    getter::{Getter, Got},
    metric::Metric,
    pyautogui::{Deed, Script},
    set::{Summary, TaskSet},
    step::{Step, Until, Which},
    task::{Machine, OsworldTask, TaskError},
};

/// As messages have a value that is not as it should be.
fn wrong(key: &str, wants: &str) -> TaskError {
    TaskError::Key { key: key.to_owned(), wants: wants.to_owned() }
}

/// A text under a key.
fn text(table: &serde_json::Map<String, serde_json::Value>, key: &str) -> Result<String, TaskError> {
    table.get(key).and_then(serde_json::Value::as_str).map(str::to_owned).ok_or_else(|| wrong(key, "a text"))
}

#[cfg(test)]
mod tests;
