//! How much a step may compute so that nobody waits long for it to end.
//!
//! The work of a prompt's piece is counted as the passes of its tokens through the matrices and over the keys before
//! them. How much of it fits a step is not known beforehand: it depends on the machine, on who else uses it and on
//! what runs beside it, so it is found by trying. A step that took too long makes the next smaller at once, one
//! that was over early makes it larger.

use std::time::Duration;

use crate::config::ModelConfig;

/// Multiplications that a token costs, so that pieces of different prompts can be compared.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    /// Of a token, whatever stands before it.
    token: f64,
    /// Of a token and one key that it sees.
    pair: f64,
}

/// What a step is for, and whether somebody waits for its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    /// Prompts, while no reply is being drawn.
    Prompts,
    /// Prompts, and a token for each reply that is being drawn.
    PromptsBesideReplies,
    /// Scores, while nothing is served.
    Scores,
    /// Scores, while others are served in the steps between.
    ScoresBetweenSteps,
}

/// A pace for every load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Paces([Pace; 4]);

impl Paces {
    /// Steps beside replies take `step_time`; those that nobody's stream waits for take more, because larger pieces
    /// are computed faster, and those that come on top less.
    pub fn new(cost: &Cost, step_time: Duration) -> Self {
        let loads = [(2.0, ALONE_TOKENS), (1.0, 0), (2.0, ALONE_TOKENS), (0.5, 0)];
        Self(loads.map(|(factor, least)| Pace::new(cost, step_time.mul_f64(factor), least)))
    }

    /// What a step of this load may do.
    pub fn of(&self, load: Load) -> &Pace {
        &self.0[load as usize]
    }

    /// The same, to learn from a step.
    pub fn of_mut(&mut self, load: Load) -> &mut Pace {
        &mut self.0[load as usize]
    }
}

/// How long a step should take at most; what it may do to get there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    target: f64,
    allowance: f64,
    least: f64,
}

/// Steps never take on less of a prompt than this many tokens, however slow the machine: matrices are read for
/// one token as for sixteen.
pub(crate) const LEAST_TOKENS: usize = 16;
/// Where nobody's stream waits, a step takes on so many tokens whatever its time: of a model that is large for its machine
/// most of a small step is reading matrices, which made 100 tokens a second of 400 (two cores, 135 million parameters).
const ALONE_TOKENS: usize = 128;
/// Tokens that the very first step tries.
const FIRST_TOKENS: usize = 64;

impl Cost {
    /// Of a model's shape.
    pub fn of(config: &ModelConfig) -> Self {
        let (hidden, width) = (config.hidden_size, config.heads * config.head_dim);
        let projections = hidden * (2 * width + 2 * config.kv_heads * config.head_dim);
        let gated = 3 * hidden * config.intermediate_size;
        Self {
            token: (config.layers * (projections + gated)) as f64,
            pair: (config.layers * 2 * width) as f64,
        }
    }

    /// The same for each token, whatever stands before it.
    #[cfg(test)]
    pub const fn flat() -> Self {
        Self { token: 1.0, pair: 0.0 }
    }

    /// Of `new` tokens behind `past`.
    pub fn work(&self, past: usize, new: usize) -> f64 {
        let (past, new) = (past as f64, new as f64);
        new * self.token + (new * past + new * new / 2.0) * self.pair
    }

    /// The most tokens behind `past` whose work is not above `work`.
    pub fn tokens(&self, past: usize, work: f64) -> usize {
        // The positive root of  pair / 2 n^2 + (token + past pair) n - work.
        let each = self.token + past as f64 * self.pair;
        let root = (each * each + 2.0 * self.pair * work.max(0.0)).sqrt();
        (2.0 * work.max(0.0) / (each + root)) as usize
    }
}

impl Pace {
    /// Of steps that should take no longer than `target`, and may do the work of `least` tokens in any case.
    pub fn new(cost: &Cost, target: Duration, least: usize) -> Self {
        let allowance = cost.work(0, FIRST_TOKENS);
        Self { target: target.as_secs_f64(), allowance, least: cost.work(0, least) }
    }

    /// What the next step may do.
    pub fn allowance(&self) -> f64 {
        self.allowance.max(self.least)
    }

    /// Learns from a step that did `work` of prompts in `took`, with everything that it did beside.
    pub fn observe(&mut self, work: f64, took: Duration) {
        let ratio = (self.target / took.as_secs_f64().max(1e-6)).clamp(0.25, 2.0);
        if work >= self.allowance() / 2.0 {
            self.allowance = work * ratio;
        } else if ratio < 1.0 {
            // It had little to do, which says nothing about how much it could have done, and was too slow even so.
            self.allowance *= ratio;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COST: Cost = Cost { token: 1000.0, pair: 2.0 };

    #[test]
    fn the_tokens_of_a_work_are_the_most_that_do_not_exceed_it() {
        for past in [0, 1, 500, 20_000] {
            for new in [1, 16, 63, 4096] {
                let work = COST.work(past, new);
                assert_eq!(COST.tokens(past, work * 1.000_001), new, "{new} behind {past}");
                assert_eq!(COST.tokens(past, work * 0.999_999), new - 1, "{new} behind {past}");
            }
        }
        assert_eq!(COST.tokens(10, -1.0), 0);
    }

    /// A machine that does `speed` of work per second, and something else for `beside` seconds in each step.
    fn settle(pace: &mut Pace, speed: f64, beside: f64) -> f64 {
        let step = |pace: &mut Pace| {
            let work = pace.allowance();
            let took = beside + work / speed;
            pace.observe(work, Duration::from_secs_f64(took));
            took
        };
        (0..100).fold(0.0, |_, _| step(pace))
    }

    #[test]
    fn steps_come_to_take_what_they_should_whatever_the_machine() {
        for (speed, beside) in [(1e6, 0.0), (1e9, 0.02), (1e12, 0.06)] {
            let mut pace = Pace::new(&COST, Duration::from_millis(80), 0);
            let took = settle(&mut pace, speed, beside);
            assert!((took - 0.08).abs() < 0.004, "{took} s at {speed} beside {beside}");
            let took = settle(&mut pace, speed / 10.0, beside);
            assert!((took - 0.08).abs() < 0.004, "{took} s when it has become slower");
        }
    }

    #[test]
    fn however_slow_the_machine_a_step_that_nobody_waits_for_is_no_smaller_than_is_worth_its_while() {
        let paces = || Paces::new(&COST, Duration::from_millis(80));
        for (load, least) in [(Load::Prompts, ALONE_TOKENS), (Load::Scores, ALONE_TOKENS)] {
            let mut paces = paces();
            settle(paces.of_mut(load), 1e5, 0.0);
            assert_eq!(COST.tokens(0, paces.of(load).allowance() * 1.000_001), least);
            let took = settle(paces.of_mut(load), 1e9, 0.0);
            assert!((took - 0.16).abs() < 0.008, "{took} s on a fast one");
        }
        let mut paces = paces();
        settle(paces.of_mut(Load::PromptsBesideReplies), 1e5, 0.0);
        assert!(COST.tokens(0, paces.of(Load::PromptsBesideReplies).allowance()) < 16);
    }

    #[test]
    fn a_step_with_little_to_do_changes_nothing_unless_it_was_slow() {
        let mut pace = Pace::new(&COST, Duration::from_millis(80), 0);
        let before = pace.allowance();
        pace.observe(before / 100.0, Duration::from_millis(1));
        assert_eq!(pace.allowance(), before);
        pace.observe(before / 100.0, Duration::from_millis(160));
        assert_eq!(pace.allowance(), before / 2.0);
    }
}
