//! The binary `openclaw-rl`: topology, supervisor, wiring, CLI, telemetry.

pub mod topology;
