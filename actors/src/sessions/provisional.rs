//! Next states that no later request has shown in its history yet.
//!
//! A title, a summary or a nudge that a client asks for ends with a message of the user as a person's answer does. What
//! tells them apart is the request after it: that one carries a person's words as history, and what was asked beside the
//! conversation it does not. No list of wordings is needed.
//!
//! A bare thumb down is one, too: what a person says next is why.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use openclaw_journal::{SessionId, TurnId, TurnMark};
use serde_json::Value;

use super::{
    next_state::Following,
    transcript::{Author, Transcript, message_text, spoken, words, words_hash},
};

/// A next state that may be taken back.
#[derive(Clone, Debug)]
pub(super) struct Provisional {
    pub turn: TurnId,
    /// Recognises the turn's reply.
    pub mark: TurnMark,
    /// When the reply was.
    pub completed: Instant,
    /// Its client had put the reply into other words: it may do so again.
    pub reworded: bool,
    /// What a person rated the reply, whatever is said of it.
    pub rated: Option<i8>,
    /// Names the request that brought it; a rating came beside the conversation.
    pub request: Option<u64>,
    /// Names of the messages that followed the reply.
    pub followed: Vec<u64>,
    /// Name of the reply to the request that brought it, once there is one.
    pub answer: Option<u64>,
    pub since: Instant,
    /// Time has settled it: it may be learnt from, and is remembered to know when that was wrong.
    pub by_time: bool,
}

/// What a later request shows of a next state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    /// Nothing that was not known.
    Nothing,
    /// It is part of the conversation.
    Kept,
    /// The conversation goes on in its place with something else.
    Replaced,
    /// Words follow what was a bare rating.
    Explained,
}

impl Provisional {
    /// `followed` is what the request carries behind the reply, `answer` the reply behind that.
    pub fn shown_by(&self, followed: &[u64], answer: Option<u64>) -> Shown {
        let goes_on = answer.is_some() || followed.len() > self.followed.len();
        if followed.is_empty() {
            Shown::Nothing
        } else if self.request.is_none() {
            Shown::Explained
        } else if followed.starts_with(&self.followed) {
            // The same request once more says no more than the first.
            if goes_on { Shown::Kept } else { Shown::Nothing }
        } else if answer.is_some() && answer == self.answer {
            // A client has put its user's words otherwise, and their reply stands behind them.
            Shown::Kept
        } else {
            Shown::Replaced
        }
    }
}

/// Names each message that followed a reply. Of a person's, what was said: stamps and context come and go.
pub(super) fn names(following: &Following, messages: &[Value], transcript: &Transcript) -> Vec<u64> {
    let entries = following.entries.iter().map(|at| transcript.entries[*at]);
    entries
        .map(|entry| {
            if entry.author != Author::Human {
                return entry.hash;
            }
            let said = words(spoken(&message_text(&messages[entry.position])));
            if said.is_empty() { entry.hash } else { words_hash(&said) }
        })
        .collect()
}

/// Those of all sessions.
#[derive(Debug, Default)]
pub(super) struct Provisionals(HashMap<SessionId, Vec<Provisional>>);

impl Provisionals {
    /// Keeps one of a session. The oldest beyond `most` are forgotten; returns those of them that are settled by that.
    pub fn add(&mut self, session: &SessionId, provisional: Provisional, most: usize) -> Vec<TurnId> {
        let kept = self.0.entry(session.clone()).or_default();
        kept.push(provisional);
        let excess = kept.len().saturating_sub(most.max(1));
        unsettled(kept.drain(..excess))
    }

    /// Of a session, the oldest first.
    pub fn of(&self, session: &SessionId) -> &[Provisional] {
        self.0.get(session).map_or(&[], Vec::as_slice)
    }

    /// Forgets the next state of a turn, and returns it.
    pub fn remove(&mut self, session: &SessionId, turn: &TurnId) -> Option<Provisional> {
        let kept = self.0.get_mut(session)?;
        let at = kept.iter().position(|provisional| provisional.turn == *turn)?;
        let removed = kept.remove(at);
        if kept.is_empty() {
            self.0.remove(session);
        }
        Some(removed)
    }

    /// The next state of a turn while it may be taken back, and its session.
    pub fn find(&self, turn: &TurnId) -> Option<(&SessionId, &Provisional)> {
        let is_it = |kept: &&Provisional| kept.turn == *turn && !kept.by_time;
        self.0.iter().find_map(|(session, kept)| Some((session, kept.iter().find(is_it)?)))
    }

    /// A person has rated a reply that words follow.
    pub fn rate(&mut self, turn: &TurnId, rating: i8) {
        let kept = self.0.values_mut().flatten().find(|kept| kept.turn == *turn);
        kept.into_iter().for_each(|kept| kept.rated = Some(rating));
    }

    /// The request that brought some was answered.
    pub fn answered(&mut self, session: &SessionId, request: u64, answer: u64) {
        let kept = self.0.get_mut(session).into_iter().flatten();
        kept.filter(|provisional| provisional.request == Some(request))
            .for_each(|provisional| provisional.answer = Some(answer));
    }

    /// Those of a session that has ended, which settles them.
    pub fn end(&mut self, session: &SessionId) -> Vec<TurnId> {
        unsettled(self.0.remove(session).into_iter().flatten())
    }

    /// Those that have waited for so long, which settles them.
    pub fn settle(&mut self, now: Instant, after: Duration) -> Vec<TurnId> {
        let mut settled: Vec<&mut Provisional> = self
            .0
            .values_mut()
            .flatten()
            .filter(|kept| !kept.by_time && now.saturating_duration_since(kept.since) >= after)
            .collect();
        settled.sort_by_key(|provisional| provisional.since);
        let settle = |provisional: &mut Provisional| {
            provisional.by_time = true;
            provisional.turn.clone()
        };
        settled.into_iter().map(settle).collect()
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }
}

fn unsettled(provisionals: impl Iterator<Item = Provisional>) -> Vec<TurnId> {
    provisionals.filter(|provisional| !provisional.by_time).map(|provisional| provisional.turn).collect()
}
