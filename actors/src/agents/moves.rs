//! One step without a policy or a journal: what is read out of a reply, and what is told of what came of it. Episodes are
//! played, resumed and replayed by it.

use openclaw_environments::{
    agent::{Agent, Parsed, Reply, ReplyCall},
    world::{Action, Outcome},
};
use openclaw_journal::{NextState, NextStateKind};
use openclaw_model::FinishReason;
use serde_json::Value;

use super::StepJudge;
use crate::{gateway::draft::Part, sessions::name::Name};

/// So many replies in a row that nobody can read end an episode.
const MALFORMED_IN_A_ROW: u32 = 3;

/// What a reply wants done.
#[derive(Clone, Debug, PartialEq)]
pub struct Move {
    /// What the world is to do.
    pub action: Action,
    /// What the policy is told of a reply that cannot be read.
    told: Option<Vec<Value>>,
}

impl Move {
    /// As `agent` reads it.
    pub fn read(agent: &dyn Agent, parts: &[Part], finish: FinishReason) -> Self {
        match agent.parse(&reply(parts, finish)) {
            Parsed::Action(action) => Self { action, told: None },
            Parsed::Malformed(told) => Self { action: Action::Malformed, told: Some(told) },
        }
    }

    /// What the policy is told of the outcome. `malformed` counts the replies up to this one that nobody could read; too
    /// many of them end the episode.
    pub fn told(self, agent: &mut dyn Agent, outcome: &mut Outcome, malformed: &mut u32) -> Vec<Value> {
        match self.told {
            None => {
                *malformed = 0;
                agent.observe(outcome)
            }
            Some(told) => {
                *malformed += 1;
                outcome.done |= *malformed >= MALFORMED_IN_A_ROW;
                told
            }
        }
    }
}

/// A reply in its parts, as agents read it.
fn reply(parts: &[Part], finish: FinishReason) -> Reply {
    let mut reply = Reply { truncated: finish == FinishReason::Length, ..Reply::default() };
    for part in parts {
        match part {
            Part::Reasoning(_) => {}
            Part::Content(text) => reply.text.push_str(text),
            Part::Call { id, name, arguments } => reply.calls.push(ReplyCall {
                id: id.clone(),
                name: name.clone(),
                arguments: arguments.clone(),
            }),
        }
    }
    reply
}

/// What followed a step, for the judge; none where nothing is seen of it but the outcome.
pub fn next_state(
    outcome: &Outcome,
    messages: &[Value],
    malformed: bool,
    judge: StepJudge,
) -> Option<NextState> {
    let text = text_of(messages);
    let rule = match (malformed, judge) {
        (true, _) => Some((-1, outcome.rule.map_or("cannot be read", |rule| rule.reason))),
        (false, StepJudge::Rule) => outcome.rule.map(|rule| (rule.score, rule.reason)),
        (false, StepJudge::Model) => None,
    };
    if text.is_empty() && rule.is_none() {
        return None;
    }
    let is_tool = messages.iter().any(|message| message["role"] == "tool");
    Some(NextState {
        kind: if is_tool { NextStateKind::Tool } else { NextStateKind::User },
        text,
        rating: rule.map(|(score, _)| score),
        is_error: outcome.observation.results.iter().any(|result| result.is_error),
        by_rule: rule.map(|(_, reason)| reason.to_owned()),
        screen: None,
    })
}

/// What messages say, one behind the other.
pub(super) fn text_of(messages: &[Value]) -> String {
    let says = |message: &Value| message["content"].as_str().map(str::to_owned);
    messages.iter().filter_map(says).collect::<Vec<_>>().join("\n\n")
}

/// Names what messages say.
pub(super) fn name_of(messages: &[Value]) -> u64 {
    messages.iter().fold(Name::new(), |name, message| name.text(&message.to_string())).finish()
}
