//! How each test came out, read out of what a test command wrote.
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How a test came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Status {
    /// It passed.
    Passed,
    /// It failed as was expected of it.
    Xfail,
    /// It was not run.
    Skipped,
    /// It passed although it was expected to fail.
    Xpass,
    /// It failed.
    Failed,
    /// It could not be run to its end.
    Error,
}

impl Status {
    const WORDS: [(&'static str, Self); 6] = [
        ("PASSED", Self::Passed),
        ("XFAIL", Self::Xfail),
        ("SKIPPED", Self::Skipped),
        ("XPASS", Self::Xpass),
        ("FAILED", Self::Failed),
        ("ERROR", Self::Error),
    ];

    fn of(word: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(known, _)| *known == word).map(|(_, status)| *status)
    }

    /// Passed, or failed as expected.
    pub fn passes(self) -> bool {
        matches!(self, Self::Passed | Self::Xfail)
    }

    /// Failed, or could not be run.
    pub fn fails(self) -> bool {
        matches!(self, Self::Failed | Self::Error)
    }
}

/// Tests by their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statuses(pub BTreeMap<String, Status>);

impl Statuses {
    /// A test that failed once has failed: nothing that is printed later makes it pass.
    pub fn add(&mut self, name: &str, status: Status) {
        match self.0.get(name) {
            Some(before) if before.fails() && !status.fails() => {}
            _ => drop(self.0.insert(name.to_owned(), status)),
        }
    }
}

/// What a row calls the form of its log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Parser {
    /// Lines of pytest, of its summary or as they come.
    #[default]
    Pytest,
    /// The same; of a parameter that is a path the last part counts.
    PytestOptions,
    /// Lines of the test runner of Django.
    Django,
    /// Lines of pytest; the names are those of classes and functions without their files.
    Short,
}

impl Parser {
    /// By the name that a row gives it, or by the repository; `None`: there is none here.
    pub fn named(name: &str) -> Option<Self> {
        let name = name.strip_prefix("parse_log_").unwrap_or(name);
        match name {
            "" | "pytest" | "pytest_v2" | "astroid" | "flask" | "marshmallow" | "pvlib" | "pyvista"
            | "sqlfluff" | "xarray" | "astropy" | "scikit" | "sphinx" | "matplotlib" => Some(Self::Pytest),
            "pytest_options" | "pydicom" | "requests" | "pylint" => Some(Self::PytestOptions),
            "django" => Some(Self::Django),
            _ => None,
        }
    }

    /// Reads a log.
    pub fn read(self, log: &str) -> Statuses {
        let mut found = Statuses::default();
        match self {
            Self::Django => django(log, &mut found),
            Self::Pytest => {
                log.lines().filter_map(pytest).for_each(|(name, status)| found.add(&name, status))
            }
            Self::PytestOptions => {
                log.lines()
                    .filter_map(pytest)
                    .for_each(|(name, status)| found.add(&last_part(&name), status));
            }
            Self::Short => {
                let short = |name: &str| name.split("::").skip(1).collect::<Vec<_>>().join(".");
                log.lines().filter_map(pytest).for_each(|(name, status)| found.add(&short(&name), status));
            }
        }
        found
    }
}

/// The test that a line of pytest tells of: `STATUS name - why`, or `name STATUS [ 50%]`.
fn pytest(line: &str) -> Option<(String, Status)> {
    let line = plain(line);
    if let Some((word, rest)) = line.split_once(' ')
        && let Some(status) = Status::of(word)
    {
        let rest = match status {
            Status::Failed | Status::Error => rest.split(" - ").next().unwrap_or(rest),
            _ => rest,
        };
        let rest = rest.split_whitespace().collect::<Vec<_>>().join(" ");
        // Skipped tests are counted by their places in a summary, and have no names there.
        let counted = status == Status::Skipped && rest.starts_with('[');
        return (!counted && !rest.is_empty()).then_some((rest, status));
    }
    let mut line = line.trim_end();
    if let Some((before, percent)) = line.rsplit_once('[')
        && percent.ends_with("%]")
    {
        line = before.trim_end();
    }
    let (name, word) = line.rsplit_once(' ')?;
    let name = name.trim_end();
    let status = Status::of(word)?;
    (name.contains("::")).then(|| (name.split_whitespace().collect::<Vec<_>>().join(" "), status))
}

/// Without colours.
fn plain(line: &str) -> String {
    let mut plain = String::new();
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => drop(chars.by_ref().find(char::is_ascii_alphabetic)),
            c if c.is_control() && c != '\t' => {}
            c => plain.push(c),
        }
    }
    plain
}

/// `t[/a/b]` as `t[/b]`: where a repository lies is no part of a name.
fn last_part(name: &str) -> String {
    let inside = name.split_once('[').and_then(|(main, rest)| Some((main, rest.strip_suffix(']')?)));
    match inside {
        Some((main, path)) if path.starts_with('/') && !path.starts_with("//") && !path.contains('*') => {
            format!("{main}[/{}]", path.rsplit('/').next().unwrap_or_default())
        }
        _ => name.to_owned(),
    }
}

fn django(log: &str, found: &mut Statuses) {
    let mut open: Option<&str> = None;
    for line in log.lines().map(str::trim) {
        if let Some((name, how)) = line.split_once(" ... ").or_else(|| line.split_once(" ...  ")) {
            open = Some(name);
            let status = match how.trim() {
                "ok" | "OK" => Some(Status::Passed),
                "FAIL" => Some(Status::Failed),
                "ERROR" => Some(Status::Error),
                how if how.starts_with("skipped") => Some(Status::Skipped),
                how if how.ends_with(" ok") => Some(Status::Passed),
                _ => None,
            };
            if let Some(status) = status {
                found.add(name, status);
                open = None;
            }
        } else if let Some(name) = line.strip_prefix("FAIL: ") {
            found.add(name.trim(), Status::Failed);
        } else if let Some(name) = line.strip_prefix("ERROR: ") {
            found.add(name.trim(), Status::Error);
        } else if line == "ok"
            && let Some(name) = open.take()
        {
            // Something was printed between the name and the word.
            found.add(name, Status::Passed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(parser: Parser, log: &str) -> Vec<(String, Status)> {
        parser.read(log).0.into_iter().collect()
    }

    #[test]
    fn both_forms_of_pytest_are_read() {
        let log = "PASSED a.py::t[x y]\nFAILED a.py::u - assert 1 == 2\nSKIPPED [2] a.py:3: no\nXFAIL a.py::v\n\
                   a.py::w PASSED      [ 50%]\n\u{1b}[32ma.py::r[a  b] PASSED\u{1b}[0m\nERROR a.py - ImportError\n\
                   PASSED\nhello PASSED\n";
        let expected = [
            ("a.py", Status::Error),
            ("a.py::r[a b]", Status::Passed),
            ("a.py::t[x y]", Status::Passed),
            ("a.py::u", Status::Failed),
            ("a.py::v", Status::Xfail),
            ("a.py::w", Status::Passed),
        ];
        assert_eq!(read(Parser::Pytest, log), expected.map(|(name, status)| (name.to_owned(), status)));
    }

    #[test]
    fn what_failed_once_is_not_printed_away() {
        let log = "FAILED a.py::t - assert\nPASSED a.py::t\n";
        assert_eq!(read(Parser::Pytest, log), [("a.py::t".to_owned(), Status::Failed)]);
    }

    #[test]
    fn names_are_those_of_their_parser() {
        let log = "PASSED a.py::T::t[/x/y.py]\n";
        assert_eq!(read(Parser::PytestOptions, log)[0].0, "a.py::T::t[/y.py]");
        assert_eq!(read(Parser::Short, log)[0].0, "T.t[/x/y.py]");
    }

    #[test]
    fn the_runner_of_django_is_read() {
        let log = "test_a (x.T) ... ok\ntest_b (x.T) ... FAIL\ntest_c (x.T) ... skipped 'no'\n\
                   test_d (x.T) ... printed\nok\nERROR: test_e (x.T)\n";
        let expected = [
            ("test_a (x.T)", Status::Passed),
            ("test_b (x.T)", Status::Failed),
            ("test_c (x.T)", Status::Skipped),
            ("test_d (x.T)", Status::Passed),
            ("test_e (x.T)", Status::Error),
        ];
        assert_eq!(read(Parser::Django, log), expected.map(|(name, status)| (name.to_owned(), status)));
    }
}
