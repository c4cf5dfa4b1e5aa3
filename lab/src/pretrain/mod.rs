//! The seeded text that the embedded model is trained on, and the questions that show what it has learnt. All
//! prompts come from the functions that the actors use, so that the model is trained on what it will see.
mod abilities;
mod acting;
mod chat;
pub(crate) mod content;
mod conversations;
pub mod documents;
mod drills;
pub mod evaluation;
mod hints;
mod induction;
mod judgements;
mod numerals;
mod pages;
mod problem_talk;
pub(crate) mod rules;
pub mod run;
mod slips;
mod step_judge;
mod styled;
mod system_prompts;
#[cfg(test)]
mod tests;
mod text;
mod things;
mod tools;
mod values;
pub(crate) mod wishes;
mod written;

pub use hints::HintKind;
pub use text::{Document, DocumentGenerator, DocumentKind};
