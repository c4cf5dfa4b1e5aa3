//! How a turn is recognised when a later request carries it as history. Kept in the journal, so that a session goes on
//! after a restart.

use std::sync::Arc;

use serde_json::Value;

use super::transcript::{Author, Transcript, follow, reply_hash, says_anything};
use crate::journal::TurnMark;

/// Recognises a request when a later one carries it as history.
#[derive(Clone, Debug, PartialEq)]
pub struct Fingerprint {
    /// Names of the request's prefixes, the empty one first, the whole request last.
    pub(super) chain: Arc<[u64]>,
    /// The session gave its name; else its histories are remembered to find it again.
    pub(super) named: bool,
    /// The request ended its session.
    pub(super) last: bool,
}

impl Fingerprint {
    /// Of the request and its reply, an assistant message.
    pub fn mark(&self, reply: &Value) -> TurnMark {
        TurnMark {
            chain: self.chain.clone(),
            named: self.named,
            last: self.last,
            reply: reply_hash(reply),
            says_anything: says_anything(reply),
        }
    }
}

impl TurnMark {
    /// Names the request.
    pub(super) fn request(&self) -> u64 {
        *self.chain.last().expect("a transcript's chain starts with one element")
    }

    /// Names the request with its reply.
    pub(super) fn answered(&self) -> u64 {
        follow(self.request(), Author::Assistant, self.reply)
    }

    /// The same request answered by the same words.
    pub(super) fn repeats(&self, other: &Self) -> bool {
        self.request() == other.request() && self.reply == other.reply
    }

    /// The history holds the request and right after it the reply.
    pub(super) fn kept_in(&self, transcript: &Transcript) -> Option<usize> {
        self.place(transcript).filter(|&place| transcript.entries[place].hash == self.reply)
    }

    /// The history was rewritten (a compaction, another system prompt), but its last reply is this one.
    pub(super) fn moved_in(&self, transcript: &Transcript) -> Option<usize> {
        let last = transcript.entries.iter().rposition(|entry| entry.author == Author::Assistant)?;
        // An earlier reply of the same words, before this turn's request, is not this reply.
        let before_this_turn = self.chain.contains(&transcript.chain[last + 1]);
        (self.says_anything && !before_this_turn && transcript.entries[last].hash == self.reply)
            .then_some(last)
    }

    /// The history holds the request, and after it a reply that the client put into other words.
    pub(super) fn reworded_in(&self, transcript: &Transcript) -> Option<usize> {
        self.place(transcript)
    }

    fn place(&self, transcript: &Transcript) -> Option<usize> {
        let place = self.chain.len() - 1;
        let entry = transcript.entries.get(place)?;
        (transcript.chain[place] == self.request() && entry.author == Author::Assistant).then_some(place)
    }
}
