//! Tasks in a terminal: how task folders are read, what a Dockerfile asks for, and how verifiers report.
pub mod dockerfile;
pub mod folder;
pub mod harbor;
mod keys;
pub mod results;
mod shell;
pub mod task_yaml;
