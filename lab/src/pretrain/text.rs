//! Which documents are written, and how many of each kind.
use super::{
    acting, chat, conversations, drills, judgements, problem_talk, step_judge, styled, things, tools,
};
use clap::ValueEnum;
use openclaw_environments::dice::Dice;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What a document teaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum DocumentKind {
    /// A question and its reply, in the default style mostly.
    FirstReply,
    /// The same with a hint, which the reply follows.
    HintedReply,
    /// A complaint and the reply that heeds it.
    Redo,
    /// Several problems, thanks and small talk.
    Session,
    /// The binary judge.
    Judge,
    /// The hint writer.
    HintWriter,
    /// A reply by rules of style that somebody voiced.
    Styled,
    /// Comparing numbers, and things that are said again.
    Drill,
    /// One request and the call of a tool for it.
    Tools,
    /// A whole episode in an environment.
    Episode,
    /// The judge of a step.
    StepJudge,
    /// A reply with thinking, which a system prompt asks for.
    Thinking,
    /// Greetings, nonsense, small facts.
    Chat,
}

impl DocumentKind {
    /// Every kind with its share of the documents.
    pub const MIX: [(Self, f64); 13] = [
        (Self::FirstReply, 0.085),
        (Self::HintedReply, 0.065),
        (Self::Redo, 0.06),
        (Self::Session, 0.025),
        (Self::Judge, 0.24),
        (Self::HintWriter, 0.115),
        (Self::Styled, 0.105),
        (Self::Drill, 0.055),
        (Self::Tools, 0.12),
        (Self::Episode, 0.06),
        (Self::StepJudge, 0.035),
        (Self::Thinking, 0.01),
        (Self::Chat, 0.025),
    ];

    /// Weight of each of its tokens in the loss: a verdict is one of the few tokens of its document that tells anything.
    pub fn weight(self) -> f32 {
        match self {
            Self::Judge | Self::StepJudge => 4.0,
            _ => 1.0,
        }
    }
}

/// A conversation to train on.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// What it teaches.
    pub kind: DocumentKind,
    /// Messages as the chat template takes them.
    pub messages: Vec<Value>,
    /// Tool definitions as the chat template takes them; mostly none.
    pub tools: Vec<Value>,
    /// Indexes of the messages whose tokens count in the loss, all of them the assistant's.
    pub trained: Vec<usize>,
}

impl Document {
    pub(super) fn new(kind: DocumentKind) -> Self {
        Self { kind, messages: Vec::new(), tools: Vec::new(), trained: Vec::new() }
    }

    /// A user's prompt and the assistant's answer.
    pub(super) fn question(kind: DocumentKind, prompt: String, answer: String) -> Self {
        let mut document = Self::new(kind);
        document.push("user", &prompt);
        document.push("assistant", &answer);
        document
    }

    pub(super) fn push(&mut self, role: &str, content: &str) {
        self.push_message(json!({"role": role, "content": content}));
    }

    pub(super) fn push_message(&mut self, message: Value) {
        if message["role"] == "assistant" {
            self.trained.push(self.messages.len());
        }
        self.messages.push(message);
    }

    /// An assistant's message that is context, not an example.
    pub(super) fn push_untrained(&mut self, content: &str) {
        self.messages.push(json!({"role": "assistant", "content": content}));
    }
}

/// Writes documents without end; the same seed writes the same ones.
#[derive(Clone, Debug)]
pub struct DocumentGenerator {
    dice: Dice,
    mix: [(DocumentKind, f64); 13],
}

impl DocumentGenerator {
    /// The documents of `seed`.
    pub fn new(seed: u64) -> Self {
        Self { dice: Dice::new(seed), mix: DocumentKind::MIX }
    }

    /// With so many times as many documents of these kinds.
    pub fn with_more(mut self, times: &BTreeMap<DocumentKind, f64>) -> Self {
        for (kind, share) in &mut self.mix {
            *share *= times.get(kind).copied().unwrap_or(1.0);
        }
        self
    }
}

impl Iterator for DocumentGenerator {
    type Item = Document;

    fn next(&mut self) -> Option<Document> {
        let dice = &mut self.dice;
        let mut document = match dice.weighted(&self.mix) {
            DocumentKind::FirstReply => problem_talk::first_reply(dice),
            DocumentKind::HintedReply => problem_talk::hinted_reply(dice),
            DocumentKind::Redo => problem_talk::redo(dice),
            DocumentKind::Session => problem_talk::session(dice),
            DocumentKind::Judge => judgements::judge(dice),
            DocumentKind::HintWriter => judgements::hint_writer(dice),
            DocumentKind::Styled => styled::document(dice),
            DocumentKind::Drill => drills::document(dice),
            DocumentKind::Tools => tools::document(dice),
            DocumentKind::Episode => acting::episode(dice),
            DocumentKind::StepJudge => step_judge::document(dice),
            DocumentKind::Thinking => conversations::thinking(dice),
            DocumentKind::Chat => chat::small_talk(dice),
        };
        things::replaced(&mut document, dice);
        Some(document)
    }
}
