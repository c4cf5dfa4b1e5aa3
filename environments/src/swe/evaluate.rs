//! How a row is judged: the difference that an agent has left, put into a fresh repository in a sandbox where it never was, and
//! the tests there.
use std::{collections::BTreeMap, ffi::OsString, time::Duration};

use openclaw_sandbox::{Backend, Ending, Exec, Session, Snapshot, Workspace};

use super::{
    build::Built,
    git,
    log::{Parser, Statuses},
    patch::is_inside,
    report::{Markers, NoResult, Report, read_log},
    row::{Check, Row},
    settings::Settings,
    tests_run::{self, How, Tests},
};
use crate::{
    terminal::Control,
    world::{Verdict, WorldError},
};

/// Kept of what tests write.
const OUTPUT_BYTES: usize = 16 << 20;
/// Tests that are run once more to see that they can fail.
const PROBED_MAX: usize = 20;

/// Reads a script, unlinks it, and runs it between marks that are in no program's arguments.
const RUN: &str = r#"cd /workspace && read -r start && read -r end && read -r code && script=$(mktemp) && cat > "$script" || exit 125
exec 3< "$script" 2>&1; rm -f -- "$script"
[ "$start" = none ] || echo "$start"
bash /dev/fd/3 < /dev/null
result=$?
[ "$start" = none ] || { echo; echo "$end"; echo "$code: $result"; }
exit 0"#;

/// The verdict on what an agent has left.
pub(super) fn verdict(
    row: &Row,
    built: &Built,
    left: &Snapshot,
    settings: &Settings,
    backend: &dyn Backend,
    control: &Control,
) -> Result<Verdict, WorldError> {
    let mut limits = settings.limits();
    limits.output_bytes = OUTPUT_BYTES;
    // An agent that has filled its disk leaves room all the same.
    limits.disk_bytes *= 2;
    let mut session = control.open(backend, &built.spec(Workspace::Snapshot(left.clone()), limits, row))?;
    let protected = row.protected();
    let changes = git::changes(session.as_mut(), control, &built.base)?;
    let counts = |path: &&str| is_inside(path) && !protected.has(path);
    let paths: Vec<&str> = changes.paths.iter().map(String::as_str).filter(counts).collect();
    let patch = git::diff(session.as_mut(), control, &built.base, &paths)?;
    let patch = patch.filter(|patch| patch.len() <= settings.patch_bytes);
    let mut numbers = BTreeMap::from([
        ("f2p_total".to_owned(), row.fail_to_pass.len() as f64),
        ("p2p_total".to_owned(), row.pass_to_pass.len() as f64),
        ("left_out".to_owned(), (changes.paths.len() - paths.len()) as f64),
    ]);
    let report = match &patch {
        None => None,
        Some(patch) => {
            numbers.insert("patch_bytes".to_owned(), patch.len() as f64);
            if patch.is_empty() {
                None
            } else {
                session.reset(&built.snapshot)?;
                judge(session.as_mut(), control, row, built, patch, settings.verifier_time())?
            }
        }
    };
    if let Some(report) = &report {
        numbers.insert("f2p_passed".to_owned(), report.fail_to_pass.len() as f64);
        numbers.insert("p2p_passed".to_owned(), report.pass_to_pass.len() as f64);
    }
    let success = report.is_some_and(|report| report.resolved());
    Ok(Verdict { reward: if success { 1.0 } else { -1.0 }, success, numbers })
}

/// How the tests of a row come out with a patch, in a session that has the base. `None`: it cannot be applied.
pub(super) fn judge(
    session: &mut dyn Session,
    control: &Control,
    row: &Row,
    built: &Built,
    patch: &[u8],
    time: Duration,
) -> Result<Option<Report>, WorldError> {
    if !git::apply(session, control, patch)? {
        return Ok(None);
    }
    // What the agent has done to tests is no part of its patch, so these are those of the base and of the row.
    bring_tests(session, control, row)?;
    let statuses = match &row.check {
        Check::Lacking(what) => return Err(WorldError::Refused(format!("{}: needs {what}", row.id))),
        Check::Pytest(files) => pytest(session, control, row, built, files, time)?,
        Check::Script { text, parser, .. } => script(session, control, row, built, text, *parser, time)?,
    };
    Ok(Some(Report::of(&statuses, &row.fail_to_pass, &row.pass_to_pass, row.eval_type)))
}

/// By pytest of this machine. What ends it, or lets it hang, is the patch: without it the tests have come to their end.
fn pytest(
    session: &mut dyn Session,
    control: &Control,
    row: &Row,
    built: &Built,
    files: &[String],
    time: Duration,
) -> Result<Statuses, WorldError> {
    let mut statuses = match tests_run::run(session, control, built, files, How::Plain, time)? {
        Tests::Ended(results) => results.statuses,
        Tests::Broken | Tests::Late => return Ok(Statuses::default()),
    };
    let passed = |name: &&String| statuses.find(name).is_some_and(|status| status.passes());
    let probed: Vec<String> = row.fail_to_pass.iter().filter(passed).take(PROBED_MAX).cloned().collect();
    if probed.is_empty() {
        return Ok(statuses);
    }
    // A module under test lies in the process of its tests, and can tell pytest that they have passed. So each must be able to
    // fail: in this run none passes, and what is said to pass all the same was never judged.
    match tests_run::run(session, control, built, &probed, How::MustFail, time)? {
        Tests::Ended(results) => {
            let rigged =
                probed.iter().any(|name| results.statuses.find(name).is_none_or(|status| !status.fails()));
            if rigged {
                statuses.0.retain(|name, _| !row.fail_to_pass.contains(name));
            }
        }
        Tests::Broken | Tests::Late => return Ok(Statuses::default()),
    }
    Ok(statuses)
}

/// By a script of the row. One that says nothing with a patch, and something without, was kept from it by the patch.
fn script(
    session: &mut dyn Session,
    control: &Control,
    row: &Row,
    built: &Built,
    text: &str,
    parser: Parser,
    time: Duration,
) -> Result<Statuses, WorldError> {
    let why = match run_script(session, control, text, parser, time)? {
        Ok(statuses) => return Ok(statuses),
        // It was printed that tests have passed.
        Err(NoResult::Code(_)) => return Ok(Statuses::default()),
        Err(why) => why,
    };
    session.reset(&built.snapshot)?;
    bring_tests(session, control, row)?;
    match run_script(session, control, text, parser, time)? {
        Ok(_) => Ok(Statuses::default()),
        Err(_) => Err(WorldError::Invalid(format!("{}: {why}", row.id))),
    }
}

/// Tests that the row brings, where its script does not.
fn bring_tests(session: &mut dyn Session, control: &Control, row: &Row) -> Result<(), WorldError> {
    let brings_tests = matches!(row.check, Check::Script { brings_tests: true, .. });
    if row.test_patch.is_empty() || brings_tests || git::apply(session, control, row.test_patch.as_bytes())? {
        return Ok(());
    }
    Err(WorldError::Invalid(format!("{}: test_patch cannot be applied", row.id)))
}

fn run_script(
    session: &mut dyn Session,
    control: &Control,
    text: &str,
    parser: Parser,
    time: Duration,
) -> Result<Result<Statuses, NoResult>, WorldError> {
    let published = Markers::published();
    let markers = Markers::with(&format!("{:032x}", rand::random::<u128>()));
    // A script with marks of its own says itself where its tests begin and end.
    let own = text.contains(&published.start) && text.contains(&published.end);
    let text = text
        .replace(&published.start, &markers.start)
        .replace(&published.end, &markers.end)
        .replace(&published.code, &markers.code);
    let [start, end, code] =
        [&markers.start, &markers.end, &markers.code].map(|mark| if own { "none" } else { mark });
    let stdin = format!("{start}\n{end}\n{code}\n{text}\n");
    let mut exec = Exec::argv(["/bin/bash", "-c", RUN]).stdin(stdin).timeout(time);
    exec.env = [(OsString::from("PYTHONHASHSEED"), OsString::from("0"))].into();
    control.check()?;
    let ran = session.exec(&exec)?;
    match ran.ending {
        // A patch that hangs has failed.
        Ending::TimedOut => return Ok(Ok(Statuses::default())),
        ending => control.ended(ending)?,
    }
    Ok(read_log(&ran.stdout.text(), &markers, parser, None))
}
