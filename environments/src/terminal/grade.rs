//! How a task folder's verifier is run: after the agent, in a sandbox that it never was in, on a copy of what it left.
use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use openclaw_sandbox::{
    Backend, Ending, Exec, LOGS, SandboxError, Session, Snapshot, Spec, WORKSPACE, Workspace,
};

use super::{
    build::{Built, PATH},
    carried::{PASSED, Shipped, is_about_pytest, unlink, variables},
    control::Control,
    folder::{Report, expand},
    results::{BYTES_MAX, Grade, VerifierFiles, grade, pytest},
    runner,
    settings::Settings,
    task_set::FolderTask,
};
use crate::world::{Verdict, WorldError};

/// Where the verifier's files are, for it and for nobody else.
const TESTS: &str = "/tests";
/// Where our own files are, and the script that is not among the verifier's.
const SCRIPT: &str = "/verifier";
/// What Python of a verifier's script begins with, and settings of pytest that say nothing.
const OWN: [(&str, &str); 4] = [
    ("guard.py", include_str!("verifier/guard.py")),
    ("sitecustomize.py", include_str!("verifier/sitecustomize.py")),
    ("pytest.ini", "[pytest]\n"),
    ("run_tests.py", include_str!("verifier/run_tests.py")),
];
/// Kept of the verifier's own output, which may hold its results.
const OUTPUT_BYTES: usize = 4 << 20;

/// The verdict of a task's verifier on a workspace.
pub(super) fn verdict(
    task: &FolderTask,
    built: &Built,
    left: &Snapshot,
    settings: &Settings,
    backend: &dyn Backend,
    control: &Control,
) -> Result<Verdict, WorldError> {
    let invalid = |what: String| WorldError::Invalid(format!("{}: {what}", task.task.id));
    let verifier = &task.task.verifier;
    let broken = |error: std::io::Error| WorldError::Broken(error.to_string());
    let own = tempfile::tempdir().map_err(broken)?;
    for (name, text) in OWN {
        std::fs::write(own.path().join(name), text).map_err(broken)?;
    }
    let script = script(task, own.path())?;
    let read_only = [(TESTS, task.path.join("tests")), (SCRIPT, own.path().to_owned())];
    let read_only = read_only.into_iter().filter(|(_, from)| from.is_dir());
    let mut env = built.env.clone();
    env.insert("TEST_DIR".into(), TESTS.into());
    for (name, value) in &verifier.env {
        let value = expand(value, |_| None).map_err(|name| invalid(format!("needs variable:{name}")))?;
        env.insert(name.into(), value.into());
    }
    let environment = &task.task.environment;
    let mut limits = settings.limits(environment.memory_mb, environment.storage_mb);
    limits.output_bytes = OUTPUT_BYTES;
    // An agent that has filled its disk leaves room for the verifier all the same.
    limits.disk_bytes *= 2;
    limits.read_bytes = BYTES_MAX as u64;
    let spec = Spec {
        workspace: Workspace::Snapshot(left.clone()),
        read_only: read_only.map(|(at, from)| (at.into(), from)).collect(),
        limits,
        ..Spec::default()
    };
    let mut session = control.open(backend, &spec)?;
    unlink(session.as_mut())?;
    let time = settings.long_time(Some(verifier.timeout_secs));
    let late = || invalid(format!("the verifier was not done in {} s", time.as_secs()));
    if let Some((run, folder)) = task.pytest(&built.folder) {
        let cwd = started_in(session.as_mut(), &folder)?;
        let program = Path::new(SCRIPT).join("run_tests.py");
        let (ran, key) = runner::run(session.as_mut(), run, &program, cwd, &env, time)?;
        match ran.ending {
            Ending::TimedOut => return Err(late()),
            ending => control.ended(ending)?,
        }
        let graded =
            runner::grade(&ran, &key, &verifier.weights).map_err(|error| invalid(error.to_string()))?;
        let mut verdict = of(&graded);
        verdict.numbers.insert("script_replaced".to_owned(), 1.0);
        return Ok(verdict);
    }
    let mut exec = Exec::argv(["/bin/bash".into(), script.into_os_string()]);
    exec.cwd = started_in(session.as_mut(), &built.folder)?;
    let options = match is_about_pytest(task) {
        true => String::new(),
        false => {
            built.shipped.put_back(session.as_mut())?;
            pytest_options(task, &built.shipped)
        }
    };
    exec.env = variables(env, SCRIPT, &options);
    let ran = session.exec(&exec.timeout(time))?;
    match ran.ending {
        Ending::TimedOut => return Err(late()),
        ending => control.ended(ending)?,
    }
    let graded = match &verifier.report {
        Report::RewardFiles => {
            let found = Found::read(session.as_mut(), control, task)?;
            grade(found.files(), &verifier.weights)
        }
        Report::Pytest => pytest(&ran.stdout.text())
            .and_then(|tests| tests.agree(ran.exit_code()))
            .and_then(|tests| tests.grade(&verifier.weights)),
        Report::Foreign(name) => return Err(invalid(format!("needs parser:{name}"))),
    };
    Ok(of(&graded.map_err(|error| invalid(error.to_string()))?))
}

/// Pytest of a script reads the verifier's settings, else those that the task had in its workspace, else none.
fn pytest_options(task: &FolderTask, shipped: &Shipped) -> String {
    let own = task.path.join("tests/pytest.ini");
    let config = match &shipped.config {
        _ if own.is_file() => Path::new(TESTS).join("pytest.ini"),
        Some(config) => Path::new(WORKSPACE).join(config),
        None => Path::new(SCRIPT).join("pytest.ini"),
    };
    format!("-p no:cacheprovider -c '{}'", config.display())
}

/// Where the verifier starts: an agent that has removed the folder, or put something else there, has failed, and gets a
/// verdict for it.
fn started_in(session: &mut dyn Session, folder: &Path) -> Result<PathBuf, WorldError> {
    if folder.as_os_str().is_empty() {
        return Ok(PathBuf::new());
    }
    let path = Path::new(WORKSPACE).join(folder);
    let make = r#"mkdir -p -- "$1" && cd -P -- "$1" && [ "$PWD" = "$1" ]"#;
    let words = ["/bin/sh", "-c", make, "sh"].map(OsString::from).into_iter().chain([path.into_os_string()]);
    let mut exec = Exec::argv(words);
    exec.env = [(OsString::from("PATH"), OsString::from(PATH))].into();
    let ran = session.exec(&exec)?;
    Ok(if ran.success() { folder.to_owned() } else { PathBuf::new() })
}

/// Where the script of a task is; one that is not among the verifier's files comes to ours.
fn script(task: &FolderTask, own: &Path) -> Result<PathBuf, WorldError> {
    let path = &task.task.verifier.script;
    if let Ok(inside) = path.strip_prefix("tests") {
        return Ok(Path::new(TESTS).join(inside));
    }
    let failed =
        |error: std::io::Error| WorldError::Invalid(format!("{}: {}: {error}", task.task.id, path.display()));
    let name = path.file_name().unwrap_or(path.as_os_str());
    std::fs::copy(task.path.join(path), own.join(name)).map_err(failed)?;
    Ok(Path::new(SCRIPT).join(name))
}

/// Reward files as they were found.
struct Found {
    reward_json: Option<Vec<u8>>,
    reward_txt: Option<Vec<u8>>,
    ctrf: Option<Vec<u8>>,
}

impl Found {
    /// By programs of the machine, whatever the task or the agent calls so.
    fn read(session: &mut dyn Session, control: &Control, task: &FolderTask) -> Result<Self, WorldError> {
        let logs = format!("{LOGS}/verifier");
        // A program of the agent's that a test runs could shut a file of its own against the verifier's word.
        let copy = r#"for file in "$2" "$2"/reward.* "$2"/ctrf.json; do
  [ ! -e "$file" ] || [ -w "$file" ] || { echo "$file cannot be written" >&2; exit 1; }
done
cd /workspace && rm -rf -- "$1" && cp -RP -- "$2" "$1" && chmod -R u+rX -- "$1""#;
        let mut exec = Exec::argv(["/bin/sh", "-c", copy, "sh", PASSED, &logs]);
        exec.env = [(OsString::from("PATH"), OsString::from(PATH))].into();
        let ran = session.exec(&exec)?;
        control.ended(ran.ending)?;
        if !ran.success() {
            return Err(WorldError::Invalid(format!(
                "reward files cannot be read: {}",
                ran.stderr.text().trim()
            )));
        }
        // Nor is a file the verifier's that it never speaks of.
        let names = ["reward.json", "reward.txt", "ctrf.json"];
        let spoken_of: Vec<&str> = names.into_iter().filter(|name| task.verifier_says(name)).collect();
        let read = |name: &str| {
            if !spoken_of.is_empty() && !spoken_of.contains(&name) {
                return Ok(None);
            }
            let path = Path::new(PASSED).join(name);
            match session.read_file(&path) {
                Ok(bytes) => Ok(Some(bytes)),
                Err(SandboxError::Path { why, .. }) if why == "does not exist" => Ok(None),
                Err(error @ (SandboxError::Path { .. } | SandboxError::TooLarge { .. })) => {
                    Err(WorldError::Invalid(error.to_string()))
                }
                Err(error) => Err(error.into()),
            }
        };
        Ok(Self {
            reward_json: read("reward.json")?,
            reward_txt: read("reward.txt")?,
            ctrf: read("ctrf.json")?,
        })
    }

    fn files(&self) -> VerifierFiles<'_> {
        VerifierFiles {
            reward_json: self.reward_json.as_deref(),
            reward_txt: self.reward_txt.as_deref(),
            ctrf: self.ctrf.as_deref(),
        }
    }
}

/// The verdict that a grade is.
pub(super) fn of(grade: &Grade) -> Verdict {
    let mut numbers = grade.named.clone();
    let own = [("rate", grade.rate), ("passed", grade.passed as f64), ("total", grade.total as f64)];
    numbers.extend(own.map(|(name, number)| (name.to_owned(), number)));
    Verdict { reward: grade.outcome() as f32, success: grade.rate >= 1.0, numbers }
}
