//! Steps of a task that are not the agent's: those before it, and those before the verdict.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::{Command, Machine, Script, TaskError, text, wrong};

/// The longest that a step may sleep, in seconds.
const SLEEP_SECS: f64 = 60.0;

/// A step.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Runs a command to its end: `execute` and `command`.
    Execute {
        /// What runs.
        command: Command,
        /// It is run again until it ends with this code, or has written this; a few times at most.
        until: Option<Until>,
    },
    /// Keys and clicks that a task has as a script of pyautogui.
    Input(Script),
    /// Starts a program, which goes on.
    Launch(Command),
    /// Opens a file or a folder with the program for it.
    Open(String),
    /// Seconds.
    Sleep(f64),
    /// Brings a window to the front.
    Activate(Which),
    /// Closes a window.
    Close(Which),
}

/// When a command need not be run again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Until {
    /// It has ended so.
    pub returncode: Option<i64>,
    /// This is in its output.
    pub stdout: Option<String>,
    /// This is in its error output.
    pub stderr: Option<String>,
}

/// A window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Which {
    /// In its title, or all of it.
    pub name: String,
    /// The name is all of its title.
    pub strict: bool,
    /// The name is that of its program.
    pub by_class: bool,
}

impl Which {
    /// Whether a window is meant.
    pub fn is(&self, title: &str, class: &str) -> bool {
        let (there, name) =
            (if self.by_class { class } else { title }.to_lowercase(), self.name.to_lowercase());
        if self.strict { there == name } else { there.contains(&name) }
    }
}

impl Step {
    /// Reads one; none, and what it is called among `missing`, where it cannot be done here.
    pub(super) fn read(
        value: &Value,
        machine: &Machine,
        missing: &mut BTreeSet<String>,
    ) -> Result<Option<Self>, TaskError> {
        let table = value.as_object().ok_or_else(|| wrong("config", "a list of objects"))?;
        let kind = text(table, "type")?;
        let none = Map::new();
        let parameters = table.get("parameters").and_then(Value::as_object).unwrap_or(&none);
        Ok(match kind.as_str() {
            "execute" | "command" => Some(Self::execute(parameters, machine, missing)?),
            "launch" => Some(Self::Launch(Command::read(parameters, machine, missing)?)),
            "open" => Some(Self::Open(text(parameters, "path")?)),
            "sleep" => {
                let seconds = parameters.get("seconds").and_then(Value::as_f64);
                let seconds = seconds.ok_or_else(|| wrong("seconds", "a number"))?;
                Some(Self::Sleep(seconds.clamp(0.0, SLEEP_SECS)))
            }
            "activate_window" => Some(Self::Activate(which(parameters)?)),
            "close_window" => Some(Self::Close(which(parameters)?)),
            other => {
                missing.insert(format!("config:{other}"));
                None
            }
        })
    }

    fn execute(
        parameters: &Map<String, Value>,
        machine: &Machine,
        missing: &mut BTreeSet<String>,
    ) -> Result<Self, TaskError> {
        let mut needs = BTreeSet::new();
        let command = Command::read(parameters, machine, &mut needs)?;
        if let Command::Argv(words) = &command
            && let [python, flag, source] = words.as_slice()
            && ["python", "python3"].contains(&python.as_str())
            && flag == "-c"
            && source.contains("pyautogui")
        {
            return Ok(match Script::parse(source) {
                Ok(script) => Self::Input(script),
                Err(what) => {
                    missing.insert(format!("pyautogui:{what}"));
                    Self::Input(Script::default())
                }
            });
        }
        missing.append(&mut needs);
        // Their files are for getters of a cache that is on the other side.
        for key in ["stdout", "stderr"] {
            if parameters.get(key).and_then(Value::as_str).is_some_and(|name| !name.is_empty()) {
                missing.insert(format!("execute:{key}"));
            }
        }
        let until = parameters.get("until").and_then(Value::as_object).filter(|until| !until.is_empty());
        let until = until.map(|until| Until {
            returncode: until.get("returncode").and_then(Value::as_i64),
            stdout: text(until, "stdout").ok(),
            stderr: text(until, "stderr").ok(),
        });
        Ok(Self::Execute { command, until })
    }
}

fn which(parameters: &Map<String, Value>) -> Result<Which, TaskError> {
    let flag = |key: &str| parameters.get(key).and_then(Value::as_bool).unwrap_or(false);
    Ok(Which { name: text(parameters, "window_name")?, strict: flag("strict"), by_class: flag("by_class") })
}
