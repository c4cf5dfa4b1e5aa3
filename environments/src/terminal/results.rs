//! What a verifier found, from its files and its output. Whatever cannot be read is an error, never a 0: an
//! episode whose check broke is not trained on, but a failed one is.
use super::keys::kind_of;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Largest file or output that is read, in bytes.
pub const BYTES_MAX: usize = 16 << 20;

/// Most tests of one task.
pub const TESTS_MAX: usize = 100_000;

/// Whether each test passed, by name; a name that is reported twice passed if it did each time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tests(pub BTreeMap<String, bool>);

/// The reward file of a Harbor verifier.
#[derive(Clone, Debug, PartialEq)]
pub struct Reward {
    /// The key `reward`, or the only key.
    pub reward: f64,
    /// Every number of `reward.json`; `reward` alone for a `reward.txt`.
    pub named: BTreeMap<String, f64>,
}

/// The files of a Harbor verifier, as they were found; `None` where there is none.
#[derive(Clone, Copy, Debug, Default)]
pub struct VerifierFiles<'a> {
    /// `reward.json`, which goes before `reward.txt`.
    pub reward_json: Option<&'a [u8]>,
    /// `reward.txt`.
    pub reward_txt: Option<&'a [u8]>,
    /// `ctrf.json`: results of single tests.
    pub ctrf: Option<&'a [u8]>,
}

/// How well a task was done.
#[derive(Clone, Debug, PartialEq)]
pub struct Grade {
    /// Share of tests passed, or the reward where no test is known: 0 to 1.
    pub rate: f64,
    /// Tests passed.
    pub passed: usize,
    /// Tests there are.
    pub total: usize,
    /// Numbers of the reward file.
    pub named: BTreeMap<String, f64>,
}

impl Grade {
    /// The published reward of a terminal task: `2 * rate - 1`.
    pub fn outcome(&self) -> f64 {
        outcome(self.rate)
    }
}

/// `2 * rate - 1`.
pub fn outcome(rate: f64) -> f64 {
    2.0 * rate - 1.0
}

/// A check without a result.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum ResultError {
    #[error("neither reward.json nor reward.txt was written")]
    NoReward,
    #[error("{0} is empty")]
    Empty(&'static str),
    #[error("{file} has {bytes} bytes, at most {BYTES_MAX} are read")]
    TooLong { file: &'static str, bytes: usize },
    #[error("{file}: {message}")]
    Syntax { file: &'static str, message: String },
    #[error("{file}: `{key}` is {found}, expected {expected}")]
    Kind { file: &'static str, key: String, found: String, expected: &'static str },
    #[error("reward.json has no `reward` among its {0} keys")]
    NoRewardKey(usize),
    #[error("the reward is {0}, expected 0 to 1")]
    Range(f64),
    #[error("{0} has no tests")]
    NoTests(&'static str),
    #[error("{0} has more than {TESTS_MAX} tests")]
    TooManyTests(&'static str),
    #[error("ctrf.json lists {listed} tests but its summary says {summary}")]
    Count { listed: usize, summary: u64 },
    #[error("the test output has no short summary")]
    NoSummary,
    #[error("the tests were not run: {0}")]
    NotRun(String),
    #[error("no test failed, but the script ended with code {0}")]
    Code(i32),
    #[error("weights.json has no weight for test `{0}`")]
    NoWeight(String),
}

/// The grade by a Harbor verifier's files. Per-test results give the rate where they are present; the reward
/// must be readable all the same, since a script that died before writing it has not checked everything.
pub fn grade(files: VerifierFiles<'_>, weights: &BTreeMap<String, f64>) -> Result<Grade, ResultError> {
    let reward = reward(files.reward_json, files.reward_txt)?;
    if let Some(bytes) = files.ctrf {
        let tests = ctrf(bytes)?;
        return Ok(Grade { named: reward.named, ..tests.grade(weights)? });
    }
    if !(0.0..=1.0).contains(&reward.reward) {
        return Err(ResultError::Range(reward.reward));
    }
    Ok(Grade { rate: reward.reward, passed: 0, total: 0, named: reward.named })
}

/// The reward, from `reward.json` if there is one, else from `reward.txt`. A broken `reward.json` is an error
/// even beside a good `reward.txt`.
pub fn reward(json: Option<&[u8]>, txt: Option<&[u8]>) -> Result<Reward, ResultError> {
    match (json, txt) {
        (Some(json), _) => reward_json(json),
        (None, Some(txt)) => reward_txt(txt),
        (None, None) => Err(ResultError::NoReward),
    }
}

fn reward_json(bytes: &[u8]) -> Result<Reward, ResultError> {
    const FILE: &str = "reward.json";
    let table = object(FILE, bytes)?;
    let mut named = BTreeMap::new();
    for (key, value) in table {
        match value.as_f64().filter(|number| number.is_finite()) {
            Some(number) => named.insert(key, number),
            None => return Err(kind(FILE, key, &value, "a finite number")),
        };
    }
    let reward = match (named.get("reward"), named.values().next()) {
        (Some(reward), _) => *reward,
        (None, Some(only)) if named.len() == 1 => *only,
        (None, None) => return Err(ResultError::Empty(FILE)),
        (None, Some(_)) => return Err(ResultError::NoRewardKey(named.len())),
    };
    Ok(Reward { reward, named })
}

fn reward_txt(bytes: &[u8]) -> Result<Reward, ResultError> {
    const FILE: &str = "reward.txt";
    let text = text(FILE, bytes)?;
    let reward: f64 =
        text.trim().parse().ok().filter(|number: &f64| number.is_finite()).ok_or_else(|| {
            let found: String = text.trim().chars().take(40).collect();
            ResultError::Kind {
                file: FILE,
                key: "*".into(),
                found: format!("{found:?}"),
                expected: "a finite number",
            }
        })?;
    Ok(Reward { reward, named: BTreeMap::from([("reward".to_owned(), reward)]) })
}

/// The tests of a `ctrf.json`. As in the output of pytest, a skipped test counts as passed; `pending` and
/// `other` do not.
pub fn ctrf(bytes: &[u8]) -> Result<Tests, ResultError> {
    const FILE: &str = "ctrf.json";
    let mut root = object(FILE, bytes)?;
    let Some(Value::Object(mut results)) = root.remove("results") else {
        return Err(kind(FILE, "results", &Value::Null, "a table"));
    };
    let summary = results.get("summary").and_then(|summary| summary.get("tests")).and_then(Value::as_u64);
    let listed = match results.remove("tests") {
        Some(Value::Array(tests)) => tests,
        other => return Err(kind(FILE, "results.tests", &other.unwrap_or(Value::Null), "a list")),
    };
    if let Some(summary) = summary
        && summary != listed.len() as u64
    {
        return Err(ResultError::Count { listed: listed.len(), summary });
    }
    let mut tests = Tests::default();
    for (at, test) in listed.iter().enumerate() {
        let text = |key: &str| match test.get(key) {
            Some(Value::String(text)) => Ok(text.as_str()),
            other => {
                Err(kind(FILE, format!("results.tests[{at}].{key}"), other.unwrap_or(&Value::Null), "text"))
            }
        };
        let passed = match text("status")? {
            "passed" | "skipped" => true,
            "failed" | "pending" | "other" => false,
            status => {
                return Err(ResultError::Kind {
                    file: FILE,
                    key: format!("results.tests[{at}].status"),
                    found: format!("{status:?}"),
                    expected: "passed, failed, skipped, pending or other",
                });
            }
        };
        tests.add(FILE, short_name(text("name")?), passed)?;
    }
    tests.not_empty(FILE)
}

/// The tests in the output of pytest: the lines after the last heading "short test summary info". PASSED, XFAIL
/// and SKIPPED count as passed, FAILED, XPASS and ERROR as failed.
pub fn pytest(output: &str) -> Result<Tests, ResultError> {
    const FILE: &str = "the short summary";
    if output.len() > BYTES_MAX {
        return Err(ResultError::TooLong { file: "the test output", bytes: output.len() });
    }
    // The last heading is pytest's own: what tests print is shown before it.
    let heading = |line: &str| {
        line.starts_with('=')
            && line.ends_with('=')
            && line.trim_matches('=').trim() == "short test summary info"
    };
    let lines: Vec<&str> = output.lines().map(str::trim_end).collect();
    let start = lines.iter().rposition(|line| heading(line)).ok_or(ResultError::NoSummary)?;
    let mut tests = Tests::default();
    for line in &lines[start + 1..] {
        if line.starts_with("===") {
            break;
        }
        let Some((status, rest)) = line.split_once(' ') else { continue };
        let passed = match status {
            "PASSED" | "XFAIL" | "SKIPPED" => true,
            "FAILED" | "XPASS" | "ERROR" => false,
            _ => continue,
        };
        // Parameters may hold " - ", so it is cut only where pytest puts a reason.
        let rest = if status == "FAILED" { rest.split(" - ").next().unwrap_or(rest) } else { rest };
        tests.add(FILE, short_name(rest.trim()), passed)?;
    }
    tests.not_empty(FILE)
}

/// What follows the file of a test's name.
fn short_name(name: &str) -> &str {
    name.split_once("::").map_or(name, |(_, name)| name)
}

impl Tests {
    fn add(&mut self, file: &'static str, name: &str, passed: bool) -> Result<(), ResultError> {
        let all_passed = self.0.get(name).is_none_or(|before| *before);
        self.0.insert(name.to_owned(), all_passed && passed);
        if self.0.len() > TESTS_MAX { Err(ResultError::TooManyTests(file)) } else { Ok(()) }
    }

    /// By the names of their files and their own.
    pub fn of(tests: impl IntoIterator<Item = (String, bool)>) -> Result<Self, ResultError> {
        let mut all = Self::default();
        for (name, passed) in tests {
            all.add("the run", short_name(&name), passed)?;
        }
        all.not_empty("the run")
    }

    /// What ended otherwise than it says has not checked everything, or was made to say so.
    pub fn agree(self, code: Option<i32>) -> Result<Self, ResultError> {
        match code {
            Some(code) if code != 0 && self.0.values().all(|passed| *passed) => Err(ResultError::Code(code)),
            _ => Ok(self),
        }
    }

    fn not_empty(self, file: &'static str) -> Result<Self, ResultError> {
        if self.0.is_empty() { Err(ResultError::NoTests(file)) } else { Ok(self) }
    }

    /// The share of tests passed; with weights, the weight of the passed ones in that of all that have one. A
    /// test that has a weight but no result failed; one that has a result but no weight is an error. A weight
    /// of `test_a` is also that of its parameters, `test_a[1]`, which must all pass.
    pub fn grade(&self, weights: &BTreeMap<String, f64>) -> Result<Grade, ResultError> {
        let passed = self.0.values().filter(|passed| **passed).count();
        let total = self.0.len();
        let rate = if weights.is_empty() { passed as f64 / total as f64 } else { self.weighted(weights)? };
        if rate.is_finite() {
            Ok(Grade { rate, passed, total, named: BTreeMap::new() })
        } else {
            Err(ResultError::NoTests("the result"))
        }
    }

    fn weighted(&self, weights: &BTreeMap<String, f64>) -> Result<f64, ResultError> {
        let mut by_key: BTreeMap<&str, bool> = BTreeMap::new();
        for (name, passed) in &self.0 {
            let base = name.split('[').next().unwrap_or(name);
            let last = base.rsplit("::").next().unwrap_or(base);
            let key = [name.as_str(), base, last].into_iter().find_map(|key| weights.get_key_value(key));
            let Some((key, _)) = key.or_else(|| weights.iter().find(|(key, _)| short_name(key) == name))
            else {
                return Err(ResultError::NoWeight(name.clone()));
            };
            *by_key.entry(key).or_insert(true) &= passed;
        }
        let total: f64 = weights.values().sum();
        let passed: f64 =
            weights.iter().filter(|(key, _)| by_key.get(key.as_str()) == Some(&true)).map(|(_, w)| w).sum();
        Ok(passed / total)
    }
}

fn text<'a>(file: &'static str, bytes: &'a [u8]) -> Result<&'a str, ResultError> {
    if bytes.len() > BYTES_MAX {
        return Err(ResultError::TooLong { file, bytes: bytes.len() });
    }
    if bytes.trim_ascii().is_empty() {
        return Err(ResultError::Empty(file));
    }
    std::str::from_utf8(bytes).map_err(|error| ResultError::Syntax { file, message: error.to_string() })
}

fn object(file: &'static str, bytes: &[u8]) -> Result<Map<String, Value>, ResultError> {
    serde_json::from_str(text(file, bytes)?)
        .map_err(|error| ResultError::Syntax { file, message: error.to_string() })
}

fn kind(file: &'static str, key: impl Into<String>, value: &Value, expected: &'static str) -> ResultError {
    ResultError::Kind { file, key: key.into(), found: kind_of(value).to_owned(), expected }
}

#[cfg(test)]
#[path = "results_tests.rs"]
mod tests;
