//! The seeded text that the embedded model is trained on, and the questions that show what it has learnt. All
//! prompts come from the functions that the actors use, so that the model is trained on what it will see.
mod chat;
mod conversations;
pub mod evaluation;
mod hints;
mod judgements;
mod problem_talk;
pub mod run;
mod system_prompts;
#[cfg(test)]
mod tests;
mod text;
mod tools;
mod wishes;
mod written;

pub use hints::HintKind;
pub use text::{Document, DocumentGenerator, DocumentKind};
