//! Tasks in a repository: an issue, files, tests that fail, and a patch that is judged in a sandbox where the agent never was.
//! Rows are those of SWE-bench and its kin, or are made here: out of a package by one changed token, or from a number.
mod agents;
mod build;
mod environment;
mod evaluate;
pub mod families;
mod git;
mod hands;
pub mod lists;
pub mod log;
pub mod make;
pub mod patch;
pub mod report;
pub mod row;
mod rule;
mod settings;
mod task_set;
mod tests_run;
mod world;

pub use self::{
    agents::BashAgent,
    environment::{KIND, Swe},
    settings::{Settings, Talk, Tools},
};
