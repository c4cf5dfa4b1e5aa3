//! What is looked at for a verdict.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::{Command, Machine, TaskError, task::texts, text, wrong};

/// Where something to be compared comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum Getter {
    /// It stands in the task: `rule`.
    Rule(Value),
    /// What a command writes: `vm_command_line`.
    Output(Command),
    /// What a command writes to its error output: `vm_command_error`.
    ErrorOutput(Command),
    /// A file: `vm_file`.
    File(String),
    /// What is below a folder: `list_directory`.
    Folder(String),
    /// What is in the terminal: `vm_terminal_output`.
    Terminal,
    /// Width and height: `vm_screen_size`.
    ScreenSize,
    /// Width and height of the window of this program: `vm_window_size`.
    WindowSize(String),
}

/// What a getter has found.
#[derive(Clone, Debug, PartialEq)]
pub enum Got {
    /// There is nothing.
    Nothing,
    /// Words, or what they say.
    Value(Value),
    /// The bytes of a file.
    File(Vec<u8>),
}

impl Getter {
    /// Reads one; none, and what it is called among `missing`, where it cannot be had here.
    pub(super) fn read(
        value: &Value,
        machine: &Machine,
        missing: &mut BTreeSet<String>,
    ) -> Result<Option<Self>, TaskError> {
        let table = value.as_object().ok_or_else(|| wrong("result or expected", "an object"))?;
        let kind = text(table, "type")?;
        Ok(Some(match kind.as_str() {
            "rule" => Self::Rule(table.get("rules").cloned().ok_or_else(|| wrong("rules", "there"))?),
            "vm_command_line" => Self::Output(Command::read(table, machine, missing)?),
            "vm_command_error" => Self::ErrorOutput(Command::read(table, machine, missing)?),
            "vm_file" => match file(table)? {
                Some(path) => Self::File(path),
                None => {
                    missing.insert("getter:vm_file of several".to_owned());
                    return Ok(None);
                }
            },
            "list_directory" => Self::Folder(text(table, "path")?),
            "vm_terminal_output" => Self::Terminal,
            "vm_screen_size" => Self::ScreenSize,
            "vm_window_size" => Self::WindowSize(text(table, "app_class_name")?),
            other => {
                missing.insert(format!("getter:{other}"));
                return Ok(None);
            }
        }))
    }

    /// Whether programs have to run for it; a file can be read when all have ended.
    pub fn is_live(&self) -> bool {
        !matches!(self, Self::Rule(_) | Self::File(_) | Self::Folder(_))
    }
}

/// One path; none where there are several.
fn file(table: &Map<String, Value>) -> Result<Option<String>, TaskError> {
    // Some tasks say `multi` as a text; the list says it in any case.
    if !table.get("path").is_some_and(Value::is_array) {
        return text(table, "path").map(Some);
    }
    let mut paths = texts(table, "path")?;
    Ok((paths.len() == 1).then(|| paths.remove(0)))
}
