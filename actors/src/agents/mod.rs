//! Workers that let the policy act in an environment: episodes in groups, each step written down as a turn and judged while
//! the episode goes on, and an outcome at its end.
//!
//! They know no kind of environment. What of a plan is done is in the journal: after a kill, an episode is played up to its
//! last step, by the same actions in a new world, and goes on from there.

mod actor;
mod artefacts;
mod draw;
mod meters;
mod moves;
mod plan;
mod play;
mod replay;
mod slot;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use futures::future::BoxFuture;

pub use self::{
    actor::AgentsArguments,
    artefacts::{Artefacts, FILM, Left},
    draw::Sampling,
    plan::{Plan, PlanConfig, Tally, Ticket},
    play::{PlayError, Player},
    replay::{Likeness, Replay, Taken},
    slot::worlds_closed,
};

/// Returns when the next step may be taken; an operator may have paused it.
pub type Pass = Arc<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

/// Who says how good a step was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StepJudge {
    /// The environment's own rule, where it has one; else the judge.
    #[default]
    Rule,
    /// The judge, whatever a rule says; only what cannot be read needs none.
    Model,
}

/// How agents act.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentsConfig {
    /// How replies are drawn.
    pub sampling: Sampling,
    /// Most steps of an episode; then it is evaluated as it is.
    pub steps: u32,
    /// How long an episode may go on; then it is evaluated as it is.
    pub episode: Duration,
    /// Who judges steps.
    pub step_judge: StepJudge,
    /// The method learns from what is made of steps.
    pub judged: bool,
    /// Episodes of one worker at a time.
    pub concurrency: usize,
}
