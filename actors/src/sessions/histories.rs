//! What a session that has no name is found by: its histories, and the last reply of each.

use std::collections::HashMap;

use openclaw_journal::{SessionId, TurnMark};

use super::{mark::Recognise, name::Name};

/// Names that a turn is found by, at most.
pub(super) const KEYS_OF_A_TURN: usize = 4;

/// Sessions by such names; those that said the same share one.
#[derive(Debug, Default)]
pub(super) struct Histories(HashMap<u64, Vec<SessionId>>);

/// Whose a name is.
pub(super) enum Owners<'a> {
    None,
    One(&'a SessionId),
    Many,
}

impl Histories {
    /// Remembers a session, once more if it is known.
    pub fn add(&mut self, key: u64, session: &SessionId) {
        self.0.entry(key).or_default().push(session.clone());
    }

    /// Takes back one of those.
    pub fn remove(&mut self, key: u64, session: &SessionId) {
        let Some(owners) = self.0.get_mut(&key) else { return };
        if let Some(at) = owners.iter().position(|owner| owner == session) {
            owners.remove(at);
        }
        if owners.is_empty() {
            self.0.remove(&key);
        }
    }

    /// The oldest first.
    pub fn owners(&self, key: u64) -> &[SessionId] {
        self.0.get(&key).map_or(&[], Vec::as_slice)
    }

    /// Whether one session alone has the name.
    pub fn sole(&self, key: u64) -> Owners<'_> {
        match self.owners(key) {
            [] => Owners::None,
            [session, others @ ..] if others.iter().all(|other| other == session) => Owners::One(session),
            _ => Owners::Many,
        }
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

/// What a turn is found by.
pub(super) fn keys_of(mark: &TurnMark) -> Vec<u64> {
    let mut keys = vec![request_key(mark.request()), mark.answered()];
    if mark.says_anything && mark.before != 0 {
        keys.push(tail_key(mark.before, mark.reply));
    }
    if mark.is_distinct() {
        keys.push(reply_key(mark.person, mark.reply));
    }
    keys
}

/// A request's history under another name than the same history as a prefix.
pub(super) fn request_key(history: u64) -> u64 {
    Name::new().text("request").number(history).finish()
}

/// A reply and what it answers, wherever they stand.
pub(super) fn tail_key(before: u64, reply: u64) -> u64 {
    Name::new().text("tail").number(before).number(reply).finish()
}

/// A reply to a person, wherever it stands.
pub(super) fn reply_key(person: u64, reply: u64) -> u64 {
    Name::new().text("reply").number(person).number(reply).finish()
}
