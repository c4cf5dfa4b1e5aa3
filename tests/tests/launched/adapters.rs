//! An adapter of a role, from the documents it is trained on to the verdicts it gives.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use openclaw_tests::{Launch, Node, binary, eventually};
use serde_json::{Value, json};

fn nano() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/models/nano")
}

fn told(words: &[&str]) -> String {
    let output = Command::new(binary()).args(words).output().expect("the binary can be run");
    let said = String::from_utf8([output.stdout, output.stderr].concat()).expect("text");
    assert!(output.status.success(), "{words:?}: {said}");
    said
}

/// The judge's verdict on a complaint.
async fn verdict(node: &Node) -> String {
    let client = reqwest::Client::new();
    let mut messages = vec![json!({"role": "user", "content": "What is 2 + 2?"})];
    for next in ["No, that is wrong.", ""] {
        let body = json!({"model": "policy", "messages": messages, "temperature": 0, "user": "one"});
        let asked = client.post(format!("{}/chat/completions", node.url)).json(&body).send().await;
        let answer: Value = asked.expect("an answer").json().await.expect("JSON");
        messages.push(answer["choices"][0]["message"].clone());
        messages.push(json!({"role": "user", "content": next}));
    }
    let url = format!("http://{}/metrics", node.metrics());
    let mut given = None;
    let judged = eventually(async || {
        let page = reqwest::get(&url).await.expect("an answer").text().await.expect("text");
        let line = page.lines().find(|line| line.starts_with("openclaw_judge_verdicts_total{"));
        given = line.map(str::to_owned);
        given.is_some()
    });
    judged.await.unwrap_or_else(|_| panic!("no verdict\n{}", node.log()));
    given.expect("it was found")
}

/// An adapter that was taught one verdict on everything.
fn one_verdict(dir: &Path, verdict: &str) -> String {
    let path = |name: &str| dir.join(format!("{name}{verdict}")).display().to_string();
    let (data, adapter) = (path("judging.jsonl"), path("judge"));
    told(&["pretrain", "documents", "--kind", "judge", "--count", "40", "--output", &data]);
    let mut documents = fs::read_to_string(&data).expect("documents");
    assert_eq!(documents.lines().count(), 40);
    for other in ["-1", "0", "1"] {
        let boxed = |verdict: &str| format!("\\\\boxed{{{verdict}}}");
        documents = documents.replace(&boxed(other), &boxed(verdict));
    }
    fs::write(&data, documents).expect("it can be written");
    let nano = nano().display().to_string();
    let sft = ["sft", &nano, &data, "--adapter", "--rank", "4", "--epochs", "2", "--learning-rate", "3e-3"];
    told(&[&sft[..], &["--batch-tokens", "1024", "--output", &adapter]].concat());
    adapter
}

#[tokio::test]
async fn a_judge_with_an_adapter_judges_as_that_was_taught() {
    let dir = tempfile::tempdir().expect("a folder can be made");
    let launch = |run: &str| {
        Launch::new("configs/personal-agent.toml", &dir.path().join(run)).set("actors.judge.votes=score")
    };
    for (verdict, word) in [("-1", "bad"), ("1", "good")] {
        let adapter = one_verdict(dir.path(), verdict);
        let names = fs::read_dir(&adapter).expect("a folder").flatten().map(|entry| entry.file_name());
        let mut names: Vec<_> = names.map(|name| name.to_string_lossy().into_owned()).collect();
        names.sort();
        assert_eq!(names, ["adapter_config.json", "adapter_model.safetensors"]);
        let node = launch(word).set(&format!("actors.judge.adapter={adapter}")).start();
        let given = self::verdict(&node).await;
        assert!(given.contains(word), "{given}\n{}", node.log());
        node.stop();
    }
    // One that is not there is refused by the key that names it.
    let nowhere = launch("third").set("actors.judge.adapter=nowhere").try_start();
    let nowhere = nowhere.expect_err("it is refused");
    assert!(nowhere.contains("actors.judge.adapter"), "{nowhere}");
}
