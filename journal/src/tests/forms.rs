//! Journals of earlier forms stay readable: each lies in `fixtures/`, as the program of its time wrote it.

use std::{fs, io, path::PathBuf};

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
            split: Default::default(),
            ..turn.completion
        };
        messages.push(json!({"role": "assistant", "content": completion.text}));
        prompt_ids.extend(&completion.response_ids);
        let said = messages[..messages.len() - 1].to_vec();
        Turn { index: n, messages: Arc::new(said), completion, ..turn }
    };
    (1..=turns).map(turn).collect()
}

/// Writes a journal of this program to `fixtures/form-2`, the next form: to be committed before that changes.
/// `cargo test -p openclaw-journal --lib -- --ignored make_a_fixture`
#[tokio::test]
#[ignore = "writes a new fixture"]
async fn make_a_fixture() {
    let dir = fixtures().join("form-2");
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

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_journal_of_form_1_is_read_and_goes_on() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    copy(&fixtures().join("form-1"), dir.path()).expect("copied");
    // Also by one who does not write, before a writer has opened it.
    let reader = JournalReader::open(dir.path()).expect("readable").expect("a journal");
    let story = reader.story(&id("turn-6")).expect("read").expect("it is kept");
    assert_eq!(story.row.turn.messages, conversation(6)[5].messages);
    drop(reader);
    let run = Run::start(config(dir.path())).await;
    let journal = &run.journal;
    let spoken = conversation(8);
    let told = journal.stories(&SessionId("s".into()), 0, 100).await.expect("read");
    assert_eq!(told.len(), 7);
    for (told, turn) in told.iter().zip(&spoken[..6]) {
        let row = &told.story.as_ref().expect("it can be read").row;
        let completion =
            Completion { policy_logprobs: None, split: Default::default(), ..turn.completion.clone() };
        assert_eq!((&row.turn.messages, &row.turn.completion), (&turn.messages, &completion));
    }
    for (name, state) in [
        ("turn-1", TurnState::Trained),
        ("turn-3", TurnState::Ready),
        ("turn-4", TurnState::Ready),
        ("turn-5", TurnState::Followed),
        ("turn-6", TurnState::Waiting),
        ("large", TurnState::Dropped),
    ] {
        assert_eq!(journal.state(name).await, Some(state), "{name}");
    }
    let large = journal.turn(&id("large")).await.expect("read").expect("it is kept");
    assert_eq!(large.turn.completion.text.len(), 300_000);
    let open = journal.open_turns(SystemTime::now()).await.expect("read");
    assert_eq!((&open[0].turn, &open[0].mark), (&id("turn-6"), &mark_of_form_1(9)));
    let samples = journal.samples(0, 10).await.expect("read");
    assert_eq!(samples[0].1.teacher.as_ref(), Some(&signal()));
    assert_eq!(samples[0].1.verdict.votes, [Some(-1), None]);
    let steps = journal.steps(10).await.expect("read");
    assert_eq!((steps.len(), steps[0].report.rows), (1, 3));

    // The session goes on, and so does training.
    journal.done(judged("turn-5", true)).await;
    journal.done(followed("turn-6")).await;
    for turn in &spoken[6..] {
        journal.done(Record::TurnCompleted { turn: Arc::new(turn.clone()), mark: mark(9) }).await;
    }
    journal.done(leased(2, &["turn-3", "turn-4"])).await;
    journal.done(step(2, &["turn-3", "turn-4"])).await;
    let told = journal.stories(&SessionId("s".into()), 0, 100).await.expect("read");
    let last = &told.last().expect("a turn").story.as_ref().expect("it can be read").row.turn;
    assert_eq!((&last.messages, &last.completion), (&spoken[7].messages, &spoken[7].completion));
    assert_eq!(journal.totals().borrow().trained, 4);
}
