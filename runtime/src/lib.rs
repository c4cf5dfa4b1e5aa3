//! The binary `openclaw-rl`: topology, supervisor, wiring, CLI, telemetry.

pub mod admin;
pub mod chat;
pub mod cli;
mod doctor;
pub mod evaluate;
pub mod experiment;
mod export;
pub mod launch;
pub mod loaded_model;
mod measures;
mod operate;
pub mod page;
pub mod pretrain;
mod printable;
pub mod progress;
mod run_dir;
pub mod score;
pub mod sft;
mod shell;
pub mod stop;
pub mod supervised;
pub mod supervisor;
pub mod telemetry;
pub mod topology;
pub mod wiring;
