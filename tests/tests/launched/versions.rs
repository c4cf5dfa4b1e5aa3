//! Versions over the life of a run: kept, returned to, resumed after `kill -9`, found torn, and set aside.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use openclaw_tests::{Launch, Node, binary, eventually};
use serde_json::{Value, json};

/// Talks to a node.
struct Client(reqwest::Client);

impl Client {
    async fn ask(&self, node: &Node) -> Value {
        let body =
            json!({"model": "policy", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 16});
        let request = self.0.post(format!("{}/chat/completions", node.url)).json(&body);
        request.send().await.expect("an answer").json().await.expect("JSON")
    }

    async fn version(&self, node: &Node) -> u64 {
        self.ask(node).await["policy_version"].as_u64().expect("a number")
    }

    async fn serves(&self, node: &Node, version: u64) {
        if eventually(async || self.version(node).await == version).await.is_err() {
            panic!("version {version} never answered\n{}", node.log());
        }
    }

    /// Rates an answer, and asks until `version` answers.
    async fn teach(&self, node: &Node, version: u64) {
        let rated = json!({"id": self.ask(node).await["id"], "rating": "down"});
        let feedback = self.0.post(format!("{}/feedback", node.url)).json(&rated).send().await;
        assert_eq!(feedback.expect("an answer").status(), 200);
        self.serves(node, version).await;
    }
}

/// The exit code of a verb, and what it says.
fn operate(run: &Path, words: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(binary());
    let output = command.args(words).env_remove("RUST_LOG").env("OPENCLAW_RUN", run).output();
    let output = output.expect("the binary can be run");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).expect("text").trim_end().to_owned())
}

/// Whatever lies in a folder that others than its owner may read.
fn open_to_others(dir: &Path) -> Vec<PathBuf> {
    let mode = |path: &Path| std::fs::symlink_metadata(path).expect("it is there").permissions().mode();
    let mut found = Vec::new();
    let mut waiting = vec![dir.to_owned()];
    while let Some(path) = waiting.pop() {
        if mode(&path) & 0o077 != 0 {
            found.push(path.clone());
        }
        if path.is_dir() {
            let entries = std::fs::read_dir(&path).expect("a folder");
            waiting.extend(entries.map(|entry| entry.expect("an entry").path()));
        }
    }
    found
}

#[tokio::test]
async fn versions_only_grow_unless_an_operator_goes_back() {
    let dir = tempfile::tempdir().expect("a folder can be made");
    let run = dir.path().join("run");
    let launch = Launch::new("configs/personal-agent.toml", &run)
        .set("actors.sessions.settle_secs=0")
        .set("actors.optimizer.batch_samples=1");
    let client = Client(reqwest::Client::new());

    let node = launch.start();
    assert_eq!(operate(&run, &["checkpoint"]), (Some(0), "nothing is learnt yet".to_owned()));
    client.teach(&node, 1).await;
    client.teach(&node, 2).await;
    assert_eq!(open_to_others(&run), Vec::<PathBuf>::new(), "what people said is the owner's");
    for _ in 0..2 {
        assert_eq!(operate(&run, &["checkpoint"]), (Some(0), "version 2 is on the disk".to_owned()));
    }
    let (code, said) = operate(&run, &["rollback", "9"]);
    assert_eq!((code, said.contains("version 9 is unknown; the newest is 2")), (Some(4), true), "{said}");
    let (code, said) = operate(&run, &["rollback", "1"]);
    assert_eq!((code, said.starts_with("from version 2 to 1")), (Some(0), true), "{said}");
    client.serves(&node, 1).await;
    node.kill();

    // As an earlier version of this binary left its files.
    for open in ["journal.db", "versions/1/model.safetensors"] {
        let mode = std::fs::Permissions::from_mode(0o644);
        std::fs::set_permissions(run.join(open), mode).expect("it can be opened to others");
    }
    let node = launch.start();
    assert_eq!(open_to_others(&run), Vec::<PathBuf>::new(), "what was there before, too");
    assert_eq!(client.version(&node).await, 1, "the way back is kept too");
    client.teach(&node, 3).await;
    node.kill();

    let node = launch.start();
    assert_eq!(client.version(&node).await, 3);
    node.kill();
    let torn = run.join("versions/3/optimizer.safetensors");
    std::fs::write(&torn, "half").expect("the file can be written");

    let node = launch.start();
    assert_eq!(client.version(&node).await, 4, "older weights under a higher number");
    assert!(node.log().contains("optimizer.safetensors is torn"), "{}", node.log());
    // What version 3 had learnt is learnt again.
    client.serves(&node, 5).await;
    assert_eq!(node.stop().code(), Some(0));

    let node = launch.option("--fresh").start();
    assert_eq!(client.version(&node).await, 0);
    assert_eq!(node.stop().code(), Some(0));
    assert!(dir.path().join("run.1/versions/5/model.safetensors").exists(), "nothing is deleted");
}

#[tokio::test]
async fn with_an_adapter_a_version_is_the_adapter_alone() {
    let dir = tempfile::tempdir().expect("a folder can be made");
    let run = dir.path().join("run");
    let launch = Launch::new("configs/personal-agent.toml", &run)
        .set("actors.sessions.settle_secs=0")
        .set("actors.optimizer.batch_samples=1")
        .set("models.policy.adapter={ rank = 4, alpha = 8.0 }");
    let client = Client(reqwest::Client::new());
    let files = |version: u64| {
        let folder = run.join("versions").join(version.to_string());
        let entries = std::fs::read_dir(&folder).expect("the version's folder");
        let mut names: Vec<String> = entries
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    };

    let node = launch.start();
    client.teach(&node, 1).await;
    client.teach(&node, 2).await;
    let adapter = ["adapter_config.json", "adapter_model.safetensors"];
    assert_eq!(files(2), [&adapter[..], &["optimizer.safetensors", "version.json"]].concat());
    let bytes = |path: PathBuf| std::fs::metadata(path).expect("a file").len();
    let model = bytes(PathBuf::from("../configs/models/nano/model.safetensors"));
    assert!(bytes(run.join("versions/2").join(adapter[1])) < model / 10);
    let (code, said) = operate(&run, &["rollback", "1"]);
    assert_eq!(code, Some(0), "{said}");
    client.serves(&node, 1).await;
    client.teach(&node, 3).await;
    node.kill();

    let node = launch.start();
    assert_eq!(client.version(&node).await, 3, "{}", node.log());
    client.teach(&node, 4).await;
    node.kill();

    // For other tools: as it is, and merged into its base.
    let out = |name: &str| dir.path().join(name).display().to_string();
    let (code, said) = operate(&run, &["export", "model", "--version", "4", "--out", &out("adapter")]);
    assert!(code == Some(0) && said.starts_with("version 4, an adapter, to"), "{said}");
    let (code, said) = operate(&run, &["export", "model", "--merge", "--out", &out("merged")]);
    assert!(code == Some(0) && said.starts_with("version 4, merged into its base, to"), "{said}");
    let (config, merged) =
        openclaw_model::checkpoint::load(&dir.path().join("merged")).expect("a checkpoint");
    let (layout, _) = openclaw_model::load_adapter(&dir.path().join("adapter"), &config).expect("an adapter");
    let base = openclaw_model::checkpoint::load(Path::new("../configs/models/nano")).expect("the base").1;
    assert_eq!((layout.config.rank, merged.len()), (4, base.len()));
    assert!(merged != base);
    let (code, said) = operate(&run, &["export", "model", "--version", "9", "--out", &out("nine")]);
    assert!(code != Some(0) && said.contains("version 9 is not kept"), "{said}");

    // What was learnt is of this adapter.
    let dir = format!("run.dir={}", run.display());
    let refused =
        ["launch", "configs/personal-agent.toml", "--set", &dir, "--set", "models.policy.adapter=none"];
    let mut command = Command::new(binary());
    let output = command.current_dir("..").args(refused).output().expect("the binary can be run");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("trains an adapter (rank 4, alpha 8"), "{said}");
}
