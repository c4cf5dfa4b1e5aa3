//! Which conversation a request belongs to, whether it may be trained on, and what its arrival says of the turn before.

mod abandoned;
mod actor;
mod branches;
mod classify;
mod conversations;
mod histories;
mod identify;
mod lonely;
mod mark;
pub(crate) mod name;
mod next_state;
mod provisional;
mod recency;
mod rewritten;
pub(crate) mod transcript;
mod withheld;

pub use actor::{Sessions, SessionsAddress, SessionsArguments, SessionsMessage};
pub use branches::{Branches, Placed};
pub use classify::DefaultTurnType;
pub use conversations::{
    Arrival, ArrivedRequest, Conversations, Feedback, FeedbackOutcome, SessionsConfig, TurnCompleted,
};
pub use identify::RequestMarks;
pub use mark::Fingerprint;
