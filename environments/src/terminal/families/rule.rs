//! The rule for one step in a shell. It reads the files and what was shown, nothing else.
use std::collections::BTreeSet;

use super::{FamilyTask, StepVerdict, Tree};

/// How far an episode is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The least distance to the goal so far: who goes back and forth gains nothing.
    pub least: usize,
    /// Facts that were shown, or are needless by now, by index.
    pub shown: BTreeSet<usize>,
}

impl FamilyTask {
    /// Before the first step.
    pub fn begin(&self) -> Progress {
        Progress { least: self.distance(&self.start), shown: BTreeSet::new() }
    }

    /// How far a tree is from the goal.
    pub fn distance(&self, tree: &Tree) -> usize {
        tree.distance(&self.start, &self.goal)
    }

    /// The share of the way that is done: 0 to 1, as done and all.
    pub fn rate(&self, tree: &Tree) -> (usize, usize) {
        let all = self.distance(&self.start);
        (all.saturating_sub(self.distance(tree)), all)
    }

    /// What is known after a step that left this tree and showed this.
    pub fn after(&self, before: &Progress, tree: &Tree, shown: &str) -> Progress {
        let words: BTreeSet<&str> = shown.split(|c: char| !c.is_ascii_alphanumeric()).collect();
        let seen = |at: &usize| words.contains(self.facts[*at].as_str());
        let mut after = before.clone();
        after.least = before.least.min(self.distance(tree));
        after.shown.extend((0..self.facts.len()).filter(seen));
        if let (true, Some(last)) = (self.in_order, after.shown.last().copied()) {
            after.shown.extend(0..last);
        }
        after
    }

    /// The verdict on a step with calls.
    pub fn step(&self, before: &Progress, after: &Progress) -> StepVerdict {
        if after.least < before.least {
            StepVerdict::good("the files are nearer to what they should be")
        } else if after.shown.len() > before.shown.len() && before.least > 0 {
            StepVerdict::good("shows what has to be known")
        } else {
            StepVerdict::bad("the files are no nearer, and nothing that is needed is new")
        }
    }

    /// The verdict on a step that says it is done.
    pub fn finish(&self, tree: &Tree) -> StepVerdict {
        match self.distance(tree) {
            0 => StepVerdict::good("it is done"),
            _ => StepVerdict::bad("it is not done"),
        }
    }
}
