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

/// Whoever talks says these; whoever reads the log must not find them.
const SAID: [&str; 5] = ["zanzibar", "quagga", "ocelot", "tapir", "okapi"];

#[tokio::test]
async fn secrets_are_in_no_log_line_and_conversations_in_none_above_debug() {
    const KEY: &str = "a-key-that-nobody-may-read";
    let dir = tempfile::tempdir().expect("a folder can be made");
    let run = dir.path().join("run");
    // A simulated user inside the node speaks with the key, too.
    let users = r#"[{environment="persona", personas=["student"], workers=1}]"#;
    let node = Launch::new("configs/quickstart.toml", &run)
        .set("actors.optimizer.batch_samples=1")
        .set("actors.gateway.api_key_env=NODE_KEY")
        .set(&format!("actors.rollout={users}"))
        .variable("NODE_KEY", KEY)
        .variable("RUST_LOG", "trace")
        .option("--log-format=json")
        .start();
    let client = reqwest::Client::new();
    let post = |path: &str, body: Value| {
        let request = client.post(format!("{}/{path}", node.url)).bearer_auth(KEY);
        request.header("X-Session-Id", "okapi").json(&body).send()
    };
    let [system, user, called, result, remark] = SAID.map(|word| format!("a {word} a day"));
    let messages = json!([
        {"role": "system", "content": system},
        {"role": "user", "content": user},
        {"role": "assistant", "content": null, "tool_calls": [
            {"id": "c", "type": "function", "function": {"name": "look", "arguments": json!({"at": called}).to_string()}}
        ]},
        {"role": "tool", "tool_call_id": "c", "content": result},
    ]);
    let body = json!({"model": "policy", "messages": messages, "max_tokens": 16});
    let answer = post("chat/completions", body.clone()).await.expect("an answer");
    assert_eq!(answer.status(), 200, "{}", node.log());
    let answer: Value = answer.json().await.expect("JSON");
    let feedback = json!({"id": answer["id"], "rating": "down", "text": remark});
    assert_eq!(post("feedback", feedback).await.expect("an answer").status(), 200);
    let mut wrong = body.clone();
    wrong["temperature"] = json!(user);
    assert_eq!(post("chat/completions", wrong).await.expect("an answer").status(), 400);
    // What was said of the reply has become weights: every role has had it in its hands.
    let learnt = async || {
        let answer = post("chat/completions", body.clone()).await.expect("an answer");
        answer.json::<Value>().await.expect("JSON")["policy_version"] != 0
    };
    assert!(eventually(learnt).await.is_ok());
    let token = std::fs::read_to_string(run.join("admin.token")).expect("the operator's port has a token");
    node.signal("TERM");
    let log = node.log_to_the_end();

    assert!(log.contains("\"TRACE\""), "it is told everything");
    for secret in [KEY, token.trim()] {
        let line = log.lines().find(|line| line.contains(secret));
        assert!(line.is_none(), "a secret: {line:?}");
    }
    let heard = |line: &&str| ["\"INFO\"", "\"WARN\"", "\"ERROR\""].iter().any(|level| line.contains(level));
    let heard: Vec<&str> = log.lines().filter(heard).collect();
    assert!(heard.iter().any(|line| line.contains("step completed")), "{}", heard.join("\n"));
    for word in SAID {
        let line = heard.iter().find(|line| line.contains(word));
        assert!(line.is_none(), "{word:?} was said by somebody: {line:?}");
    }
}
