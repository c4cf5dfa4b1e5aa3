//! What an agent can do in a repository, and what it is shown of it.
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use openclaw_sandbox::{Ending, Exec, Output, Ran, SandboxError, Session, WORKSPACE};
use serde_json::Value;

use super::{
    patch::is_inside,
    settings::{Settings, Talk, Tools},
};
use crate::{
    terminal::Control,
    world::{Call, CallResult, Tool, WorldError},
};

/// The word that submits, alone in the first line of what a command writes.
pub(super) const SENTINEL: &str = "COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT";

/// Variables of commands: nothing waits for a key, and nothing draws a bar.
const VARIABLES: [(&str, &str); 6] = [
    ("PAGER", "cat"),
    ("GIT_PAGER", "cat"),
    ("MANPAGER", "cat"),
    ("PIP_PROGRESS_BAR", "off"),
    ("TQDM_DISABLE", "1"),
    ("PYTHONHASHSEED", "0"),
];

/// What can be called.
pub(super) fn tools(settings: &Settings) -> Vec<Tool> {
    let path = ("path", "of a file, from the root of the repository");
    match (settings.tools, settings.agent) {
        (Tools::Bash, Talk::BashBlock) => Vec::new(),
        (Tools::Bash, Talk::BashTool) => vec![Tool::of_texts(
            "bash",
            "Run a command in a new shell that starts in the repository",
            &[("command", "one line, or several")],
        )],
        (Tools::Edit, _) => vec![
            Tool::of_texts("run_tests", "Run the tests", &[]),
            Tool::of_texts(
                "read",
                "Show lines of a file",
                &[path, ("from", "the first line, counted from 1"), ("to", "the last line")],
            ),
            Tool::of_texts(
                "replace",
                "Put a text in place of a line",
                &[path, ("line", "counted from 1"), ("text", "the new line")],
            ),
            Tool::of_texts("submit", "Say that the work is done", &[]),
        ],
    }
}

/// What came of a call.
pub(super) struct Done {
    pub(super) result: CallResult,
    /// It says that the work is done.
    pub(super) submits: bool,
}

impl Done {
    pub(super) fn of(result: CallResult) -> Self {
        Self { result, submits: false }
    }
}

/// Runs a command in a shell of its own.
pub(super) fn bash(
    session: &mut dyn Session,
    control: &Control,
    settings: &Settings,
    call: &Call,
) -> Result<Done, WorldError> {
    let error = |why: &str| Ok(Done::of(CallResult::error(call, why)));
    let Some(command) = call.text("command") else {
        return error("The argument command is missing, or no text.");
    };
    if command.contains('\0') {
        return error("The command has a zero byte.");
    }
    // Both outputs in the order in which they were written.
    let line = format!("exec 2>&1; {command}");
    let mut exec = Exec::argv(["/bin/bash", "-c", &line]).timeout(settings.step_time());
    exec.env = VARIABLES.map(|(name, value)| (name.into(), value.into())).into();
    control.check()?;
    let ran = session.exec(&exec)?;
    control.ended(ran.ending)?;
    let written = ran.stdout.text();
    let submits = ran.success() && written.trim_start().lines().next().map(str::trim_end) == Some(SENTINEL);
    let text = told(&ran, settings.step_time(), settings.output_chars);
    let result = if ran.success() { CallResult::text(call, text) } else { CallResult::error(call, text) };
    Ok(Done { result, submits })
}

/// What an agent sees of a command.
fn told(ran: &Ran, time: Duration, limit: usize) -> String {
    // What a shell that cannot read its line says does not come in order.
    let all = [timeless(&whole(&ran.stdout)), timeless(&whole(&ran.stderr))].concat();
    let mut text = ends(all.trim_end_matches('\n'), limit);
    let ending = match ran.ending {
        Ending::Exited(0) => None,
        Ending::Exited(code) => Some(format!("[exit code {code}]")),
        Ending::TimedOut => Some(format!("[ended after {} s]", time.as_secs())),
        Ending::Killed | Ending::Interrupted | Ending::NotStarted => Some("[killed]".to_owned()),
    };
    for note in ending.into_iter().chain(ran.out_of_memory.then(|| "[out of memory]".to_owned())) {
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&note);
    }
    if text.is_empty() { "[no output]".to_owned() } else { text }
}

fn whole(output: &Output) -> String {
    output.text().into_owned()
}

/// The first and the last half of `limit` characters, and how many came between.
pub(super) fn ends(text: &str, limit: usize) -> String {
    let count = text.chars().count();
    if count <= limit {
        return text.to_owned();
    }
    let half = limit / 2;
    let first: String = text.chars().take(half).collect();
    let last: String = text.chars().skip(count - half).collect();
    format!(
        "{first}\n[{} characters left out: ask for less at once, or write it to a file and look at parts]\n{last}",
        count - 2 * half
    )
}

/// Without the time that tests took: an episode that is taken again would be told another.
fn timeless(text: &str) -> String {
    let lines = text.split_inclusive('\n').map(|line| {
        let counts = ["passed", "failed", "error", "no tests ran", "skipped", "Ran ", "Results"];
        let at = line.rfind(" in ").filter(|_| counts.iter().any(|word| line.contains(word)));
        let Some(at) = at else { return line.to_owned() };
        let (before, rest) = line.split_at(at + 4);
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        match rest[..end].contains('.') && rest[end..].starts_with('s') {
            true => format!("{before}0.00{}", &rest[end..]),
            false => line.to_owned(),
        }
    });
    lines.collect()
}

/// A number of an argument, as models write numbers.
fn number(call: &Call, name: &str) -> Result<Option<usize>, String> {
    match call.arguments.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Number(number)) => number.as_u64().map(|number| Some(number as usize)).ok_or(()),
        Some(Value::String(text)) if text.trim().is_empty() => Ok(None),
        Some(Value::String(text)) => text.trim().parse().map(Some).map_err(|_| ()),
        Some(_) => Err(()),
    }
    .map_err(|()| format!("The argument {name} is no number of a line."))
}

/// A file of the repository: its path, and what is in it.
fn file(session: &dyn Session, call: &Call) -> Result<Result<(PathBuf, String), String>, WorldError> {
    let Some(path) = call.text("path") else {
        return Ok(Err("The argument path is missing, or no text.".to_owned()));
    };
    let path = path.strip_prefix(WORKSPACE).unwrap_or(path).trim_start_matches('/').trim_start_matches("./");
    if !is_inside(path) || path.contains('\0') {
        return Ok(Err(format!("{path:?} is no path of a file in the repository.")));
    }
    match session.read_file(Path::new(path)) {
        Ok(bytes) => match String::from_utf8(bytes) {
            Ok(text) => Ok(Ok((path.into(), text))),
            Err(_) => Ok(Err(format!("{path} is no text."))),
        },
        Err(error @ (SandboxError::Path { .. } | SandboxError::TooLarge { .. })) => {
            Ok(Err(error.to_string()))
        }
        Err(error) => Err(error.into()),
    }
}

/// Shows lines of a file, with their numbers.
pub(super) fn read(session: &dyn Session, settings: &Settings, call: &Call) -> Result<Done, WorldError> {
    let error = |why: String| Ok(Done::of(CallResult::error(call, why)));
    let (from, to) = match (number(call, "from"), number(call, "to")) {
        (Ok(from), Ok(to)) => (from.unwrap_or(1).max(1), to.unwrap_or(usize::MAX)),
        (Err(why), _) | (_, Err(why)) => return error(why),
    };
    let (path, text) = match file(session, call)? {
        Ok(found) => found,
        Err(why) => return error(why),
    };
    let count = text.lines().count();
    if from > count || from > to {
        return error(format!("{} has {count} lines.", path.display()));
    }
    let lines = text.lines().enumerate().take(to).skip(from - 1);
    let lines: Vec<String> = lines.map(|(at, line)| format!("{} {line}", at + 1)).collect();
    Ok(Done::of(CallResult::text(call, ends(&lines.join("\n"), settings.output_chars))))
}

/// Puts a text in place of a line.
pub(super) fn replace(session: &mut dyn Session, call: &Call) -> Result<Done, WorldError> {
    let error = |why: String| Ok(Done::of(CallResult::error(call, why)));
    let Some(new) = call.text("text") else {
        return error("The argument text is missing, or no text.".to_owned());
    };
    let line = match number(call, "line") {
        Ok(Some(line)) => line,
        Ok(None) => return error("The argument line is missing.".to_owned()),
        Err(why) => return error(why),
    };
    let (path, text) = match file(session, call)? {
        Ok(found) => found,
        Err(why) => return error(why),
    };
    let mut lines: Vec<&str> = text.split('\n').collect();
    let count = text.lines().count();
    if line == 0 || line > count {
        return error(format!("{} has {count} lines.", path.display()));
    }
    let old = lines[line - 1];
    // A line without indentation is meant to stand where the old one stood.
    let indent = &old[..old.len() - old.trim_start().len()];
    let new = match new.starts_with([' ', '\t']) || new.is_empty() {
        true => new.to_owned(),
        false => format!("{indent}{new}"),
    };
    lines[line - 1] = &new;
    match session.write_file(&path, lines.join("\n").as_bytes()) {
        Ok(()) => Ok(Done::of(CallResult::text(call, format!("{line} {new}")))),
        Err(failed @ (SandboxError::Path { .. } | SandboxError::Carry { .. })) => error(failed.to_string()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_long_keeps_its_ends() {
        assert_eq!(ends("äöü", 3), "äöü");
        let text = ends(&"ä".repeat(20), 4);
        assert!(text.starts_with("ää\n[16 characters left out") && text.ends_with("]\nää"), "{text}");
    }

    #[test]
    fn the_time_of_tests_is_not_told() {
        assert_eq!(timeless("==== 3 passed in 0.12s ====\n"), "==== 3 passed in 0.00s ====\n");
        assert_eq!(
            timeless("1 failed, 2 passed in 61.20s (0:01:01)"),
            "1 failed, 2 passed in 0.00s (0:01:01)"
        );
        assert_eq!(timeless("Ran 3 tests in 0.001s\nok"), "Ran 3 tests in 0.00s\nok");
        for same in ["found in 3.5 seconds", "passed in time", "a in 0.5s", "x\n"] {
            assert_eq!(timeless(same), same);
        }
    }
}
