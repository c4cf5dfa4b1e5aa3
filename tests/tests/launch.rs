//! `launch` as a process: it says where it serves, answers, and ends in order when told to.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use openclaw_tests::binary;
use serde_json::{Value, json};

fn launch(run_dir: &Path, extra: &[&str]) -> (Child, String) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut command = Command::new(binary());
    command.current_dir(root).env_remove("RUST_LOG").args(["launch", "configs/personal-agent.toml"]);
    let run = format!("run.dir={}", run_dir.display());
    for set in [run.as_str(), "actors.gateway.listen=127.0.0.1:0", "nodes.local.metrics=127.0.0.1:0"] {
        command.args(["--set", set]);
    }
    command.args(extra);
    let mut child = command.stderr(Stdio::piped()).spawn().expect("the binary can be run");
    let lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
    let (tell, told) = std::sync::mpsc::channel();
    // Read to the end, so that the process never waits for a reader.
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            if let Some((_, url)) = line.split_once("gateway=").filter(|_| line.contains("serving")) {
                // The receiver is gone once it knows.
                let _ = tell.send(url.trim().to_owned());
            }
        }
    });
    let url = told.recv().expect("it says where it serves before it ends");
    (child, url)
}

fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status();
    assert!(status.expect("kill is there").success());
}

#[tokio::test]
async fn a_launched_node_answers_and_ends_with_0_on_sigterm() {
    let dir = tempfile::tempdir().expect("a folder can be made");
    let run = dir.path().join("run");
    let (mut child, url) = launch(&run, &["--set", "actors.optimizer.batch_samples=1"]);
    let client = reqwest::Client::new();
    let body =
        json!({"model": "policy", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 16});
    let request = client.post(format!("{url}/chat/completions")).json(&body);
    let answer: Value = request.send().await.expect("an answer").json().await.expect("JSON");
    let rated = json!({"id": answer["id"], "rating": "down"});
    let feedback = client.post(format!("{url}/feedback")).json(&rated).send().await.expect("an answer");
    assert_eq!(feedback.status(), 200);
    // The rating becomes a version, and a folder; that is waited for by asking.
    loop {
        let request = client.post(format!("{url}/chat/completions")).json(&body);
        let answer: Value = request.send().await.expect("an answer").json().await.expect("JSON");
        if answer["policy_version"] == 1 {
            break;
        }
    }
    signal(&child, "TERM");
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
    let kept = run.join("versions/1");
    let (_, flat) = openclaw_model::checkpoint::load(&kept).expect("the version is kept, whole");
    assert!(flat.iter().all(|value| value.is_finite()));
    let resolved = std::fs::read_to_string(run.join("topology.toml")).expect("the resolved copy");
    assert!(resolved.contains("batch_samples = 1"), "{resolved}");
}
