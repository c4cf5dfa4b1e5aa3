//! One session of a persona: ask, and then complain or thank. It always ends with a remark on the last reply
//! that counts, so that this reply has a next state.
use super::{Intent, Persona, Split, Task, Wordings, scribble};
use crate::dice::Dice;
use serde::Serialize;

/// What the persona does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// It says this and waits for a reply.
    Send(String),
    /// It has left.
    Done,
}

/// What the experiment keeps of a session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SessionRecord {
    /// Whether the first reply kept the persona's rule.
    pub first_satisfied: bool,
    /// Whether the first reply was correct.
    pub first_correct: bool,
    /// Length of the first reply.
    pub first_tokens: usize,
    /// Whether the last reply before the closing remark kept the rule.
    pub last_satisfied: bool,
    /// Complaints made.
    pub complaints: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Asked,
    Complained,
    Closed,
    Gone,
}

/// A persona with one task.
#[derive(Clone, Debug)]
pub struct PersonaSession {
    persona: Persona,
    task: Task,
    dice: Dice,
    state: State,
    record: SessionRecord,
    first_message: String,
}

impl PersonaSession {
    /// A session that depends on the persona, the seed and the replies alone.
    pub fn new(persona: Persona, seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let task = Task::new(persona, &mut dice);
        let first_message = task.first_message(&mut dice);
        Self { persona, task, dice, state: State::Asked, record: SessionRecord::default(), first_message }
    }

    /// The question that opens the session.
    pub fn first_message(&self) -> &str {
        &self.first_message
    }

    /// Who is talking.
    pub fn persona(&self) -> Persona {
        self.persona
    }

    /// What is asked.
    pub fn task(&self) -> &Task {
        &self.task
    }

    /// What happened so far.
    pub fn record(&self) -> &SessionRecord {
        &self.record
    }

    /// The last remark was made: a further reply counts for nothing.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed | State::Gone)
    }

    /// Takes the reply to the last message. At most one complaint follows another: then the persona leaves.
    pub fn next(&mut self, reply: &str, response_tokens: usize) -> Step {
        let satisfied = self.persona.satisfied(reply, response_tokens);
        match self.state {
            State::Asked => {
                self.record.first_satisfied = satisfied;
                self.record.first_correct = self.task.is_correct(reply);
                self.record.first_tokens = response_tokens;
                self.record.last_satisfied = satisfied;
                self.remark(satisfied, State::Complained)
            }
            State::Complained => {
                self.record.last_satisfied = satisfied;
                self.remark(satisfied, State::Closed)
            }
            State::Closed | State::Gone => {
                self.state = State::Gone;
                Step::Done
            }
        }
    }

    fn remark(&mut self, satisfied: bool, after_complaint: State) -> Step {
        // Half of what it says was never seen in pretraining.
        let split = if self.dice.chance(0.5) { Split::Train } else { Split::HeldOut };
        let intent = if satisfied {
            self.state = State::Closed;
            Intent::Thanks
        } else {
            self.record.complaints += 1;
            self.state = after_complaint;
            Intent::Complaint(self.persona.wanted_style())
        };
        let text = Wordings::get().say(intent, split, &mut self.dice);
        Step::Send(scribble(&text, &mut self.dice))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::persona::{Style, reply};

    #[test]
    fn a_satisfied_persona_thanks_and_leaves() {
        for seed in 0..200 {
            let persona = Persona::ALL[seed as usize % 3];
            let mut session = PersonaSession::new(persona, seed);
            let good = reply(session.task(), persona.wanted_style(), &mut Dice::new(seed));
            assert!(matches!(session.next(&good, 100), Step::Send(_)));
            assert_eq!(session.next("You are welcome.", 5), Step::Done);
            let record = session.record();
            assert!(record.first_satisfied && record.first_correct && record.complaints == 0, "{record:?}");
        }
    }

    #[test]
    fn a_stubborn_policy_hears_two_complaints() {
        for seed in 0..200 {
            let persona = Persona::ALL[seed as usize % 3];
            let mut session = PersonaSession::new(persona, seed);
            let bad = reply(session.task(), Style::Machine, &mut Dice::new(seed));
            assert!(matches!(session.next(&bad, 30), Step::Send(_)));
            assert!(matches!(session.next(&bad, 30), Step::Send(_)));
            assert_eq!(session.next(&bad, 30), Step::Done);
            let record = session.record();
            assert!(!record.first_satisfied && !record.last_satisfied && record.complaints == 2);
            assert!(record.first_correct, "{bad}");
        }
    }

    #[test]
    fn a_session_depends_on_its_seed_alone() {
        let talk = |seed| {
            let mut session = PersonaSession::new(Persona::Student, seed);
            (session.first_message().to_owned(), session.next("**no**", 3))
        };
        assert_eq!(talk(5), talk(5));
        assert_ne!(talk(5), talk(6));
    }
}
