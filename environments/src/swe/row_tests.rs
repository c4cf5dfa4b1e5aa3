use serde_json::json;

use super::*;

fn row(line: &str) -> Result<Row, String> {
    Row::parse(line.as_bytes(), Path::new("/rows"))
}

fn of(value: Value) -> Result<Row, String> {
    row(&value.to_string())
}

/// With what every row has.
fn with(more: Value) -> Value {
    let mut row = json!({"instance_id": "o__r-1", "repo": "o/r", "problem_statement": "It fails.",
        "FAIL_TO_PASS": ["tests/test_a.py::t"], "PASS_TO_PASS": "['tests/test_a.py::u']"});
    row.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    row
}

#[test]
fn the_published_rows_are_read() {
    let files = [
        (include_str!("fixtures/rows-swerl.jsonl"), "xingyaoww/sweb.eval.x86_64.python_s_mypy-17071"),
        (include_str!("fixtures/rows-gym.jsonl"), "xingyaoww/sweb.eval.x86_64.getmoto_s_moto-7365"),
        (include_str!("fixtures/rows-verified.jsonl"), "swebench/sweb.eval.x86_64.django_1776_django-10973"),
    ];
    for (text, image) in files {
        let rows: Vec<Row> = text.lines().map(|line| row(line).unwrap()).collect();
        assert_eq!(rows.len(), 5);
        assert_eq!(rows[0].start, Start::Image(image.to_owned()));
        for row in rows {
            assert!(!row.fail_to_pass.is_empty() && !row.patch.is_empty() && !row.makes_bug, "{}", row.id);
            assert!(row.base_commit.is_some() && row.bug().is_none(), "{}", row.id);
            // Each test of the row lies in a file that its test patch brings, so no agent may change it.
            let protected = row.protected();
            assert!(patch_paths(&row.test_patch).iter().all(|path| protected.has(path)), "{}", row.id);
            assert!(!patch_paths(&row.patch).iter().any(|path| protected.has(path)), "{}", row.id);
            match (&row.check, row.repo.as_str()) {
                // Their tests are told without files.
                (Check::Lacking(what), "django/django" | "sympy/sympy") => {
                    assert_eq!(what, "key:eval_script")
                }
                (Check::Script { text, brings_tests: false, .. }, _) => assert!(!text.is_empty()),
                (check, repo) => panic!("{repo}: {check:?}"),
            }
        }
    }
}

fn patch_paths(patch: &str) -> Vec<String> {
    super::super::patch::paths(patch).into_iter().collect()
}

#[test]
fn the_patch_of_a_row_of_swe_smith_makes_the_bug() {
    let row = row(include_str!("fixtures/rows-smith.jsonl").trim()).unwrap();
    assert!(row.makes_bug);
    assert_eq!(row.bug(), Some((row.patch.as_str(), "--")));
    assert_eq!(row.start, Start::Image("swesmith.x86_64.pandas-dev__pandas.95280573".into()));
    let Check::Script { text, .. } = &row.check else { panic!("{:?}", row.check) };
    assert!(
        text.contains("pytest --disable-warnings")
            && text.contains("'pandas/tests/indexing/test_datetime.py'")
    );
}

#[test]
fn a_row_may_lie_within_another() {
    let inner = with(json!({"image": "i:1"}));
    let published =
        json!({"text": "Told outside.", "metadata": {"instance": inner, "data_source": "swe-bench"}});
    let row = of(published).unwrap();
    assert_eq!((row.id.as_str(), row.problem.as_str()), ("o__r-1", "It fails."));
    assert_eq!(row.start, Start::Image("i:1".into()));
    assert_eq!(row.pass_to_pass, ["tests/test_a.py::u"]);
}

#[test]
fn tests_are_run_as_the_row_says() {
    let check = |more: Value| of(with(more)).unwrap().check;
    let script = "cd /testbed\ngit apply -v - <<'EOF'\n";
    assert!(matches!(
        check(json!({"image": "i", "eval_script": script, "log_parser": "parse_log_django"})),
        Check::Script { parser: Parser::Django, brings_tests: true, .. }
    ));
    let live = check(json!({"image": "i", "test_cmds": ["make", "pytest -rA"], "log_parser": "pytest"}));
    assert!(matches!(live, Check::Script { text, .. } if text == "cd /testbed\nmake\npytest -rA\n"));
    assert_eq!(
        check(json!({"image": "i", "eval_script": "x", "log_parser": "parse_log_karma"})),
        Check::Lacking("log_parser:parse_log_karma".into())
    );
    assert_eq!(check(json!({"source": "r.tar.gz"})), Check::Pytest(vec!["tests/test_a.py".into()]));
    let r2e = json!({"docker_image": "i:2", "repo_name": "r", "commit_hash": "c", "problem_statement": "[ISSUE]\nIt fails.\n[/ISSUE]",
        "expected_output_json": r#"{"T.a": "PASSED", "T.b": "FAILED"}"#});
    let row = of(r2e).unwrap();
    assert_eq!((row.pass_to_pass, row.problem.as_str()), (vec!["T.a".to_owned()], "It fails."));
    assert!(matches!(row.check, Check::Script { parser: Parser::Short, .. }));
}

#[test]
fn what_is_wrong_is_named_by_its_key() {
    for (value, says) in [
        (json!({"repo": "r"}), "no key `instance_id`"),
        (with(json!({"FAIL_TO_PASS": "[]"})), "`FAIL_TO_PASS` has no names"),
        (with(json!({"PASS_TO_PASS": 3})), "`PASS_TO_PASS`: expected a list"),
        (with(json!({"patch": 1})), "`patch` is no text"),
        (with(json!({"eval_type": "some"})), "`eval_type` is \"some\""),
        (with(json!({"source": "../x.tar"})), "`source`: ../x.tar is not beside the rows"),
    ] {
        let fault = of(value).unwrap_err();
        assert!(fault.contains(says), "{fault}");
    }
    assert!(row("[]").unwrap_err().starts_with("not a JSON object"));
}
