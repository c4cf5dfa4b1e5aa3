//! What a person says of one reply beside the conversation: thumbs and words.

use std::time::Instant;

use openclaw_journal::{NextState, NextStateKind, Record, TurnId};

use super::{Conversations, Settled, Waiting};
use crate::{
    hints::explicit_hint,
    sessions::{name::Name, provisional::Provisional},
};

/// A rating or a remark on one response.
#[derive(Clone, Debug, PartialEq)]
pub struct Feedback {
    /// The response's id.
    pub turn: TurnId,
    /// +1 or -1.
    pub rating: Option<i8>,
    /// Words.
    pub text: Option<String>,
}

impl Feedback {
    fn name(&self) -> u64 {
        let rating = self.rating.map_or(0, |rating| 2 + i64::from(rating)).unsigned_abs();
        Name::new().number(rating).text(self.text.as_deref().unwrap_or_default()).finish()
    }
}

/// What became of feedback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeedbackOutcome {
    /// It is the turn's next state.
    Applied,
    /// It was said before: whoever says so in the journal again changes nothing.
    Repeated,
    /// The turn was evaluated or dropped before.
    TooLate,
    /// The turn is never trained on.
    NotTrained,
    /// No such turn.
    Unknown,
}

impl Conversations {
    /// Takes explicit feedback as a turn's next state. Words of it are also the turn's hint, as a person who writes one
    /// on the page leaves it: no hint writer replaces them. A bare thumb down waits for the words that say why, as long as
    /// another next state may be taken back; one on words that are there goes beside them. A client that did not hear what
    /// became of it says it again.
    pub fn feedback(&mut self, feedback: Feedback, now: Instant) -> FeedbackOutcome {
        let (name, turn) = (feedback.name(), feedback.turn);
        let followed = self.provisionals.find(&turn);
        let followed = followed.map(|(session, kept)| (session.clone(), kept.request, kept.rated));
        let is_bare = feedback.text.is_none();
        let beside = followed.as_ref().is_some_and(|(_, request, _)| request.is_some()) && is_bare;
        if self.settled.get(&turn) == Some(&Settled::Rated(name)) {
            match feedback.rating.filter(|_| beside) {
                Some(rating) => self.untold.push(Record::Rated { turn, rating }),
                None => self.tell_feedback(turn, feedback.rating, feedback.text, false),
            }
            return FeedbackOutcome::Repeated;
        }
        let waited = self.take(&turn);
        if waited.is_none() && followed.is_none() {
            return match self.settled.get(&turn) {
                Some(Settled::Rated(_) | Settled::Over) => FeedbackOutcome::TooLate,
                Some(Settled::NotTrained) => FeedbackOutcome::NotTrained,
                None => FeedbackOutcome::Unknown,
            };
        }
        self.settle(turn.clone(), Settled::Rated(name));
        if let Some(rating) = feedback.rating.filter(|_| beside) {
            self.provisionals.rate(&turn, rating);
            self.untold.push(Record::Rated { turn, rating });
            return FeedbackOutcome::Applied;
        }
        // What was rated before stays so beside words, and gives way to another rating.
        let waited_rated = waited.as_ref().and_then(|waited| waited.rated);
        let before = followed.as_ref().and_then(|(.., rated)| *rated).or(waited_rated);
        let rating = feedback.rating.or(before);
        if let Some((session, ..)) = followed {
            self.undo(&turn, before.and(rating));
            self.provisionals.remove(&session, &turn);
        }
        // After the end of its session nobody says why.
        let waited = waited.filter(|waited| self.sessions.contains(&waited.session) && !waited.mark.last);
        let is_down = is_bare && rating.is_some_and(|rating| rating < 0);
        let waits = is_down && self.config.teaches && self.config.settle_secs > 0;
        if let Some(Waiting { session, mark, completed, .. }) = waited.filter(|_| waits) {
            let kept = Provisional {
                turn: turn.clone(),
                mark,
                completed,
                reworded: false,
                rated: rating,
                request: None,
                followed: Vec::new(),
                answer: None,
                since: now,
                by_time: false,
            };
            let settled = self.provisionals.add(&session, kept, self.config.max_provisional);
            self.tell_settled(settled);
            self.tell_feedback(turn.clone(), rating, None, true);
        } else {
            self.tell_feedback(turn.clone(), rating, feedback.text, false);
        }
        // A judge takes a rating that was recorded by itself for the last word.
        if let Some(rating) = rating.filter(|rating| waited_rated.is_some_and(|before| before != *rating)) {
            self.untold.push(Record::Rated { turn, rating });
        }
        FeedbackOutcome::Applied
    }

    /// Takes back what followed a turn; a rating of it stays with the turn.
    pub(super) fn undo(&mut self, turn: &TurnId, rated: Option<i8>) {
        if let Some(rating) = rated {
            self.untold.push(Record::Rated { turn: turn.clone(), rating });
        }
        self.untold.push(Record::NextStateUndone { turn: turn.clone() });
    }

    pub(super) fn tell_feedback(
        &mut self,
        turn: TurnId,
        rating: Option<i8>,
        text: Option<String>,
        provisional: bool,
    ) {
        let (kind, text) = (NextStateKind::Feedback, text.unwrap_or_default());
        // First the hint: a judge that finds the next state finds it, too.
        if let Some(hint) = explicit_hint(kind, &text).filter(|_| self.config.teaches) {
            self.untold.push(Record::HintCorrected { turn: turn.clone(), hint });
        }
        let next_state = NextState { kind, text, rating, is_error: false, by_rule: None, screen: None };
        self.untold.push(Record::NextStateSeen { turn, next_state, provisional });
    }
}
