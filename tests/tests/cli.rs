//! The command line as a user meets it: exit codes, and what is printed where.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use openclaw_tests::binary;

fn run(args: &[&str]) -> Output {
    // Paths in shipped topologies are relative to the root of the tree.
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut command = Command::new(binary());
    command.args(args).current_dir(root).env_remove("OPENCLAW_API_KEY").env_remove("RUST_LOG");
    command.output().expect("the binary can be run")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("the output is text")
}

fn model_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder can be made");
    for file in ["config.json", "tokenizer.json", "model.safetensors"] {
        fs::write(folder.path().join(file), "").expect("a file can be written");
    }
    folder
}

#[test]
fn check_says_ok_and_ends_with_0() {
    let model = model_folder();
    let set = format!("models.policy.path={}", model.path().display());
    let output = run(&["check", "configs/personal-agent.toml", "--set", &set]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "configs/personal-agent.toml: ok\n");
}

#[test]
fn check_tells_every_problem_on_a_line_of_its_own_and_ends_with_2() {
    let sets =
        ["actors.judge.model=polcy", "actors.judge.votse=5", "models.policy.path=nowhere", "run.seed=x"];
    let mut args = vec!["check", "configs/personal-agent.toml"];
    sets.iter().for_each(|set| args.extend(["--set", set]));
    let output = run(&args);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(text(&output.stdout), "");
    let mut told: Vec<_> = text(&output.stderr).lines().map(str::to_owned).collect();
    told.sort();
    assert_eq!(
        told,
        [
            "--set: actors.judge.model: no model named \"polcy\" under [models] (did you mean \"policy\"?)",
            "--set: actors.judge.votse: unknown key (did you mean \"votes\"?)",
            "--set: models.policy.path: nowhere is not a folder",
            "--set: run.seed: expected a whole number from 0, found the string \"x\"",
        ]
    );
}

#[test]
fn a_file_that_is_not_there_is_named_with_the_reason_and_ends_with_2() {
    for verb in ["check", "launch"] {
        let output = run(&[verb, "configs/nothing.toml"]);
        assert_eq!(output.status.code(), Some(2));
        let told = text(&output.stderr);
        assert!(told.starts_with("openclaw-rl: cannot read configs/nothing.toml: "), "{told}");
        assert_eq!(told.lines().count(), 1, "{told}");
    }
}

#[test]
fn a_node_that_the_topology_does_not_name_ends_with_2() {
    let model = model_folder();
    let run_dir = tempfile::tempdir().expect("a folder can be made");
    let path = format!("models.policy.path={}", model.path().display());
    let dir = format!("run.dir={}", run_dir.path().join("run").display());
    let args = ["launch", "configs/personal-agent.toml", "--node", "locl", "--set", &path, "--set", &dir];
    let output = run(&args);
    assert_eq!(output.status.code(), Some(2));
    let told = text(&output.stderr);
    assert_eq!(told, "openclaw-rl: no node named \"locl\" under [nodes] (did you mean \"local\"?)\n");
    assert!(!run_dir.path().join("run").exists(), "nothing is written for a node that is not there");
}

#[test]
fn wrong_usage_ends_with_2_and_help_tells_exit_codes_and_examples() {
    for wrong in
        [&["chekc"][..], &["check"], &["check", "f", "--set", "no-value"], &["launch", "f", "--nod", "x"]]
    {
        assert_eq!(run(wrong).status.code(), Some(2), "{wrong:?}");
    }
    let help = run(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    assert!(text(&help.stdout).contains("Exit codes:"));
    for verb in ["check", "launch", "chat"] {
        let help = text(&run(&[verb, "--help"]).stdout);
        assert!(help.contains(&format!("openclaw-rl {verb}")) && help.contains("Examples:"), "{help}");
    }
}

#[test]
fn a_chat_without_a_gateway_ends_with_1_and_names_the_address() {
    // A port that was free a moment ago, and that nobody listens on.
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let url = format!("http://{}/v1", free.expect("a port is free"));
    let output = run(&["chat", "--url", &url]);
    assert_eq!(output.status.code(), Some(1));
    let told = text(&output.stderr);
    assert!(told.starts_with("openclaw-rl: cannot reach the gateway: ") && told.contains(&url), "{told}");
    assert_eq!(told.lines().count(), 1, "{told}");
}
