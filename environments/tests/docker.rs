//! Worlds in containers: a family of each kind that runs code is played to its end, as a config asks for it.

#[path = "../../sandbox/tests/host/daemon.rs"]
#[allow(dead_code, reason = "the suites of sandboxes use the rest of it")]
mod daemon;
mod docker_image;
#[allow(dead_code, reason = "not every suite looks")]
mod machine;

use docker_image as image;
use machine::{can, eventually};
use openclaw_environments::{
    registry::make,
    terminal::families::{self, Family, Knobs},
    world::{Action, Call, Split, World, text_of},
};
use serde_json::json;

/// A world of a kind with these settings, at its first task; none, with the reason told, where no daemon can run.
fn begun(kind: &str, settings: &str) -> Option<Box<dyn World>> {
    if let Some(why) = std::env::var_os("OPENCLAW_WITHOUT_DOCKER") {
        eprintln!("skipped, {}", why.display());
        return None;
    }
    let socket = match daemon::socket() {
        Ok(socket) => socket,
        Err(why) => {
            can("no daemon of docker runs here", false, &why);
            return None;
        }
    };
    let settings = format!("{settings}\nsandbox = \"docker\"\nsocket = \"{}\"", socket.display());
    let environment = make(kind, settings.parse().unwrap()).unwrap();
    environment.ready().unwrap();
    let mut world = environment.open().unwrap();
    world.reset(&environment.task(Split::Train, 0).unwrap()).unwrap();
    Some(world)
}

fn family(name: &str) -> String {
    format!("families = [\"{name}\"]\nimage = \"{}\"", daemon::IMAGE)
}

fn call(tool: &str, argument: &str, value: &str) -> Action {
    let arguments = [(argument.to_owned(), json!(value))].into_iter().collect();
    Action::Calls(vec![Call { id: "c".into(), name: tool.into(), arguments }])
}

#[test]
fn a_terminal_is_a_container_and_its_plan_is_right_there() {
    let Some(mut world) = begun("terminal", &family("te1")) else { return };
    for command in &families::task(Family::Moves, Split::Train, 0, &Knobs::default()).plan {
        let outcome = world.step(&call("bash", "command", command)).unwrap();
        assert_eq!(outcome.rule.map(|rule| rule.score), Some(1), "{command}: {outcome:?}");
    }
    assert!(world.step(&Action::Text("Done.".into())).unwrap().done);
    assert!(world.evaluate().unwrap().success);
}

#[test]
fn python_runs_in_a_container() {
    let Some(mut world) = begun("tool_call", &family("tc1")) else { return };
    let code = "import json, os\nopen('kept', 'w').write('7')\nprint(json.dumps(6 * 7), os.path.exists('/.dockerenv'))";
    let outcome = world.step(&call("code_interpreter", "code", code)).unwrap();
    assert_eq!(text_of(&outcome.observation.results[0].parts).trim(), "42 True", "{outcome:?}");
    let outcome = world.step(&call("code_interpreter", "code", "print(open('kept').read())")).unwrap();
    assert_eq!(text_of(&outcome.observation.results[0].parts).trim(), "7", "{outcome:?}");
}

#[test]
fn the_image_of_a_row_has_its_repository_and_its_script_finds_it_there() {
    let test = "diff --git a/tests/test_more.py b/tests/test_more.py\nnew file mode 100644\n--- /dev/null\n+++ b/tests/test_more.py\n\
                @@ -0,0 +1,5 @@\n+from tally import plural\n+\n+\n+def test_one():\n+    assert plural('cat', 1) == 'cat'\n";
    let script = format!(
        "set -x\ncd /testbed\ngit config --global --add safe.directory /testbed\ngit checkout -q HEAD tests\n\
         git apply - <<'EOF_PATCH'\n{test}EOF_PATCH\n: '>>>>> Start Test Output'\n\
         PYTHONPATH=/testbed/src python3 -m pytest -rA -p no:cacheprovider tests/test_more.py tests/test_words.py\n\
         code=$?\n: '>>>>> End Test Output'\necho \">>>>> Test Exit Code: $code\"\ngit checkout -q HEAD tests\n"
    );
    let row = json!({
        "instance_id": "o__r-1", "repo": "o/r", "base_commit": "HEAD", "image": daemon::IMAGE, "log_parser": "parse_log_pytest",
        "problem_statement": "One cat is called cats.", "eval_script": script, "test_patch": test,
        "FAIL_TO_PASS": ["tests/test_more.py::test_one"], "PASS_TO_PASS": ["tests/test_words.py::Initials::test_limit"],
    });
    let folder = tempfile::tempdir().unwrap();
    let rows = folder.path().join("rows.jsonl");
    std::fs::write(&rows, row.to_string()).unwrap();
    let Some(mut world) = begun("swe", &format!("rows = \"{}\"", rows.display())) else { return };
    let outcome = world
        .step(&call("bash", "command", "pwd; grep -n 'count ==' /testbed/src/tally/words.py; git status -s"))
        .unwrap();
    assert_eq!(
        text_of(&outcome.observation.results[0].parts),
        "/workspace\n6:    if count == 2:",
        "{outcome:?}"
    );
    world
        .step(&call(
            "bash",
            "command",
            "sed -i 's/count == 2/count == 1/' /testbed/src/tally/words.py; echo no > tests/test_words.py",
        ))
        .unwrap();
    let outcome = world.step(&call("bash", "command", "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT")).unwrap();
    assert!(outcome.done);
    let verdict = world.evaluate().unwrap();
    assert!(verdict.success && verdict.numbers["left_out"] == 1.0, "{verdict:?}");
}
