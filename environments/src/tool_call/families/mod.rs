//! Families of small problems for one tool, `code_interpreter`, made from a seed: a large expression, a value that
//! must first be looked up, code that first fails. Each has an oracle: the right actions, and a rule for any step.
mod expression;
mod repair;
mod rule;
mod two_stage;

pub use rule::{Action, Goal, Progress, Ran};

use super::{math, tools};
use crate::draw::{Draw, Kind, Kinds, Split, StepVerdict};
use crate::world::{Said, Tool};

/// The tool that solves the problems.
pub const TOOL: &str = "code_interpreter";

/// A family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// TC-1: two operators on numbers too large for the model's head.
    Expression,
    /// TC-2: what one call prints is needed in the next.
    TwoStage,
    /// TC-3: the obvious code raises.
    Repair,
}

impl Family {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Expression, Self::TwoStage, Self::Repair];

    /// The name in ids and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Expression => "tc1",
            Self::TwoStage => "tc2",
            Self::Repair => "tc3",
        }
    }

    /// Its kinds of task.
    pub fn kinds(self) -> &'static [Kind] {
        match self {
            Self::Expression => expression::KINDS,
            Self::TwoStage => two_stage::KINDS,
            Self::Repair => repair::KINDS,
        }
    }
}

/// How hard the tasks are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Knobs {
    /// Least and most digits of a number, 2 to 9.
    pub digits: (u32, u32),
    /// Least and most items of a printed list, 3 to 40.
    pub items: (usize, usize),
    /// Lines printed beside the one that matters, up to 20.
    pub distractors: usize,
    /// Tools that are offered and of no use, up to 4.
    pub decoy_tools: usize,
    /// Which kinds are drawn.
    pub kinds: Kinds,
}

impl Default for Knobs {
    fn default() -> Self {
        Self { digits: (3, 4), items: (4, 8), distractors: 2, decoy_tools: 1, kinds: Kinds::Own }
    }
}

/// One problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FamilyTask {
    /// `tc1/train/7`: the same id is the same task, given the same knobs.
    pub id: String,
    /// Its family.
    pub family: Family,
    /// Its split.
    pub split: Split,
    /// Name of its kind.
    pub kind: &'static str,
    /// The wording that the instruction was made of.
    pub wording: &'static str,
    /// What the policy is told.
    pub instruction: String,
    /// Python that runs before the code of every call.
    pub prelude: String,
    /// Tools to offer, [`TOOL`] among them.
    pub tools: Vec<&'static str>,
    /// What the box must hold.
    pub answer: String,
    /// What has to be found on the way, in order.
    pub goals: Vec<Goal>,
    /// The right actions and what they give.
    pub plan: Vec<(Action, Ran)>,
}

/// The task of a family, a split and a seed.
pub fn task(family: Family, split: Split, seed: u64, knobs: &Knobs) -> FamilyTask {
    let knobs = Knobs {
        digits: (knobs.digits.0.clamp(2, 9), knobs.digits.1.clamp(knobs.digits.0.clamp(2, 9), 9)),
        items: (knobs.items.0.clamp(3, 40), knobs.items.1.clamp(knobs.items.0.clamp(3, 40), 40)),
        distractors: knobs.distractors.min(20),
        decoy_tools: knobs.decoy_tools.min(DECOYS.len()),
        kinds: knobs.kinds,
    };
    let mut draw = Draw::new(family as u64, split, seed);
    let mut made = match family {
        Family::Expression => expression::make(&mut draw, &knobs),
        Family::TwoStage => two_stage::make(&mut draw, &knobs),
        Family::Repair => repair::make(&mut draw, &knobs),
    };
    let answer = made.answer.clone();
    made.plan.push((Action::Answer(answer.clone()), Ran::default()));
    let mut tools = vec![TOOL];
    for decoy in DECOYS.iter().take(knobs.decoy_tools) {
        tools.insert(draw.dice.index(tools.len() + 1), decoy);
    }
    let side = if split == Split::Train { "train" } else { "held-out" };
    FamilyTask {
        id: format!("{}/{side}/{seed}", family.name()),
        family,
        split,
        kind: made.kind,
        wording: made.wording,
        instruction: made.instruction,
        prelude: made.prelude,
        tools,
        answer,
        goals: made.goals,
        plan: made.plan,
    }
}

/// Offered, never needed.
const DECOYS: [&str; 4] = ["search", "calendar", "translate", "weather"];

/// What a family's file makes; the answer step is added to every plan.
struct Made {
    kind: &'static str,
    wording: &'static str,
    instruction: String,
    prelude: String,
    answer: String,
    goals: Vec<Goal>,
    plan: Vec<(Action, Ran)>,
}

impl FamilyTask {
    /// What the policy is told first.
    pub fn opening(&self) -> Vec<Said> {
        vec![Said::user(self.instruction.clone())]
    }

    /// What the policy may call.
    pub fn offered(&self) -> Vec<Tool> {
        let tool = |name: &&str| if *name == TOOL { Some(tools::interpreter()) } else { tools::decoy(name) };
        self.tools.iter().filter_map(tool).collect()
    }

    /// Whether a boxed answer is right.
    pub fn correct(&self, given: &str) -> bool {
        math::equal(&self.answer, given)
    }

    /// The verdict of the oracle on one step.
    pub fn step(&self, before: &Progress, action: &Action, ran: &Ran, after: &Progress) -> StepVerdict {
        rule::step(self, before, action, ran, after)
    }
}

fn call(code: String) -> Action {
    Action::Call { tool: TOOL.into(), code }
}

fn printed(text: impl std::fmt::Display) -> Ran {
    Ran { output: format!("{text}\n"), error: None }
}

#[cfg(test)]
mod tests;
