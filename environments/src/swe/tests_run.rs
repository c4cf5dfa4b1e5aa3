//! Pytest of the machine on the tests of a repository.
use std::{collections::BTreeMap, path::Path, path::PathBuf, time::Duration};

use openclaw_sandbox::{Ending, Session, WORKSPACE};

use super::{build::Built, git::OWN, log::Statuses};
use crate::{
    terminal::{
        Control,
        runner::{self, Asked, HOME_VARIABLES},
    },
    world::WorldError,
};

/// What the environment of tests has beside the usual: the same each time.
const VARIABLES: [(&str, &str); 4] = [
    ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
    ("PYTHONDONTWRITEBYTECODE", "1"),
    ("PYTHONHASHSEED", "0"),
    ("TZ", "UTC"),
];

/// How tests are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// For someone who reads why they fail.
    Told,
    /// For a verdict: nothing is rewritten before it runs.
    Plain,
    /// No test may pass.
    MustFail,
}

/// How tests came out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Results {
    pub(super) statuses: Statuses,
    /// Why those failed that did.
    pub(super) messages: BTreeMap<String, String>,
}

/// What became of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Tests {
    /// It came to its end.
    Ended(Results),
    /// It did not, by the doing of a test or of what a test has called.
    Broken,
    /// It took too long.
    Late,
}

/// Runs tests in the workspace: files, or single ones by their names.
pub(super) fn run(
    session: &mut dyn Session,
    control: &Control,
    built: &Built,
    which: &[String],
    how: How,
    time: Duration,
) -> Result<Tests, WorldError> {
    let mut args = ["-q", "--color=no", "--confcutdir=/workspace", "--rootdir=/workspace", "-o", "addopts="]
        .map(str::to_owned)
        .to_vec();
    args.extend((how != How::Told).then(|| "--assert=plain".to_owned()));
    args.extend(which.iter().cloned());
    let env = HOME_VARIABLES.into_iter().chain(VARIABLES);
    let asked = Asked {
        args,
        env: env.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        last: vec![WORKSPACE.to_owned(), format!("{WORKSPACE}/src")],
        first: built.modules.clone(),
        must_fail: how == How::MustFail,
    };
    control.check()?;
    let program = Path::new(OWN).join("run_tests.py");
    let (ran, key) = runner::ask(session, &asked, &program, PathBuf::new(), time)?;
    match ran.ending {
        Ending::TimedOut => return Ok(Tests::Late),
        ending => control.ended(ending)?,
    }
    let said = runner::answer(&ran, &key).map_err(|error| WorldError::Invalid(error.to_string()))?;
    let Some(said) = said else { return Ok(Tests::Broken) };
    let mut statuses = Statuses::default();
    said.statuses.iter().for_each(|(name, status)| statuses.add(name, *status));
    if statuses.0.is_empty() {
        return Ok(Tests::Broken);
    }
    Ok(Tests::Ended(Results { statuses, messages: said.messages }))
}
