//! The binary `openclaw-rl`: topology, supervisor, wiring, CLI, telemetry.

pub mod admin;
mod cells;
pub mod chat;
pub mod cli;
mod descriptors;
mod doctor;
mod episodes;
mod exit;
mod experiments;
mod export;
mod hub;
mod import;
pub mod launch;
mod measures;
mod operate;
pub mod page;
mod people;
mod printable;
pub mod progress;
mod refusal;
mod run_dir;
mod shell;
pub mod supervisor;
pub mod telemetry;
pub mod topology;
mod versions;
pub mod wiring;
