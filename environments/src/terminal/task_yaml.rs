//! The `task.yaml` of Terminal-Bench, and the `weights.json` that SETA puts beside it.
use super::folder::{
    AgentSpec, EnvironmentSpec, FolderError, Form, Report, StepRewards, TaskFolder, VerifierSpec, group_of,
};
use super::keys::{KeyError, Keys};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::PathBuf;

const FILE: &str = "task.yaml";

/// Limits of Terminal-Bench when the task does not say, in seconds.
const AGENT_TIMEOUT_SECS: f64 = 360.0;
const TEST_TIMEOUT_SECS: f64 = 60.0;

/// Parsers of other benchmarks that the form knows by name.
const FOREIGN_PARSERS: [&str; 4] = ["swebench", "mlebench", "swelancer", "sweperf"];

/// The task of a `task.yaml`. `folder` is its id: the form has none of its own.
pub fn parse(folder: &str, yaml: &str, weights: Option<&str>) -> Result<TaskFolder, FolderError> {
    let options = serde_saphyr::options! { with_snippet: false };
    let table: Map<String, Value> = serde_saphyr::from_str_with_options(yaml, options)
        .map_err(|error| FolderError::Syntax { file: FILE, message: error.to_string() })?;
    let weights = weights.map(parse_weights).transpose()?.unwrap_or_default();
    Ok(task(folder, table, weights)?)
}

fn task(
    folder: &str,
    table: Map<String, Value>,
    weights: BTreeMap<String, f64>,
) -> Result<TaskFolder, KeyError> {
    let mut unknown_keys = Vec::new();
    let mut keys = Keys::new(FILE, table, &mut unknown_keys);
    let instruction = match keys.text("instruction")? {
        Some(text) if !text.trim().is_empty() => text,
        _ => return Err(keys.error("instruction", "is missing or empty")),
    };
    let report = match keys.text("parser_name")? {
        None => Report::Pytest,
        Some(name) if name == "pytest" => Report::Pytest,
        Some(name) if FOREIGN_PARSERS.contains(&name.as_str()) => Report::Foreign(name),
        Some(name) => return Err(keys.error("parser_name", format!("is {name:?}, which is not known"))),
    };
    let agent = AgentSpec {
        timeout_secs: Some(keys.secs("max_agent_timeout_sec")?.unwrap_or(AGENT_TIMEOUT_SECS)),
        ..AgentSpec::default()
    };
    let timeout_secs = keys.secs("max_test_timeout_sec")?.unwrap_or(TEST_TIMEOUT_SECS);
    let mut metadata = Map::new();
    for key in [
        "difficulty",
        "author_name",
        "author_email",
        "category",
        "tags",
        "run_tests_in_same_shell",
        "disable_asciinema",
        "estimated_duration_sec",
        "expert_time_estimate_min",
        "junior_time_estimate_min",
    ] {
        if let Some(value) = keys.any(key) {
            metadata.insert(key.into(), value);
        }
    }
    keys.finish();
    Ok(TaskFolder {
        id: folder.to_owned(),
        group: group_of(folder).to_owned(),
        form: Form::TerminalBench,
        instruction,
        metadata,
        agent,
        verifier: VerifierSpec {
            timeout_secs,
            script: PathBuf::from("run-tests.sh"),
            env: BTreeMap::new(),
            user: None,
            separate: false,
            environment: Map::new(),
            collect: Vec::new(),
            report,
            weights,
        },
        environment: EnvironmentSpec::default(),
        solution_env: BTreeMap::new(),
        steps: Vec::new(),
        step_rewards: StepRewards::default(),
        artifacts: Vec::new(),
        unknown_keys,
    })
}

/// The weight of each test: finite, not negative, not all 0.
pub fn parse_weights(json: &str) -> Result<BTreeMap<String, f64>, FolderError> {
    const FILE: &str = "weights.json";
    let table: Map<String, Value> = serde_json::from_str(json)
        .map_err(|error| FolderError::Syntax { file: FILE, message: error.to_string() })?;
    let wrong = |key: String, fault: String| KeyError { file: FILE, key, fault };
    let mut weights = BTreeMap::new();
    for (test, value) in table {
        match value.as_f64().filter(|weight| weight.is_finite() && *weight >= 0.0) {
            Some(weight) => weights.insert(test, weight),
            None => return Err(wrong(test, format!("is {value}, expected a number, 0 or more")).into()),
        };
    }
    let total: f64 = weights.values().sum();
    if total <= 0.0 || !total.is_finite() {
        return Err(wrong("*".into(), format!("sum to {total}, expected more than 0")).into());
    }
    Ok(weights)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TASK: &str = "\
instruction: |-
  Make a file named out.txt.
difficulty: easy
author_name: someone
category: files
tags:
  - files
parser_name: pytest
max_agent_timeout_sec: 120.0
max_test_timeout_sec: 30
run_tests_in_same_shell: false
";

    fn error(yaml: &str) -> String {
        parse("t", yaml, None).unwrap_err().to_string()
    }

    #[test]
    fn a_task_is_read_with_its_limits() {
        let task = parse("ask_ubuntu__7__d1", TASK, Some(r#"{"test_a": 0.25, "test_b": 0.75}"#)).unwrap();
        assert_eq!((task.id.as_str(), task.group.as_str()), ("ask_ubuntu__7__d1", "ask_ubuntu__7"));
        assert_eq!(task.instruction, "Make a file named out.txt.");
        assert_eq!(task.agent.timeout_secs, Some(120.0));
        assert_eq!(task.verifier.timeout_secs, 30.0);
        assert_eq!(task.verifier.report, Report::Pytest);
        assert_eq!(task.verifier.weights["test_b"], 0.75);
        assert_eq!(task.metadata["tags"][0], "files");
        assert!(task.unknown_keys.is_empty());
    }

    #[test]
    fn what_is_left_out_has_the_benchmarks_defaults() {
        let task = parse("t", "instruction: do\nnew_key: 1", None).unwrap();
        assert_eq!(task.agent.timeout_secs, Some(360.0));
        assert_eq!(task.verifier.timeout_secs, 60.0);
        assert_eq!(task.unknown_keys, ["new_key"]);
    }

    #[test]
    fn errors_name_the_key() {
        assert_eq!(error("difficulty: easy"), "task.yaml: key `instruction` is missing or empty");
        assert_eq!(error("instruction: [a]"), "task.yaml: key `instruction` is a list, expected text");
        assert_eq!(
            error("instruction: a\nparser_name: x"),
            r#"task.yaml: key `parser_name` is "x", which is not known"#
        );
        assert_eq!(
            error("instruction: a\nmax_agent_timeout_sec: -1"),
            "task.yaml: key `max_agent_timeout_sec` is -1 s, expected more than 0 and at most 604800 s"
        );
        assert!(error("instruction: a\nmax_test_timeout_sec: .nan").starts_with("task.yaml: "));
        assert!(error("instruction: [").starts_with("task.yaml: "));
        let foreign = parse("t", "instruction: a\nparser_name: swebench", None).unwrap();
        assert_eq!(foreign.verifier.report, Report::Foreign("swebench".into()));
    }

    #[test]
    fn weights_must_weigh_something() {
        let error = |json: &str| parse_weights(json).unwrap_err().to_string();
        assert_eq!(error(r#"{"a": 0}"#), "weights.json: key `*` sum to 0, expected more than 0");
        assert_eq!(error(r#"{"a": -1}"#), "weights.json: key `a` is -1, expected a number, 0 or more");
        assert_eq!(error(r#"{"a": "1"}"#), "weights.json: key `a` is \"1\", expected a number, 0 or more");
        assert!(error("[]").starts_with("weights.json: "));
    }

    #[test]
    fn a_yaml_bomb_is_an_error() {
        let mut bomb = String::from("a0: &a0 [x]\n");
        for level in 1..40 {
            let below = format!("*a{}", level - 1);
            bomb += &format!("a{level}: &a{level} [{}]\n", [below.as_str(); 9].join(","));
        }
        assert!(parse("t", &bomb, None).is_err());
        assert!(parse("t", &"[".repeat(100_000), None).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_task_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let text = String::from_utf8_lossy(&bytes);
            let _ = parse("t", &text, Some(&text));
            let _ = parse("t", TASK, Some(&text));
        }

        #[test]
        fn any_weights_weigh_something_or_are_an_error(text in r#"\{("[a-c]{1,2}": ?(-?[0-9]{1,3}(\.[0-9]{1,2})?(e[0-9]{1,4})?|NaN|true|"1"|\[\]),? ?){0,4}\}?"#) {
            if let Ok(weights) = parse_weights(&text) {
                let total: f64 = weights.values().sum();
                prop_assert!(total > 0.0 && total.is_finite() && weights.values().all(|weight| *weight >= 0.0));
            }
        }

        #[test]
        fn a_damaged_task_is_a_task_or_an_error(at in 0usize..TASK.len(), len in 0usize..9, new in r"\PC{0,5}|[\n:&*!|>-]{1,4}") {
            let mut text = TASK.to_owned();
            text.replace_range(at..(at + len).min(TASK.len()), &new);
            let _ = parse("t", &text, None);
        }
    }
}
