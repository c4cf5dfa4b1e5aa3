//! What is shipped for OpenClaw: the provider block fits the shipped topology and model, the plugin says what was
//! recorded, and `doctor` sees whether both are wired.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use openclaw_model::ModelConfig;
use openclaw_runtime::topology::Topology;
use openclaw_tests::binary;
use serde_json::{Value, json};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the tree is there")
}

fn shipped() -> Value {
    let text = fs::read_to_string(root().join("configs/openclaw/provider.json")).expect("it is shipped");
    serde_json::from_str(&text).expect("it is JSON")
}

#[test]
fn the_provider_block_fits_the_shipped_topology_and_model() {
    let topology = Topology::load(&root().join("configs/personal-agent.toml"), &[]).expect("it can be read");
    let config = shipped();
    let provider = &config["models"]["providers"]["openclaw-rl"];
    let model = &provider["models"][0];
    assert_eq!(provider["baseUrl"], format!("http://{}/v1", topology.actors.gateway.listen));
    assert_eq!(model["id"], topology.actors.gateway.served_model);
    assert_eq!(
        config["agents"]["defaults"]["model"]["primary"],
        format!("openclaw-rl/{}", model["id"].as_str().unwrap())
    );
    let policy = &topology.actors.policy;
    let shape =
        ModelConfig::from_dir(&root().join(&topology.models[&policy.model].path)).expect("it is shipped");
    assert_eq!(model["contextWindow"], shape.max_positions);
    assert_eq!(model["maxTokens"], policy.max_new_tokens);
}

#[test]
fn the_plugin_sends_what_was_recorded() {
    let tests = ["plugin.test.mjs"].map(|file| root().join("configs/openclaw/tests").join(file));
    let Ok(output) = Command::new("node").arg("--test").args(tests).output() else {
        assert!(std::env::var_os("OPENCLAW_REQUIRE_ALL").is_none(), "node is missing");
        eprintln!("skipped: node is missing");
        return;
    };
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_doctor_sees_how_openclaw_is_wired() {
    let home = tempfile::tempdir().expect("a folder can be made");
    let doctor = |words: &[&str]| -> Vec<String> {
        let mut command = Command::new(binary());
        command.current_dir(root()).arg("doctor").args(words).env("HOME", home.path());
        for variable in ["OPENCLAW_HOME", "OPENCLAW_STATE_DIR", "OPENCLAW_CONFIG_PATH"] {
            command.env_remove(variable);
        }
        let Output { stdout, .. } = command.output().expect("the binary can be run");
        let lines = String::from_utf8(stdout).expect("it is text");
        lines.lines().filter(|line| line.contains("  openclaw  ")).map(str::to_owned).collect()
    };
    let file = ["configs/personal-agent.toml"];
    for words in [&file[..], &[]] {
        let told = doctor(words);
        let is_said = told.len() == 1 && told[0].starts_with("ok ") && told[0].contains("not installed");
        assert!(is_said, "there is no OpenClaw, which is no fault: {told:#?}");
    }

    let put = |config: &Value| {
        let path = home.path().join(".openclaw/openclaw.json");
        fs::create_dir_all(path.parent().expect("it has a folder")).expect("it can be made");
        fs::write(path, format!("// by hand\n{config:#}")).expect("it can be written");
    };
    let mut config = shipped();
    put(&config);
    let told = doctor(&file);
    assert!(told[0].starts_with("ok ") && told[1].starts_with("warn"), "{told:#?}");
    assert!(told[1].contains("openclaw plugins install"), "{told:#?}");

    config["plugins"] = json!({"load": {"paths": [root().join("configs/openclaw/plugin")]}});
    put(&config);
    for words in [&file[..], &[]] {
        let told = doctor(words);
        assert!(told.len() == 2 && told.iter().all(|line| line.starts_with("ok ")), "{told:#?}");
    }
    let moved = ["configs/personal-agent.toml", "--set", "actors.gateway.listen=127.0.0.1:31999"];
    let told = doctor(&moved);
    assert!(told[0].starts_with("warn") && told[0].contains("http://127.0.0.1:31999/v1"), "{told:#?}");
}
