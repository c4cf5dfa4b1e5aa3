//! Tasks in a terminal: how task folders are read, what a Dockerfile asks for, how verifiers report, and the
//! families of small tasks that are made from a seed.
pub mod dockerfile;
pub mod folder;
pub mod harbor;
mod keys;
pub mod results;
mod shell;
pub mod task_yaml;
