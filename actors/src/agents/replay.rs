//! An episode's recorded actions, taken again in a new world, and whether it answers as it did.

use openclaw_environments::{
    agent::Agent,
    world::{Action, Environment, Split, Task, Verdict, World, WorldError},
};
use openclaw_journal::{NextState, Turn};
use serde_json::Value;

use super::{
    StepJudge,
    moves::{Move, next_state, text_of},
};
use crate::conversation;

/// A world in which an episode is played again.
pub struct Replay {
    world: Box<dyn World>,
    agent: Box<dyn Agent>,
    task: Task,
    opening: Vec<Value>,
    malformed: u32,
    done: bool,
}

/// A step that was taken again.
#[derive(Clone, Debug, PartialEq)]
pub struct Taken {
    /// What was done.
    pub action: Action,
    /// What followed it now; none where nothing is seen of it but the outcome. It has the world's rule, if there is one.
    pub now: Option<NextState>,
    /// The task is over.
    pub done: bool,
}

/// Whether a step came out as it did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Likeness {
    /// It did.
    Same,
    /// It did not: this was recorded.
    Other(String),
    /// Nothing is recorded of what followed.
    Unrecorded,
}

impl Replay {
    /// Opens a world and begins the task.
    pub fn begin(environment: &dyn Environment, split: Split, number: u64) -> Result<Self, WorldError> {
        let task = environment.task(split, number)?;
        let mut world = environment.open()?;
        let first = world.reset(&task)?;
        let mut agent = environment.agent();
        let opening = agent.start(&task, &first.parts);
        Ok(Self { world, agent, task, opening, malformed: 0, done: false })
    }

    /// The task.
    pub fn task(&self) -> &Task {
        &self.task
    }

    /// What the policy is told first.
    pub fn opening(&self) -> &[Value] {
        &self.opening
    }

    /// The task is over; the world takes no further action.
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// Takes the action of a recorded turn.
    pub fn step(&mut self, turn: &Turn) -> Result<Taken, WorldError> {
        let taken = Move::read(&*self.agent, &conversation::parts(turn), turn.completion.finish_reason);
        let action = taken.action.clone();
        let mut outcome = self.world.step(&action)?;
        let messages = taken.told(&mut *self.agent, &mut outcome, &mut self.malformed);
        self.done = outcome.done;
        let now = next_state(&outcome, &messages, self.malformed > 0, StepJudge::Rule);
        Ok(Taken { action, now, done: outcome.done })
    }

    /// How the task came out.
    pub fn outcome(&mut self) -> Result<Verdict, WorldError> {
        self.world.evaluate()
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        self.world.close();
    }
}

impl Taken {
    /// Compares it with what was recorded: the next state where there is one, else what the next turn was told.
    pub fn likeness(&self, recorded: Option<&NextState>, next: Option<&Turn>) -> Likeness {
        let said = self.now.as_ref().map(|now| now.text.as_str()).unwrap_or_default();
        if let Some(before) = recorded {
            let same = self.now.as_ref().is_some_and(|now| {
                let one_rule = before.by_rule.is_none()
                    || (&now.by_rule, now.rating) == (&before.by_rule, before.rating);
                one_rule
                    && (now.kind, &now.text, now.is_error) == (before.kind, &before.text, before.is_error)
            });
            let rule = before.by_rule.as_ref().map(|reason| format!(" [{reason}]")).unwrap_or_default();
            return if same { Likeness::Same } else { Likeness::Other(format!("{}{rule}", before.text)) };
        }
        let Some(next) = next else { return Likeness::Unrecorded };
        let last = next.messages.iter().rposition(|message| message["role"] == "assistant");
        let told = text_of(&next.messages[last.map_or(0, |place| place + 1)..]);
        if told == said { Likeness::Same } else { Likeness::Other(told) }
    }
}
