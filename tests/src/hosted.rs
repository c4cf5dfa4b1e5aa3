//! A node within the test's own process: its journal, its versions and its supervisor can be looked at.

use std::path::Path;

use futures::StreamExt;
use openclaw_runtime::{
    supervisor::Supervisor,
    topology::{Override, Topology},
    wiring::{self, View},
};
use serde_json::{Value, json};

/// A node that serves.
pub struct HostedNode {
    /// Its actors.
    pub supervisor: Supervisor,
    /// What can be watched.
    pub view: View,
    /// Where clients connect: `http://host:port/v1`.
    pub url: String,
    /// A client.
    pub client: reqwest::Client,
}

impl HostedNode {
    /// Starts `file`, relative to the root of the tree, on free ports; everything the run writes goes to `run_dir`.
    pub async fn start(file: &str, run_dir: &Path, sets: &[&str]) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut overrides: Vec<Override> = [
            format!("run.dir={}", run_dir.display()),
            format!("models.policy.path={}", root.join("configs/models/nano").display()),
            "actors.gateway.listen=127.0.0.1:0".to_owned(),
            "nodes.local.metrics=127.0.0.1:0".to_owned(),
        ]
        .iter()
        .map(|set| set.parse().expect("an override"))
        .collect();
        overrides.extend(sets.iter().map(|set| set.parse::<Override>().expect("an override")));
        let topology = Topology::load_for_launch(&root.join(file), &overrides).expect("a valid topology");
        let (_, node) = topology.node(None).expect("one node");
        let wiring::Wiring { specs, mut view, .. } =
            wiring::wire(&topology, node).await.expect("it can be wired");
        let supervisor = Supervisor::start(specs).await.expect("every actor starts");
        let address = view.gateway.wait_for(Option::is_some).await.expect("the gateway lives").expect("some");
        Self { supervisor, view, url: format!("http://{address}/v1"), client: reqwest::Client::new() }
    }

    /// A short answer in a session.
    pub async fn ask(&self, session: &str, messages: Value) -> Value {
        let body = json!({"model": "policy", "messages": messages, "max_tokens": 24});
        let request = self.client.post(format!("{}/chat/completions", self.url));
        let response = request.header("x-session-id", session).json(&body).send().await.expect("an answer");
        assert_eq!(response.status(), 200);
        response.json().await.expect("JSON")
    }

    /// `up` or `down` on an answer.
    pub async fn rate(&self, id: &str, rating: &str) {
        let body = json!({"id": id, "rating": rating});
        let response = self.client.post(format!("{}/feedback", self.url)).json(&body).send().await;
        assert_eq!(response.expect("an answer").status(), 200);
    }
}

/// Streams an answer to its end: the versions that its chunks name, and its finish reason.
pub async fn stream(client: &reqwest::Client, url: &str, number: usize) -> (Vec<u64>, String) {
    let body = json!({
        "model": "policy",
        "messages": [{"role": "user", "content": format!("Please solve my homework: {number} + 7 = ?")}],
        "max_tokens": 64,
        "stream": true,
    });
    let request = client.post(format!("{url}/chat/completions")).header("x-turn-type", "side").json(&body);
    let response = request.send().await.expect("an answer");
    assert_eq!(response.status(), 200);
    let mut text = String::new();
    let mut bytes = response.bytes_stream();
    while let Some(chunk) = bytes.next().await {
        text.push_str(&String::from_utf8_lossy(&chunk.expect("the stream is not cut")));
    }
    let events: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    assert_eq!(events.last(), Some(&"[DONE]"), "{text}");
    let chunks: Vec<Value> =
        events[..events.len() - 1].iter().map(|event| serde_json::from_str(event).expect("JSON")).collect();
    let versions = chunks.iter().map(|chunk| chunk["policy_version"].as_u64().expect("a version")).collect();
    let finish = chunks.iter().find_map(|chunk| chunk["choices"][0]["finish_reason"].as_str());
    (versions, finish.expect("a finish reason").to_owned())
}
