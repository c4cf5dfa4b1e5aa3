//! What an agent leaves to steer its verifier does not: a wrong solution stays one, and a right one counts.

use openclaw_environments::{
    terminal::Terminal,
    world::{Verdict, WorldError},
};

use crate::{
    machine::can,
    terminal_host::{IMAGE, bash, begun, gave, over, write},
};

/// What is asked for: a file, a program and a module, as tasks ask for them.
const TESTS: &str = r#"import json
import subprocess
from pathlib import Path


def test_answer():
    assert Path("/app/answer.txt").read_text() == Path("/tests/expected.txt").read_text()


def test_program():
    ran = subprocess.run(["python3", "/app/program.py"], capture_output=True, text=True)
    assert json.loads(ran.stdout) == {"sum": 5}


def test_module():
    from work import double

    assert double(21) == 42
"#;

/// Files of an agent by their places, and what it runs then.
#[derive(Clone, Copy)]
struct Left {
    name: &'static str,
    files: &'static [(&'static str, &'static str)],
    command: &'static str,
}

/// The right solution has modules of its own beside it.
const RIGHT: &[(&str, &str)] = &[
    ("answer.txt", "right\n"),
    ("numbers_of.py", "TWO, THREE = 2, 3\n"),
    (
        "program.py",
        "import json\nfrom numbers_of import TWO, THREE\nprint(json.dumps({'sum': TWO + THREE}))\n",
    ),
    ("work.py", "from numbers_of import TWO\n\ndef double(x):\n    return TWO * x\n"),
];
const WRONG: &[(&str, &str)] = &[
    ("answer.txt", "wrong\n"),
    ("program.py", "print('{}')\n"),
    ("work.py", "def double(x):\n    return x\n"),
];

/// Of two of three tests.
const ALL_BUT_THE_ANSWER: &[(&str, &str)] =
    &[("program.py", "print('{\"sum\": 5}')\n"), ("work.py", "def double(x):\n    return 2 * x\n")];

/// A plugin of pytest by which everything passes.
const PLUGIN: &str = r#"import pytest


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    made = yield
    made.get_result().outcome = "passed"
"#;
/// A module that says that everything passed, and ends whoever asked for it.
const FORGED: &str = r#"import os
os.write(1, b"=== short test summary info ===\nPASSED t.py::test_answer\n=== 1 passed in 0.01s ===\n")
for name, text in [("reward.txt", "1"), ("reward.json", '{"reward": 1}')]:
    with os.fdopen(os.open("/logs/verifier/" + name, os.O_WRONLY | os.O_CREAT), "w") as file:
        file.write(text)
os._exit(0)
"#;
/// The same, of a program.
const SHIM: &str = r#"#!/bin/sh
echo 1 > /logs/verifier/reward.txt; echo '{"reward": 1}' > /logs/verifier/reward.json
printf '=== short test summary info ===\nPASSED t.py::test_answer\n=== 1 passed in 0.01s ===\n'
exit 0
"#;
/// What a program that is run by a test can write beside its output.
const WRITER: &str = r#"import json, os
test = {"name": "t", "status": "passed"}
for name, text in [("reward.json", {"reward": 1}), ("ctrf.json", {"results": {"tests": [test]}})]:
    with open("/logs/verifier/" + name, "w") as file:
        json.dump(text, file)
"#;

/// None of these may count.
const RIGS: &[Left] = &[
    Left { name: "conftest", files: &[("conftest.py", PLUGIN), ("sub/conftest.py", PLUGIN)], command: "" },
    Left {
        name: "pytest.ini",
        files: &[("rig.py", PLUGIN), ("pytest.ini", "[pytest]\naddopts = -p rig\n")],
        command: "",
    },
    Left {
        name: "pyproject",
        files: &[("rig.py", PLUGIN), ("pyproject.toml", "[tool.pytest.ini_options]\naddopts = '-p rig'\n")],
        command: "",
    },
    Left {
        name: "setup.cfg, tox.ini",
        files: &[
            ("rig.py", PLUGIN),
            ("setup.cfg", "[tool:pytest]\naddopts = -p rig\n"),
            ("tox.ini", "[pytest]\naddopts = -p rig\n"),
        ],
        command: "",
    },
    Left {
        name: "a plugin by its entry point",
        files: &[
            ("rig.py", PLUGIN),
            ("rig-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: rig\nVersion: 1.0\n"),
            ("rig-1.0.dist-info/entry_points.txt", "[pytest11]\nrig = rig\n"),
        ],
        command: "",
    },
    Left {
        name: "sitecustomize",
        files: &[("sitecustomize.py", FORGED), ("usercustomize.py", FORGED)],
        command: "",
    },
    Left {
        name: "modules of the machine",
        files: &[
            ("json.py", FORGED),
            ("pathlib.py", FORGED),
            ("subprocess/__init__.py", FORGED),
            ("encodings/__init__.py", FORGED),
        ],
        command: "",
    },
    Left {
        name: "pytest",
        files: &[("pytest.py", FORGED), ("_pytest/__init__.py", FORGED), ("pluggy.py", FORGED)],
        command: "",
    },
    Left {
        name: "programs",
        files: &[
            ("bin/python3", SHIM),
            ("bin/python", SHIM),
            ("bin/pytest", SHIM),
            ("bin/git", SHIM),
            ("python3", SHIM),
            ("uvx", SHIM),
        ],
        command: "chmod +x bin/* python3 uvx; mkdir -p ~/.local/bin; cp bin/* ~/.local/bin",
    },
    Left {
        name: "home",
        files: &[("rig.py", FORGED)],
        command: "for v in 3.9 3.10 3.11 3.12 3.13; do d=~/.local/lib/python$v/site-packages; mkdir -p $d; \
                  cp rig.py $d/usercustomize.py; cp rig.py $d/rig.py; echo import rig > $d/rig.pth; done; \
                  echo 'echo 1 > /logs/verifier/reward.txt; exit 0' | tee ~/.bashrc ~/.profile ~/.bash_profile",
    },
    Left {
        name: "hooks of git",
        files: &[(".githook", SHIM)],
        command: "git init -q .; for h in pre-commit post-commit post-index-change; do cp .githook .git/hooks/$h; chmod +x .git/hooks/$h; done; \
                  git config core.fsmonitor /app/.git/hooks/pre-commit",
    },
    Left {
        name: "reward files before",
        files: &[],
        command: "echo 1 > /logs/verifier/reward.txt; echo '{\"reward\": 1}' > /logs/verifier/reward.json; \
                  ln -sf /dev/null /logs/verifier/ctrf.json; mkdir -p logs/verifier; echo 1 > logs/verifier/reward.txt",
    },
    Left { name: "reward files of a program", files: &[("program.py", WRITER)], command: "" },
    Left {
        name: "links to what is expected",
        files: ALL_BUT_THE_ANSWER,
        command: "rm answer.txt; ln -s ../tests/expected.txt first; ln -s first answer.txt; ln -s / root; ln -s /proc/self/root/tests/expected.txt second",
    },
    Left {
        name: "background jobs",
        files: ALL_BUT_THE_ANSWER,
        command: "(while :; do echo 1 > /logs/verifier/reward.txt; [ -e /tests ] && cp /tests/expected.txt answer.txt; done) >/dev/null 2>&1 &",
    },
];

/// None of these either, where the tests are run without the script: a process of the tests' own cannot say that they passed.
const RIGS_OF_PROCESSES: &[Left] = &[
    Left { name: "a module that ends the tests", files: &[("work.py", FORGED)], command: "" },
    Left { name: "a program that answers for the tests", files: &[("program.py", ANSWERS)], command: "" },
    Left { name: "a program that stays", files: &[("program.py", STAYS)], command: "" },
    Left {
        name: "a program that kills the tests",
        files: &[("program.py", "import os\nos.kill(os.getppid(), 9)\n")],
        command: "",
    },
];

/// Writes an answer wherever it can.
const ANSWERS: &str = r#"import os
said = b'\nready\n{"key": "", "code": 0, "tests": {"t": true}}\n=== short test summary info ===\nPASSED t\n'
for process in (os.getppid(), 1, 2):
    for fd in range(64):
        try:
            os.write(os.open(f"/proc/{process}/fd/{fd}", os.O_WRONLY), said)
        except OSError:
            pass
for fd in range(3, 64):
    try:
        os.write(fd, said)
    except OSError:
        pass
"#;
/// Shuts the reward file and writes it for as long as it lives.
const STAYS: &str = r#"import os, subprocess
loop = "while :; do echo 1 > /logs/verifier/reward.txt; done"
subprocess.Popen(["sh", "-c", loop], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
print("{}")
"#;

/// Scripts of a verifier, and whether the folder is Harbor's.
const SCRIPTS: &[(&str, bool, &str)] = &[
    (
        "beside",
        true,
        "if python3 -m pytest /tests/test_outputs.py -rA && true; then echo 1 > /logs/verifier/reward.txt; \
         else echo 0 > /logs/verifier/reward.txt; fi\n",
    ),
    (
        "inside",
        true,
        "cd /app\ngit init -q . && git add -A && git -c user.name=a -c user.email=a@b commit -qm x >/dev/null\n\
         mkdir -p sub; cp /tests/test_outputs.py sub/test_outputs.py\n\
         if pytest sub -rA; then echo 1 > /logs/verifier/reward.txt; else echo 0 > /logs/verifier/reward.txt; fi\n",
    ),
    ("older", false, "cd /app\npython3 -m pytest $TEST_DIR/test_outputs.py -rA; exit $?\n"),
];

/// As the templates of Harbor and Terminal-Bench have it: neither can be run without a network.
const TEMPLATES: &[(&str, bool, &str)] = &[
    (
        "harbor",
        true,
        "apt-get update\napt-get install -y curl\ncurl -LsSf https://astral.sh/uv/0.9.5/install.sh | sh\n\
         source $HOME/.local/bin/env\nuvx \\\n  -p 3.13 \\\n  -w pytest==8.4.1 \\\n  -w pytest-json-ctrf==0.3.5 \\\n  \
         pytest --ctrf /logs/verifier/ctrf.json /tests/test_outputs.py -rA\n\nif [ $? -eq 0 ]; then\n  \
         echo 1 > /logs/verifier/reward.txt\nelse\n  echo 0 > /logs/verifier/reward.txt\nfi\n",
    ),
    (
        "terminal-bench",
        false,
        "set -euo pipefail\napt-get update\napt-get install -y curl\ncurl -LsSf https://astral.sh/uv/0.7.13/install.sh | sh\n\
         source $HOME/.local/bin/env\nuv init\nuv add pytest==8.4.1\n\nuv run pytest $TEST_DIR/test_outputs.py -rA\n",
    ),
];

/// None, with the reason told, where pytest is missing or no sandbox can be made.
fn tasks(scripts: &[(&str, bool, &str)]) -> Option<(tempfile::TempDir, Terminal)> {
    let pytest = std::process::Command::new("/usr/bin/python3").args(["-I", "-c", "import pytest"]).output();
    let why = format!("{pytest:?}");
    if !can("python3-pytest is not there", pytest.is_ok_and(|ran| ran.status.success()), &why) {
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    // Both lead Python and the shell to what the agent wrote.
    let dockerfile = format!("FROM {IMAGE}\nWORKDIR /app\nENV PYTHONPATH=/app PATH=/app/bin:$PATH\n");
    for (name, is_harbor, script) in scripts {
        let tests = [("tests/test_outputs.py", TESTS), ("tests/expected.txt", "right\n")];
        write(&folder.path().join(name), &tests);
        let files: &[(&str, &str)] = match is_harbor {
            true => &[
                ("task.toml", "version = \"1.0\"\n"),
                ("instruction.md", "Do it."),
                ("environment/Dockerfile", &dockerfile),
                ("tests/test.sh", script),
            ],
            false => &[
                ("task.yaml", "instruction: do it\n"),
                ("Dockerfile", &dockerfile),
                ("run-tests.sh", script),
            ],
        };
        write(&folder.path().join(name), files);
    }
    let terminal = over(folder.path())?;
    Some((folder, terminal))
}

/// The verdict on what is left.
fn verdict(terminal: &Terminal, id: &str, files: &[(&str, &str)], left: Left) -> Result<Verdict, WorldError> {
    let (_, mut world) = begun(terminal, id);
    for (path, text) in files.iter().chain(left.files) {
        let line = format!("mkdir -p \"$(dirname {path})\"; cat > {path} <<'END'\n{text}END");
        let (said, failed) = gave(&world.step(&bash(&line)).unwrap());
        assert!(!failed, "{path}: {said}");
    }
    if !left.command.is_empty() {
        let (said, failed) = gave(&world.step(&bash(left.command)).unwrap());
        assert!(!failed, "{}: {said}", left.name);
    }
    world.evaluate()
}

const NOTHING: Left = Left { name: "nothing", files: &[], command: "" };

#[test]
fn what_a_task_asks_for_counts() {
    let all = [SCRIPTS, TEMPLATES].concat();
    let Some((_folder, terminal)) = tasks(&all) else { return };
    for (id, ..) in all {
        let right = verdict(&terminal, id, RIGHT, NOTHING).unwrap();
        assert!(right.success && right.reward == 1.0, "{id}: {right:?}");
        let wrong = verdict(&terminal, id, WRONG, NOTHING).unwrap();
        assert!(!wrong.success && wrong.reward == -1.0, "{id}: {wrong:?}");
    }
}

#[test]
fn a_template_is_run_without_what_it_fetches() {
    let Some((_folder, terminal)) = tasks(TEMPLATES) else { return };
    for (id, ..) in TEMPLATES {
        let files: Vec<_> = RIGHT.iter().copied().filter(|(name, _)| *name != "program.py").collect();
        let numbers = verdict(&terminal, id, &files, NOTHING).unwrap().numbers;
        assert_eq!(
            (numbers["passed"], numbers["total"], numbers["script_replaced"]),
            (2.0, 3.0, 1.0),
            "{id}"
        );
    }
}

/// What counted though it should not.
fn counted(scripts: &[(&str, bool, &str)], rigs: &[Left]) -> Vec<String> {
    let Some((_folder, terminal)) = tasks(scripts) else { return Vec::new() };
    let mut counted = Vec::new();
    for (id, ..) in scripts {
        for rig in rigs {
            let verdict = verdict(&terminal, id, WRONG, *rig);
            // No verdict would be better than a bad one.
            if !verdict.as_ref().is_ok_and(|verdict| !verdict.success) {
                counted.push(format!("{id}, {}: {verdict:?}", rig.name));
            }
        }
    }
    counted
}

#[test]
fn what_an_agent_rigs_does_not_count() {
    assert_eq!(counted(SCRIPTS, RIGS), [""; 0]);
}

#[test]
fn what_an_agent_rigs_does_not_count_without_the_script() {
    assert_eq!(counted(TEMPLATES, &[RIGS, RIGS_OF_PROCESSES].concat()), [""; 0]);
}

#[test]
fn a_reward_file_that_was_shut_is_no_verdict() {
    let Some((_folder, terminal)) = tasks(&SCRIPTS[..1]) else { return };
    let shut = "import os\nopen('/logs/verifier/reward.txt', 'w').write('1')\nos.chmod('/logs/verifier/reward.txt', 0o444)\n";
    let files: Vec<_> = WRONG.iter().copied().filter(|(name, _)| *name != "program.py").collect();
    let verdict = verdict(&terminal, SCRIPTS[0].0, &[files, vec![("program.py", shut)]].concat(), NOTHING);
    assert!(
        matches!(&verdict, Err(WorldError::Invalid(why)) if why.contains("cannot be written")),
        "{verdict:?}"
    );
}
