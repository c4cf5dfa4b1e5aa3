//! What an agent is told of a made task: what fails and how, and nothing of where.
use std::collections::BTreeMap;

use crate::swe::patch::test_function;

/// Tests that are named.
const NAMED: usize = 6;
/// Failures that are shown.
const SHOWN: usize = 2;
/// Lines and characters of a failure.
const LINES: usize = 6;
const CHARS: usize = 240;

/// The statement, of the names of tests and of why they fail.
pub(super) fn statement(package: &str, failing: &[String], why: &BTreeMap<String, String>) -> String {
    let mut names: Vec<&str> = failing.iter().map(|name| name.as_str()).collect();
    names.sort_by_key(|name| (name.len(), *name));
    let count = names.len();
    let mut text = match count {
        1 => format!("A test of {package} fails that should pass:\n"),
        _ => format!("{count} tests of {package} fail that should pass:\n"),
    };
    for name in names.iter().take(NAMED) {
        text.push_str(&format!("- {name}\n"));
    }
    if count > NAMED {
        text.push_str(&format!("- and {} more\n", count - NAMED));
    }
    let shown = names.iter().filter_map(|name| Some((*name, why.get(*name)?))).take(SHOWN);
    for (name, why) in shown {
        let lines: Vec<&str> = why.lines().take(LINES).collect();
        let cut: String = lines.join("\n").chars().take(CHARS).collect();
        text.push_str(&format!("\n{} says:\n\n    {}\n", test_function(name), cut.replace('\n', "\n    ")));
    }
    text.push_str(
        "\nFind the fault in the sources and mend it, so that these tests pass and no other test fails.",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_tells_what_fails_and_how() {
        let failing: Vec<String> = (0..8).map(|number| format!("t/test_a.py::test_{number}")).collect();
        let why = BTreeMap::from([(failing[1].clone(), "assert 1 == 2\n  where 1 = f()".to_owned())]);
        let told = statement("pack", &failing, &why);
        assert!(
            told.starts_with("8 tests of pack fail that should pass:\n- t/test_a.py::test_0\n"),
            "{told}"
        );
        assert!(told.contains("- and 2 more\n"), "{told}");
        assert!(told.contains("\ntest_1 says:\n\n    assert 1 == 2\n      where 1 = f()\n"), "{told}");
        assert!(statement("pack", &failing[..1], &why).starts_with("A test of pack fails"));
    }
}
