//! What a node has in its journal, in the forms of other tools: written beside the node while it learns.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use openclaw_journal::{Story, Told};
use openclaw_tests::{HostedNode, binary};
use serde_json::{Value, json};

fn export(args: &[&str], run_dir: &Path, out: &Path) -> Output {
    let mut command = Command::new(binary());
    command.arg("export").args(args).arg("--run").arg(run_dir).arg("--out").arg(out);
    command.output().expect("the binary can be run")
}

fn exported(args: &[&str], run_dir: &Path, out: &Path) -> String {
    let output = export(args, run_dir, out);
    let told = String::from_utf8(output.stderr).expect("text");
    assert!(output.status.success(), "{told}");
    told
}

async fn stories(node: &HostedNode) -> Vec<Story> {
    let journal = &node.view.journal;
    let mut stories = Vec::new();
    for session in journal.sessions(u64::MAX, 1000).await.expect("it can be read") {
        let told = journal.stories(&session.session, 0, 1000).await.expect("it can be read");
        stories.extend(told.into_iter().map(|Told { story, .. }| story.expect("it can be read")));
    }
    stories
}

/// The numbers of an event file under a name, in the order of the steps.
fn curve(file: &[u8], name: &str) -> Vec<f32> {
    let mut values = Vec::new();
    let mut rest = file;
    while let Some(place) = rest.windows(name.len()).position(|bytes| bytes == name.as_bytes()) {
        rest = &rest[place + name.len()..];
        // Field 2 of `Summary.Value`, a float.
        assert_eq!(rest[0], 0x15, "{name}");
        values.push(f32::from_le_bytes(rest[1..5].try_into().expect("four bytes")));
    }
    values
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_that_learns_is_exported_as_its_journal_has_it() {
    let dir = tempfile::tempdir().expect("a folder can be made");
    let run_dir = dir.path().join("run");
    let sets = ["actors.optimizer.batch_samples=1", "actors.rollout=[]", "method={ kind = \"binary_rl\" }"];
    let node = HostedNode::start("configs/quickstart.toml", &run_dir, &sets).await;
    let mut asked = 0;
    while node.view.versions.number() < 3 {
        assert!(asked < 200, "so many sessions, and version {}", node.view.versions.number());
        let question = format!("What is {asked} + 2?");
        let mut talk = vec![json!({"role": "user", "content": question})];
        let answer = node.ask(&format!("session/{asked}"), json!(talk)).await;
        talk.push(answer["choices"][0]["message"].clone());
        talk.push(json!({"role": "user", "content": "No. Do not use bold text."}));
        let answer = node.ask(&format!("session/{asked}"), json!(talk)).await;
        node.rate(answer["id"].as_str().expect("an id"), if asked % 2 == 0 { "down" } else { "up" }).await;
        asked += 1;
    }

    let atif = dir.path().join("atif");
    let told = exported(&["atif"], &run_dir, &atif);
    assert!(told.contains(&format!("wrote {asked} sessions, {} turns to ", 2 * asked)), "{told}");
    let stories_now = stories(&node).await;
    assert_eq!(stories_now.len(), 2 * asked);
    let find =
        |id: &Value| stories_now.iter().find(|story| *story.row.turn.id.0 == *id.as_str().expect("an id"));
    let mut replies = 0;
    for session in 0..asked {
        let file = fs::read(atif.join(format!("session%2F{session}.json"))).expect("its file");
        let file: Value = serde_json::from_slice(&file).expect("JSON");
        let sources: Vec<_> =
            file["steps"].as_array().expect("steps").iter().map(|step| &step["source"]).collect();
        assert_eq!(sources, ["user", "agent", "user", "agent"]);
        assert_eq!(file["agent"]["model_name"], "nano");
        for step in file["steps"].as_array().expect("steps").iter().filter(|step| step["source"] == "agent") {
            let row = &find(&step["extra"]["turn_id"]).expect("it is in the journal").row;
            let completion = &row.turn.completion;
            assert_eq!(step["metrics"]["prompt_token_ids"], json!(completion.prompt_ids));
            assert_eq!(step["metrics"]["completion_token_ids"], json!(completion.response_ids));
            let logprobs: Vec<f32> =
                serde_json::from_value(step["metrics"]["logprobs"].clone()).expect("numbers");
            assert_eq!(logprobs, completion.rollout_logprobs);
            assert_eq!(step["extra"]["policy_version"], completion.policy_version);
            replies += 1;
        }
    }
    assert_eq!(replies, stories_now.len());

    // What was exported is what `sft` reads.
    let chats = dir.path().join("chats.jsonl");
    exported(&["messages", "--metadata", "--kind", "all"], &run_dir, &chats);
    let text = fs::read_to_string(&chats).expect("its file");
    assert_eq!(text.lines().count(), asked);
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).expect("JSON");
        for reply in line["metadata"]["replies"].as_array().expect("replies") {
            let row = &find(&reply["turn_id"]).expect("it is in the journal").row;
            let message = &line["messages"][reply["message"].as_u64().expect("a place") as usize];
            assert_eq!(
                (&message["role"], message["content"].as_str()),
                (&json!("assistant"), Some(&*row.turn.completion.text))
            );
        }
    }
    let nano = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/models/nano");
    let tuned = Command::new(binary())
        .arg("sft")
        .args([&nano, &chats])
        .arg("--output")
        .arg(dir.path().join("tuned"))
        .output()
        .expect("the binary can be run");
    assert!(tuned.status.success(), "{}", String::from_utf8_lossy(&tuned.stderr));

    let curves = dir.path().join("curves");
    let told = exported(&["tensorboard"], &run_dir, &curves);
    let file = fs::read_dir(&curves).expect("its folder").next().expect("its file").expect("a name").path();
    let file = fs::read(file).expect("its file");
    let mut steps = node.view.journal.steps(1000).await.expect("it can be read");
    steps.reverse();
    let written = curve(&file, "train/loss");
    assert!(written.len() >= 3 && told.contains(&format!("wrote {} steps", written.len())), "{told}");
    // The node may have learnt on since.
    let losses: Vec<f32> = steps.iter().map(|step| step.report.loss as f32).take(written.len()).collect();
    assert_eq!(written, losses);
    let norms: Vec<f32> = steps.iter().map(|step| step.report.grad_norm as f32).take(written.len()).collect();
    assert_eq!(curve(&file, "train/grad_norm"), norms);

    // Nothing is replaced unasked, and what is not there is told.
    assert_eq!(export(&["tensorboard"], &run_dir, &curves).status.code(), Some(2));
    assert!(export(&["tensorboard", "--force"], &run_dir, &curves).status.success());
    let nobody = export(&["atif", "--session", "nobody"], &run_dir, &dir.path().join("none"));
    assert_eq!((nobody.status.code(), dir.path().join("none").exists()), (Some(4), false));

    // The node noticed nothing, and its run can be read when it is over.
    let answer = node.ask("after", json!([{"role": "user", "content": "hello"}])).await;
    assert_eq!(answer["object"], "chat.completion");
    assert_eq!(node.supervisor.stop().await, Vec::<String>::new());
    let told = exported(&["messages", "--session", "after"], &run_dir, &dir.path().join("after.jsonl"));
    assert!(told.contains("wrote 1 session, 1 turn"), "{told}");
}
