//! Journals of earlier forms stay readable: each lies in `fixtures/`, as the program of its time wrote it.

use std::{fs, path::PathBuf};

use super::*;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

/// A conversation of so many turns, each with all that was said before it.
fn conversation(turns: u32) -> Vec<Turn> {
    let mut messages = vec![json!({"role": "system", "content": "be brief"})];
    let mut prompt_ids: Vec<u32> = (100..140).collect();
    let turn = |n: u32| {
        messages.push(json!({"role": "user", "content": format!("question {n}?")}));
        prompt_ids.extend([1, 1000 + n, 2]);
        let turn = turn(&format!("turn-{n}"));
        let completion = Completion {
            prompt_ids: prompt_ids.clone(),
            response_ids: vec![2000 + n, 2],
            text: format!("answer {n}"),
            ..turn.completion
        };
        messages.push(json!({"role": "assistant", "content": completion.text}));
        prompt_ids.extend(&completion.response_ids);
        let said = messages[..messages.len() - 1].to_vec();
        Turn { index: n, messages: Arc::new(said), completion, ..turn }
    };
    (1..=turns).map(turn).collect()
}

/// Writes what a journal of this program looks like to `fixtures/form-N`: to be committed before the form changes.
/// `cargo test -p openclaw-journal --lib -- --ignored make_a_fixture`
#[tokio::test]
#[ignore = "writes a new fixture"]
async fn make_a_fixture() {
    let dir = fixtures().join("form-1");
    fs::remove_dir_all(&dir).ok();
    let run = Run::start(config(&dir)).await;
    let journal = &run.journal;
    for turn in conversation(6) {
        journal.done(Record::TurnCompleted { turn: Arc::new(turn), mark: mark(9) }).await;
    }
    for name in ["turn-1", "turn-2", "turn-3", "turn-4"] {
        for record in [followed(name), judged(name, true), taught(name)] {
            journal.done(record).await;
        }
    }
    journal.done(leased(1, &["turn-1", "turn-2"])).await;
    journal.done(step(1, &["turn-1", "turn-2"])).await;
    journal.done(leased(2, &["turn-3"])).await;
    journal.done(followed("turn-5")).await;
    journal.done(rated("turn-5", 1)).await;
    journal.done(corrected("turn-5", "be kind")).await;
    let mut large = turn("large");
    large.completion.text = "x".repeat(300_000);
    journal.done(Record::TurnCompleted { turn: Arc::new(large), mark: mark(1) }).await;
    journal.done(dropped("large")).await;
    run.stop().await;
}
