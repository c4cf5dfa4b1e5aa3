//! Tests of a verifier whose script is pytest and nothing else, see [`script`](super::script): run without the script, and
//! counted where no program of the agent's that a test starts can write.
use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
    time::Duration,
};

use openclaw_sandbox::{APP, Exec, Ran, Session, WORKSPACE};
use serde::Deserialize;
use serde_json::json;

use super::{
    build::PATH,
    carried::folders,
    results::{Grade, ResultError, Tests},
    script::Run,
};
use crate::world::WorldError;

/// Of pytest: tests ran, and all passed or some did not.
const RAN: [i32; 2] = [0, 1];
/// Of pytest: it was interrupted, or broke inside.
const ENDED: [i32; 2] = [2, 3];

/// What `run_tests.py` says last.
#[derive(Deserialize)]
struct Said {
    key: String,
    code: i32,
    tests: BTreeMap<String, bool>,
}

/// Runs them. `env` is what the task has, for the tests and what they start.
pub(super) fn run(
    session: &mut dyn Session,
    run: &Run,
    program: &Path,
    cwd: PathBuf,
    env: &BTreeMap<OsString, OsString>,
    time: Duration,
) -> Result<(Ran, String), WorldError> {
    let key = format!("{:032x}", rand::random::<u128>());
    let mut variables: BTreeMap<String, String> =
        env.iter().map(|(name, value)| (text(name), text(value))).collect();
    let (own_path, agents_path) = folders(env.get(&OsString::from("PATH")).unwrap_or(&PATH.into()));
    variables.insert("PATH".to_owned(), [own_path, agents_path].concat().join(":"));
    for (name, value) in
        [("HOME", openclaw_sandbox::HOME), ("USER", "agent"), ("LANG", "C.UTF-8"), ("TERM", "dumb")]
    {
        variables.entry(name.to_owned()).or_insert_with(|| value.to_owned());
    }
    let (own, agents) = folders(env.get(&OsString::from("PYTHONPATH")).unwrap_or(&OsString::new()));
    let last: Vec<&String> = own.iter().chain(&agents).chain(&run.python_path).collect();
    let here = Path::new(WORKSPACE).join(&cwd).display().to_string();
    let last: Vec<&str> = last.into_iter().map(String::as_str).chain([here.as_str()]).collect();
    let asked = json!({"key": key, "args": run.args, "env": variables, "last": last});
    // Nothing of the task's or of the agent's says how this Python begins.
    let words = ["/usr/bin/python3".as_ref(), "-I".as_ref(), "-B".as_ref(), program.as_os_str()];
    let mut exec = Exec::argv(words).stdin(format!("{asked}\n")).timeout(time);
    exec.cwd = cwd;
    Ok((session.exec(&exec)?, key))
}

fn text(value: &OsString) -> String {
    value.to_string_lossy().into_owned()
}

/// Where a script goes to, relative to the workspace; `None` is anywhere else.
pub(super) fn inside(run: &Run, start: &Path) -> Option<PathBuf> {
    let Some(folder) = &run.folder else { return Some(start.to_owned()) };
    let path = Path::new(WORKSPACE).join(start).join(folder);
    let inside = path.strip_prefix(WORKSPACE).or_else(|_| path.strip_prefix(APP)).ok()?;
    inside.components().all(|part| matches!(part, std::path::Component::Normal(_))).then(|| inside.to_owned())
}

/// The grade of what was said. What the tests have ended before they were through has failed: only they, and the agent's code
/// that they called, could.
pub(super) fn grade(ran: &Ran, key: &str, weights: &BTreeMap<String, f64>) -> Result<Grade, ResultError> {
    let output = ran.stdout.text();
    let mut lines = output.lines();
    if lines.next() != Some("ready") {
        return Err(ResultError::NotRun(last_line(&ran.stderr.text())));
    }
    let said = lines.filter_map(|line| serde_json::from_str(line).ok()).find(|said: &Said| said.key == key);
    let failed = Grade { rate: 0.0, passed: 0, total: 1, named: BTreeMap::new() };
    match said {
        Some(said) if RAN.contains(&said.code) => Tests::of(said.tests)?.grade(weights),
        Some(said) if !ENDED.contains(&said.code) => Err(ResultError::NotRun(last_line(&ran.stderr.text()))),
        _ => Ok(failed),
    }
}

fn last_line(text: &str) -> String {
    let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("nothing was said");
    last.trim().chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use openclaw_sandbox::{Ending, Output};

    use super::*;

    fn graded(stdout: &str) -> Result<Grade, String> {
        let output = |text: &str| Output { head: text.into(), ..Output::default() };
        let ran = Ran {
            ending: Ending::Exited(0),
            stdout: output(stdout),
            stderr: output("usage: pytest\n\n"),
            duration: Duration::ZERO,
            out_of_memory: false,
            shell_lost: false,
        };
        grade(&ran, "k", &BTreeMap::new()).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_said_with_the_key_counts() {
        let said = |key: &str, code: i32| {
            format!(
                "ready\n{{\"key\": \"{key}\", \"code\": {code}, \"tests\": {{\"a.py::t\": true, \"a.py::u\": false}}}}\n"
            )
        };
        let rate = |stdout: &str| graded(stdout).map(|grade| grade.rate);
        assert_eq!(rate(&said("k", 1)), Ok(0.5));
        // Forged, interrupted, broken, or ended without a word.
        for stdout in [said("x", 0), said("k", 2), said("k", 3), "ready\n".to_owned()] {
            assert_eq!(rate(&stdout), Ok(0.0), "{stdout}");
        }
        // Not the tests' doing.
        for stdout in [said("k", 4), said("k", 5), String::new()] {
            assert_eq!(rate(&stdout), Err("the tests were not run: usage: pytest".to_owned()), "{stdout}");
        }
    }

    #[test]
    fn a_script_goes_where_the_workspace_is() {
        let of = |folder: Option<&str>| {
            inside(&Run { folder: folder.map(str::to_owned), ..Run::default() }, Path::new("sub"))
        };
        assert_eq!(of(None), Some("sub".into()));
        assert_eq!(of(Some("/app")), Some("".into()));
        assert_eq!(of(Some("/workspace/x")), Some("x".into()));
        assert_eq!(of(Some("x")), Some("sub/x".into()));
        assert_eq!((of(Some("/tests")), of(Some("../x"))), (None, None));
    }
}
