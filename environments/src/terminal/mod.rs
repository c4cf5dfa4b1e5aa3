//! Tasks in a terminal: a shell in a sandbox, files, and a grader that comes after the agent. Tasks are folders in the form of
//! Harbor or Terminal-Bench, or are made from a seed.
mod build;
mod carried;
mod control;
pub mod dockerfile;
mod environment;
pub mod families;
pub mod folder;
mod grade;
pub mod harbor;
mod keys;
mod offer;
pub mod results;
pub(crate) mod runner;
pub mod script;
mod settings;
mod shell;
pub mod task_set;
pub mod task_yaml;
mod tools;
pub mod tree;
mod world;

pub(crate) use self::control::Control;
pub use self::{
    environment::{KIND, Terminal},
    settings::Settings,
    tools::tools,
};
