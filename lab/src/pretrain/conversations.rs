//! The frame of a conversation: system prompt, stamps, runtime line, unused tools. And replies with thinking.
use super::system_prompts::{self, Clock};
use super::text::{Document, DocumentKind};
use super::{problem_talk, tools};
use openclaw_actors::prompts::with_hint;
use openclaw_environments::dice::Dice;
use openclaw_environments::persona::{Persona, Task};
use serde_json::{Value, json};

/// A conversation that is being written.
#[derive(Debug)]
pub(super) struct Talk {
    document: Document,
    clock: Option<Clock>,
    runtime_line: Option<String>,
}

impl Talk {
    /// A conversation with whatever a client may put around it.
    pub(super) fn new(kind: DocumentKind, dice: &mut Dice) -> Self {
        let mut talk = Self::bare(kind);
        if let Some(system) = system_prompts::maybe(dice) {
            talk.document.push("system", &system);
        }
        talk.clock = dice.chance(0.3).then(|| Clock::new(dice));
        talk.runtime_line = dice.chance(0.06).then(|| system_prompts::runtime_line(dice));
        if dice.chance(0.03) {
            talk.document.tools = tools::definitions(2, dice);
        }
        talk
    }

    /// A conversation with nothing around it.
    pub(super) fn bare(kind: DocumentKind) -> Self {
        Self { document: Document::new(kind), clock: None, runtime_line: None }
    }

    /// A conversation under a system prompt of about `words` words, with stamps.
    pub(super) fn heavy(kind: DocumentKind, words: usize, dice: &mut Dice) -> Self {
        let mut talk = Self::bare(kind);
        talk.document.push("system", &system_prompts::page(words, dice));
        talk.clock = Some(Clock::new(dice));
        talk
    }

    pub(super) fn system(&mut self, text: &str) {
        self.document.push("system", text);
    }

    pub(super) fn user(&mut self, text: &str, dice: &mut Dice) {
        let text = self.dressed(text, dice);
        self.document.push("user", &text);
    }

    /// A user's message as the teacher sees it.
    pub(super) fn user_with_hint(&mut self, text: &str, hint: &str, dice: &mut Dice) {
        let text = self.dressed(text, dice);
        self.document.push("user", &with_hint(&text, hint));
    }

    pub(super) fn assistant(&mut self, text: &str) {
        self.document.push("assistant", text);
    }

    /// A reply that is not to be learnt.
    pub(super) fn assistant_failing(&mut self, text: &str) {
        self.document.push_untrained(text);
    }

    /// Any message, as it is.
    pub(super) fn message(&mut self, message: Value) {
        self.document.push_message(message);
    }

    pub(super) fn finish(self) -> Document {
        self.document
    }

    fn dressed(&mut self, text: &str, dice: &mut Dice) -> String {
        let stamp = self.clock.as_mut().map(|clock| clock.stamp(dice)).unwrap_or_default();
        format!("{stamp}{text}{}", self.runtime_line.take().unwrap_or_default())
    }
}

/// A problem under a system prompt that asks for thinking.
pub(super) fn thinking(dice: &mut Dice) -> Document {
    let mut talk = Talk::bare(DocumentKind::Thinking);
    talk.system(dice.pick(&[
        "Think before you answer.",
        "You are a helpful assistant. Think first, then answer.",
        "Thinking is on.",
        "You think before you reply.",
    ]));
    let task = Task::new(dice.pick(&[&Persona::Student, &Persona::Ta, &Persona::Teacher]).to_owned(), dice);
    talk.user(&task.first_message(dice), dice);
    let mut thought = format!("The numbers give {}.", task.equations().join(" and then "));
    if let Some(given) = task.given() {
        thought.push_str(&format!(" The pupil wrote {given}, so it is {}.", task.verdict()));
    }
    let reply = problem_talk::default_reply(&task, dice);
    let mut document = talk.finish();
    document.push_message(json!({"role": "assistant", "reasoning_content": thought, "content": reply}));
    document
}
