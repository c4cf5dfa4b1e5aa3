//! One task, as its file has it.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::{Check, Step, text, wrong};

/// A task.
#[derive(Clone, Debug, PartialEq)]
pub struct OsworldTask {
    /// Its own name.
    pub id: String,
    /// The state of the machine that it was made for: `os`, or an application.
    pub snapshot: String,
    /// What the agent is told.
    pub instruction: String,
    /// Where it comes from.
    pub source: Option<String>,
    /// Applications that it is about.
    pub related_apps: Vec<String>,
    /// What is done before the agent comes, in order.
    pub config: Vec<Step>,
    /// How it is judged.
    pub check: Check,
    /// What it needs and this desktop has not, by name: `metric:compare_table`, `config:download`.
    pub missing: BTreeSet<String>,
}

/// A file that is no task.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TaskError {
    /// It is not JSON.
    #[error("is no JSON: {0}")]
    Syntax(String),
    /// A value is missing, or not as it should be.
    #[error("{key}: is not {wants}")]
    Key {
        /// The key.
        key: String,
        /// What should be there.
        wants: String,
    },
}

/// What a task may be run on.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Of the screen, in pixels.
    pub width: u32,
    /// Of the screen, in pixels.
    pub height: u32,
    /// Whether a program is there, by its name.
    pub has: fn(&str) -> bool,
}

/// Applications of `related_apps` and the program of each; those of the desktop itself need none.
const APPLICATIONS: [(&str, &str); 12] = [
    ("chrome", "google-chrome"),
    ("google_chrome", "google-chrome"),
    ("vs_code", "code"),
    ("vscode", "code"),
    ("libreoffice_calc", "soffice"),
    ("libreoffice_writer", "soffice"),
    ("libreoffice_impress", "soffice"),
    ("libreoffice", "soffice"),
    ("gimp", "gimp"),
    ("vlc", "vlc"),
    ("thunderbird", "thunderbird"),
    ("image", "eog"),
];
/// Parts of a desktop that are here, whatever programs they are elsewhere.
const OWN: [&str; 7] =
    ["os", "terminal", "ubuntu_terminal", "calculator", "file_manager", "text_editor", "dialogs"];

impl OsworldTask {
    /// Reads the text of a task's file.
    pub fn parse(text: &str, machine: &Machine) -> Result<Self, TaskError> {
        let value: Value =
            serde_json::from_str(text).map_err(|error| TaskError::Syntax(error.to_string()))?;
        Self::read(&value, machine)
    }

    /// Reads a task.
    pub fn read(value: &Value, machine: &Machine) -> Result<Self, TaskError> {
        let table = value.as_object().ok_or_else(|| wrong("the file", "an object"))?;
        let mut missing = BTreeSet::new();
        let mut config = Vec::new();
        for step in list(table, "config")? {
            config.extend(Step::read(step, machine, &mut missing)?);
        }
        let evaluator = table.get("evaluator").and_then(Value::as_object);
        let evaluator = evaluator.ok_or_else(|| wrong("evaluator", "an object"))?;
        let check = Check::read(evaluator, machine, &mut missing)?;
        let related_apps: Vec<String> = texts(table, "related_apps")?;
        for name in &related_apps {
            let program = APPLICATIONS.iter().find(|(known, _)| known == name).map(|(_, program)| *program);
            let is_here = OWN.contains(&name.as_str()) || (machine.has)(program.unwrap_or(name));
            if !is_here {
                missing.insert(format!("application:{name}"));
            }
        }
        if table.get("proxy").and_then(Value::as_bool) == Some(true) {
            missing.insert("network".to_owned());
        }
        // Files of the format for the other system say so by their paths.
        if value.to_string().to_lowercase().contains("c:\\\\") {
            missing.insert("os:windows".to_owned());
        }
        Ok(Self {
            id: text(table, "id")?,
            snapshot: text(table, "snapshot").unwrap_or_default(),
            instruction: text(table, "instruction")?,
            source: text(table, "source").ok(),
            related_apps,
            config,
            check,
            missing,
        })
    }
}

/// The entries of a list; none where it is not there.
pub(super) fn list<'a>(table: &'a Map<String, Value>, key: &str) -> Result<&'a [Value], TaskError> {
    match table.get(key) {
        None | Some(Value::Null) => Ok(&[]),
        Some(Value::Array(items)) => Ok(items),
        Some(_) => Err(wrong(key, "a list")),
    }
}

/// Texts of a list; none where it is not there.
pub(super) fn texts(table: &Map<String, Value>, key: &str) -> Result<Vec<String>, TaskError> {
    let items = list(table, key)?.iter();
    let texts: Option<Vec<String>> = items.map(|item| item.as_str().map(str::to_owned)).collect();
    texts.ok_or_else(|| wrong(key, "a list of texts"))
}
