//! What a person says of a turn: whether the reply was good, what its hint should be, or that nothing is to be learnt
//! from it. It counts until a batch has the turn.

use openclaw_actors::{
    conversation,
    judge::is_lasting,
    sessions::{Feedback, FeedbackOutcome, SessionsAddress},
    teacher::MOST_HINT_CHARS,
};
use openclaw_journal::{Journal, Record, Recorded, Story, TurnId, TurnState};

use super::operator::{Done, Rating};
use crate::page::fate::Fate;
use crate::refusal::{Refusal, RefusalKind};

/// Where what is said goes.
pub struct Corrections {
    /// Keeps it.
    pub journal: Journal,
    /// Takes it as what followed a reply that nothing has followed yet.
    pub sessions: SessionsAddress,
    /// The method shows hints to a teacher.
    pub teaches: bool,
    /// What a person explicitly wished for stands from then on.
    pub remembers: bool,
}

impl Corrections {
    /// As `POST /v1/feedback` where nothing has followed the reply; in the place of a judge's verdict where something has.
    pub async fn rate(&self, turn: &str, rating: Rating) -> Result<Done, Refusal> {
        let story = self.changeable(turn).await?;
        let (value, word) = match rating {
            Rating::Up => (1, "good"),
            Rating::Down => (-1, "bad"),
        };
        let followed = story.row.next_state.as_ref().and_then(|next| next.rating);
        if story.row.rated.or(followed) == Some(value) {
            return Ok(Done::new(format!("rated {word} already")));
        }
        let id = story.row.turn.id.clone();
        if story.row.state == TurnState::Waiting {
            let feedback = Feedback { turn: id.clone(), rating: Some(value), text: None };
            if self.feedback(feedback).await? {
                return Ok(Done::new(format!(
                    "rated {word}: that is what followed the reply, and its verdict"
                )));
            }
        }
        self.record(turn, Record::Rated { turn: id, rating: value }).await?;
        Ok(Done::new(format!("rated {word}: that counts, whatever a judge makes of it")))
    }

    /// A teacher is shown `hint` as it is. Where nothing has followed the reply, it is also what followed.
    pub async fn correct_hint(&self, turn: &str, hint: String) -> Result<Done, Refusal> {
        let chars = hint.chars().count();
        if hint.trim().is_empty() || chars > MOST_HINT_CHARS {
            let message =
                format!("the hint has {chars} characters; a teacher is shown 1 to {MOST_HINT_CHARS}");
            return Err(Refusal::new(RefusalKind::Usage, message));
        }
        if !self.teaches {
            let message = "the method of this run shows hints to nobody: it learns from verdicts alone";
            return Err(Refusal::new(RefusalKind::NeverHere, message));
        }
        let story = self.changeable(turn).await?;
        if story.row.corrected.as_ref() == Some(&hint) {
            // It may have ended between the two.
            self.voice(&story, hint).await?;
            return Ok(Done::new("the hint says that already"));
        }
        let id = story.row.turn.id.clone();
        if story.row.state == TurnState::Waiting {
            let feedback = Feedback { turn: id.clone(), rating: None, text: Some(hint.clone()) };
            if self.feedback(feedback).await? {
                let message =
                    "your words are what followed the reply, and a teacher is shown them as they are";
                return Ok(Done::new(message));
            }
        }
        self.record(turn, Record::HintCorrected { turn: id, hint: hint.clone() }).await?;
        if self.voice(&story, hint).await? {
            return Ok(Done::new("hint corrected: a teacher is shown your words, with later replies, too"));
        }
        Ok(Done::new("hint corrected: a teacher is shown your words as they are"))
    }

    /// Whether the words stand from now on.
    async fn voice(&self, story: &Story, words: String) -> Result<bool, Refusal> {
        let turn = &story.row.turn;
        let task = conversation::task_position(&turn.messages);
        let task = task.and_then(|at| turn.messages[at]["content"].as_str()).unwrap_or_default();
        if !self.remembers || !is_lasting(&words, task, conversation::answer(turn)) {
            return Ok(false);
        }
        let voiced = Record::WishVoiced { turn: turn.id.clone(), wish: words };
        Ok(self.journal.record(voiced).await? == Recorded::Done)
    }

    /// It is never trained on.
    pub async fn drop_turn(&self, turn: &str) -> Result<Done, Refusal> {
        let story = self.story(turn).await?;
        if story.row.state == TurnState::Dropped {
            return Ok(Done::new("dropped already: nothing is learnt from it"));
        }
        let id = story.row.turn.id.clone();
        self.record(turn, Record::TurnWithdrawn { turn: id.clone() }).await?;
        self.sessions.withdrawn(id);
        Ok(Done::new("dropped: nothing is learnt from it"))
    }

    /// Whether it became what followed the reply.
    async fn feedback(&self, feedback: Feedback) -> Result<bool, Refusal> {
        match self.sessions.feedback(feedback).await {
            Some(outcome) => Ok(outcome == FeedbackOutcome::Applied),
            None => Err(Refusal::new(RefusalKind::NotNow, "the journal has not taken it yet: say it again")),
        }
    }

    async fn record(&self, turn: &str, record: Record) -> Result<(), Refusal> {
        match self.journal.record(record).await? {
            Recorded::Done => Ok(()),
            Recorded::Stale => Err(refusal(&self.story(turn).await?)),
        }
    }

    async fn story(&self, turn: &str) -> Result<Story, Refusal> {
        let story = self.journal.story(&TurnId(turn.into())).await?;
        story.ok_or_else(|| Refusal::new(RefusalKind::Unknown, format!("no turn `{turn}`")))
    }

    /// Its story, while something can be said of it.
    async fn changeable(&self, turn: &str) -> Result<Story, Refusal> {
        let story = self.story(turn).await?;
        let state = story.row.state;
        match state.is_open() && state != TurnState::Leased && story.died.is_none() {
            true => Ok(story),
            false => Err(refusal(&story)),
        }
    }
}

fn refusal(story: &Story) -> Refusal {
    let words = Fate::of(story).words;
    let message = match story.row.state {
        _ if story.died.is_some() => format!("nobody is handed the turn: {words}"),
        TurnState::Answered => words,
        state if state.is_open() && state != TurnState::Leased => {
            format!("the turn is {words}: say it again")
        }
        TurnState::Dropped => format!("too late: {words}"),
        _ => format!("too late: the turn is {words}"),
    };
    Refusal::new(RefusalKind::NotNow, message)
}

#[cfg(test)]
mod tests;
