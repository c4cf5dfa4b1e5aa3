//! A node whose disk is full: clients are told, and what they were answered is in the journal after a stop and another
//! launch, or is named by the node that could keep it nowhere.

use std::path::Path;

use openclaw_tests::{Launch, Ledger};
use serde_json::{Value, json};

/// No file of the node may grow beyond this: more than its journal needs to begin, less than the talk below.
const FILE_KIB: u32 = 512;

fn launch(run: &Path) -> Launch {
    Launch::new("configs/quickstart.toml", run)
        .set("actors.rollout=[]")
        // Nothing is learnt: a version would be larger than a file may be.
        .set("actors.optimizer.batch_samples=65536")
        .set("actors.optimizer.max_wait_secs=604800")
        .set("journal.stop_wait_secs=1")
}

/// Talks until the journal fails, and a little on: the ids of all that was answered.
async fn talk(url: &str) -> Vec<String> {
    let client = reqwest::Client::new();
    let (mut ids, mut unrecorded) = (Vec::new(), 0);
    while unrecorded < 3 {
        let words = "so be it. ".repeat(300);
        let say = json!([{"role": "user", "content": format!("{}: {words}", ids.len())}]);
        let body = json!({"model": "policy", "messages": say, "max_tokens": 1});
        let answer =
            client.post(format!("{url}/chat/completions")).json(&body).send().await.expect("an answer");
        assert_eq!(answer.status(), 200);
        unrecorded += u32::from(answer.headers().contains_key("x-journal"));
        let answer: Value = answer.json().await.expect("JSON");
        ids.push(answer["id"].as_str().expect("an id").to_owned());
    }
    let health: Value = client
        .get(url.replace("/v1", "/health"))
        .send()
        .await
        .expect("an answer")
        .json()
        .await
        .expect("JSON");
    assert_eq!(health["status"], "degraded");
    ids
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_while_the_disk_is_full_loses_nothing_that_was_answered() {
    let dir = tempfile::tempdir().expect("a folder can be made");
    let (run, spill) = (dir.path().join("run"), dir.path().join("spill"));
    std::fs::create_dir(&spill).expect("a folder");
    let launch = || launch(&run).set(&format!("journal.spill={}", spill.display()));
    let node = launch().with_files_up_to(FILE_KIB).start();
    let ids = talk(&node.url).await;
    assert_eq!(node.stop().code(), Some(0), "it could put them elsewhere");
    assert_ne!(Ledger::open(&run).missing(&ids), Vec::<String>::new(), "the disk was full");

    let node = launch().start();
    assert_eq!(Ledger::open(&run).missing(&ids), Vec::<String>::new());
    assert_eq!(std::fs::read_dir(&spill).expect("a folder").count(), 0, "they are taken up once");
    assert_eq!(node.stop().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_can_be_put_nowhere_are_named_and_the_node_fails() {
    let dir = tempfile::tempdir().expect("a folder can be made");
    let (run, nowhere) = (dir.path().join("run"), dir.path().join("nowhere"));
    let launch = launch(&run).set(&format!("journal.spill={}", nowhere.display()));
    let node = launch.with_files_up_to(FILE_KIB).start();
    let ids = talk(&node.url).await;
    node.signal("TERM");
    let (status, log) = node.end();
    assert_eq!(status.code(), Some(1), "{log}");
    let lost = Ledger::open(&run).missing(&ids);
    assert!(!lost.is_empty());
    for id in &lost {
        assert!(log.contains(id), "{id} is not named\n{log}");
    }
}
