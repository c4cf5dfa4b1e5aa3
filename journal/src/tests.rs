mod browse;
mod closing;
mod codec;
mod contents;
mod episodes;
mod files;
mod forms;
mod limits;
mod model;
mod person;
mod provisional;
mod reader;
mod transitions;
mod writing;

use std::{path::Path, time::Duration};

use openclaw_model::{FinishReason, ReplySplit, StepReport};
use serde_json::json;

use super::*;

fn id(name: &str) -> TurnId {
    TurnId(name.into())
}

fn ids(names: &[&str]) -> Vec<TurnId> {
    names.iter().map(|name| id(name)).collect()
}

/// A main turn of session `s`.
fn turn(name: &str) -> Turn {
    Turn {
        id: id(name),
        session: SessionId("s".into()),
        index: 1,
        kind: TurnKind::Main,
        trainable: true,
        messages: Arc::new(vec![json!({"role": "user", "content": "2 + 2?", "weight": 0.1})]),
        tools: Arc::new(vec![json!({"type": "function", "function": {"name": "ls"}})]),
        template_kwargs: Arc::new(serde_json::Map::from_iter([("enable_thinking".to_owned(), json!(false))])),
        completion: Completion {
            prompt_ids: vec![1, 70_000],
            response_ids: vec![7, 2],
            rollout_logprobs: vec![-0.5, f32::NEG_INFINITY],
            policy_logprobs: Some(vec![-0.75, f32::NEG_INFINITY]),
            policy_version: 3,
            temperature: 0.75,
            finish_reason: FinishReason::Stop,
            text: "<think>2 + 2</think>four".to_owned(),
            split: ReplySplit { answer_at: 20, ..ReplySplit::default() },
        },
    }
}

/// What form 1 keeps of it.
fn mark_of_form_1(reply: u64) -> TurnMark {
    TurnMark { person: 0, before: 0, words: 0, opening: "".into(), ..mark(reply) }
}

fn mark(reply: u64) -> TurnMark {
    TurnMark {
        chain: [0, u64::MAX, 5].into(),
        named: true,
        last: false,
        reply,
        says_anything: true,
        person: 3,
        before: u64::MAX - 1,
        words: 12,
        opening: "fourwordsofit".into(),
    }
}

fn completed(name: &str) -> Record {
    Record::TurnCompleted { turn: Arc::new(turn(name)), mark: mark(9) }
}

fn next_state() -> NextState {
    NextState {
        kind: NextStateKind::User,
        text: "no bold, please".to_owned(),
        rating: None,
        is_error: false,
        by_rule: None,
        screen: None,
    }
}

fn followed(name: &str) -> Record {
    Record::NextStateSeen { turn: id(name), next_state: next_state(), provisional: false }
}

fn seems_followed(name: &str) -> Record {
    Record::NextStateSeen { turn: id(name), next_state: next_state(), provisional: true }
}

fn settled(name: &str) -> Record {
    Record::NextStateSettled { turn: id(name) }
}

fn undone(name: &str) -> Record {
    Record::NextStateUndone { turn: id(name) }
}

fn judged(name: &str, teach: bool) -> Record {
    Record::Judged {
        turn: id(name),
        undone: 0,
        verdict: Verdict { reward: Some(-1), votes: vec![Some(-1), None], rule: None },
        answers: vec![Some("\\boxed{-1}".to_owned()), None],
        hints: if teach { vec!["Use no bold text.".to_owned()] } else { Vec::new() },
        hint_answers: vec![None],
        teach,
        wish: None,
    }
}

fn signal() -> TeacherSignal {
    let top =
        || Candidates { ids: vec![7, 8], old_logprobs: vec![-1.0, -2.0], teacher_logprobs: vec![-3.0, -4.0] };
    TeacherSignal {
        hint: "Use no bold text.".to_owned(),
        logprobs: vec![-0.25, -0.5],
        old_logprobs: vec![-1.0, -1.5],
        student_top: vec![top(), top()],
        teacher_top: vec![top()],
    }
}

fn taught(name: &str) -> Record {
    Record::Taught { turn: id(name), undone: 0, signal: Some(signal()) }
}

fn dropped(name: &str) -> Record {
    Record::TurnDropped { turn: id(name), reason: "test" }
}

fn withdrawn(name: &str) -> Record {
    Record::TurnWithdrawn { turn: id(name) }
}

fn rated(name: &str, rating: i8) -> Record {
    Record::Rated { turn: id(name), rating }
}

fn corrected(name: &str, hint: &str) -> Record {
    Record::HintCorrected { turn: id(name), hint: hint.to_owned() }
}

fn leased(step: u64, names: &[&str]) -> Record {
    Record::BatchLeased { step, turns: ids(names) }
}

fn report(step: u32) -> StepReport {
    StepReport { step, loss: f64::NAN, grad_norm: 1.5, rows: 3, tokens: 4, ..StepReport::default() }
}

fn commit(version: u64, names: &[&str], checkpoint: bool) -> StepCommit {
    StepCommit {
        step: version,
        version,
        base: version - 1,
        turns: ids(names),
        batch: names.len() as u64,
        report: report(version as u32),
        fingerprint: format!("print {version}"),
        checkpoint,
    }
}

fn step(version: u64, names: &[&str]) -> Record {
    Record::StepCompleted(commit(version, names, true))
}

fn withheld(step: u64, names: &[&str]) -> Record {
    let (turns, report) = (ids(names), report(step as u32));
    Record::StepWithheld { step, turns, reason: "canary".to_owned(), report, fingerprint: "odd".to_owned() }
}

impl Journal {
    async fn done(&self, record: Record) {
        let shown = format!("{record:?}");
        assert_eq!(self.record(record).await.expect("it is written"), Recorded::Done, "{shown}");
    }

    async fn stale(&self, record: Record) {
        let shown = format!("{record:?}");
        assert_eq!(self.record(record).await.expect("it is written"), Recorded::Stale, "{shown}");
    }

    async fn state(&self, name: &str) -> Option<TurnState> {
        self.turn(&id(name)).await.expect("it can be read").map(|row| row.state)
    }

    /// Brings a turn to `ready`.
    async fn make_ready(&self, name: &str) {
        for record in [completed(name), followed(name), judged(name, true), taught(name)] {
            self.done(record).await;
        }
    }
}

/// A journal in a folder, and the thread that writes it.
struct Run {
    journal: Journal,
    writing: Writing,
}

fn config(dir: &Path) -> JournalConfig {
    JournalConfig { dir: dir.to_owned(), retention: Retention::default() }
}

impl Run {
    async fn start(config: JournalConfig) -> Self {
        let journal = loop {
            match Journal::open(config.clone()) {
                Ok(journal) => break journal,
                // A thread that nobody waited for lets go of the folder when it ends.
                Err(JournalError::InUse { .. }) => tokio::time::sleep(Duration::from_millis(2)).await,
                Err(error) => panic!("{}", error.line()),
            }
        };
        let writing = journal.start_writing().await.expect("it starts");
        Self { journal, writing }
    }

    async fn stop(mut self) {
        self.writing.stop().await;
    }

    /// As a killed actor does: nobody waits for the thread.
    fn kill(self) {
        drop(self.writing);
    }
}
