//! Whether a patch has resolved a row: the published rules over how its tests came out.
use serde::Deserialize;

use super::log::{Parser, Status, Statuses};

/// Which outcome of a test counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EvalType {
    /// A test that should pass has to be seen to pass.
    #[default]
    PassAndFail,
    /// Whatever was not seen to fail counts as passed: of runners that tell of failures alone.
    FailOnly,
}

/// Whether each test that counts came out as it should.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Tests that failed before, which passed.
    pub fail_to_pass: Vec<String>,
    /// And which did not.
    pub still_fail: Vec<String>,
    /// Tests that passed before and do.
    pub pass_to_pass: Vec<String>,
    /// And which do not any more.
    pub broken: Vec<String>,
}

/// Whether a test that ended so, or was not seen, is as it should be.
type Counts = fn(Option<Status>) -> bool;

impl Report {
    /// By the names of a row.
    pub fn of(statuses: &Statuses, fail_to_pass: &[String], pass_to_pass: &[String], eval: EvalType) -> Self {
        let is = |name: &String| statuses.find(name);
        let split = |names: &[String], good: &dyn Fn(Option<Status>) -> bool| -> (Vec<String>, Vec<String>) {
            names.iter().cloned().partition(|name| good(is(name)))
        };
        let (mended, kept): (Counts, Counts) = match eval {
            EvalType::PassAndFail => (
                |status| status.is_some_and(Status::passes),
                // A test that is skipped is no regression, but it is no resolution either.
                |status| status.is_some_and(|status| status.passes() || status == Status::Skipped),
            ),
            EvalType::FailOnly => {
                (|status| !status.is_some_and(Status::fails), |status| !status.is_some_and(Status::fails))
            }
        };
        let (fail_to_pass, still_fail) = split(fail_to_pass, &mended);
        let (pass_to_pass, broken) = split(pass_to_pass, &kept);
        Self { fail_to_pass, still_fail, pass_to_pass, broken }
    }

    /// Every test came out as it should, and there is one at all.
    pub fn resolved(&self) -> bool {
        let some = !self.fail_to_pass.is_empty() || !self.pass_to_pass.is_empty();
        some && self.still_fail.is_empty() && self.broken.is_empty()
    }
}

impl Statuses {
    /// How a test of a row came out. Names in published rows are cut within their parameters: such a one stands for all that
    /// begin with it, if these agree.
    pub fn find(&self, name: &str) -> Option<Status> {
        if let Some(status) = self.0.get(name) {
            return Some(*status);
        }
        if name.matches('[').count() <= name.matches(']').count() {
            return None;
        }
        let mut all = self.0.range(name.to_owned()..).take_while(|(known, _)| known.starts_with(name));
        let (_, first) = all.next()?;
        all.all(|(_, other)| other.passes() == first.passes()).then_some(*first)
    }
}

/// A run that says nothing of its tests.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum NoResult {
    #[error("the tests were not begun, or not ended")]
    NoMarkers,
    #[error("nothing was found in the output of the tests")]
    Nothing,
    #[error("the tests ended with {0}, but none of them is said to have failed")]
    Code(i32),
}

/// How tests came out by an output between markers, and the code with which their command ended, where it is known.
pub fn read_log(
    log: &str,
    markers: &Markers,
    parser: Parser,
    code: Option<i32>,
) -> Result<Statuses, NoResult> {
    let inside = log.split_once(&markers.start).and_then(|(_, rest)| rest.split_once(&markers.end));
    let (inside, after) = inside.ok_or(NoResult::NoMarkers)?;
    let mut found = parser.read(inside);
    if found.0.is_empty() {
        // Of some runners the results come beside the markers.
        found = parser.read(log);
    }
    if found.0.is_empty() && !suite_ran(log) {
        return Err(NoResult::Nothing);
    }
    let told = after.split_once(&markers.code).and_then(|(_, rest)| {
        let number = rest.trim_start_matches([':', ' ']);
        let end = number.find(|c: char| !c.is_ascii_digit() && c != '-').unwrap_or(number.len());
        number[..end].parse::<i32>().ok()
    });
    match told.or(code) {
        // A patch can print that tests have passed: the command would have ended with 0, too.
        Some(code) if code != 0 && !found.0.is_empty() && !found.0.values().any(|status| status.fails()) => {
            Err(NoResult::Code(code))
        }
        _ => Ok(found),
    }
}

/// Lines around the output of tests. With a number in them that no patch knows, none can forge them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Markers {
    /// Before it.
    pub start: String,
    /// Behind it.
    pub end: String,
    /// Before the code with which the command of the tests ended, behind the end.
    pub code: String,
}

impl Markers {
    /// As published scripts have them.
    pub fn published() -> Self {
        Self {
            start: ">>>>> Start Test Output".to_owned(),
            end: ">>>>> End Test Output".to_owned(),
            code: ">>>>> Test Exit Code".to_owned(),
        }
    }

    /// With a number of their own.
    pub fn with(key: &str) -> Self {
        let Self { start, end, code } = Self::published();
        Self { start: format!("{start} {key}"), end: format!("{end} {key}"), code: format!("{code} {key}") }
    }
}

/// Signs that tests were run of which nothing else is told. A count of none is no sign.
fn suite_ran(log: &str) -> bool {
    let some = |text: &str| {
        let digits = text.trim_start();
        let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
        digits[..end].parse::<u64>().is_ok_and(|count| count > 0)
    };
    log.lines().map(str::trim).any(|line| {
        let after = |word: &str| line.split_once(word).is_some_and(|(_, rest)| some(rest));
        let before = |word: &str| {
            line.split_once(word).is_some_and(|(count, _)| count.rsplit(' ').next().is_some_and(some))
        };
        after("Executed ") || after("Tests: ") || after("# tests ") || before(" passing") || before(" specs,")
    })
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
