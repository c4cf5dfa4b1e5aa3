use std::collections::BTreeMap;

use serde::Deserialize;

use super::*;

/// A report as SWE-smith has written it, see `fixtures/NOTICE`.
#[derive(Deserialize)]
struct Golden {
    resolved: bool,
    #[serde(rename = "FAIL_TO_PASS")]
    fail_to_pass: Side,
    #[serde(rename = "PASS_TO_PASS")]
    pass_to_pass: Side,
}

#[derive(Deserialize)]
struct Side {
    success: Vec<String>,
    failure: Vec<String>,
}

impl Side {
    fn all(&self) -> Vec<String> {
        [self.success.clone(), self.failure.clone()].concat()
    }
}

#[test]
fn real_logs_give_the_reports_that_were_published() {
    let all = [
        (include_str!("fixtures/logs/pandas-53652.txt"), include_str!("fixtures/logs/pandas-53652.json")),
        (include_str!("fixtures/logs/pandas-53856.txt"), include_str!("fixtures/logs/pandas-53856.json")),
        (include_str!("fixtures/logs/moto-7331.txt"), include_str!("fixtures/logs/moto-7331.json")),
        (include_str!("fixtures/logs/pydantic-8316.txt"), include_str!("fixtures/logs/pydantic-8316.json")),
    ];
    let mut resolved = 0;
    for (log, golden) in all {
        let golden: Golden = serde_json::from_str(golden).unwrap();
        let statuses = read_log(log, &Markers::published(), Parser::Pytest, None).unwrap();
        let (mend, keep) = (golden.fail_to_pass.all(), golden.pass_to_pass.all());
        let report = Report::of(&statuses, &mend, &keep, EvalType::PassAndFail);
        assert_eq!(report.fail_to_pass, golden.fail_to_pass.success);
        assert_eq!(report.still_fail, golden.fail_to_pass.failure);
        assert_eq!(report.pass_to_pass, golden.pass_to_pass.success);
        assert_eq!(report.broken, golden.pass_to_pass.failure);
        assert_eq!(report.resolved(), golden.resolved);
        resolved += usize::from(golden.resolved);
    }
    assert_eq!(resolved, 3);
}

fn statuses(all: &[(&str, Status)]) -> Statuses {
    Statuses(all.iter().map(|(name, status)| ((*name).to_owned(), *status)).collect::<BTreeMap<_, _>>())
}

fn resolved(all: &[(&str, Status)], mend: &str, keep: &str) -> bool {
    let list = |name: &str| if name.is_empty() { Vec::new() } else { vec![name.to_owned()] };
    Report::of(&statuses(all), &list(mend), &list(keep), EvalType::PassAndFail).resolved()
}

#[test]
fn each_outcome_counts_as_published() {
    use Status::{Error, Failed, Passed, Skipped, Xfail, Xpass};
    for (status, mends, keeps) in [
        (Passed, true, true),
        (Xfail, true, true),
        (Skipped, false, true),
        (Failed, false, false),
        (Error, false, false),
        (Xpass, false, false),
    ] {
        assert_eq!(resolved(&[("t", status)], "t", ""), mends, "{status:?}");
        assert_eq!(resolved(&[("t", status)], "", "t"), keeps, "{status:?}");
    }
    assert!(
        !resolved(&[("t", Passed)], "u", "t") && !resolved(&[("t", Passed)], "t", "u"),
        "missing is failed"
    );
    assert!(!resolved(&[("t", Passed)], "", ""), "a row without tests");
}

#[test]
fn names_that_were_cut_stand_for_those_that_agree() {
    use Status::{Failed, Passed, Xfail};
    let agree = [("t[a-1]", Passed), ("t[a-2]", Xfail), ("t[b]", Failed)];
    assert!(resolved(&agree, "t[a-", ""));
    assert!(!resolved(&agree, "t[", "") && !resolved(&agree, "t", "") && !resolved(&agree, "t[c", ""));
    assert!(!resolved(&[("t[a]x", Passed)], "t[a]", ""), "that one is whole");
}

#[test]
fn of_runners_that_tell_of_failures_alone_silence_is_success() {
    let names = |name: &str| vec![name.to_owned()];
    let of = |all: &[(&str, Status)]| {
        Report::of(&statuses(all), &names("t"), &names("u"), EvalType::FailOnly).resolved()
    };
    assert!(of(&[]) && of(&[("t", Status::Skipped)]));
    assert!(!of(&[("t", Status::Failed)]) && !of(&[("u", Status::Error)]));
}

#[test]
fn what_says_nothing_of_its_tests_is_no_result() {
    let markers = Markers::with("k");
    let read = |log: &str| read_log(log, &markers, Parser::Pytest, None).map(|found| found.0.len());
    let log = |inside: &str, code: &str| {
        format!("PASSED x.py::early\n{}\n{inside}\n{}\n{} {code}\n", markers.start, markers.end, markers.code)
    };
    assert_eq!(read("PASSED a.py::t\n"), Err(NoResult::NoMarkers));
    assert_eq!(read(&log("PASSED a.py::t", "0")), Ok(1));
    assert_eq!(read(&log("FAILED a.py::t", "1")), Ok(1));
    assert_eq!(read(&log("PASSED a.py::t", "1")), Err(NoResult::Code(1)), "it was printed");
    assert_eq!(read(&log("", "0")), Ok(1), "what came beside the markers");
    let empty = |inside: &str| read(&format!("{}\n{inside}\n{}\n", markers.start, markers.end));
    assert_eq!(empty("collected 0 items"), Err(NoResult::Nothing));
    assert_eq!(empty("Executed 0 of 0"), Err(NoResult::Nothing));
    assert_eq!(empty("Executed 3 of 3"), Ok(0));
    // Markers without the number are an agent's own.
    let forged = format!(
        "{}\n>>>>> End Test Output\n>>>>> Test Exit Code: 0\nFAILED a.py::t\n{}\n",
        markers.start, markers.end
    );
    assert_eq!(read(&forged), Ok(1));
}
