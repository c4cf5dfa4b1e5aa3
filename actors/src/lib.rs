//! The roles of the loop and what they say to each other.

pub mod agents;
pub mod breaker;
pub mod chat_client;
pub mod connections;
pub mod conversation;
pub mod dispatch;
pub mod engine;
pub mod event_stream;
pub mod gateway;
pub mod hints;
pub mod journal;
pub mod judge;
pub mod loaded_model;
pub mod methods;
pub mod optimizer;
pub mod pictures;
#[cfg(test)]
mod pipeline_tests;
pub mod policy;
pub mod prompts;
pub mod publisher;
#[cfg(test)]
mod recovery_tests;
mod repetition;
pub mod resume;
pub mod rollback;
pub mod rollout;
pub mod sessions;
pub mod stop;
pub mod teacher;
#[cfg(test)]
mod tiny;
pub mod worker;
