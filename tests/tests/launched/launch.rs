//! `launch` as a process: it says where it serves, answers, and ends in order when told to.

use std::{ffi::OsStr, path::Path};

use openclaw_tests::{Launch, Terminal, binary, eventually};
use serde_json::{Value, json};

#[tokio::test]
async fn a_launched_node_answers_and_ends_with_0_on_sigterm() {
    let dir = tempfile::tempdir().expect("a folder can be made");
    let run = dir.path().join("run");
    let node = Launch::new("configs/personal-agent.toml", &run)
        .set("actors.optimizer.batch_samples=1")
        // Nobody says why.
        .set("actors.sessions.settle_secs=0")
        .start();
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
    let users = r#"[{environment="users", workers=1}]"#;
    let node = Launch::new("configs/quickstart.toml", &run)
        .set("actors.optimizer.batch_samples=1")
        .set("actors.gateway.api_key_env=NODE_KEY")
        .set(r#"environments.users.personas=["student"]"#)
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

/// A terminal of 80 columns on which this topology is launched from the root of the tree, and its own ports.
fn on_a_terminal(file: &str, run: &Path, more: &[&str]) -> Terminal {
    let dir = format!("run.dir={}", run.display());
    let sets = [
        &dir,
        "actors.gateway.listen=127.0.0.1:0",
        "nodes.local.metrics=127.0.0.1:0",
        "nodes.local.admin=127.0.0.1:0",
    ];
    let words = ["launch", file].into_iter().chain(sets.into_iter().flat_map(|set| ["--set", set]));
    let words: Vec<&str> = words.chain(more.iter().copied()).collect();
    // Paths in shipped topologies are relative to the root.
    let shell = format!("cd \"$ROOT\" && unset RUST_LOG && exec \"$BIN\" {}", words.join(" "));
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let binary = binary();
    let variables: [(&str, &OsStr); 2] = [("ROOT", root.as_os_str()), ("BIN", binary.as_os_str())];
    Terminal::start(Path::new("/bin/sh"), &["-c", &shell], &variables, (80, 50))
}

#[tokio::test]
async fn a_person_at_a_terminal_reads_where_it_serves_who_is_content_and_what_to_type() {
    let dir = tempfile::tempdir().expect("a folder can be made");
    let run = dir.path().join("run");
    let mut terminal = on_a_terminal("configs/quickstart.toml", &run, &[]);
    terminal.shows("where it serves", |text| text.contains("serves  http://127.0.0.1:")).await;
    let first = terminal.text();
    assert!(first.starts_with("openclaw-rl: quickstart\n  model   configs/models/nano on cpu\n"), "{first}");
    assert!(first.contains("Three simulated users talk to it now: student, ta and teacher."), "{first}");
    // As long as its conversations take, on a machine that has other work.
    for _ in 0..5 {
        if eventually(async || terminal.text().contains("All three are content: ")).await.is_ok() {
            break;
        }
    }
    // Lines above the bars have them drawn anew: between the two they are away.
    let whole = |text: &str| text.contains("Ctrl-C stops it. Launched again") && text.contains("judged: ");
    terminal.shows("what to type", whole).await;
    let last = terminal.text();
    let typed = ["openclaw-rl chat", "openclaw-rl page", "openclaw-rl launch configs/personal-agent.toml"];
    for part in ["before, version ", "now, version ", "judged: ", " asked:"].into_iter().chain(typed) {
        assert!(last.contains(part), "{part}: {last}");
    }
    let through = |text: &str| !text.contains("in a row of 3") && !text.contains("student  content");
    terminal.shows("that nobody is waited for", through).await;
    for noise in ["INFO", "actor=", "stopped"] {
        assert!(!last.contains(noise), "{noise}: {last}");
    }
    terminal.type_in("\u{3}");
    assert_eq!(terminal.exit_code().await, 0);
    let end = terminal.text();
    assert!(end.contains("Stopped. Version ") && !end.contains("tokens/s"), "{end}");

    // Launched again under other keys, it says so.
    let mut terminal = on_a_terminal("configs/personal-agent.toml", &run, &["--set", "actors.judge.votes=1"]);
    terminal.shows("that it goes on", |text| text.contains("(it goes on: version ")).await;
    let told = terminal.text();
    assert!(told.contains("actors.optimizer.batch_samples was 16, is 2"), "{told}");
    assert!(told.contains("Nobody talks to it yet"), "{told}");
    terminal.type_in("\u{3}");
    assert_eq!(terminal.exit_code().await, 0);
}
