//! Turns to record.

use std::{path::Path, sync::Arc};

use openclaw_actors::journal::JournalActor;
use openclaw_journal::{
    Completion, Journal, JournalConfig, NextState, NextStateKind, Record, Retention, SessionId, StepCommit,
    Turn, TurnId, TurnKind, TurnMark, Verdict,
};
use openclaw_model::{FinishReason, StepReport};
use ractor::Actor;
use serde_json::json;
use tokio::task::JoinHandle;

/// Opens the journal in `dir`.
pub fn open(dir: &Path) -> Journal {
    let config = JournalConfig { dir: dir.to_owned(), retention: Retention::default() };
    Journal::open(config).unwrap_or_else(|error| panic!("{}", error.line()))
}

/// Starts the journal's actor again whenever it ends, until the task is aborted.
pub fn supervise(journal: &Journal) -> JoinHandle<()> {
    let journal = journal.clone();
    tokio::spawn(async move {
        loop {
            let (_, ended) = Actor::spawn(None, JournalActor, journal.clone()).await.expect("it starts");
            ended.await.expect("it ends");
        }
    })
}

pub fn id(name: &str) -> TurnId {
    TurnId(name.into())
}

pub fn completed(name: &str) -> Record {
    let words = format!("what {name} asks, at some length: {}", "so be it. ".repeat(100));
    let turn = Turn {
        id: id(name),
        session: SessionId("s".into()),
        index: 1,
        kind: TurnKind::Main,
        trainable: true,
        messages: Arc::new(vec![json!({"role": "user", "content": words})]),
        tools: Arc::default(),
        template_kwargs: Arc::default(),
        completion: Completion {
            prompt_ids: (0..300).collect(),
            response_ids: (0..100).collect(),
            rollout_logprobs: vec![-0.5; 100],
            policy_logprobs: None,
            policy_version: 0,
            temperature: 1.0,
            finish_reason: FinishReason::Stop,
            text: "yes. ".repeat(50),
            split: Default::default(),
        },
    };
    Record::TurnCompleted { turn: Arc::new(turn), mark: TurnMark::default() }
}

pub fn followed(name: &str) -> Record {
    let next_state = NextState {
        kind: NextStateKind::User,
        text: "thanks".to_owned(),
        rating: None,
        is_error: false,
        by_rule: None,
        screen: None,
    };
    Record::NextStateSeen { turn: id(name), next_state, provisional: false }
}

pub fn judged(name: &str) -> Record {
    Record::Judged {
        turn: id(name),
        undone: 0,
        verdict: Verdict { reward: Some(1), votes: vec![Some(1)], rule: None },
        answers: vec![Some("\\boxed{1}".to_owned())],
        hints: Vec::new(),
        hint_answers: Vec::new(),
        teach: false,
        wish: None,
    }
}

pub fn step(version: u64, turns: Vec<TurnId>) -> Record {
    Record::StepCompleted(StepCommit {
        step: version,
        version,
        base: version - 1,
        batch: turns.len() as u64,
        turns,
        report: StepReport::default(),
        fingerprint: String::new(),
        checkpoint: true,
    })
}
