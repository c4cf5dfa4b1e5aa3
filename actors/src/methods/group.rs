//! How episodes and steps of a group are compared: the `[method.group]` table of `grpo` and `step_wise`.

use openclaw_journal::{EpisodeStep, GroupEpisode, Sample};
use serde::{Deserialize, Serialize};

use super::MethodKind;

/// Added to a standard deviation that is divided by (published).
const EPSILON: f64 = 1e-6;
/// A variance, or a difference of rewards, up to this is none (published).
const CONSTANT: f64 = 1e-12;

/// What becomes of what is the same throughout its group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Constant {
    /// It is not trained on.
    #[default]
    Drop,
    /// It has an advantage of 0, and the rest of the loss.
    Keep,
}

/// What becomes of what there is nothing to compare with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Single {
    /// As what is constant.
    #[default]
    Constant,
    /// Its own value is its advantage: the last steps of an episode that is longer than the others get large ones.
    Raw,
}

/// Which steps are compared with one another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bucket {
    /// Those at the same place, whatever the agents saw there.
    #[default]
    Step,
    /// Those behind the same last message, wherever that was.
    State,
}

/// What an episode counts in its group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Count {
    /// Once.
    #[default]
    Episode,
    /// Once for each of its steps.
    Step,
}

/// The `[method.group]` table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupConfig {
    /// Divides by the standard deviation. Default: yes (published).
    #[serde(default = "yes")]
    pub normalize: bool,
    /// What is constant. Default: `drop` (published).
    #[serde(default)]
    pub constant: Constant,
    /// What is alone. Default: `constant`; published is `raw`.
    #[serde(default)]
    pub single: Single,
    /// `step_wise`: what is compared. Default: `step` (published).
    #[serde(default)]
    pub bucket: Bucket,
    /// `grpo`: what is counted. Default: `episode`; published is `step` where each turn is a sample.
    #[serde(default)]
    pub count: Count,
    /// Weight of the outcome. Default 1 (published).
    #[serde(default = "one")]
    pub outcome_weight: f32,
    /// Weight of a step's verdict for `step_wise`, of the mean of all for `grpo`. Default 1 and 0 (published).
    #[serde(default)]
    pub step_weight: Option<f32>,
}

fn yes() -> bool {
    true
}
fn one() -> f32 {
    1.0
}

impl Default for GroupConfig {
    fn default() -> Self {
        Self {
            normalize: true,
            constant: Constant::default(),
            single: Single::default(),
            bucket: Bucket::default(),
            count: Count::default(),
            outcome_weight: 1.0,
            step_weight: None,
        }
    }
}

impl GroupConfig {
    /// See [`GroupConfig::step_weight`].
    pub fn step_weight(&self, kind: MethodKind) -> f32 {
        self.step_weight.unwrap_or(if kind == MethodKind::StepWise { 1.0 } else { 0.0 })
    }

    /// `value` as the others see it, of which it is one; none where it is dropped. `unbiased` divides the squares by one
    /// less than there are.
    fn standardised(&self, value: f64, values: &[f64], unbiased: bool) -> Option<f64> {
        let count = values.len() as f64;
        let constant = || (self.constant == Constant::Keep).then_some(0.0);
        if values.len() < 2 {
            return if self.single == Single::Raw { Some(value) } else { constant() };
        }
        let mean = values.iter().sum::<f64>() / count;
        let squares: f64 = values.iter().map(|other| (other - mean).powi(2)).sum();
        if squares / count <= CONSTANT {
            return constant();
        }
        let deviation = (squares / if unbiased { count - 1.0 } else { count }).sqrt() + EPSILON;
        Some((value - mean) / if self.normalize { deviation } else { 1.0 })
    }
}

/// A step nobody judged is neither good nor bad (published).
fn score(step: &EpisodeStep) -> f64 {
    step.score.map_or(0.0, f64::from)
}

/// `grpo`: `A = (R - mean) / (std + 1e-6)` over the episodes of the group, the standard deviation unbiased, for every token
/// of every step; `R` is the outcome and, weighted, the mean of the step verdicts.
pub(super) fn of_episode(config: &GroupConfig, step_weight: f32, sample: &Sample) -> Option<f32> {
    let standing = sample.standing.as_ref()?;
    let own = standing.own()?;
    let reward = |episode: &GroupEpisode| {
        let scores: f64 = episode.steps.values().map(score).sum();
        let mean = scores / episode.steps.len().max(1) as f64;
        f64::from(config.outcome_weight) * f64::from(episode.outcome.reward) + f64::from(step_weight) * mean
    };
    let times = |episode: &GroupEpisode| match config.count {
        Count::Episode => 1,
        Count::Step => episode.steps.len(),
    };
    let rewards: Vec<f64> = standing
        .group
        .iter()
        .flat_map(|episode| std::iter::repeat_n(reward(episode), times(episode)))
        .collect();
    config.standardised(reward(own), &rewards, true).map(|advantage| advantage as f32)
}

/// `step_wise`: `v = outcome + step`, and `A = (v - mean) / (std + 1e-6)` over the steps that it is compared with, the
/// variance that of all of them (not unbiased); for every token of the step.
pub(super) fn of_step(config: &GroupConfig, step_weight: f32, sample: &Sample) -> Option<f32> {
    let standing = sample.standing.as_ref()?;
    let own = standing.own()?;
    let value = |episode: &GroupEpisode, step: &EpisodeStep| {
        f64::from(config.outcome_weight) * f64::from(episode.outcome.reward)
            + f64::from(step_weight) * score(step)
    };
    let taken = own.steps.get(&standing.step)?;
    let values: Vec<f64> = standing
        .group
        .iter()
        .flat_map(|episode| episode.steps.iter().map(move |(place, step)| (episode, place, step)))
        .filter(|(_, place, step)| match config.bucket {
            Bucket::Step => **place == standing.step,
            Bucket::State => step.state == taken.state,
        })
        .map(|(episode, _, step)| value(episode, step))
        .collect();
    config.standardised(value(own, taken), &values, false).map(|advantage| advantage as f32)
}

#[cfg(test)]
mod tests;
