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

/// A copy of the embedded model.
fn model_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/models/nano");
    for file in fs::read_dir(shipped).expect("the embedded model is there") {
        let file = file.expect("it can be listed").path();
        let name = file.file_name().expect("a file has a name");
        fs::copy(&file, folder.path().join(name)).expect("a file can be copied");
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
fn check_doctor_and_launch_refuse_a_broken_model_by_its_key_and_file() {
    let model = model_folder();
    let (path, run_dir) = (model.path(), tempfile::tempdir().expect("a folder can be made"));
    let run_dir = run_dir.path().join("run");
    let write = |file: &str, bytes: &[u8]| fs::write(path.join(file), bytes).expect("a file can be written");
    let weights = fs::read(path.join("model.safetensors")).expect("it was copied");
    write("model.safetensors", &weights[..weights.len() / 2]);
    write("chat_template.jinja", b"{% for message in messages %}");
    let set = format!("models.policy.path={}", path.display());
    let dir = format!("run.dir={}", run_dir.display());
    let with = |verb| run(&[verb, "configs/personal-agent.toml", "--set", &set, "--set", &dir]);
    for verb in ["check", "launch"] {
        let output = with(verb);
        assert_eq!(output.status.code(), Some(2), "{verb}");
        let (told, key) = (text(&output.stderr), "--set: models.policy.path: ");
        let lines: Vec<_> = told.lines().collect();
        assert!(lines.len() == 2 && lines.iter().all(|line| line.starts_with(key)), "{verb}: {told}");
        assert!(
            lines[0].contains("chat_template.jinja is unusable") && lines[1].contains("is truncated"),
            "{told}"
        );
    }
    assert!(!run_dir.exists(), "nothing is written for a model that cannot be opened");
    let output = with("doctor");
    assert_eq!(output.status.code(), Some(1));
    let told = text(&output.stdout);
    let failed: Vec<_> = told.lines().filter(|line| line.starts_with("FAIL  models.policy ")).collect();
    assert!(failed.len() == 2 && failed[1].contains("is truncated"), "{told}");
    assert!(told.contains("run.dir") && told.contains("disk"), "the rest is looked at all the same: {told}");

    write("model.safetensors", &weights);
    fs::copy("../configs/models/nano/chat_template.jinja", path.join("chat_template.jinja"))
        .expect("a file can be copied");
    let told = text(&with("doctor").stdout);
    let line = told.lines().find(|line| line.contains("models.policy ")).expect("a line for the model");
    assert!(
        line.starts_with("ok ") && line.contains("qwen3, 3.6 M parameters in BF16, 4096 tokens"),
        "{line}"
    );
}

#[test]
fn check_warns_of_what_is_probably_not_meant_and_ends_with_0() {
    let model = model_folder();
    let path = model.path().join("tokenizer_config.json");
    let mut config: serde_json::Value =
        serde_json::from_slice(&fs::read(&path).expect("it was copied")).expect("JSON");
    config["eos_token"] = serde_json::Value::Null;
    fs::write(&path, config.to_string()).expect("a file can be written");
    for file in ["config.json", "generation_config.json"] {
        let path = model.path().join(file);
        let mut config: serde_json::Value =
            serde_json::from_slice(&fs::read(&path).expect("it was copied")).expect("JSON");
        config.as_object_mut().expect("an object").remove("eos_token_id");
        fs::write(&path, config.to_string()).expect("a file can be written");
    }
    let set = format!("models.policy.path={}", model.path().display());
    let output = run(&["check", "configs/personal-agent.toml", "--set", &set]);
    assert_eq!(output.status.code(), Some(0));
    let told = text(&output.stderr);
    assert!(told.contains("warning: models.policy.path: no eos_token_id is named"), "{told}");
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
    for verb in ["check", "launch", "chat", "score", "pretrain"] {
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

#[test]
fn score_prints_the_logprobs_that_transformers_computes() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/qwen3/gqa4");
    let bytes = fs::read(folder.join("reference.safetensors")).expect("the reference is there");
    let reference = safetensors::SafeTensors::deserialize(&bytes).expect("the reference is safetensors");
    let words = |name: &str| -> Vec<[u8; 8]> {
        let data = reference.tensor(name).expect("the tensor is there").data().to_vec();
        data.chunks_exact(8).map(|word| word.try_into().expect("eight bytes")).collect()
    };
    let ids: Vec<i64> = words("ids").into_iter().map(i64::from_le_bytes).collect();
    let lengths: Vec<i64> = words("lengths").into_iter().map(i64::from_le_bytes).collect();
    let expected = reference.tensor("logprobs").expect("the tensor is there").data().to_vec();
    let mut expected =
        expected.chunks_exact(4).map(|x| f32::from_le_bytes(x.try_into().expect("four bytes")));

    let (mut start, mut requests) = (0, String::new());
    for length in &lengths {
        let end = start + *length as usize;
        requests += &format!("{{\"ids\": {:?}}}\n", &ids[start..end]);
        start = end;
    }
    let input = tempfile::NamedTempFile::new().expect("a file can be made");
    fs::write(input.path(), requests).expect("a file can be written");
    let (model, input) = (folder.to_string_lossy(), input.path().to_string_lossy().into_owned());
    let output = run(&["score", &model, &input, "--top-k", "2"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));

    let answers: Vec<serde_json::Value> = text(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).expect("the answer is JSON"))
        .collect();
    assert_eq!(answers.len(), lengths.len());
    for (answer, length) in answers.iter().zip(&lengths) {
        let logprobs = answer["logprobs"].as_array().expect("log-probs are an array");
        assert_eq!(logprobs.len(), *length as usize);
        assert!(logprobs[0].is_null() && answer["top_ids"][0].is_null());
        for (position, logprob) in logprobs.iter().enumerate().skip(1) {
            let (found, expected) = (logprob.as_f64().expect("a number"), expected.next().expect("one each"));
            assert!((found - f64::from(expected)).abs() < 1e-4, "{position}: {found} against {expected}");
            assert!(answer["top_logprobs"][position][0].as_f64() >= Some(found - 1e-6));
        }
    }
    assert!(expected.next().is_none());
}

#[test]
fn score_names_what_it_cannot_score_and_ends_with_1() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/qwen3/gqa4");
    let model = folder.to_string_lossy();
    let input = tempfile::NamedTempFile::new().expect("a file can be made");
    fs::write(input.path(), "{\"ids\": [1, 2]}\n{\"ids\": [1, 101]}\n").expect("a file can be written");
    let input = input.path().to_string_lossy();
    let output = run(&["score", &model, &input]);
    assert_eq!(output.status.code(), Some(1));
    let told = text(&output.stderr);
    assert_eq!(told, format!("openclaw-rl: {input}: line 2: id 101 is not below the vocabulary's 101\n"));

    let output = run(&["score", "configs/nowhere"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("configs/nowhere/config.json"), "{}", text(&output.stderr));
}

#[test]
fn cargo_run_means_this_binary_wherever_others_are_added() {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../runtime/Cargo.toml");
    let manifest: toml::Table =
        std::fs::read_to_string(manifest).expect("it is in the tree").parse().expect("a manifest");
    assert_eq!(manifest["package"]["default-run"].as_str(), Some("openclaw-rl"));
}
