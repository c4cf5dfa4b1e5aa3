//! The rule for one step of a tool-call episode. It reads what was typed and what came back, nothing else, so it
//! is the same for an oracle, a judge's documents and a running episode.
use super::{Family, FamilyTask, TOOL};
use crate::tool_call::math;
use crate::world::StepVerdict;
use std::collections::BTreeSet;

/// What the policy did in one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Called a tool.
    Call {
        /// Its name.
        tool: String,
        /// The code, or whatever the tool took.
        code: String,
    },
    /// Boxed an answer.
    Answer(String),
    /// Neither, or nothing that can be read.
    Malformed,
}

/// What a call gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ran {
    /// What it printed.
    pub output: String,
    /// The class of the exception that ended it, `TypeError`.
    pub error: Option<String>,
}

/// A value that the problem needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Goal {
    /// As it is printed.
    pub value: String,
    /// Numbers and names that code for it must have, in one of these sets; what was merely typed in is not
    /// computed.
    pub from: Vec<Vec<String>>,
}

/// How far an episode is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Goals that were printed, by index.
    pub reached: BTreeSet<usize>,
    /// The last line of the last call that ran.
    pub last_printed: Option<String>,
    /// All that the last call printed.
    pub last_output: String,
    /// Code of calls that raised.
    pub failed: BTreeSet<String>,
    /// Classes of exceptions seen.
    pub errors: BTreeSet<String>,
}

impl Progress {
    /// What is known after a step.
    pub fn after(&self, task: &FamilyTask, action: &Action, ran: &Ran) -> Self {
        let mut after = self.clone();
        let Action::Call { tool, code } = action else { return after };
        if tool != TOOL {
            return after;
        }
        after.last_output.clone_from(&ran.output);
        if let Some(error) = &ran.error {
            after.failed.insert(squeezed(code));
            after.errors.insert(error.clone());
            return after;
        }
        after.last_printed =
            ran.output.lines().rev().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned);
        // Who has a later value needs no earlier one any more.
        if let Some(last) = reached(task, code, ran).last() {
            after.reached.extend(0..=last);
        }
        after
    }
}

/// Goals whose value was printed by code that has what it is computed from.
fn reached<'a>(task: &'a FamilyTask, code: &'a str, ran: &'a Ran) -> impl Iterator<Item = usize> + 'a {
    let (typed, shown) = (tokens(code), tokens(&ran.output));
    task.goals.iter().enumerate().filter_map(move |(at, goal)| {
        let computed = goal.from.iter().any(|set| set.iter().all(|token| typed.contains(token.as_str())));
        (shown.contains(goal.value.as_str()) && computed).then_some(at)
    })
}

/// Words and numbers; a sign is no part of a number unless nothing stands before it.
fn tokens(text: &str) -> BTreeSet<&str> {
    let mut found: BTreeSet<&str> = text
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|token| !token.is_empty())
        .collect();
    found.extend(text.split_whitespace());
    found
}

fn squeezed(code: &str) -> String {
    code.split_whitespace().collect::<Vec<_>>().join(" ")
}

pub(super) fn step(
    task: &FamilyTask,
    before: &Progress,
    action: &Action,
    ran: &Ran,
    after: &Progress,
) -> StepVerdict {
    let (tool, code) = match action {
        Action::Malformed => return StepVerdict::bad("neither a call nor an answer"),
        Action::Answer(given) => {
            return match &before.last_printed {
                Some(printed) if math::equal(printed, given) => {
                    StepVerdict::good("answers what was last printed")
                }
                Some(_) => StepVerdict::bad("answers something that was not last printed"),
                None => StepVerdict::bad("answers before anything was printed"),
            };
        }
        Action::Call { tool, code } => (tool, code),
    };
    if tool != TOOL {
        return StepVerdict::bad("calls a tool of no use here");
    }
    if before.failed.contains(&squeezed(code)) {
        return StepVerdict::bad("repeats a failing call unchanged");
    }
    if let Some(error) = &ran.error {
        // In a repair task the first failure of this class shows what has to be repaired.
        return match task.family == Family::Repair
            && !before.errors.contains(error)
            && expected_error(task, error)
        {
            true => StepVerdict::good("shows the error that must be repaired"),
            false => StepVerdict::bad("the code raises"),
        };
    }
    let Some(new) = after.reached.difference(&before.reached).last() else {
        return StepVerdict::bad("prints nothing new that is needed");
    };
    if task.family == Family::TwoStage && *new > 0 {
        // The goals after the first are computed from what the previous call printed.
        let observed = tokens(&before.last_output);
        let needed = &task.goals[0].value;
        return match observed.contains(needed.as_str()) {
            true => StepVerdict::good("uses the value of the previous observation that is needed"),
            false => StepVerdict::bad("uses a value that the previous observation did not show"),
        };
    }
    StepVerdict::good("computes a value that is needed")
}

fn expected_error(task: &FamilyTask, error: &str) -> bool {
    task.plan.iter().any(|(_, ran)| ran.error.as_deref() == Some(error))
}
