//! The roles of the loop and what they say to each other.

pub mod engine;
pub mod inbox;
pub mod prompts;
pub mod turn;
