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
use crate::{swe::log::Status, world::WorldError};

/// Of pytest: tests ran, and all passed or some did not.
const RAN: [i32; 2] = [0, 1];
/// Of pytest: it was interrupted, or broke inside.
const ENDED: [i32; 2] = [2, 3];

/// What `run_tests.py` is asked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked {
    /// Of pytest.
    pub(crate) args: Vec<String>,
    /// For the tests and what they start.
    pub(crate) env: BTreeMap<String, String>,
    /// Folders in which modules are looked up last.
    pub(crate) last: Vec<String>,
    /// Modules that are the task's own, whatever the machine has.
    pub(crate) first: Vec<String>,
    /// Every test is made to fail: one that is said to pass is not judged by what it does.
    pub(crate) must_fail: bool,
}

/// What `run_tests.py` says last.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Said {
    key: String,
    /// Of pytest.
    pub(crate) code: i32,
    tests: BTreeMap<String, bool>,
    /// How each test came out.
    #[serde(default)]
    pub(crate) statuses: BTreeMap<String, Status>,
    /// Why those failed that did.
    #[serde(default)]
    pub(crate) messages: BTreeMap<String, String>,
}

/// Runs tests in `cwd`, by the program that is at `program` there.
pub(crate) fn ask(
    session: &mut dyn Session,
    asked: &Asked,
    program: &Path,
    cwd: PathBuf,
    time: Duration,
) -> Result<(Ran, String), WorldError> {
    let key = format!("{:032x}", rand::random::<u128>());
    let asked = json!({"key": key, "args": asked.args, "env": asked.env, "last": asked.last,
        "first": asked.first, "must_fail": asked.must_fail});
    // Nothing of the task's or of the agent's says how this Python begins.
    let words = ["/usr/bin/python3".as_ref(), "-I".as_ref(), "-B".as_ref(), program.as_os_str()];
    let mut exec = Exec::argv(words).stdin(format!("{asked}\n")).timeout(time);
    exec.cwd = cwd;
    Ok((session.exec(&exec)?, key))
}

/// What was said with the key, if anything was; an error where the tests were not begun.
pub(crate) fn answer(ran: &Ran, key: &str) -> Result<Option<Said>, ResultError> {
    let output = ran.stdout.text();
    let mut lines = output.lines();
    if lines.next() != Some("ready") {
        return Err(ResultError::NotRun(last_line(&ran.stderr.text())));
    }
    Ok(lines.filter_map(|line| serde_json::from_str(line).ok()).find(|said: &Said| said.key == key))
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
    let mut variables: BTreeMap<String, String> =
        env.iter().map(|(name, value)| (text(name), text(value))).collect();
    let (own_path, agents_path) = folders(env.get(&OsString::from("PATH")).unwrap_or(&PATH.into()));
    variables.insert("PATH".to_owned(), [own_path, agents_path].concat().join(":"));
    for (name, value) in HOME_VARIABLES {
        variables.entry(name.to_owned()).or_insert_with(|| value.to_owned());
    }
    let (own, agents) = folders(env.get(&OsString::from("PYTHONPATH")).unwrap_or(&OsString::new()));
    let here = Path::new(WORKSPACE).join(&cwd).display().to_string();
    let last = own.into_iter().chain(agents).chain(run.python_path.iter().cloned()).chain([here]);
    let args = [vec!["--confcutdir=/tests".to_owned()], run.args.clone()].concat();
    let asked = Asked { args, env: variables, last: last.collect(), ..Asked::default() };
    ask(session, &asked, program, cwd, time)
}

/// What every program has.
pub(crate) const HOME_VARIABLES: [(&str, &str); 4] =
    [("HOME", openclaw_sandbox::HOME), ("USER", "agent"), ("LANG", "C.UTF-8"), ("TERM", "dumb")];

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
    let said = answer(ran, key)?;
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
