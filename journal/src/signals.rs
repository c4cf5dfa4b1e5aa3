//! What was made of a turn: verdicts, hints, a teacher's signal, and the sample that all of it comes to.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    episode::Standing,
    turn::{NextState, Turn},
};

/// Asks the pipeline to judge a turn whose next state is known.
#[derive(Clone, Debug)]
pub struct Evaluate {
    /// The main turn.
    pub turn: Arc<Turn>,
    /// What followed it.
    pub next_state: NextState,
    /// Next states that were taken back before this one.
    pub undone: u32,
}

/// One sample of the judge: +1, -1 or 0, or none when it could not be read.
pub type Vote = Option<i8>;

/// The majority of the votes, and how it came about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// +1, -1 or 0; `None` when no vote could be read.
    pub reward: Option<i8>,
    /// The votes; empty when a rule decided, unless a person overruled them.
    pub votes: Vec<Vote>,
    /// Which rule decided, if one did: `empty`, `truncated`, `repeat`, `tool_error`, `rating`,
    /// `environment`.
    pub rule: Option<String>,
}

impl Verdict {
    /// How good a step was, in [-1, 1]: the mean of the votes that could be read, or what a rule or a person said; none
    /// where nobody said anything.
    pub fn score(&self) -> Option<f32> {
        if self.rule.is_some() {
            return self.reward.map(f32::from);
        }
        let read: Vec<f32> = self.votes.iter().flatten().map(|vote| f32::from(*vote)).collect();
        if read.is_empty() {
            return self.reward.map(f32::from);
        }
        Some(read.iter().sum::<f32>() / read.len() as f32)
    }
}

/// A judged turn on its way to the teacher.
#[derive(Clone, Debug)]
pub struct Judged {
    /// The turn.
    pub turn: Arc<Turn>,
    /// Its verdict.
    pub verdict: Verdict,
    /// Hints, the most promising first; at least one.
    pub hints: Vec<String>,
    /// Next states that were taken back before the one that it was judged by.
    pub undone: u32,
}

/// Distillation targets of one response token: the student's top-k ids and what both say of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Candidates {
    /// Ids, best first.
    pub ids: Vec<u32>,
    /// log p_old of each id.
    pub old_logprobs: Vec<f32>,
    /// log p_teacher of each id, under the hinted prompt.
    pub teacher_logprobs: Vec<f32>,
}

/// The teacher's view of one turn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TeacherSignal {
    /// The hint it was shown.
    pub hint: String,
    /// log p_teacher of each response token under the hinted prompt.
    pub logprobs: Vec<f32>,
    /// log p of each response token under the plain prompt, by the same scoring code.
    pub old_logprobs: Vec<f32>,
    /// The student's top-k ids per response token; empty when the method needs none.
    pub student_top: Vec<Candidates>,
    /// The teacher's top-k ids per response token; empty when the method needs none.
    pub teacher_top: Vec<Candidates>,
}

/// A judged turn, ready for the optimizer. Signals, not advantages: the method makes those.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The turn.
    pub turn: Arc<Turn>,
    /// Its verdict.
    pub verdict: Verdict,
    /// The teacher's signal, when a hint was found.
    pub teacher: Option<TeacherSignal>,
    /// Where it stands in its group, when it is a step of an episode.
    pub standing: Option<Standing>,
}
