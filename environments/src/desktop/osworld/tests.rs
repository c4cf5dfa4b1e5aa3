//! Tasks as they are in the wild, and what is told of those that cannot be played.

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::{Value, json};

use super::*;
use crate::world::Split;

const HERE: Machine =
    Machine { width: 1024, height: 768, has: |program| program != "pactl" && program != "bc" };

fn fixtures() -> TaskSet {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/desktop/osworld/fixtures");
    TaskSet::read(&folder, 0, &HERE).expect("they are read")
}

fn read(value: &Value) -> OsworldTask {
    OsworldTask::read(value, &HERE).expect("it is read")
}

/// A task with this evaluator.
fn judged(evaluator: Value) -> Value {
    json!({"id": "a", "instruction": "do", "config": [], "evaluator": evaluator})
}

#[test]
fn real_tasks_are_read_and_each_that_cannot_be_played_says_what_it_lacks() {
    let set = fixtures();
    let ids: Vec<&str> = set.train.iter().map(|task| &task.id[..8]).collect();
    assert_eq!(ids, ["4783cc41", "b3d4a89c", "e0df059f"]);
    let lacks = |id: &str| {
        let (_, lacks) =
            set.summary.refused.iter().find(|(other, _)| other.starts_with(id)).expect("it is refused");
        lacks.iter().map(String::as_str).collect::<Vec<_>>()
    };
    assert_eq!(lacks("3ce045a0"), ["gnome-settings"]);
    assert_eq!(lacks("5ced85fc"), ["config:download"]);
    assert_eq!(lacks("5812b315"), ["config:download", "root"]);
    let windows = set.summary.refused.values().filter(|lacks| lacks.contains("os:windows")).count();
    assert_eq!((set.summary.read, set.summary.runnable, windows), (7, 3, 1));
    assert!(
        set.summary
            .to_string()
            .starts_with("7 read, 3 runnable, 2 of them infeasible (67 %); the others lack")
    );
}

#[test]
fn a_real_task_is_what_its_file_says() {
    let set = fixtures();
    let task = set.train.iter().find(|task| task.id.starts_with("e0df059f")).expect("it is there");
    assert_eq!((task.snapshot.as_str(), task.related_apps.as_slice()), ("os", &["os".to_owned()][..]));
    assert!(task.instruction.contains("todo_list_Jan_1"), "{}", task.instruction);
    assert!(task.check.is_live() && !task.check.infeasible);
    assert_eq!(task.check.rules[0].metric, Metric::Same);
    // It becomes root for a folder of the user's own, which takes no root.
    let made =
        Step::Execute { command: Command::Line("mkdir ~/Desktop/todo_list_Jan_1".to_owned()), until: None };
    assert_eq!(task.config[0], made);
    // A script of pyautogui is what it does, with the screen's middle in it.
    let middle = |step: &Step| match step {
        Step::Input(Script(deeds)) => {
            deeds.contains(&Deed::Click { at: Some((512.0, 384.0)), button: 1, count: 1 })
        }
        _ => false,
    };
    assert!(task.config.iter().any(middle), "{:?}", task.config);
}

#[test]
fn what_is_no_task_is_named_by_its_key() {
    let fault = |value: Value| OsworldTask::read(&value, &HERE).expect_err("it is no task").to_string();
    assert_eq!(fault(json!([])), "the file: is not an object");
    assert_eq!(fault(json!({"id": "a", "instruction": "b"})), "evaluator: is not an object");
    assert_eq!(fault(judged(json!({"func": []}))), "func: is not a name or names");
    assert_eq!(fault(judged(json!({"func": "exact_match"}))), "result: is not there");
    let two = json!({"func": ["exact_match", "exact_match"], "result": [{"type": "vm_screen_size"}]});
    assert_eq!(fault(judged(two)), "result: is not as many as func");
    let conj = json!({"func": "infeasible", "conj": "xor"});
    assert_eq!(fault(judged(conj)), "conj: is not \"and\" or \"or\"");
    assert!(OsworldTask::parse("{", &HERE).expect_err("it is none").to_string().starts_with("is no JSON: "));
    let mut task = judged(json!({"func": "infeasible"}));
    task["config"] = json!([{"type": "execute", "parameters": {"command": []}}]);
    assert_eq!(fault(task), "command: is not a command");
}

#[test]
fn what_is_missing_is_named_when_a_task_is_read() {
    let lacks = |value: Value| read(&value).missing;
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    let rule = json!({"type": "rule", "rules": {"expected": [1]}});
    let file = json!({"type": "vm_file", "path": "/a", "dest": "a"});
    for (evaluator, names) in [
        (
            json!({"func": "compare_table", "result": file, "expected": {"type": "cloud_file"}}),
            &["getter:cloud_file", "metric:compare_table"][..],
        ),
        (
            json!({"func": "fuzzy_match", "result": file, "expected": rule}),
            &["metric:fuzzy_match with these rules"],
        ),
        (
            json!({"func": "exact_match", "result": {"type": "open_tabs_info"}, "expected": rule}),
            &["getter:open_tabs_info"],
        ),
        (
            json!({"func": "is_utc_0", "result": {"type": "vm_command_line", "command": "pactl list", "shell": true}}),
            &["program:pactl"],
        ),
        (
            json!({"func": "is_utc_0", "result": {"type": "vm_command_line", "command": ["sudo", "id"]}}),
            &["root"],
        ),
    ] {
        assert_eq!(lacks(judged(evaluator.clone())), set(names), "{evaluator}");
    }
    let mut task = judged(json!({"func": "infeasible"}));
    task["config"] = json!([
        {"type": "googledrive", "parameters": {}},
        {"type": "execute", "parameters": {"command": ["python", "-c", "import pyautogui; pyautogui.locate('a')"]}},
    ]);
    task["related_apps"] = json!(["os", "soffice"]);
    task["proxy"] = json!(true);
    assert_eq!(lacks(task), set(&["config:googledrive", "network", "pyautogui:locate"]));
}

/// What a metric says of a text.
fn score(name: &str, result: Got, rules: Value, options: Value) -> f64 {
    let metric = Metric::named(name).expect("it is known");
    let options = options.as_object().cloned().unwrap_or_default();
    metric.score(&result, &Got::Value(rules), &options)
}

#[test]
fn metrics_say_what_those_of_the_format_say() {
    let words = |text: &str| Got::Value(json!(text));
    let file = |text: &str| Got::File(text.as_bytes().to_vec());
    let expected = |value: Value| json!({"expected": value});
    let none = || json!({});
    for (name, result, rules, wanted) in [
        ("exact_match", words("a\n"), expected(json!("a\n")), 1.0),
        ("exact_match", words("a"), expected(json!("a\n")), 0.0),
        ("exact_match", Got::Nothing, expected(json!("a")), 0.0),
        ("match_in_list", words("b"), expected(json!(["a", "b"])), 1.0),
        ("is_in_list", Got::Value(json!(["a", "b"])), expected(json!("b")), 1.0),
        ("is_in_list", words("abc"), expected(json!("d")), 0.0),
        ("check_include_exclude", words("yes it is"), json!({"include": ["yes"], "exclude": ["no"]}), 1.0),
        ("check_include_exclude", words("yes and no"), json!({"include": ["yes"], "exclude": ["no"]}), 0.0),
        ("check_include_exclude", words("anything"), none(), 1.0),
        ("file_contains", file("one two"), expected(json!(["one", "two"])), 1.0),
        ("file_contains", file("one"), expected(json!(["one", "two"])), 0.0),
        ("compare_config", file("a: 1\n"), expected(json!("a: 1\n")), 1.0),
        ("compare_config", Got::File(vec![0xff]), expected(json!("a")), 0.0),
        ("fuzzy_match", words("abcd"), expected(json!("abc")), 6.0 / 7.0),
        ("check_direct_json_object", words("{'a': 1, 'b': [2]}"), expected(json!({"a": 1})), 1.0),
        ("check_direct_json_object", words("{'a': 1}"), expected(json!({"a": 2})), 0.0),
        ("check_direct_json_object", words("no json"), expected(json!({"a": 2})), 0.0),
        (
            "check_direct_json_object",
            words("{\"a\": \"xyz\"}"),
            json!({"expect_in_result": true, "expected": {"a": "y"}}),
            1.0,
        ),
        ("check_json_settings", file("{\"a\": {\"b\": 1}, \"c\": 2}"), expected(json!({"c": 2})), 1.0),
        ("check_json_settings", file("{"), expected(json!({"c": 2})), 0.0),
        ("check_list", file("ab1\ncd\n"), json!({"expect": ["b\\d"], "unexpect": ["^x"]}), 1.0),
        ("check_list", file("ab1\nx\n"), json!({"expect": ["b\\d"], "unexpect": ["^x"]}), 0.0),
        (
            "check_moved_jpgs",
            Got::Value(json!({"children": [{"name": "b"}, {"name": "a"}]})),
            expected(json!(["a", "b"])),
            1.0,
        ),
        ("is_in_vm_clickboard", words("some text"), expected(json!(["text", "some"])), 1.0),
        ("is_utc_0", words("a\nb\nc\n Time zone: UTC (UTC, +0000)\n"), none(), 1.0),
        ("is_utc_0", words("short"), none(), 0.0),
    ] {
        let told = score(name, result.clone(), rules.clone(), none());
        assert!((told - wanted).abs() < 1e-9, "{name} {result:?} {rules}: {told}");
    }
    let compare = |name: &str, one: &str, other: &str, options: Value| {
        let metric = Metric::named(name).expect("it is known");
        metric.score(&file(one), &file(other), options.as_object().expect("an object"))
    };
    assert_eq!(
        compare("compare_text_file", "a  B\n", "A b", json!({"ignore_blanks": true, "ignore_case": true})),
        1.0
    );
    assert_eq!(compare("compare_text_file", "a", "A", json!({})), 0.0);
    assert_eq!(compare("diff_text_file", "a\nb\nc\nd\n", "b\nc\nd\ne\n", json!({})), 0.75);
    assert_eq!(compare("compare_result_files", "it is 3.00001", "3.00001", json!({})), 1.0);
    assert_eq!(
        score(
            "literal_match",
            Got::Value(json!(["A"])),
            json!(["a"]),
            json!({"type": "list", "ignore_case": true})
        ),
        1.0
    );
}

#[test]
fn rules_are_joined_as_the_format_joins_them() {
    let rule = |text: &str| json!({"type": "rule", "rules": {"expected": text}});
    let check = |conj: &str| {
        let size = json!({"type": "vm_screen_size"});
        let evaluator = json!({
            "func": ["exact_match", "fuzzy_match"], "conj": conj,
            "result": [size, {"type": "vm_terminal_output"}], "expected": [rule("a"), rule("abc")],
        });
        read(&judged(evaluator)).check
    };
    let score = |conj: &str, first: &str, second: &str| {
        let told = check(conj).score(|getter| {
            Ok::<_, ()>(match getter {
                Getter::Rule(rules) => Got::Value(rules.clone()),
                Getter::ScreenSize => Got::Value(json!(first)),
                _ => Got::Value(json!(second)),
            })
        });
        told.expect("nothing fails")
    };
    assert_eq!(score("and", "a", "abc"), 1.0);
    assert_eq!(score("and", "b", "abc"), 0.0);
    assert!((score("and", "a", "abcd") - (1.0 + 6.0 / 7.0) / 2.0).abs() < 1e-9);
    assert!((score("or", "b", "abcd") - 6.0 / 7.0).abs() < 1e-9);
    assert_eq!(score("or", "a", "none"), 1.0);
}

#[test]
fn a_folder_is_split_for_good_and_its_faults_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let write =
        |name: &str, value: Value| fs::write(folder.path().join(name), value.to_string()).expect("written");
    let problem = || TaskSet::read(folder.path(), 5, &HERE).expect_err("it is refused").to_string();
    assert!(problem().contains("has no task that can be played here: 0 read"), "{}", problem());
    write("list.json", json!({"os": ["a"]}));
    fs::create_dir(folder.path().join("os")).expect("a folder");
    for number in 0..100 {
        let mut task = judged(json!({"func": "infeasible"}));
        task["id"] = json!(format!("task-{number}"));
        write(&format!("os/{number}.json"), task);
    }
    let set = TaskSet::read(folder.path(), 5, &HERE).expect("it is read");
    assert_eq!(
        (set.of(Split::Train).len() + set.of(Split::HeldOut).len(), set.summary.infeasible),
        (100, 100)
    );
    assert!((5..=40).contains(&set.held_out.len()), "{}", set.held_out.len());
    for number in 0..50 {
        fs::remove_file(folder.path().join(format!("os/{number}.json"))).expect("removed");
    }
    let fewer = TaskSet::read(folder.path(), 5, &HERE).expect("it is read");
    assert!(fewer.held_out.iter().all(|task| set.held_out.contains(task)));
    write("os/again.json", {
        let mut task = judged(json!({"func": "infeasible"}));
        task["id"] = json!("task-60");
        task
    });
    assert!(problem().contains("another task has the id os/task-60"), "{}", problem());
    fs::remove_file(folder.path().join("os/again.json")).expect("removed");
    write("os/bad.json", json!({"instruction": "do"}));
    assert!(problem().ends_with("os/bad.json: evaluator: is not an object"), "{}", problem());
}

#[test]
fn the_whole_set_is_read_where_there_is_a_copy() {
    // `OPENCLAW_OSWORLD=.../evaluation_examples/examples cargo test ... -- --nocapture` tells what is there.
    let Some(folder) = std::env::var_os("OPENCLAW_OSWORLD") else { return };
    let machine = Machine { has: |program| crate::desktop::machine::has(program), ..HERE };
    let set = TaskSet::read(Path::new(&folder), 0, &machine).expect("they are read");
    eprintln!("{}", set.summary);
    for (name, count) in set.summary.lacking() {
        eprintln!("| `{name}` | {count} |");
    }
    for task in &set.train {
        eprintln!("{} {} {}", task.id, task.check.infeasible, task.instruction);
    }
    assert!(set.summary.read > 40, "{}", set.summary);
}
