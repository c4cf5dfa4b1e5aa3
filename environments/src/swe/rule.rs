//! What a step in a repository was worth, by facts that the world alone knows.
use std::collections::{BTreeMap, BTreeSet};

use super::{
    git::Changes,
    patch::{self, Protected},
    report::Report,
    row::Row,
};
use crate::world::StepVerdict;

/// How many tests are as they should not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// Of those that failed at first.
    pub(super) failing: usize,
    /// Of those that passed at first.
    pub(super) broken: usize,
}

impl Standing {
    pub(super) fn of(report: &Report) -> Self {
        Self { failing: report.still_fail.len(), broken: report.broken.len() }
    }

    pub(super) fn is_done(self) -> bool {
        self.failing == 0 && self.broken == 0
    }
}

/// What was found and tried so far.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    facts: Facts,
    /// Facts that were seen.
    seen: BTreeSet<&'static str>,
    /// Files as they have been.
    trees: BTreeSet<String>,
    /// Files as they are.
    pub(super) tree: String,
    pub(super) standing: Standing,
    /// What has failed since files were changed.
    failed: BTreeSet<String>,
}

/// Words that show a fact when they are seen.
#[derive(Clone, Debug)]
struct Facts(BTreeMap<&'static str, Vec<String>>);

impl Facts {
    fn of(row: &Row) -> Self {
        let functions: BTreeSet<&str> = row.fail_to_pass.iter().map(|id| patch::test_function(id)).collect();
        let (gone, added) = patch::lines(&row.patch);
        let faulty = if row.makes_bug { added } else { gone };
        // A line of few characters stands anywhere.
        let faulty = faulty.into_iter().map(str::trim).filter(|line| line.len() >= 6).map(str::to_owned);
        Self(BTreeMap::from([
            ("shows a test that fails", functions.iter().map(|name| format!("def {name}(")).collect()),
            ("shows the faulty line", faulty.collect()),
        ]))
    }

    fn shown_by(&self, text: &str) -> Vec<&'static str> {
        let shown = self.0.iter().filter(|(_, words)| words.iter().any(|word| text.contains(word.as_str())));
        shown.map(|(name, _)| *name).collect()
    }
}

/// Which tests fail, by a run of them.
const TOLD: &str = "shows which tests fail";

/// One step, as the world saw it.
#[derive(Debug)]
pub(super) struct Step<'a> {
    /// What was done, word for word.
    pub(super) did: String,
    /// What was shown.
    pub(super) text: &'a str,
    /// A call of it failed.
    pub(super) failed: bool,
    pub(super) changes: &'a Changes,
    /// Of the files as they are now.
    pub(super) standing: Standing,
}

impl Progress {
    pub(super) fn new(row: &Row, tree: String) -> Self {
        Self {
            facts: Facts::of(row),
            seen: BTreeSet::new(),
            trees: [tree.clone()].into(),
            tree,
            standing: Standing { failing: row.fail_to_pass.len(), broken: 0 },
            failed: BTreeSet::new(),
        }
    }

    /// The verdict on a step, which is then behind us.
    pub(super) fn step(&mut self, step: &Step<'_>, row: &Row, protected: &Protected) -> StepVerdict {
        let edited = step.changes.tree != self.tree;
        let verdict = if edited { self.edit(step, protected) } else { self.look(step, row) };
        if edited {
            self.failed.clear();
            self.trees.insert(step.changes.tree.clone());
            self.tree.clone_from(&step.changes.tree);
            self.standing = step.standing;
        }
        if step.failed {
            self.failed.insert(step.did.clone());
        }
        verdict
    }

    fn edit(&self, step: &Step<'_>, protected: &Protected) -> StepVerdict {
        let (before, now) = (self.standing, step.standing);
        if step.changes.paths.iter().any(|path| protected.has(path)) {
            StepVerdict::bad("changes what judges it")
        } else if self.trees.contains(&step.changes.tree) {
            StepVerdict::bad("makes an edit again, or takes one back")
        } else if now.broken > before.broken {
            StepVerdict::bad("breaks a test that passed")
        } else if now.failing < before.failing {
            StepVerdict::good("fewer tests fail")
        } else if now.broken < before.broken {
            StepVerdict::good("fewer tests are broken")
        } else {
            StepVerdict::bad("the same tests fail")
        }
    }

    fn look(&mut self, step: &Step<'_>, row: &Row) -> StepVerdict {
        if step.failed && self.failed.contains(&step.did) {
            return StepVerdict::bad("fails again, unchanged");
        }
        let mut shown = self.facts.shown_by(step.text);
        let fails = |line: &str| line.contains("FAILED") || line.contains("ERROR");
        let told = |id: &String| {
            step.text.lines().any(|line| fails(line) && line.contains(patch::test_function(id)))
        };
        if row.fail_to_pass.iter().any(told) {
            shown.push(TOLD);
        }
        let new: Vec<&'static str> = shown.into_iter().filter(|fact| self.seen.insert(fact)).collect();
        match new.first() {
            Some(fact) => StepVerdict::good(fact),
            None if step.failed => StepVerdict::bad("fails"),
            None => StepVerdict::bad("nothing came of it"),
        }
    }
}
