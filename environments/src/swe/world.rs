//! One world: a session of a sandbox for each episode, and another for its verdict.
use std::{collections::BTreeMap, path::Path, sync::Arc};

use openclaw_sandbox::{Backend, Session, Snapshot, Workspace};

use super::{
    build::Built,
    environment::{Play, Shared},
    evaluate,
    git::{self, Changes},
    hands::{self, Done},
    log::Statuses,
    patch::Protected,
    report::Report,
    row::Check,
    rule::{Progress, Standing, Step},
    settings::Tools,
    tests_run::{self, How, Results, Tests},
};
use crate::{
    terminal::Control,
    world::{
        Action, Call, CallResult, Interrupt, Observation, Outcome, StepVerdict, Task, Verdict, World,
        WorldError, text_of,
    },
};

/// Failing tests that are told of one run.
const FAILURES_TOLD: usize = 5;
/// Characters of why a test fails.
const WHY_CHARS: usize = 120;

/// A world.
pub(super) struct Desk {
    shared: Arc<Shared>,
    control: Control,
    episode: Option<Episode>,
}

struct Episode {
    backend: Box<dyn Backend>,
    play: Play,
    built: Built,
    protected: Protected,
    /// None once it is evaluated.
    session: Option<Box<dyn Session>>,
    /// What is known of the files; none where steps are not judged by tests.
    known: Option<Known>,
    left: Option<Snapshot>,
    verdict: Option<Result<Verdict, WorldError>>,
}

/// What is known of the files that there are.
struct Known {
    progress: Progress,
    /// How tests came out, by the files as they were.
    runs: BTreeMap<String, Tests>,
}

impl Desk {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, control: Control::new(), episode: None }
    }
}

fn no_episode() -> WorldError {
    WorldError::Broken("no task was begun, or it is over".to_owned())
}

impl World for Desk {
    fn reset(&mut self, task: &Task) -> Result<Observation, WorldError> {
        self.close();
        let _running = self.control.begin();
        let settings = &self.shared.settings;
        let play = self.shared.play(task)?;
        let row = &play.row;
        if let Check::Lacking(what) = &row.check {
            return Err(WorldError::Refused(format!("{}: needs {what}", row.id)));
        }
        if settings.tools == Tools::Edit && !matches!(row.check, Check::Pytest(_)) {
            return Err(WorldError::Refused(format!(
                "{}: tools = \"edit\" needs tests that pytest runs",
                row.id
            )));
        }
        let backend = self.shared.backend(row)?;
        let built = self.shared.built(&play, backend.as_ref(), &self.control)?;
        let spec = built.spec(Workspace::Snapshot(built.snapshot.clone()), settings.limits(), row);
        let mut session = self.control.open(backend.as_ref(), &spec)?;
        let judged =
            matches!(row.check, Check::Pytest(_)) && (settings.step_tests || settings.tools == Tools::Edit);
        let known = match judged {
            false => None,
            true => {
                let changes = git::changes(session.as_mut(), &self.control, &built.base)?;
                Some(Known { progress: Progress::new(row, changes.tree), runs: BTreeMap::new() })
            }
        };
        let state = known.as_ref().map(|known| state_of(&known.progress.tree));
        let protected = row.protected();
        self.episode = Some(Episode {
            backend,
            play,
            built,
            protected,
            session: Some(session),
            known,
            left: None,
            verdict: None,
        });
        Ok(Observation { state, ..Observation::default() })
    }

    fn step(&mut self, action: &Action) -> Result<Outcome, WorldError> {
        let _running = self.control.begin();
        let episode = self.episode.as_mut().ok_or_else(no_episode)?;
        if episode.session.is_none() {
            return Err(no_episode());
        }
        let mut results: Vec<CallResult> = Vec::new();
        let mut submits = matches!(action, Action::Text(_));
        if let Action::Calls(calls) = action {
            for call in calls {
                let done = episode.call(call, &self.shared, &self.control)?;
                results.push(done.result);
                submits |= done.submits;
                if done.submits {
                    break;
                }
            }
            // What was submitted is done, and nothing after it.
            let late = calls.iter().skip(results.len());
            results.extend(
                late.map(|call| CallResult::error(call, "Not done: the work was submitted."))
                    .collect::<Vec<_>>(),
            );
        }
        let (rule, state) = episode.judge(action, &results, submits, &self.shared, &self.control)?;
        let observation = Observation { results, state, ..Observation::default() };
        Ok(Outcome { observation, rule, done: submits })
    }

    fn keep(&mut self, to: &Path) -> Result<(), WorldError> {
        let _running = self.control.begin();
        let episode = self.episode.as_mut().ok_or_else(no_episode)?;
        let session = episode.session.as_mut().ok_or_else(no_episode)?;
        session.stop_all()?;
        session.copy_out(Path::new(""), to)?;
        Ok(())
    }

    fn evaluate(&mut self) -> Result<Verdict, WorldError> {
        let _running = self.control.begin();
        let episode = self.episode.as_mut().ok_or_else(no_episode)?;
        if let Some(verdict) = &episode.verdict {
            return verdict.clone();
        }
        let left = match &episode.left {
            Some(left) => left.clone(),
            None => {
                let session = episode.session.as_mut().ok_or_else(no_episode)?;
                session.stop_all()?;
                episode.left.insert(session.snapshot()?).clone()
            }
        };
        // What it holds in memory goes before the verifier's comes.
        episode.session = None;
        let (row, backend) = (&episode.play.row, episode.backend.as_ref());
        let verdict =
            evaluate::verdict(row, &episode.built, &left, &self.shared.settings, backend, &self.control);
        // Another try may do, otherwise.
        if verdict.is_ok() || matches!(verdict, Err(WorldError::Invalid(_))) {
            episode.left = None;
            episode.verdict = Some(verdict.clone());
        }
        verdict
    }

    fn close(&mut self) {
        self.control.release();
        self.episode = None;
    }

    fn interrupt(&self) -> Interrupt {
        self.control.interrupt()
    }
}

/// A number for files that are named by a hash.
fn state_of(tree: &str) -> u64 {
    tree.get(..16).and_then(|digits| u64::from_str_radix(digits, 16).ok()).unwrap_or_default()
}

impl Episode {
    fn call(&mut self, call: &Call, shared: &Shared, control: &Control) -> Result<Done, WorldError> {
        let settings = &shared.settings;
        let session = self.session.as_mut().ok_or_else(no_episode)?.as_mut();
        control.check()?;
        match (settings.tools, call.name.as_str()) {
            (Tools::Bash, "bash") => hands::bash(session, control, settings, call),
            (Tools::Edit, "read") => hands::read(session, settings, call),
            (Tools::Edit, "replace") => hands::replace(session, call),
            (Tools::Edit, "submit") => {
                Ok(Done { result: CallResult::text(call, "Submitted."), submits: true })
            }
            (Tools::Edit, "run_tests") => {
                let changes = git::changes(session, control, &self.built.base)?;
                let tests = self.tests(&changes, shared, control)?;
                let (text, passes) = told(&tests, &self.play);
                let result =
                    if passes { CallResult::text(call, text) } else { CallResult::error(call, text) };
                Ok(Done::of(result))
            }
            (_, other) => Ok(Done::of(CallResult::error(call, format!("There is no tool {other}.")))),
        }
    }

    /// How the tests come out with the files that there are now. Run once for the same files.
    fn tests(&mut self, changes: &Changes, shared: &Shared, control: &Control) -> Result<Tests, WorldError> {
        let (Some(known), Check::Pytest(files)) = (self.known.as_mut(), &self.play.row.check) else {
            return Ok(Tests::Broken);
        };
        if let Some(run) = known.runs.get(&changes.tree) {
            return Ok(run.clone());
        }
        let session = self.session.as_mut().ok_or_else(no_episode)?.as_mut();
        let time = shared.settings.step_time();
        let run = match tests_run::run(session, control, &self.built, files, How::Told, time) {
            // Of an agent's own files; the verdict is on others.
            Err(WorldError::Invalid(_)) => Tests::Broken,
            run => run?,
        };
        known.runs.insert(changes.tree.clone(), run.clone());
        Ok(run)
    }

    /// What the rule says of a step, and the state after it.
    fn judge(
        &mut self,
        action: &Action,
        results: &[CallResult],
        submits: bool,
        shared: &Shared,
        control: &Control,
    ) -> Result<(Option<StepVerdict>, Option<u64>), WorldError> {
        let before = self.known.as_ref().map(|known| state_of(&known.progress.tree));
        if *action == Action::Malformed {
            return Ok((Some(StepVerdict::bad("neither a call nor an answer")), before));
        }
        if self.known.is_none() {
            return Ok((None, None));
        }
        let session = self.session.as_mut().ok_or_else(no_episode)?.as_mut();
        let changes = git::changes(session, control, &self.built.base)?;
        let old = self.known.as_ref().map(|known| (known.progress.tree.clone(), known.progress.standing));
        let standing = match old {
            Some((tree, standing)) if tree == changes.tree => standing,
            _ => {
                let tests = self.tests(&changes, shared, control)?;
                standing(&tests, &self.play)
            }
        };
        let Some(known) = self.known.as_mut() else { return Ok((None, None)) };
        if submits {
            let touched = changes.paths.iter().any(|path| self.protected.has(path));
            let verdict = match standing.is_done() && !touched {
                true => StepVerdict::good("submits what passes its tests"),
                false => StepVerdict::bad("submits what fails its tests"),
            };
            return Ok((Some(verdict), Some(state_of(&changes.tree))));
        }
        let text: Vec<String> = results.iter().map(|result| text_of(&result.parts)).collect();
        let step = Step {
            did: format!("{:?}", calls_of(action)),
            text: &text.join("\n"),
            failed: results.iter().any(|result| result.is_error),
            changes: &changes,
            standing,
        };
        let verdict = known.progress.step(&step, &self.play.row, &self.protected);
        Ok((Some(verdict), Some(state_of(&changes.tree))))
    }
}

/// What was called, without the ids of calls.
fn calls_of(action: &Action) -> Vec<(&str, String)> {
    let Action::Calls(calls) = action else { return Vec::new() };
    calls
        .iter()
        .map(|call| (call.name.as_str(), serde_json::Value::from(call.arguments.clone()).to_string()))
        .collect()
}

fn report(results: Option<&Statuses>, play: &Play) -> Report {
    let none = Statuses::default();
    let row = &play.row;
    Report::of(results.unwrap_or(&none), &row.fail_to_pass, &row.pass_to_pass, row.eval_type)
}

fn standing(tests: &Tests, play: &Play) -> Standing {
    let results = match tests {
        Tests::Ended(results) => Some(&results.statuses),
        Tests::Broken | Tests::Late => None,
    };
    Standing::of(&report(results, play))
}

/// What is told of a run of the tests, and whether all is well.
fn told(tests: &Tests, play: &Play) -> (String, bool) {
    let results: &Results = match tests {
        Tests::Ended(results) => results,
        Tests::Broken => return ("The tests did not come to their end.".to_owned(), false),
        Tests::Late => return ("The tests took too long and were ended.".to_owned(), false),
    };
    let failed: Vec<&String> =
        results.statuses.0.iter().filter(|(_, status)| status.fails()).map(|(name, _)| name).collect();
    let report = report(Some(&results.statuses), play);
    let total = results.statuses.0.len();
    if failed.is_empty() && report.resolved() {
        return (format!("All {total} tests pass."), true);
    }
    let mut lines = vec![format!("{} of {total} tests fail.", failed.len())];
    for name in failed.iter().take(FAILURES_TOLD) {
        let why = results.messages.get(*name).and_then(|why| why.lines().next()).unwrap_or_default();
        let why: String = why.chars().take(WHY_CHARS).collect();
        lines.push(format!("FAILED {name}: {why}"));
    }
    if failed.len() > FAILURES_TOLD {
        lines.push(format!("and {} more", failed.len() - FAILURES_TOLD));
    }
    (lines.join("\n"), false)
}
