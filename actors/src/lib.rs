//! The roles of the loop and what they say to each other.

pub mod chat_client;
pub mod engine;
pub mod gateway;
pub mod inbox;
pub mod journal;
pub mod methods;
pub mod prompts;
pub mod sessions;
pub mod turn;
pub mod worker;
