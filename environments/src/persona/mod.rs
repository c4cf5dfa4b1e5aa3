//! The scripted users of the personal-agent experiment: who they are, what they ask, what they like and how
//! they say so. The rule of a persona is the experiment's yardstick alone; what trains a policy is a judge's
//! reading of what the persona says.
mod complaints;
mod environment;
mod reactions;
mod rule;
mod session;
mod stories;
mod style;
mod task;
mod wording;

pub use environment::{KIND, Settings, estimated_tokens};
pub use rule::{TA_MIN_TOKENS, WARM_PHRASES};
pub use session::{PersonaSession, SessionRecord, Step};
pub use style::{Style, reply};
pub use task::{Task, verdict_of};
pub use wording::{Intent, Split, Wordings, contains_words, scribble, split_by_wording};

use serde::{Deserialize, Serialize};

/// Who is talking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Persona {
    /// Hands homework in: nothing may look machine-written.
    Student,
    /// Assists a class: wants thorough answers.
    Ta,
    /// Grades pupils: wants a warm word in each comment.
    Teacher,
}

impl Persona {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Student, Self::Ta, Self::Teacher];

    /// The style that this persona asks for.
    pub fn wanted_style(self) -> Style {
        match self {
            Self::Student => Style::Plain,
            Self::Ta => Style::Long,
            Self::Teacher => Style::Warm,
        }
    }

    /// The name in files, tables and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Student => "student",
            Self::Ta => "ta",
            Self::Teacher => "teacher",
        }
    }
}
