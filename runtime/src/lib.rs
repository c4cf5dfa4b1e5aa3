//! The binary `openclaw-rl`: topology, supervisor, wiring, CLI, telemetry.

pub mod pretrain;
pub mod stop;
pub mod supervisor;
pub mod topology;
