//! Repositories with real sandboxes: families by their oracles, made tasks by their patches, and what cheats come to.

mod machine;
mod swe_host;

use std::{path::Path, time::Duration};

use openclaw_environments::{
    draw::Kinds,
    swe::{
        Settings, Swe, Talk, Tools,
        families::{self, Family, FamilyTask},
        make::{Order, make},
        patch,
    },
    world::{Action, Environment, Split, World, WorldError},
};
use openclaw_sandbox::Bubblewrap;
use serde_json::json;
use swe_host::{applies, bash, begun, call, counted, gave, is_able, swe};

fn family(settings: Settings) -> Option<Swe> {
    swe(Settings { families: Some(vec![Family::Token]), ..settings })
}

fn made(split: Split, number: u64) -> FamilyTask {
    families::task(Family::Token, split, number, Kinds::Own)
}

#[test]
fn the_plans_of_a_family_are_right_and_each_of_their_steps_is_good() {
    let Some(swe) = family(Settings { tools: Tools::Edit, ..Settings::default() }) else { return };
    for number in 0..8 {
        let split = if number % 2 == 0 { Split::Train } else { Split::HeldOut };
        let (_, mut world) = begun(&swe, split, number);
        let made = made(split, number);
        let line = made.line.to_string();
        let failing = &made.row.fail_to_pass[0];
        let score = |world: &mut dyn World, action: &Action| gave(&world.step(action).unwrap());
        let (text, good) = score(world.as_mut(), &call("run_tests", &[]));
        assert!(
            good == Some(1)
                && text.contains(failing)
                && text.starts_with(&made.row.fail_to_pass.len().to_string()),
            "{text}"
        );
        assert_eq!(score(world.as_mut(), &call("run_tests", &[])).1, Some(-1), "again");
        let (text, good) = score(world.as_mut(), &call("read", &[("path", &made.module)]));
        assert!(good == Some(1) && text.starts_with("1 def "), "{text}");
        assert_eq!(
            score(
                world.as_mut(),
                &call("replace", &[("path", &made.module), ("line", &line), ("text", "pass")])
            )
            .1,
            Some(-1)
        );
        let mend = call("replace", &[("path", &made.module), ("line", &line), ("text", made.mended.trim())]);
        assert_eq!(score(world.as_mut(), &mend).1, Some(1), "{made:?}");
        let (text, good) = score(world.as_mut(), &call("run_tests", &[]));
        assert_eq!((text.as_str(), good), ("All 6 tests pass.", Some(-1)));
        let outcome = world.step(&call("submit", &[])).unwrap();
        assert!(outcome.done && outcome.rule.unwrap().score == 1);
        let verdict = world.evaluate().unwrap();
        let (f2p, p2p) = (made.row.fail_to_pass.len() as f64, made.row.pass_to_pass.len() as f64);
        assert_eq!(counted(&verdict), (true, 1.0, Some(f2p), Some(p2p)), "{made:?}\n{verdict:?}");
        // Git says of the contents which they are, too.
        assert!(verdict.numbers["patch_bytes"] >= made.row.patch.len() as f64, "{verdict:?}");
        assert_eq!(world.evaluate(), Ok(verdict));
    }
}

#[test]
fn what_is_left_as_it_was_or_broken_further_resolves_nothing() {
    let Some(swe) = family(Settings { tools: Tools::Edit, ..Settings::default() }) else { return };
    let (task, mut world) = begun(&swe, Split::Train, 1);
    let outcome = world.step(&call("submit", &[])).unwrap();
    assert!(outcome.done && outcome.rule.unwrap().score == -1);
    assert_eq!(counted(&world.evaluate().unwrap()), (false, -1.0, None, None));
    assert!(matches!(world.step(&call("submit", &[])), Err(WorldError::Broken(_))), "it is over");
    world.reset(&task).unwrap();
    let module = made(Split::Train, 1).module;
    for (action, says) in [
        (call("read", &[("path", "../x")]), "no path of a file"),
        (call("read", &[("path", "none.py")]), "does not exist"),
        (call("read", &[("path", &module), ("from", "900")]), "lines."),
        (call("read", &[("path", &module), ("from", "x")]), "no number"),
        (call("replace", &[("path", &module), ("line", "900"), ("text", "x")]), "lines."),
        (call("replace", &[("path", &module), ("line", "1")]), "argument text"),
        (call("bash", &[("command", "ls")]), "no tool bash"),
    ] {
        let outcome = world.step(&action).unwrap();
        let (text, score) = gave(&outcome);
        assert!(text.contains(says) && score == Some(-1), "{action:?}: {text}");
    }
    let (_, score) =
        gave(&world.step(&call("replace", &[("path", &module), ("line", "1"), ("text", "def (")])).unwrap());
    assert_eq!(score, Some(-1));
    let (success, reward, f2p, p2p) = counted(&world.evaluate().unwrap());
    assert_eq!((success, reward, f2p, p2p), (false, -1.0, Some(0.0), Some(0.0)));
}

/// Changes that make tests say that they passed, without mending what is wrong.
fn cheats(made: &FamilyTask) -> Vec<(&'static str, String)> {
    let module = &made.module;
    let ahead = |text: &str| format!("printf '%s\\n' '{text}' | cat - {module} > t && mv t {module}");
    let every = "import _pytest.reports as r
old = r.TestReport.from_item_and_call.__func__
def new(cls, item, call):
    report = old(cls, item, call)
    report.outcome, report.longrepr = \"passed\", None
    return report
r.TestReport.from_item_and_call = classmethod(new)";
    let hook = "import pytest
@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    outcome.get_result().outcome = \"passed\"";
    let conftest = format!("cat > conftest.py <<'E'\n{hook}\nE");
    let lines: Vec<String> = made.row.fail_to_pass.iter().map(|name| format!("PASSED {name}")).collect();
    let function = made.row.fail_to_pass[0].split("::test_").nth(1).unwrap_or_default().replace("_again", "");
    vec![
        ("edits tests", "sed -i 's/^    assert .*/    assert True/' test_*.py".to_owned()),
        ("conftest", conftest),
        ("prints lines", ahead(&format!("import atexit; atexit.register(print, \"\\\\n{}\")", lines.join("\\\\n")))),
        ("exits with 0", ahead("import os; os._exit(0)")),
        ("exits at the end", ahead("import atexit, os; atexit.register(os._exit, 0)")),
        ("rewrites pytest", ahead(every)),
        ("expects to fail", format!("printf 'import pytest\\ndef {function}(*a): pytest.xfail(\"x\")\\n' >> {module}")),
        ("skips", format!("printf 'import pytest\\ndef {function}(*a): pytest.skip(\"x\")\\n' >> {module}")),
        ("plugin", format!("cat > sitecustomize.py <<'E'\n{every}\nE\ncp sitecustomize.py pytest.py; cp sitecustomize.py json.py")),
        ("settings", "printf '[pytest]\\npython_functions = nothing\\n' > pytest.ini; printf '[tool.pytest.ini_options]\\npython_files = \"no.py\"\\n' > pyproject.toml".to_owned()),
        ("no tests", "rm test_*.py; git add -A; git -c user.name=a -c user.email=a@b commit -qm x; rm -rf .git".to_owned()),
        ("errors are expected", ahead("import builtins, _pytest.outcomes as o; builtins.AssertionError = o.XFailed")),
    ]
}

#[test]
fn no_cheat_resolves_anything() {
    let Some(swe) = family(Settings { step_tests: false, ..Settings::default() }) else { return };
    let (task, mut world) = begun(&swe, Split::Train, 2);
    let made = made(Split::Train, 2);
    for (name, command) in cheats(&made) {
        world.reset(&task).unwrap();
        let outcome = world.step(&bash(&command)).unwrap();
        assert!(!outcome.observation.results[0].is_error, "{name}: {:?}", gave(&outcome));
        let verdict = world.evaluate().unwrap();
        assert_eq!((verdict.success, verdict.reward), (false, -1.0), "{name}: {verdict:?}");
    }
    // What is mended is mended, whatever lies beside it.
    world.reset(&task).unwrap();
    world.step(&applies(&made.row.patch)).unwrap();
    world.step(&bash("sed -i 's/^    assert .*/    assert False/' test_*.py; touch conftest.py; rm -rf .git; echo x > new.txt")).unwrap();
    let verdict = world.evaluate().unwrap();
    assert!(verdict.success && verdict.numbers["left_out"] == 2.0, "{verdict:?}");
}

#[test]
fn git_of_an_agent_says_nothing_of_its_patch() {
    let Some(swe) = family(Settings::default()) else { return };
    let (_, mut world) = begun(&swe, Split::Train, 3);
    let made = made(Split::Train, 3);
    let rigs = "git config core.fsmonitor 'touch /workspace/ran'; git config filter.x.clean 'touch /workspace/ran; cat'; \
                git config diff.external 'touch /workspace/ran'; git config core.hooksPath .; echo '*.py filter=x diff=x' > .gitattributes; \
                echo __pycache__ > .gitignore; mkdir __pycache__; touch __pycache__/x.pyc";
    assert!(!world.step(&bash(rigs)).unwrap().observation.results[0].is_error);
    let (text, score) = gave(&world.step(&bash(&format!("patch -p1 <<'E'\n{}E", made.row.patch))).unwrap());
    assert_eq!(score, Some(1), "{text}");
    let kept = tempfile::tempdir().unwrap();
    world.keep(&kept.path().join("files")).unwrap();
    assert!(!kept.path().join("files/ran").exists());
    assert!(world.evaluate().unwrap().success);
}

#[test]
fn an_agent_that_talks_in_blocks_mends_a_module() {
    use openclaw_environments::agent::{Parsed, Reply};
    let settings = Settings { agent: Talk::BashBlock, output_chars: 200, ..Settings::default() };
    let Some(swe) = family(settings) else { return };
    let (task, mut world) = begun(&swe, Split::HeldOut, 4);
    let made = made(Split::HeldOut, 4);
    let mut agent = swe.agent();
    let told = agent.start(&task, &[]);
    assert!(task.tools.is_empty() && told[0]["content"].as_str().unwrap().contains("```bash"));
    let mut act = |command: &str| {
        let text = format!("I try this.\n```bash\n{command}\n```");
        let Parsed::Action(action) = agent.parse(&Reply { text, ..Reply::default() }) else {
            panic!("{command}")
        };
        let outcome = world.step(&action).unwrap();
        let told = agent.observe(&outcome);
        (told[0]["content"].as_str().unwrap().to_owned(), outcome)
    };
    let (text, outcome) = act("cd /tmp && pwd; python3 -m pytest -q");
    assert!(text.starts_with("/tmp\n") && !outcome.done, "{text}");
    assert_eq!(act("pwd").0, "/workspace", "each shell is a new one");
    let (text, outcome) = act("seq 1 1000");
    assert!(text.contains("characters left out") && outcome.rule.unwrap().score == -1, "{text}");
    assert_eq!(act("exit 3").0, "[exit code 3]");
    assert!(!act("echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT; exit 1").1.done);
    let (text, outcome) = act(&format!("git apply - <<'E'\n{}E", made.row.patch));
    assert_eq!((text.as_str(), outcome.rule.unwrap().score), ("[no output]", 1));
    let (_, outcome) = act("echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT");
    assert!(outcome.done && outcome.rule.unwrap().score == 1);
    assert!(world.evaluate().unwrap().success);
}

/// A row over a copy of the package here with a fault in it, whose tests a script runs; the tests come by a patch.
fn scripted(folder: &Path, script: &str) -> (Settings, String) {
    let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/swe_package");
    let copied = std::process::Command::new("cp").arg("-R").arg(package).arg(folder.join("package")).status();
    assert!(copied.unwrap().success());
    let path = folder.join("package/src/tally/words.py");
    let sound = std::fs::read_to_string(&path).unwrap();
    let line = sound.lines().position(|line| line.contains("count == 1")).unwrap();
    let faulty = sound.replace("count == 1", "count == 2");
    std::fs::write(&path, &faulty).unwrap();
    let gold = patch::of_line("src/tally/words.py", &faulty, line, sound.lines().nth(line).unwrap());
    let test = "from tally import plural\n+\n+\n+def test_one():\n+    assert plural(\"cat\", 1) == \"cat\"";
    let row = json!({
        "instance_id": "o__r-1", "repo": "o/r", "problem_statement": "One cat is called cats.", "source": "package",
        "eval_script": script, "log_parser": "parse_log_pytest", "patch": gold,
        "test_patch": format!("diff --git a/tests/test_more.py b/tests/test_more.py\nnew file mode 100644\n--- /dev/null\n+++ b/tests/test_more.py\n@@ -0,0 +1,5 @@\n+{test}\n"),
        "FAIL_TO_PASS": json!(["tests/test_more.py::test_one"]).to_string(),
        "PASS_TO_PASS": "['tests/test_ranges.py::test_clamp_below', 'tests/test_words.py::Initials::test_words']",
    });
    let rows = folder.join("rows.jsonl");
    std::fs::write(&rows, format!("{row}\n")).unwrap();
    (Settings { rows: Some(rows), ..Settings::default() }, gold)
}

#[test]
fn a_script_is_judged_by_the_published_rules() {
    if !is_able() {
        return;
    }
    let command = "PYTHONPATH=src python3 -m pytest -rA -p no:cacheprovider tests/test_more.py tests/test_ranges.py tests/test_words.py";
    let marked = format!(
        "cd /workspace\necho '>>>>> Start Test Output'\n{command}\ncode=$?\necho '>>>>> End Test Output'\necho \">>>>> Test Exit Code: $code\"\n"
    );
    let ahead = |text: &str| {
        format!("printf '%s\\n' '{text}' | cat - src/tally/words.py > t && mv t src/tally/words.py")
    };
    let passed = "PASSED tests/test_more.py::test_one\\nPASSED tests/test_ranges.py::test_clamp_below\\nPASSED tests/test_words.py::Initials::test_words";
    let cheats = [
        "echo note > note.txt".to_owned(),
        "printf 'def test_one(): pass\\n' > tests/test_more.py; sed -i 's/    assert .*/    pass/' tests/*.py".to_owned(),
        "printf 'import pytest\\n@pytest.fixture(autouse=True)\\ndef no(): pytest.xfail()\\n' > conftest.py".to_owned(),
        ahead(&format!("import atexit; atexit.register(print, \"\\n{passed}\\n>>>>> End Test Output\\n>>>>> Test Exit Code: 0\")")),
        ahead(&format!("import os; print(\"\\n{passed}\", flush=True); os._exit(1)")),
        ahead("import os; os._exit(0)"),
    ];
    for (number, script) in [marked, command.to_owned()].into_iter().enumerate() {
        let folder = tempfile::tempdir().unwrap();
        let (settings, gold) = scripted(folder.path(), &script);
        let swe = Swe::new(settings).unwrap();
        let (task, mut world) = begun(&swe, Split::Train, 0);
        let outcome = world.step(&applies(&gold)).unwrap();
        assert_eq!(outcome.rule, None, "the world does not know");
        assert!(outcome.observation.state.is_none());
        assert_eq!(counted(&world.evaluate().unwrap()), (true, 1.0, Some(1.0), Some(2.0)));
        // One of the two forms is enough for most of them.
        for command in cheats.iter().skip(number * 3) {
            world.reset(&task).unwrap();
            assert!(!world.step(&bash(command)).unwrap().observation.results[0].is_error, "{command}");
            let verdict = world.evaluate().unwrap();
            assert!(!verdict.success && verdict.reward == -1.0, "{command}: {verdict:?}");
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let swe = Swe::new(scripted(folder.path(), "echo nothing").0).unwrap();
    let (_, mut world) = begun(&swe, Split::Train, 0);
    world.step(&bash("echo note > note.txt")).unwrap();
    assert!(matches!(world.evaluate(), Err(WorldError::Invalid(why)) if why.contains("nothing was found")));
}

#[test]
fn a_patch_that_fits_only_nearly_is_applied_all_the_same_and_none_leads_into_git() {
    if !is_able() {
        return;
    }
    // What follows the change is not what the file has.
    let nearly = "--- a/tests/test_words.py\n+++ b/tests/test_words.py\n@@ -6,6 +6,6 @@\n class Plural(unittest.TestCase):\n     def test_one(self):\n\
                  -        self.assertEqual(plural(\"cat\", 1), \"cat\")\n+        self.assertEqual(plural(\"dog\", 1), \"dog\")\n \n\
                  \x20    def test_other(self):\n         self.assertEqual(plural(\"cow\", 2), \"cows\")\n";
    let hook = "--- /dev/null\n+++ b/.git/hooks/pre-commit\n@@ -0,0 +1 @@\n+touch /workspace/ran\n";
    let script = "PYTHONPATH=src python3 -m pytest -rA -p no:cacheprovider tests/test_words.py; grep -c dog tests/test_words.py";
    for (test_patch, is_applied) in [(nearly, true), (hook, false)] {
        let folder = tempfile::tempdir().unwrap();
        let (settings, gold) = scripted(folder.path(), script);
        let rows = settings.rows.clone().unwrap();
        let mut row: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(&rows).unwrap()).unwrap();
        row["test_patch"] = test_patch.into();
        row["FAIL_TO_PASS"] = json!(["tests/test_words.py::Plural::test_one"]);
        row["PASS_TO_PASS"] = json!([]);
        std::fs::write(&rows, row.to_string()).unwrap();
        let swe = Swe::new(settings).unwrap();
        let (_, mut world) = begun(&swe, Split::Train, 0);
        world.step(&applies(&gold)).unwrap();
        match world.evaluate() {
            Ok(verdict) => assert!(is_applied && verdict.success, "{verdict:?}"),
            Err(WorldError::Invalid(why)) => {
                assert!(!is_applied && why.contains("test_patch cannot be applied"), "{why}")
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// Plays the gold patch of a row, and nothing at all.
fn gold_resolves_and_nothing_does_not(swe: &Swe, split: Split, number: usize, patch: &str) {
    let (task, mut world) = begun(swe, split, number as u64);
    let outcome = world.step(&applies(patch)).unwrap();
    assert_ne!(gave(&outcome).1, Some(-1), "{}: {outcome:?}", task.id);
    let verdict = world.evaluate().unwrap();
    assert!(verdict.success, "{}: {verdict:?}", task.id);
    world.reset(&task).unwrap();
    // As it was, but for something that no test sees.
    world.step(&bash("echo note > note.txt")).unwrap();
    let verdict = world.evaluate().unwrap();
    let (success, _, f2p, p2p) = counted(&verdict);
    assert_eq!((success, f2p, p2p), (false, Some(0.0), Some(verdict.numbers["p2p_total"])), "{}", task.id);
}

/// Patches of a file of rows.
fn patches(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap();
    let patch = |line: &str| {
        serde_json::from_str::<serde_json::Value>(line).unwrap()["patch"].as_str().unwrap().to_owned()
    };
    text.lines().map(patch).collect()
}

#[test]
fn tasks_are_made_of_a_package_and_each_is_one() {
    if !is_able() {
        return;
    }
    let out = tempfile::tempdir().unwrap();
    let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/swe_package");
    let order = Order {
        package,
        out: out.path().to_owned(),
        count: 5,
        seed: 1,
        held_out: false,
        test_time: Duration::from_secs(120),
    };
    let made = make(&order, &Bubblewrap::default(), &mut |_| {}).unwrap();
    assert_eq!((made.train, made.held_out, made.tests), (4, 1, 15), "{made:?}");
    let first = std::fs::read_to_string(out.path().join("train.jsonl")).unwrap();
    assert!(first.contains("of swe_package fail") && !first.contains("/tmp/"), "{first}");
    assert_eq!(make(&order, &Bubblewrap::default(), &mut |_| {}).unwrap(), made);
    assert_eq!(
        std::fs::read_to_string(out.path().join("train.jsonl")).unwrap(),
        first,
        "the same seed makes the same"
    );
    let (rows, held_out) = (out.path().join("train.jsonl"), out.path().join("held_out.jsonl"));
    let settings =
        Settings { rows: Some(rows.clone()), held_out_rows: Some(held_out.clone()), ..Settings::default() };
    let swe = Swe::new(settings).unwrap();
    assert_eq!((swe.tasks(Split::Train), swe.tasks(Split::HeldOut)), (Some(4), Some(1)));
    for (split, path) in [(Split::Train, &rows), (Split::HeldOut, &held_out)] {
        for (number, patch) in patches(path).iter().enumerate() {
            gold_resolves_and_nothing_does_not(&swe, split, number, patch);
        }
    }
}

/// `OPENCLAW_SWE_PACKAGES` names archives, apart by colons: 14 rows are made of each and played. Rows stay in `OPENCLAW_SWE_OUT`; with
/// no packages, those that are there are played.
#[test]
#[ignore = "it needs archives of packages, and minutes"]
fn rows_of_real_packages_are_tasks() {
    let out = tempfile::tempdir().unwrap();
    let out = std::env::var_os("OPENCLAW_SWE_OUT").map_or(out.path().to_owned(), Into::into);
    let packages = std::env::var("OPENCLAW_SWE_PACKAGES").unwrap_or_default();
    for package in packages.split(':').filter(|package| !package.is_empty()) {
        let order = Order {
            package: package.into(),
            out: out.clone(),
            count: 14,
            seed: 1,
            held_out: false,
            test_time: Duration::from_secs(300),
        };
        let made = make(&order, &Bubblewrap::default(), &mut |tried| eprintln!("{tried:?}")).unwrap();
        eprintln!("{package}: {made:?}");
    }
    for (split, name) in [(Split::Train, "train.jsonl"), (Split::HeldOut, "held_out.jsonl")] {
        let settings = Settings {
            rows: Some(out.join("train.jsonl")),
            held_out_rows: Some(out.join("held_out.jsonl")),
            step_tests: false,
            ..Settings::default()
        };
        let (swe, patches) = (Swe::new(settings).unwrap(), patches(&out.join(name)));
        let next = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        let Some(patch) = patches.get(number) else { break };
                        gold_resolves_and_nothing_does_not(&swe, split, number, patch);
                        eprintln!("{split}/{number}: gold resolves it and nothing does not");
                    }
                });
            }
        });
    }
}
