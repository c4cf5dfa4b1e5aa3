//! `launch` as a process: it says where it serves, answers, and ends in order when told to.

use openclaw_tests::{Launch, eventually};
use serde_json::{Value, json};

#[tokio::test]
async fn a_launched_node_answers_and_ends_with_0_on_sigterm() {
    let dir = tempfile::tempdir().expect("a folder can be made");
    let run = dir.path().join("run");
    let node =
        Launch::new("configs/personal-agent.toml", &run).set("actors.optimizer.batch_samples=1").start();
    let client = reqwest::Client::new();
    let body =
        json!({"model": "policy", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 16});
    let request = client.post(format!("{}/chat/completions", node.url)).json(&body);
    let answer: Value = request.send().await.expect("an answer").json().await.expect("JSON");
    let rated = json!({"id": answer["id"], "rating": "down"});
    let feedback = client.post(format!("{}/feedback", node.url)).json(&rated).send().await;
    assert_eq!(feedback.expect("an answer").status(), 200);
    // The rating becomes a version, and a folder; that is waited for by asking.
    let learnt = async || {
        let request = client.post(format!("{}/chat/completions", node.url)).json(&body);
        let answer: Value = request.send().await.expect("an answer").json().await.expect("JSON");
        answer["policy_version"] == 1
    };
    assert!(eventually(learnt).await.is_ok(), "{}", node.log());
    assert_eq!(node.stop().code(), Some(0));
    let kept = run.join("versions/1");
    let (_, flat) = openclaw_model::checkpoint::load(&kept).expect("the version is kept, whole");
    assert!(flat.iter().all(|value| value.is_finite()));
    let resolved = std::fs::read_to_string(run.join("topology.toml")).expect("the resolved copy");
    assert!(resolved.contains("batch_samples = 1"), "{resolved}");
}

#[test]
fn a_log_in_json_is_an_object_a_line_and_has_no_conversation_in_it() {
    let dir = tempfile::tempdir().expect("a folder can be made");
    let launch = Launch::new("configs/quickstart.toml", &dir.path().join("run"));
    let options = ["--log-format=json", "--exit-when-satisfied"];
    let node = options.iter().fold(launch, |launch, option| launch.option(option)).start();
    let log = node.log_to_the_end();
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    assert!(lines.iter().all(|line| line["timestamp"].is_string() && line["target"].is_string()), "{log}");
    let served = lines.iter().find(|line| line["message"] == "serving").expect("it served");
    assert!(served["level"] == "INFO" && served["gateway"].is_string(), "{served}");
    assert!(
        lines.iter().any(|line| line["message"] == "step completed" && line["loss"].is_number()),
        "{log}"
    );
    for said in ["baskets", "Please", "Thank"] {
        assert!(!log.contains(said), "{said:?} was said by somebody");
    }
}
