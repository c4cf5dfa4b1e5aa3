//! The binary `openclaw-rl`: topology, supervisor, wiring, CLI, telemetry.

pub mod chat;
pub mod cli;
pub mod launch;
pub mod pretrain;
pub mod progress;
pub mod score;
pub mod stop;
pub mod supervised;
pub mod supervisor;
pub mod telemetry;
pub mod topology;
