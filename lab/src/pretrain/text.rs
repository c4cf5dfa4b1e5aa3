//! Which documents are written, and how many of each kind.
use super::{chat, conversations, judgements, problem_talk, tools};
use openclaw_environments::dice::Dice;
use serde_json::{Value, json};

/// What a document teaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
    /// Tool definitions, calls and results.
    Tools,
    /// A reply with thinking, which a system prompt asks for.
    Thinking,
    /// Greetings, nonsense, small facts.
    Chat,
}

impl DocumentKind {
    /// Every kind with its share of the documents.
    pub const MIX: [(Self, f64); 9] = [
        (Self::FirstReply, 0.22),
        (Self::HintedReply, 0.18),
        (Self::Redo, 0.18),
        (Self::Session, 0.09),
        (Self::Judge, 0.13),
        (Self::HintWriter, 0.12),
        (Self::Tools, 0.035),
        (Self::Thinking, 0.015),
        (Self::Chat, 0.03),
    ];
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
    written: f64,
}

impl DocumentGenerator {
    /// The documents of `seed`.
    pub fn new(seed: u64) -> Self {
        Self { dice: Dice::new(seed), written: 0.0 }
    }

    /// With this share of the judge's and the hint writer's documents about reactions that people wrote, in place of a
    /// grammar's.
    #[must_use]
    pub fn with_written(self, share: f64) -> Self {
        Self { written: share, ..self }
    }
}

impl Iterator for DocumentGenerator {
    type Item = Document;

    fn next(&mut self) -> Option<Document> {
        let dice = &mut self.dice;
        let kind = dice.weighted(&DocumentKind::MIX);
        // Without a share no dice are cast: the text is what it was before people wrote.
        let is_written = matches!(kind, DocumentKind::Judge | DocumentKind::HintWriter)
            && self.written > 0.0
            && dice.chance(self.written);
        Some(match kind {
            DocumentKind::Judge if is_written => judgements::judge_written(dice),
            DocumentKind::HintWriter if is_written => judgements::hint_written(dice),
            DocumentKind::FirstReply => problem_talk::first_reply(dice),
            DocumentKind::HintedReply => problem_talk::hinted_reply(dice),
            DocumentKind::Redo => problem_talk::redo(dice),
            DocumentKind::Session => problem_talk::session(dice),
            DocumentKind::Judge => judgements::judge(dice),
            DocumentKind::HintWriter => judgements::hint_writer(dice),
            DocumentKind::Tools => tools::round_trip(dice),
            DocumentKind::Thinking => conversations::thinking(dice),
            DocumentKind::Chat => chat::small_talk(dice),
        })
    }
}
