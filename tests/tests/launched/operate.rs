//! The operator's verbs on a launched node, as a person types them.

use std::{
    path::Path,
    process::{Command, Output},
};

use openclaw_tests::{Launch, Node, binary, eventually};
use serde_json::{Value, json};

struct House {
    _dir: tempfile::TempDir,
    run: std::path::PathBuf,
    node: Node,
}

impl House {
    fn open() -> Self {
        Self::with(&[])
    }

    fn with(sets: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a folder can be made");
        let run = dir.path().join("run");
        let launch = Launch::new("configs/personal-agent.toml", &run).set("actors.sessions.settle_secs=0");
        let node = sets.iter().fold(launch, |launch, set| launch.set(set)).start();
        Self { _dir: dir, run, node }
    }

    fn type_in(&self, verb: &str) -> Output {
        let words: Vec<&str> = verb.split(' ').collect();
        operate(&words, &self.run)
    }

    /// What a verb that is done says.
    fn done(&self, verb: &str) -> String {
        let output = self.type_in(verb);
        assert_eq!(output.status.code(), Some(0), "{verb}: {}", text(&output.stderr));
        text(&output.stdout).trim_end().to_owned()
    }

    /// The exit code of one that is not, and what it says.
    fn refused(&self, verb: &str) -> (Option<i32>, String) {
        let output = self.type_in(verb);
        assert_eq!(text(&output.stdout), "", "{verb}");
        (output.status.code(), text(&output.stderr).trim_end().to_owned())
    }

    fn status(&self) -> Value {
        serde_json::from_str(&self.done("status --json")).expect("JSON")
    }

    fn version(&self) -> u64 {
        self.status()["version"].as_u64().expect("a number")
    }

    fn actors(&self) -> Vec<Value> {
        self.status()["actors"].as_array().expect("actors").clone()
    }

    fn actor(&self, name: &str) -> Option<Value> {
        self.actors().into_iter().find(|actor| actor["name"] == name)
    }
}

fn operate(words: &[&str], run: &Path) -> Output {
    let mut command = Command::new(binary());
    command.args(words).env_remove("RUST_LOG").env("OPENCLAW_RUN", run);
    command.output().expect("the binary can be run")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("the output is text")
}

/// Every key of it and within it.
fn keys(json: &Value) -> Vec<String> {
    match json {
        Value::Object(fields) => {
            fields.iter().flat_map(|(key, value)| [vec![key.clone()], keys(value)].concat()).collect()
        }
        Value::Array(items) => items.iter().flat_map(keys).collect(),
        _ => Vec::new(),
    }
}

#[tokio::test]
async fn an_operator_sees_and_moves_a_running_node() {
    let house = House::open();

    let help = text(&operate(&["status", "--help"], &house.run).stdout);
    let listed: Vec<&str> = help.split(|c: char| !c.is_ascii_lowercase() && c != '_').collect();
    for key in keys(&house.status()) {
        assert!(listed.contains(&key.as_str()), "{key} is not in the help:\n{help}");
    }

    let table = house.done("status");
    let first = table.lines().next().expect("a line");
    assert!(first.starts_with("personal-agent on local  version 0  "), "{table}");
    assert!(table.contains("\nNAME ") && table.contains("\ngateway ") && table.contains("0 of 64 requests"));
    assert!(house.actors().iter().all(|actor| actor["state"] == "running"), "{table}");

    assert_eq!(house.done("restart judge.0"), "judge.0 restarted");
    assert_eq!(house.actor("judge.0").expect("it is there")["restarts"], 1);
    assert_eq!(house.done("restart judge --drain"), "judge.0 restarted");
    assert_eq!(house.actor("judge.0").expect("it is there")["restarts"], 2);
    house.done("kill judge.0");
    let (code, told) = house.refused("restart jugde");
    assert_eq!(code, Some(4), "{told}");
    assert!(told.contains("(did you mean \"judge\"?)"), "{told}");

    for said in ["judge paused; `openclaw-rl resume judge` ends it", "judge is paused already"] {
        assert_eq!(house.done("pause judge"), said);
        // The kill above may still be on its way back.
        let back = async || house.actor("judge.0").expect("it is there")["state"] != "restarting";
        eventually(back).await.expect("it comes back");
        let judge = house.actor("judge.0").expect("it is there");
        assert_eq!((&judge["state"], &judge["inbox"]["paused"]), (&"paused".into(), &true.into()));
    }
    assert_eq!(house.done("resume judge"), "judge.0 resumed");
    assert_eq!(house.actor("judge.0").expect("it is there")["state"], "running");
    for pillar in ["gateway", "policy", "sessions"] {
        let (code, told) = house.refused(&format!("pause {pillar}"));
        assert_eq!(code, Some(5), "{told}");
        assert!(told.contains("cannot be paused") && told.contains("judge"), "{told}");
    }

    for said in ["judge: 1 -> 3", "judge: 3 already"] {
        assert_eq!(house.done("scale judge 3"), said);
        let judges = house.actors().into_iter().filter(|actor| actor["role"] == "judge").count();
        assert_eq!(judges, 3);
    }
    assert_eq!(house.refused("pause judge.1").0, Some(5), "they share an inbox");
    assert_eq!(house.done("scale judge 1"), "judge: 3 -> 1");
    assert!(house.actor("judge.0").is_some() && house.actor("judge.2").is_none());
    assert_eq!(house.refused("scale optimizer 2").0, Some(5));
    assert_eq!(house.refused("scale judge 0").0, Some(2));

    assert!(house.done("drain judge.0").starts_with("judge.0 drained"));
    assert_eq!(house.actor("judge.0").expect("it is there")["state"], "stopped");
    assert_eq!(house.done("resume judge.0"), "judge.0 resumed");
    assert_eq!(house.actor("judge.0").expect("it is there")["state"], "running");

    assert!(house.done("dead list").starts_with("TURN "));
    assert_eq!(house.refused("dead retry 77").0, Some(4));
    assert_eq!(house.done("dead retry --all"), "0 retried");
    assert!(house.done("versions").trim_start().starts_with("VERSION "));

    let audit: Vec<Value> = serde_json::from_str(&house.done("audit --json")).expect("JSON");
    let verbs: Vec<_> = audit.iter().map(|entry| entry["verb"].as_str().expect("text")).collect();
    assert_eq!(verbs[..4], ["restart", "restart", "kill", "restart"], "{audit:?}");
    let refused = audit[3]["outcome"].as_str().expect("text");
    assert!(audit[3]["target"] == "jugde" && refused.starts_with("refused: "), "{audit:?}");

    assert_eq!(house.done("stop"), "stopped");
    assert_eq!(house.node.wait().code(), Some(0));
    assert_eq!(operate(&["status"], &house.run).status.code(), Some(3));
}

#[tokio::test]
async fn a_node_that_does_not_learn_keeps_what_is_said_until_it_is_told_to() {
    let house = House::with(&["actors.optimizer.learns=false", "actors.optimizer.max_wait_secs=1"]);
    let optimizer = || house.actor("optimizer").expect("it is listed");
    assert_eq!(optimizer()["state"], "stopped");
    rate(&house).await;
    eventually(async || optimizer()["inbox"]["waiting"] == 1).await.expect("it waits to be learnt from");
    assert_eq!((house.version(), &optimizer()["state"]), (0, &"stopped".into()));

    assert_eq!(house.done("resume optimizer"), "optimizer resumed");
    eventually(async || house.version() == 1).await.expect("it is learnt from");
    assert_eq!(house.node.stop().code(), Some(0));
}

#[test]
fn a_second_node_does_not_take_the_folder_of_the_first() {
    let house = House::open();
    let log = Launch::new("configs/personal-agent.toml", &house.run).try_start().expect_err("it is taken");
    assert!(log.contains("a node is already running in"), "{log}");
    house.done("status");
    assert_eq!(house.done("stop --now"), "stopped");
    assert_eq!(house.node.wait().code(), Some(130));
    // What it left is not in the way.
    let again = Launch::new("configs/personal-agent.toml", &house.run).start();
    assert_eq!(again.stop().code(), Some(0));
}

#[test]
fn without_a_node_the_exit_code_is_3_and_the_way_to_one_is_told() {
    let dir = tempfile::tempdir().expect("a folder can be made");
    let output = operate(&["status"], dir.path());
    assert_eq!(output.status.code(), Some(3));
    let told = text(&output.stderr);
    assert!(told.contains("no node is running in") && told.contains("openclaw-rl launch FILE"), "{told}");

    let mut command = Command::new(binary());
    let output = command.arg("status").current_dir(dir.path()).env_remove("OPENCLAW_RUN").output();
    let output = output.expect("the binary can be run");
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output.stderr).contains("no node is running under runs"), "{}", text(&output.stderr));
}

#[test]
fn every_verb_shows_examples_and_wrong_usage_ends_with_2() {
    let dir = tempfile::tempdir().expect("a folder can be made");
    let verbs = [
        "status",
        "restart",
        "kill",
        "pause",
        "resume",
        "drain",
        "scale",
        "dead list",
        "dead show",
        "dead retry",
        "dead drop",
        "checkpoint",
        "rollback",
        "versions",
        "audit",
        "page",
        "stop",
    ];
    for verb in verbs {
        let words: Vec<&str> = verb.split(' ').chain(["--help"]).collect();
        let help = text(&operate(&words, dir.path()).stdout);
        let example = format!("  openclaw-rl {verb}");
        assert!(help.contains("Examples:") && help.contains(&example) && help.contains("--run"), "{help}");
    }
    for wrong in [&["restart"][..], &["scale", "judge"], &["rollback", "x"], &["dead", "retry"]] {
        assert_eq!(operate(wrong, dir.path()).status.code(), Some(2), "{wrong:?}");
    }
    let help = text(&operate(&["--help"], dir.path()).stdout);
    for code in 0..=5 {
        assert!(help.contains(&format!("\n  {code}    ")), "{help}");
    }
}

#[test]
fn the_doctor_finds_what_a_launch_would_trip_over() {
    let dir = tempfile::tempdir().expect("a folder can be made");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let run = format!("run.dir={}", dir.path().join("run").display());
    let type_in = |words: &[&str], sets: &[&str]| {
        let mut command = Command::new(binary());
        command.current_dir(&root).args(words).env_remove("RUST_LOG").args(["--set", &run]);
        for set in sets {
            command.args(["--set", set]);
        }
        command.output().expect("the binary can be run")
    };
    let free = [
        "actors.gateway.listen=127.0.0.1:0",
        "nodes.local.metrics=127.0.0.1:0",
        "nodes.local.admin=127.0.0.1:0",
    ];
    let doctor = ["doctor", "configs/personal-agent.toml"];

    let well = type_in(&doctor, &free);
    let told = text(&well.stdout);
    assert_eq!(well.status.code(), Some(0), "{told}");
    for line in ["ok    cpu ", "ok    gpu ", "ok    run.dir ", "ok    fits ", "ok    disk "] {
        assert!(told.lines().any(|told| told.starts_with(line)), "{line}: {told}");
    }
    assert!(!dir.path().join("run").exists(), "looking leaves nothing behind");

    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = taken.local_addr().expect("it has an address").to_string();
    let listen = format!("actors.gateway.listen={address}");
    let huge = "actors.policy.kv_tokens=1000000000";
    let ill = type_in(&doctor, &[&listen, free[1], free[2], huge, "actors.optimizer.keep_versions=65536"]);
    let told = text(&ill.stdout);
    assert_eq!(ill.status.code(), Some(1), "{told}");
    let failed: Vec<_> = told.lines().filter(|line| line.starts_with("FAIL")).collect();
    assert!(
        failed.iter().any(|line| line.contains("actors.gateway.listen") && line.contains(&address)),
        "{told}"
    );
    assert!(failed.iter().any(|line| line.contains("actors.policy.kv_tokens")), "{told}");

    let launched = type_in(&["launch", "configs/personal-agent.toml"], &[free[0], free[1], free[2], huge]);
    assert_eq!(launched.status.code(), Some(2));
    let told = text(&launched.stderr);
    assert!(told.contains("of memory and ") && told.contains("actors.policy.kv_tokens"), "{told}");
    assert!(!dir.path().join("run").exists(), "refused before anything is written");
}

#[test]
fn completions_and_manual_pages_know_the_verbs() {
    let dir = tempfile::tempdir().expect("a folder can be made");
    let printed = |words: &[&str]| {
        let output = operate(words, dir.path());
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    for shell in ["bash", "zsh", "fish"] {
        let script = printed(&["completions", shell]);
        assert!(script.contains("rollback") && script.contains("--drain") || shell == "fish", "{shell}");
    }
    assert!(printed(&["man"]).contains("openclaw\\-rl\\-restart"));
    let page = printed(&["man", "dead", "retry"]);
    assert!(page.contains("Gives them another try") && page.contains("Examples:"), "{page}");
    assert_eq!(operate(&["man", "restrat"], dir.path()).status.code(), Some(2));
}

/// Has the policy learn from one reply, and waits until its version serves.
async fn teach(house: &House, version: u64) {
    rate(house).await;
    // After a rollback, samples that were given back may make a further version at once.
    if eventually(async || house.version() >= version).await.is_err() {
        panic!("version {version} never came\n{}\n{}", house.done("status"), house.node.log());
    }
}

/// A reply, and a thumb down for it.
async fn rate(house: &House) {
    let client = reqwest::Client::new();
    let body =
        json!({"model": "policy", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 16});
    let request = client.post(format!("{}/chat/completions", house.node.url)).json(&body);
    let answer: Value = request.send().await.expect("an answer").json().await.expect("JSON");
    let rated = json!({"id": answer["id"], "rating": "down"});
    let feedback = client.post(format!("{}/feedback", house.node.url)).json(&rated).send().await;
    assert_eq!(feedback.expect("an answer").status(), 200);
}

#[tokio::test]
async fn what_was_learnt_is_kept_and_undone_at_the_operators_word() {
    let sets = ["actors.optimizer.batch_samples=1", "actors.optimizer.checkpoint_every_steps=100"];
    let house = House::with(&sets);
    assert_eq!(house.done("checkpoint"), "nothing is learnt yet");
    teach(&house, 1).await;
    let learning = house.status()["learning"].clone();
    let counts = ["steps", "withheld", "rejected"].map(|key| learning[key].as_u64());
    assert_eq!(counts, [Some(1), Some(0), Some(1)], "{learning}");
    let heard =
        json!([{"version": 0, "replies": 1, "approved": 0, "rejected": 1, "first": 1, "first_approved": 0}]);
    let is_told = async || house.status()["learning"]["versions"] == heard;
    assert!(eventually(is_told).await.is_ok(), "{}", house.status());
    let kept = |version: u64| {
        let rows: Vec<Value> = serde_json::from_str(&house.done("versions --json")).expect("JSON");
        let row = rows.iter().find(|row| row["version"] == version).expect("it is listed").clone();
        (row["state"].as_str().expect("text").to_owned(), row["kept"].as_bool().expect("a flag"))
    };
    assert_eq!(kept(1), ("current".to_owned(), false));
    for _ in 0..2 {
        assert_eq!(house.done("checkpoint"), "version 1 is on the disk");
    }
    assert_eq!(kept(1), ("current".to_owned(), true));
    assert!(house.run.join("versions/1").is_dir());
    teach(&house, 2).await;

    let (code, told) = house.refused("rollback 9");
    assert_eq!(code, Some(4), "{told}");
    assert!(told.contains("9") && told.contains("2"), "{told}");
    assert!(house.done("rollback 1").contains("from version 2 to 1"));
    assert!(house.done("rollback 1").contains("version 1"));
    assert_eq!(house.version(), 1);
    assert_eq!(house.refused("rollback 2").0, Some(5), "it lived in memory alone");
    assert!(house.done("rollback 0").contains("from version 1 to 0"));
    assert_eq!(house.version(), 0);
    // Numbers only grow.
    teach(&house, 3).await;
    assert_eq!(house.done("stop"), "stopped");
}
