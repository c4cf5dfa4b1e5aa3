//! The tools of a terminal and what is shown of what they give.
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use openclaw_sandbox::{Ending, Output, Ran, SandboxError, Session, WORKSPACE};

use super::control::Control;
use crate::{
    shown::shown,
    world::{Call, CallResult, Tool, WorldError},
};

/// What can be called.
pub fn tools() -> Vec<Tool> {
    let path = ("path", "of a file below /workspace");
    vec![
        Tool::of_texts(
            "bash",
            "Run a command in the shell. Folder, variables and background jobs stay from one call to the next; it starts in /workspace.",
            &[("command", "one line, or several")],
        ),
        Tool::of_texts("read_file", "Read a file", &[path]),
        Tool::of_texts(
            "write_file",
            "Make or replace a file, and its folders",
            &[path, ("content", "all of it")],
        ),
    ]
}

/// An agent's hands in a session.
pub(super) struct Hands<'a> {
    pub(super) session: &'a mut dyn Session,
    pub(super) control: &'a Control,
    /// Where the shell starts, relative to the workspace.
    pub(super) folder: &'a Path,
    /// The shell is where it starts, or further.
    pub(super) placed: &'a mut bool,
    pub(super) deadline: Instant,
    pub(super) output_bytes: usize,
}

impl Hands<'_> {
    /// Does a call. What the agent did wrong is in its result.
    pub(super) fn call(&mut self, call: &Call) -> Result<CallResult, WorldError> {
        self.control.check()?;
        let missing =
            |name: &str| Ok(CallResult::error(call, format!("The argument {name} is missing, or no text.")));
        match call.name.as_str() {
            "bash" => match call.text("command") {
                Some(command) => self.bash(call, command),
                None => missing("command"),
            },
            "read_file" => match call.text("path") {
                Some(path) => self.read_file(call, path),
                None => missing("path"),
            },
            "write_file" => match (call.text("path"), call.text("content")) {
                (Some(path), Some(content)) => self.write_file(call, path, content),
                (None, _) => missing("path"),
                (_, None) => missing("content"),
            },
            other => Ok(CallResult::error(call, format!("There is no tool {other}."))),
        }
    }

    fn bash(&mut self, call: &Call, command: &str) -> Result<CallResult, WorldError> {
        if command.contains('\0') {
            return Ok(CallResult::error(call, "The command has a zero byte."));
        }
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(CallResult::error(call, "[not run: the time of this step is over]"));
        }
        if !*self.placed && !self.folder.as_os_str().is_empty() {
            let path = Path::new(WORKSPACE).join(self.folder);
            let line = format!("cd -- '{}'", path.display().to_string().replace('\'', r"'\''"));
            let ran = self.session.shell(&line, left)?;
            self.control.ended(ran.ending)?;
        }
        *self.placed = true;
        let ran = self.session.shell(command, left)?;
        *self.placed = !ran.shell_lost;
        self.control.ended(ran.ending)?;
        let text = told(&ran, left, self.output_bytes);
        Ok(if ran.success() { CallResult::text(call, text) } else { CallResult::error(call, text) })
    }

    fn read_file(&mut self, call: &Call, path: &str) -> Result<CallResult, WorldError> {
        let path = match inside(path) {
            Ok(path) => path,
            Err(why) => return Ok(CallResult::error(call, why)),
        };
        match self.session.read_file(&path) {
            Ok(bytes) => {
                let whole = Output { head: bytes, ..Output::default() };
                Ok(CallResult::text(call, shown(&whole, self.output_bytes)))
            }
            Err(error @ (SandboxError::Path { .. } | SandboxError::TooLarge { .. })) => {
                Ok(CallResult::error(call, error.to_string()))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn write_file(&mut self, call: &Call, path: &str, content: &str) -> Result<CallResult, WorldError> {
        let path = match inside(path) {
            Ok(path) => path,
            Err(why) => return Ok(CallResult::error(call, why)),
        };
        match self.session.write_file(&path, content.as_bytes()) {
            Ok(()) => Ok(CallResult::text(call, format!("{} bytes written", content.len()))),
            // There is a folder in its place, say, or no room.
            Err(error @ (SandboxError::Path { .. } | SandboxError::Carry { .. })) => {
                Ok(CallResult::error(call, error.to_string()))
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// A path as an agent writes it, relative to the workspace.
fn inside(path: &str) -> Result<PathBuf, String> {
    if path.contains('\0') {
        return Err("The path has a zero byte.".to_owned());
    }
    let path = Path::new(path);
    match path.strip_prefix(WORKSPACE) {
        Ok(inside) => Ok(inside.to_owned()),
        Err(_) if path.is_absolute() => Err(format!("{} is not below {WORKSPACE}.", path.display())),
        Err(_) => Ok(path.strip_prefix(".").unwrap_or(path).to_owned()),
    }
}

/// What an agent sees of a command.
fn told(ran: &Ran, time: Duration, limit: usize) -> String {
    // Half of the room for errors, if there is much of both.
    let length = |output: &Output| output.head.len() + output.tail.len();
    let errors = length(&ran.stderr).min(limit.saturating_sub(length(&ran.stdout)).max(limit / 2));
    let mut parts = vec![shown(&ran.stdout, limit - errors.min(limit)), shown(&ran.stderr, errors)];
    match ran.ending {
        Ending::Exited(0) => {}
        Ending::Exited(code) => parts.push(format!("[exit code {code}]")),
        Ending::TimedOut => parts.push(format!("[ended after {} s]", time.as_secs_f64().ceil())),
        Ending::Killed | Ending::Interrupted | Ending::NotStarted => parts.push("[killed]".to_owned()),
    }
    if ran.out_of_memory {
        parts.push("[out of memory]".to_owned());
    }
    if ran.shell_lost {
        parts.push("[the shell has ended; the next command has a new one]".to_owned());
    }
    let parts: Vec<&str> =
        parts.iter().map(|part| part.trim_end_matches('\n')).filter(|part| !part.is_empty()).collect();
    if parts.is_empty() { "[no output]".to_owned() } else { parts.join("\n") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ran(stdout: &str, stderr: &str, ending: Ending) -> Ran {
        let output = |text: &str| Output { head: text.into(), ..Output::default() };
        Ran {
            ending,
            stdout: output(stdout),
            stderr: output(stderr),
            duration: Duration::ZERO,
            out_of_memory: false,
            shell_lost: false,
        }
    }

    #[test]
    fn what_a_command_gave_is_said_in_few_words() {
        let text = |ran: &Ran| told(ran, Duration::from_secs(3), 100);
        assert_eq!(text(&ran("a\nb\n", "", Ending::Exited(0))), "a\nb");
        assert_eq!(text(&ran("", "", Ending::Exited(0))), "[no output]");
        assert_eq!(text(&ran("a", "no such file\n", Ending::Exited(2))), "a\nno such file\n[exit code 2]");
        let lost = Ran { shell_lost: true, ..ran("", "", Ending::TimedOut) };
        assert!(text(&lost).starts_with("[ended after 3 s]\n[the shell has ended"));
        let both = text(&ran(&"o".repeat(500), &"e".repeat(500), Ending::Exited(0)));
        assert_eq!((both.matches('o').count() - 2, both.matches('e').count() - 4), (50, 50), "{both}");
    }

    #[test]
    fn paths_are_of_the_workspace() {
        assert_eq!(inside("/workspace/a/b"), Ok("a/b".into()));
        assert_eq!(inside("./a"), Ok("a".into()));
        assert!(inside("/etc/passwd").is_err() && inside("a\0b").is_err());
    }
}
