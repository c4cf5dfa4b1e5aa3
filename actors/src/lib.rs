//! The roles of the loop and what they say to each other.

pub mod breaker;
pub mod chat_client;
pub mod conversation;
pub mod dispatch;
pub mod engine;
pub mod fault;
pub mod gateway;
pub mod inbox;
pub mod journal;
pub mod judge;
pub mod methods;
pub mod optimizer;
#[cfg(test)]
mod pipeline_tests;
pub mod policy;
pub mod prompts;
pub mod publisher;
#[cfg(test)]
mod recovery_tests;
pub mod resume;
pub mod rollback;
pub mod rollout;
pub mod sessions;
pub mod teacher;
#[cfg(test)]
mod tiny;
pub mod turn;
pub mod worker;
