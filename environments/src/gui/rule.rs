//! The rule for a step on a screen: what can be told without understanding the task.

use crate::world::StepVerdict;

/// What is known of a step.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    /// A call that is no action, or points nowhere.
    pub(super) fault: Option<&'static str>,
    /// The screen is another one.
    pub(super) changed: bool,
    /// The step before was the same and changed nothing.
    pub(super) again: bool,
    /// The agent has said that it is done, or that it cannot be.
    pub(super) ended: Option<super::Ended>,
    /// The best so far before it, and how it stands after it, from 0 to 1, where that is known.
    pub(super) progress: Option<(f64, f64)>,
}

/// None where only the task could tell.
pub(super) fn verdict(facts: &Facts) -> Option<StepVerdict> {
    use super::Ended;
    if let Some(fault) = facts.fault {
        return Some(StepVerdict::bad(fault));
    }
    match (facts.ended, facts.progress) {
        (Some(Ended::Done | Ended::Said), Some((_, after))) if after >= 1.0 => {
            return Some(StepVerdict::good("it is done"));
        }
        (Some(Ended::Done | Ended::Said), Some(_)) => return Some(StepVerdict::bad("it is not done")),
        (Some(Ended::Fail), Some(_)) => return Some(StepVerdict::bad("gives up what can be done")),
        (Some(_), None) => return None,
        // Who goes back and forth gains nothing.
        (None, Some((best, after))) if after > best => {
            return Some(StepVerdict::good("nearer to the goal"));
        }
        (None, _) => {}
    }
    if facts.again && !facts.changed {
        return Some(StepVerdict::bad("the same again, and again without effect"));
    }
    if !facts.changed {
        return Some(StepVerdict::bad("nothing on the screen has changed"));
    }
    facts.progress.map(|_| StepVerdict::bad("no nearer to the goal"))
}
