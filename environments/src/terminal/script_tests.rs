use super::*;
use proptest::prelude::*;

const HARBOR: &str = r#"#!/bin/bash

# Install curl
apt-get update
apt-get install -y curl

curl -LsSf https://astral.sh/uv/0.9.5/install.sh | sh

source $HOME/.local/bin/env

# Check if we're in a valid working directory
if [ "$PWD" = "/" ]; then
    echo "Error: No working directory set."
    exit 1
fi

uvx \
  -p 3.13 \
  -w pytest==8.4.1 \
  -w numpy==2.3.1 \
  -w pytest-json-ctrf==0.3.5 \
  pytest --ctrf /logs/verifier/ctrf.json /tests/test_outputs.py -rA

if [ $? -eq 0 ]; then
  echo 1 > /logs/verifier/reward.txt
else
  echo 0 > /logs/verifier/reward.txt
fi
"#;

const OLDER: &str = "#!/bin/bash\nset -euo pipefail\napt-get update && apt-get install -y curl\n\
    curl -LsSf https://astral.sh/uv/0.7.13/install.sh | sh\nsource $HOME/.local/bin/env\nuv init\nuv add pytest==8.4.1\n\n\
    uv run pytest $TEST_DIR/test_outputs.py -rA\n";

fn run(text: &str, rewards: bool) -> Run {
    match read(text, rewards) {
        Ok(Check::Pytest(run)) => run,
        other => panic!("{other:?}\n{text}"),
    }
}

fn needs(run: &Run) -> Vec<String> {
    run.needs.iter().map(Package::to_string).collect()
}

#[test]
fn templates_are_pytest_without_what_they_fetch() {
    let harbor = run(HARBOR, true);
    assert_eq!(harbor.args, ["/tests/test_outputs.py", "-rA"]);
    assert_eq!(needs(&harbor), ["pip:numpy==2.3.1", "pip:pytest==8.4.1"]);
    let older = run(OLDER, false);
    assert_eq!((older.args, needs(&run(OLDER, false))), (harbor.args, vec!["pip:pytest==8.4.1".to_owned()]));
    let venv = OLDER.replace(
        "uv init\nuv add pytest==8.4.1",
        "uv venv .tbench-testing\nsource .tbench-testing/bin/activate\nuv pip install --no-cache-dir \\\n pytest==8.3.4 \\\n pandas==2.2.3",
    );
    assert_eq!(needs(&run(&venv, false)), ["pip:pandas==2.2.3", "pip:pytest==8.3.4"]);
}

#[test]
fn what_is_written_in_other_words_is_the_same() {
    let wrote = "echo 1 > /logs/verifier/reward.txt";
    let not = "echo 0 > /logs/verifier/reward.txt";
    for text in [
        format!("pytest /tests -v\nif [ $? -eq 0 ]; then {wrote}; else {not}; fi"),
        format!(
            "mkdir -p /logs/verifier\n{not}\npytest /tests -v || code=$?\nif [ \"$code\" -ne 0 ]\nthen\n{not}\nelse\n{wrote}\nfi\nexit $code"
        ),
        format!(
            "if python3 -m pytest /tests -v 2>&1 | tee /logs/verifier/out; then\n{wrote}\nelse\n{not}\nfi"
        ),
        format!(
            "pip3 install pytest==8.4.1\npytest \"/tests\" --ctrf=/x.json -x -v || true\nCODE=$?\nif [[ $CODE == 0 ]]; then\n{wrote}\nelse\n{not}\nfi"
        ),
    ] {
        assert_eq!(run(&text, true).args, ["/tests", "-v"], "{text}");
    }
    let placed = run(
        "export PYTHONPATH=/app/src:$PYTHONPATH\ncd /app\nPYTHONPATH=/app/lib python -m pytest ${TEST_DIR}/a.py",
        false,
    );
    assert_eq!((placed.folder.as_deref(), placed.python_path.len()), (Some("/app"), 2));
}

#[test]
fn a_script_that_does_more_is_run_as_it_is() {
    let wrote = "if [ $? -eq 0 ]; then echo 1 > /logs/verifier/reward.txt; else echo 0 > /logs/verifier/reward.txt; fi";
    for text in [
        "cat summary",
        "python3 /app/prepare.py\npytest /tests",
        "pytest /app/tests",
        "pytest /tests/../app",
        "pytest",
        "pytest /tests -p rig",
        "pytest /tests -c /app/pytest.ini",
        "pytest /tests\npytest /tests/more.py",
        "pytest /tests && touch /tmp/x",
        "pytest $(ls /tests)",
        "(pytest /tests)",
        "PYTHONPATH=/app ./run\npytest /tests",
    ] {
        assert_eq!(read(text, false), Ok(Check::Script), "{text}");
        assert_eq!(read(&format!("{text}\n{wrote}"), true), Ok(Check::Script), "{text}");
    }
    // Pass and failure have each to be written down, and as what they are.
    for text in [
        "pytest /tests".to_owned(),
        "pytest /tests\necho 1 > /logs/verifier/reward.txt".to_owned(),
        format!("pytest /tests\n{}", wrote.replace("-eq", "-ne")),
        format!("pytest /tests\n{}", wrote.replace("$? -eq 0", "-f /app/x")),
    ] {
        assert_eq!(read(&text, true), Ok(Check::Script), "{text}");
    }
}

#[test]
fn what_would_fetch_is_named() {
    for (text, line) in [
        ("cd /app\nuv sync\npytest /tests", 2),
        ("apt-get install -y jq\npython3 /app/x.py\n", 1),
        ("python3 /app/x.py\n\nif ! pip install -q x; then exit 1; fi", 3),
        ("curl -s https://example.org/data > data\npytest /tests", 1),
        ("x=$(wget -qO- example.org)", 1),
        ("uvx ruff check /app\npytest /tests", 1),
        ("git clone https://example.org/x", 1),
    ] {
        let fetches = read(text, false).unwrap_err();
        assert_eq!(fetches.line, line, "{text}");
        assert!(fetches.to_string().starts_with(&format!("the network, for line {line}: ")), "{fetches}");
    }
    for text in ["curl -s http://localhost:8000/x", "command -v curl", "uv --version", "echo pip install x"] {
        assert_eq!(read(text, false), Ok(Check::Script), "{text}");
    }
}

proptest! {
    #[test]
    fn any_text_is_a_script_or_an_error(text in r#"[ -~\n]{0,200}"#) {
        let _ = read(&text, true);
    }

    #[test]
    fn a_damaged_template_never_runs_what_is_not_the_verifiers(at in 0usize..HARBOR.len(), len in 0usize..9, new in r#"\PC{0,5}|[\n;|&'"$-]{1,4}"#) {
        let (mut end, mut at) = ((at + len).min(HARBOR.len()), at);
        while !HARBOR.is_char_boundary(at) { at -= 1; }
        while !HARBOR.is_char_boundary(end) { end += 1; }
        let mut text = HARBOR.to_owned();
        text.replace_range(at..end, &new);
        if let Ok(Check::Pytest(run)) = read(&text, true) {
            let path = |word: &&String| word.starts_with('/');
            prop_assert!(run.args.iter().filter(path).all(|word| word.starts_with("/tests")), "{run:?}\n{text}");
        }
    }
}
