//! The whole loop as a user meets it: the embedded model behind the real HTTP API, judged, taught and published
//! while it serves.

use std::time::Duration;

use futures::StreamExt;
use openclaw_actors::rollout::Progress;
use openclaw_tests::{HostedNode, stream};
use serde_json::{Value, json};

/// Long enough for a busy machine; a test that needs it has failed.
const PATIENCE: Duration = Duration::from_secs(1200);

async fn start(sets: &[&str]) -> (HostedNode, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a folder can be made");
    (HostedNode::start("configs/quickstart.toml", &dir.path().join("run"), sets).await, dir)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_client_streams_through_twenty_versions_without_an_error() {
    let sets = ["actors.optimizer.batch_samples=1", "actors.rollout=[]", "method={ kind = \"binary_rl\" }"];
    let (node, _dir) = start(&sets).await;
    let (client, url) = (node.client.clone(), node.url.clone());
    let versions = node.view.versions.clone();
    let streaming = tokio::spawn(async move {
        let mut answered = 0;
        while versions.number() < 20 {
            let (named, finish) = stream(&client, &url, answered).await;
            assert!(named.windows(2).all(|pair| pair[0] == pair[1]), "one version per response: {named:?}");
            assert!(["stop", "length"].contains(&finish.as_str()), "{finish}");
            answered += 1;
        }
        answered
    });
    let mut asked = 0;
    while node.view.versions.number() < 20 {
        let question = json!([{"role": "user", "content": format!("What is {asked} + 2?")}]);
        let answer = node.ask(&format!("session-{asked}"), question).await;
        let id = answer["id"].as_str().expect("an id");
        node.rate(id, if asked % 2 == 0 { "down" } else { "up" }).await;
        asked += 1;
    }
    let answered = streaming.await.expect("no stream failed");
    assert!(answered > 0 && node.view.versions.number() >= 20);
    assert_eq!(node.supervisor.stop().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn simulated_users_are_satisfied_within_72_sessions_each() {
    let (mut node, _dir) = start(&[]).await;
    let mut open = node.view.users.clone();
    assert_eq!(open.len(), 3);
    let all = async {
        while !open.is_empty() {
            let report = node.view.sessions.recv().await.expect("the workers report until they are through");
            match report.progress {
                Progress::Open => {}
                Progress::Satisfied { sessions } => {
                    assert!((3..=72).contains(&sessions));
                    open.retain(|user| user.name != report.user);
                }
                Progress::Unsatisfied => panic!("{} gave up", report.user),
            }
        }
    };
    tokio::time::timeout(PATIENCE, all).await.expect("every user comes to an end");
    let totals = *node.view.journal.totals().borrow();
    assert!(totals.steps > 0 && totals.hinted > 0 && totals.rejected > 0 && totals.version > 0, "{totals:?}");
    assert_eq!(node.supervisor.stop().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_clients_get_wrong_is_told_and_the_server_stays_up() {
    let (node, _dir) = start(&["actors.rollout=[]"]).await;
    let chat = format!("{}/chat/completions", node.url);
    let post =
        |body: String| node.client.post(&chat).header("content-type", "application/json").body(body).send();
    let message = |content: &str| json!([{"role": "user", "content": content}]);
    let cases = [
        ("{\"model\": ".to_owned(), 400, "invalid_request_error"),
        (json!({"model": "policy", "messages": []}).to_string(), 400, "messages"),
        (
            json!({"model": "policy", "messages": message("x"), "temperature": "hot"}).to_string(),
            400,
            "temperature",
        ),
        (json!({"model": "gpt-9", "messages": message("x")}).to_string(), 404, "model_not_found"),
        (
            json!({"model": "policy", "messages": message(&"word ".repeat(100_000))}).to_string(),
            400,
            "context_length_exceeded",
        ),
        (json!({"model": "policy", "messages": message(&"x".repeat(10 << 20))}).to_string(), 413, "error"),
    ];
    for (body, status, named) in cases {
        let shown: String = body.chars().take(60).collect();
        let response = post(body).await.expect("an answer");
        assert_eq!(response.status(), status, "{shown}");
        let text = response.text().await.expect("text");
        let error: Value = serde_json::from_str(&text).expect("JSON");
        assert!(error["error"]["message"].is_string() && text.contains(named), "{shown}: {text}");
    }
    // A client that hangs up in the middle is none of the next one's business.
    let body = json!({"model": "policy", "messages": message("Tell me a story."), "stream": true});
    let mut hanging = node.client.post(&chat).json(&body).send().await.expect("an answer").bytes_stream();
    hanging.next().await;
    drop(hanging);
    let answer = node.ask("after", message("hello")).await;
    assert_eq!(answer["object"], "chat.completion");
    assert_eq!(node.supervisor.stop().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn clients_notice_nothing_of_a_gateway_and_a_policy_that_are_restarted_under_them() {
    let (node, _dir) = start(&["actors.rollout=[]"]).await;
    let talk = |number: usize| {
        let (client, url) = (node.client.clone(), node.url.clone());
        tokio::spawn(async move {
            for question in 0..4 {
                let (named, finish) = stream(&client, &url, 10 * number + question).await;
                assert!(["stop", "length"].contains(&finish.as_str()), "{finish}");
                assert!(!named.is_empty());
            }
        })
    };
    let talking: Vec<_> = (0..4).map(talk).collect();
    let mut turns = node.view.journal.totals();
    for restart in 1..=5 {
        turns.wait_for(|totals| totals.turns >= 2 * restart).await.expect("the journal lives");
        for name in ["gateway", "policy.0", "sessions"] {
            node.supervisor.restart(name, false).await.expect("it comes back");
        }
    }
    for talk in talking {
        talk.await.expect("every stream came to its end");
    }
    assert_eq!(turns.borrow().turns, 16);
    assert_eq!(node.supervisor.stop().await, Vec::<String>::new());
}
