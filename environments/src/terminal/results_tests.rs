use super::*;
use proptest::prelude::*;

const OUTPUT: &str = "\
============================= test session starts ==============================
collected 7 items

tests/test_outputs.py .F.sx..                                            [100%]
==================================== PASSES ====================================
----------------------------- Captured stdout call -----------------------------
=========================== short test summary info ============================
PASSED tests/test_outputs.py::test_forged
=========================== short test summary info ============================
PASSED tests/test_outputs.py::test_a
PASSED tests/test_outputs.py::TestB::test_c[x - y]
SKIPPED [1] tests/test_outputs.py:9: no network
XFAIL tests/test_outputs.py::test_d - known
XPASS tests/test_outputs.py::test_e
FAILED tests/test_outputs.py::test_f - AssertionError: PASSED no
ERROR tests/test_outputs.py::test_g
========= 2 failed, 2 passed, 1 skipped, 1 xfailed, 1 error in 0.04s ==========
PASSED tests/test_outputs.py::test_after
";

fn no_weights() -> BTreeMap<String, f64> {
    BTreeMap::new()
}

fn weights(pairs: &[(&str, f64)]) -> BTreeMap<String, f64> {
    pairs.iter().map(|(name, weight)| ((*name).to_owned(), *weight)).collect()
}

#[test]
fn the_last_summary_of_pytest_counts() {
    let tests = pytest(OUTPUT).unwrap();
    let expected = [
        ("TestB::test_c[x - y]", true),
        ("[1] tests/test_outputs.py:9: no network", true),
        ("test_a", true),
        ("test_d - known", true),
        ("test_e", false),
        ("test_f", false),
        ("test_g", false),
    ];
    assert_eq!(tests.0.iter().map(|(name, passed)| (name.as_str(), *passed)).collect::<Vec<_>>(), expected);
    let grade = tests.grade(&no_weights()).unwrap();
    assert_eq!((grade.passed, grade.total), (4, 7));
    assert!((grade.outcome() - (8.0 / 7.0 - 1.0)).abs() < 1e-12);
}

#[test]
fn output_without_results_is_an_error_and_no_failure() {
    assert_eq!(pytest("PASSED a::b"), Err(ResultError::NoSummary));
    assert_eq!(pytest(""), Err(ResultError::NoSummary));
    assert_eq!(pytest("== short test summary info ==\n"), Err(ResultError::NoTests("the short summary")));
}

#[test]
fn a_test_passed_only_if_it_passed_each_time() {
    let tests = pytest("= short test summary info =\nFAILED a::t - x\nPASSED a::t\n").unwrap();
    assert_eq!(tests.0, BTreeMap::from([("t".to_owned(), false)]));
}

#[test]
fn weights_make_the_rate() {
    let tests =
        pytest("= short test summary info =\nPASSED a::x\nFAILED a::y - z\nPASSED a::p[1]\nPASSED a::p[2]\n")
            .unwrap();
    let rate = |pairs: &[(&str, f64)]| tests.grade(&weights(pairs)).map(|grade| grade.rate);
    assert_eq!(rate(&[("x", 0.5), ("y", 0.25), ("p", 0.25)]), Ok(0.75));
    assert_eq!(rate(&[("a::x", 1.0), ("a::y", 2.0), ("p", 1.0)]), Ok(0.5));
    // A test that never ran is a failure.
    assert_eq!(rate(&[("x", 1.0), ("y", 0.0), ("p", 1.0), ("gone", 2.0)]), Ok(0.5));
    assert_eq!(rate(&[("x", 1.0), ("y", 1.0)]), Err(ResultError::NoWeight("p[1]".into())));
}

#[test]
fn reward_files_have_many_ways_to_be_wrong() {
    let json = |text: &str| reward(Some(text.as_bytes()), None).map_err(|error| error.to_string());
    assert_eq!(json(r#"{"reward": 0.5, "speed": 12}"#).unwrap().named["speed"], 12.0);
    assert_eq!(json(r#"{"accuracy": 1}"#).unwrap().reward, 1.0);
    for (text, says) in [
        ("", "reward.json is empty"),
        (" \n", "reward.json is empty"),
        ("{}", "reward.json is empty"),
        (r#"{"reward": "1"}"#, "reward.json: `reward` is text, expected a finite number"),
        (r#"{"reward": true}"#, "reward.json: `reward` is a boolean, expected a finite number"),
        (r#"{"reward": null}"#, "reward.json: `reward` is null, expected a finite number"),
        (r#"{"reward": 1, "why": "x"}"#, "reward.json: `why` is text, expected a finite number"),
        (r#"{"a": 1, "b": 0}"#, "reward.json has no `reward` among its 2 keys"),
    ] {
        assert_eq!(json(text).unwrap_err(), says, "{text}");
    }
    for text in [
        r#"{"reward": NaN}"#,
        r#"{"reward": Infinity}"#,
        r#"{"reward": 1e999}"#,
        "1",
        "[1]",
        r#"{"reward": 1"#,
    ] {
        assert!(json(text).unwrap_err().starts_with("reward.json: "), "{text}");
    }
    let txt = |text: &str| reward(None, Some(text.as_bytes())).map_err(|error| error.to_string());
    assert_eq!(txt("0.25\n").unwrap().reward, 0.25);
    assert_eq!(txt("1").unwrap().reward, 1.0);
    assert_eq!(txt("").unwrap_err(), "reward.txt is empty");
    for text in ["nan", "inf", "-inf", "1e999", "yes", "1 2", "1,0", "0x1", "1_0"] {
        assert_eq!(txt(text).unwrap_err(), format!("reward.txt: `*` is {text:?}, expected a finite number"));
    }
    assert_eq!(reward(None, None), Err(ResultError::NoReward));
    // Both present: the JSON file decides, even when it is the broken one.
    assert_eq!(reward(Some(br#"{"reward": 0}"#), Some(b"1")).unwrap().reward, 0.0);
    assert!(reward(Some(b"broken"), Some(b"1")).is_err());
    assert!(reward(Some(&[0xff]), None).is_err());
}

#[test]
fn a_grade_comes_from_single_tests_where_they_are_known() {
    let ctrf = br#"{"results": {"summary": {"tests": 4}, "tests": [
        {"name": "test_outputs.py::test_a", "status": "passed", "duration": 1},
        {"name": "test_outputs.py::test_b", "status": "failed"},
        {"name": "test_outputs.py::test_c", "status": "skipped"},
        {"name": "test_outputs.py::test_d", "status": "other"}]}}"#;
    let files = VerifierFiles { reward_txt: Some(b"0"), ctrf: Some(ctrf), ..VerifierFiles::default() };
    let graded = grade(files, &no_weights()).unwrap();
    assert_eq!((graded.rate, graded.passed, graded.total, graded.outcome()), (0.5, 2, 4, 0.0));
    let no_reward = VerifierFiles { reward_txt: None, ..files };
    assert_eq!(grade(no_reward, &no_weights()), Err(ResultError::NoReward));
    let only_reward = VerifierFiles { reward_txt: Some(b"0.75"), ..VerifierFiles::default() };
    assert_eq!(grade(only_reward, &no_weights()).unwrap().outcome(), 0.5);
    let beyond = VerifierFiles { reward_txt: Some(b"7"), ..VerifierFiles::default() };
    assert_eq!(grade(beyond, &no_weights()), Err(ResultError::Range(7.0)));
}

#[test]
fn a_damaged_list_of_tests_is_an_error() {
    let error = |text: &str| ctrf(text.as_bytes()).unwrap_err().to_string();
    for (text, says) in [
        ("{}", "ctrf.json: `results` is null, expected a table"),
        (r#"{"results":{"tests":{}}}"#, "ctrf.json: `results.tests` is a table, expected a list"),
        (r#"{"results":{"tests":[]}}"#, "ctrf.json has no tests"),
        (
            r#"{"results":{"tests":[{"name":"a"}]}}"#,
            "ctrf.json: `results.tests[0].status` is null, expected text",
        ),
        (
            r#"{"results":{"tests":[{"name":"a","status":"ok"}]}}"#,
            "ctrf.json: `results.tests[0].status` is \"ok\", expected passed, failed, skipped, pending or other",
        ),
        (
            r#"{"results":{"summary":{"tests":2},"tests":[{"name":"a","status":"passed"}]}}"#,
            "ctrf.json lists 1 tests but its summary says 2",
        ),
    ] {
        assert_eq!(error(text), says);
    }
}

proptest! {
    #[test]
    fn any_bytes_are_a_result_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let files = VerifierFiles { reward_json: Some(&bytes), reward_txt: Some(&bytes), ctrf: Some(&bytes) };
        let _ = grade(files, &no_weights());
        let _ = reward(None, Some(&bytes));
        let _ = ctrf(&bytes);
        let _ = pytest(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn damaged_output_has_a_rate_or_an_error(at in 0usize..OUTPUT.len(), len in 0usize..60, new in r"\PC{0,9}|[\n=:\[ -]{1,4}") {
        let mut text = OUTPUT.to_owned();
        text.replace_range(at..(at + len).min(OUTPUT.len()), &new);
        if let Ok(tests) = pytest(&text) {
            let rate = tests.grade(&no_weights()).unwrap().rate;
            prop_assert!((0.0..=1.0).contains(&rate));
        }
    }

    #[test]
    fn a_weighted_rate_is_the_weight_of_what_passed(tests in proptest::collection::btree_map("[a-d]", (any::<bool>(), 0u8..9), 1..5), gone in 0u8..9) {
        let mut weights: BTreeMap<String, f64> =
            tests.iter().map(|(name, (_, weight))| (format!("test_{name}"), f64::from(*weight))).collect();
        weights.insert("test_gone".into(), f64::from(gone));
        let results = Tests(tests.iter().map(|(name, (passed, _))| (format!("test_{name}"), *passed)).collect());
        let total: f64 = weights.values().sum();
        let passed: f64 = tests.values().filter(|(passed, _)| *passed).map(|(_, weight)| f64::from(*weight)).sum();
        match results.grade(&weights) {
            Ok(grade) => prop_assert!((grade.rate - passed / total).abs() < 1e-9 && grade.rate <= 1.0),
            Err(_) => prop_assert_eq!(total, 0.0),
        }
    }

    #[test]
    fn a_reward_is_finite_or_an_error(text in r#"\{"(reward|a)": ?(-?[0-9]{1,3}(\.[0-9]{1,3})?(e[0-9]{1,4})?|NaN|true|"1")(, "b": 1)?\}"#) {
        if let Ok(reward) = reward(Some(text.as_bytes()), None) {
            prop_assert!(reward.reward.is_finite() && reward.named.values().all(|number| number.is_finite()));
        }
    }
}
