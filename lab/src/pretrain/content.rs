//! What a reply says, whatever its style: a sum with its working, or a fact.
use super::numerals;
use super::written::Author;
use openclaw_environments::{
    dice::Dice,
    persona::{Persona, Split, Style, Task, reply},
};

/// What is to be said, before any rule of style.
#[derive(Clone, Debug)]
pub(crate) struct Content {
    /// The message that asks.
    pub(crate) message: String,
    /// Its last sentence, which is the question itself.
    pub(crate) question: String,
    /// The answer in as few words as it has: `12`, `Paris`.
    pub(crate) answer: String,
    /// What is counted, of a sum.
    unit: Option<String>,
    /// How it comes about: `4 + 8 = 12 and then 12 - 2 = 10`.
    working: Option<String>,
    /// A fact as a sentence.
    fact: Option<String>,
    task: Option<Task>,
}

impl Content {
    /// A sum, or sometimes a fact.
    pub(crate) fn new(split: Split, dice: &mut Dice) -> Self {
        if dice.chance(0.7) { Self::sum(dice) } else { Self::fact(split, dice) }
    }

    pub(crate) fn sum(dice: &mut Dice) -> Self {
        let persona = if dice.chance(0.5) { Persona::Student } else { Persona::Ta };
        let task = Task::new(persona, dice);
        let message = if dice.chance(0.4) { task.problem().to_owned() } else { task.first_message(dice) };
        Self {
            message,
            question: last_sentence(task.problem()).to_owned(),
            answer: task.answer().to_string(),
            unit: Some(task.object().to_owned()),
            working: Some(task.equations().join(" and then ")),
            fact: None,
            task: Some(task),
        }
    }

    /// A question of knowledge, whose answer is plain and short.
    pub(crate) fn fact(split: Split, dice: &mut Dice) -> Self {
        loop {
            let [question, answer, right] = Author::of(split).fact(dice);
            let fact = answer.replace("**", "");
            let is_plain = !fact.contains(['\n', '`', '|'])
                && fact.len() < 120
                && fact.ends_with('.')
                && !right.contains('.')
                && numerals::are_small(&fact);
            if is_plain && !right.is_empty() && fact.to_lowercase().contains(&right.to_lowercase()) {
                return Self {
                    message: question.to_owned(),
                    question: question.to_owned(),
                    answer: right.to_owned(),
                    unit: None,
                    working: None,
                    fact: Some(fact),
                    task: None,
                };
            }
        }
    }

    /// The task of a sum.
    pub(crate) fn task(&self) -> Option<&Task> {
        self.task.as_ref()
    }

    /// How a policy says it that nobody has taught anything.
    pub(crate) fn usual(&self, dice: &mut Dice) -> String {
        self.in_style(Style::Machine, dice)
    }

    /// A plain sentence or two.
    pub(crate) fn plain(&self, dice: &mut Dice) -> String {
        self.in_style(Style::Plain, dice)
    }

    /// In a style of the personas; a fact has but one.
    pub(crate) fn in_style(&self, style: Style, dice: &mut Dice) -> String {
        match &self.task {
            Some(task) => reply(task, style, dice),
            None => self.fact.clone().unwrap_or_default(),
        }
    }

    /// `12 apples`, `Paris`.
    pub(crate) fn with_unit(&self) -> String {
        self.unit.as_ref().map_or_else(|| self.answer.clone(), |unit| format!("{} {unit}", self.answer))
    }

    pub(crate) fn working(&self) -> Option<&str> {
        self.working.as_deref()
    }

    /// The fact, or that it is so much.
    pub(crate) fn sentence(&self) -> String {
        self.fact.clone().unwrap_or_else(|| format!("It is {}.", self.with_unit()))
    }

    /// Whether a reply has the right answer, in digits or in words.
    pub(crate) fn is_in(&self, said: &str) -> bool {
        let said = numerals::in_digits(&said.to_lowercase().replace(['[', ']'], ""));
        match &self.task {
            Some(task) => task.is_correct(&said),
            None => said.contains(&numerals::in_digits(&self.answer.to_lowercase())),
        }
    }
}

/// From behind the last full stop.
fn last_sentence(text: &str) -> &str {
    text.trim().rsplit(". ").next().unwrap_or(text)
}
