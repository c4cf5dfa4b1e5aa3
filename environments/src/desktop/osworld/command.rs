//! Commands of tasks: what runs, and what this desktop would have to have for it.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::{Machine, TaskError, wrong};

/// What runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// A program and its arguments.
    Argv(Vec<String>),
    /// For a shell.
    Line(String),
}

impl Command {
    /// By `command` and `shell`. A text without a shell is split at its blanks.
    pub(super) fn read(
        parameters: &Map<String, Value>,
        machine: &Machine,
        missing: &mut BTreeSet<String>,
    ) -> Result<Self, TaskError> {
        let shell = parameters.get("shell").and_then(Value::as_bool).unwrap_or(false);
        let command = match parameters.get("command") {
            Some(Value::String(line)) if shell => Self::Line(filled(&unrooted(line), machine)),
            Some(Value::String(line)) => {
                Self::Argv(line.split_whitespace().map(|word| filled(word, machine)).collect())
            }
            Some(Value::Array(words)) => {
                let words: Option<Vec<String>> =
                    words.iter().map(|word| word.as_str().map(|word| filled(word, machine))).collect();
                let words = words.ok_or_else(|| wrong("command", "a list of texts"))?;
                // With a shell, the first word is the line and the rest are its arguments.
                match words.split_first() {
                    Some((line, _)) if shell => Self::Line(line.clone()),
                    _ => Self::Argv(words),
                }
            }
            _ => return Err(wrong("command", "a text or a list of texts")),
        };
        let is_empty = match &command {
            Self::Argv(words) => words.is_empty(),
            Self::Line(line) => line.trim().is_empty(),
        };
        if is_empty {
            return Err(wrong("command", "a command"));
        }
        missing.extend(command.needs(machine));
        Ok(command)
    }

    /// As a line of a shell. What is called `python` in a task is the one that is here.
    pub fn line(&self) -> String {
        match self {
            Self::Line(line) => format!("bash -c {}", quoted(line)),
            Self::Argv(words) => {
                let words = words.iter().enumerate().map(|(at, word)| match (at, word.as_str()) {
                    (0, "python") => "python3".to_owned(),
                    _ => quoted(word),
                });
                words.collect::<Vec<_>>().join(" ")
            }
        }
    }

    /// The words of a program's name and arguments, or of a line as far as it can be told without running it.
    fn words(&self) -> Vec<&str> {
        match self {
            Self::Argv(words) => words.iter().map(String::as_str).collect(),
            Self::Line(line) => line.split_whitespace().collect(),
        }
    }

    /// Whether it says this.
    fn says(&self, what: &str) -> bool {
        match self {
            Self::Argv(words) => words.iter().any(|word| word.contains(what)),
            Self::Line(line) => line.contains(what),
        }
    }

    fn needs(&self, machine: &Machine) -> Vec<String> {
        let mut needs = Vec::new();
        if self.words().contains(&"sudo") || self.says("{CLIENT_PASSWORD}") {
            needs.push("root".to_owned());
        }
        let python = self.words().first().is_some_and(|word| ["python", "python3"].contains(word));
        for module in ["import pyautogui", "from pyautogui", "import pyperclip"] {
            // What can be done without Python was taken out before.
            if self.says(module) {
                needs.push(format!("pip:{}", module.rsplit(' ').next().unwrap_or(module)));
            }
        }
        match self {
            Self::Argv(words) => {
                let program = words.first().map_or("", String::as_str);
                let is_path = program.contains('/');
                let is_own =
                    ["~/", "./", "/home/user", "/tmp"].iter().any(|place| program.starts_with(place));
                let name = if is_path { program.rsplit('/').next().unwrap_or(program) } else { program };
                if !is_own && !python && !(machine.has)(name) {
                    needs.push(format!("program:{name}"));
                }
            }
            Self::Line(line) => {
                // The first word of each part of a pipe, where it is a plain name.
                let parts = line.split(['|', ';', '&', '\n', '(', ')', '{', '}', '`']);
                for word in parts.filter_map(|part| part.split_whitespace().next()) {
                    let is_known = FOREIGN.contains(&word);
                    if is_known && !(machine.has)(word) {
                        needs.push(format!("program:{word}"));
                    }
                }
            }
        }
        for (words, need) in
            [("org.gnome.", "gnome-settings"), ("http://", "network"), ("https://", "network")]
        {
            if self.says(words) {
                needs.push(need.to_owned());
            }
        }
        needs
    }
}

/// Programs that lines of tasks call and that are no part of a shell's own.
const FOREIGN: [&str; 21] = [
    "code",
    "dbus-launch",
    "dpkg",
    "ffmpeg",
    "ffprobe",
    "gimp",
    "git",
    "google-chrome",
    "libreoffice",
    "pactl",
    "pip",
    "pulseaudio",
    "snap",
    "soffice",
    "socat",
    "thunderbird",
    "timedatectl",
    "vlc",
    "wmctrl",
    "xclip",
    "xdotool",
];

/// What tasks say to become root, with the password of their own machine.
const BECOMES_ROOT: &str = "echo {CLIENT_PASSWORD} | sudo -S ";
/// Commands that need not be root where all their files are the user's own.
const OF_FILES: [&str; 6] = ["mkdir", "touch", "cp", "mv", "rm", "cat"];

/// A command that becomes root for nothing but files of the user's own runs without that.
fn unrooted(line: &str) -> String {
    let Some(rest) = line.strip_prefix(BECOMES_ROOT) else { return line.to_owned() };
    let is_plain = !rest.contains(['|', ';', '&', '>', '<', '`', '$', '\n']);
    let mut words = rest.split_whitespace();
    let is_of_files = words.next().is_some_and(|program| OF_FILES.contains(&program));
    let is_own = |word: &str| ["~/", "/home/user/", "/tmp/", "-"].iter().any(|place| word.starts_with(place));
    let fits = is_plain && is_of_files && !rest.contains("..") && words.all(is_own);
    if fits { rest.to_owned() } else { line.to_owned() }
}

/// With the size of the screen where a task leaves room for it.
fn filled(text: &str, machine: &Machine) -> String {
    text.replace("{SCREEN_WIDTH_HALF}", &(machine.width / 2).to_string())
        .replace("{SCREEN_HEIGHT_HALF}", &(machine.height / 2).to_string())
        .replace("{SCREEN_WIDTH}", &machine.width.to_string())
        .replace("{SCREEN_HEIGHT}", &machine.height.to_string())
}

/// As one word of a shell.
pub(in crate::desktop) fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}
