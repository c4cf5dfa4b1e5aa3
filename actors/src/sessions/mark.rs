//! How a turn is recognised when a later request carries it as history. Kept in the journal, so that a session goes on
//! after a restart.

use std::sync::Arc;

use openclaw_journal::TurnMark;
use serde_json::Value;

use super::transcript::{Author, Transcript, follow, reply_hash, says_anything};

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

/// What a mark tells of a later request.
pub(super) trait Recognise {
    /// Names the request.
    fn request(&self) -> u64;

    /// Names the request with its reply.
    fn answered(&self) -> u64;

    /// The same request answered by the same words.
    fn repeats(&self, other: &Self) -> bool;

    /// The history holds the request and right after it the reply.
    fn kept_in(&self, transcript: &Transcript) -> Option<usize>;

    /// The history was rewritten (a compaction, another system prompt), but its last reply is this one.
    fn moved_in(&self, transcript: &Transcript) -> Option<usize>;

    /// The history holds the request, and after it a reply that the client put into other words.
    fn reworded_in(&self, transcript: &Transcript) -> Option<usize>;
}

impl Recognise for TurnMark {
    fn request(&self) -> u64 {
        *self.chain.last().expect("a transcript's chain starts with one element")
    }

    fn answered(&self) -> u64 {
        follow(self.request(), Author::Assistant, self.reply)
    }

    fn repeats(&self, other: &Self) -> bool {
        self.request() == other.request() && self.reply == other.reply
    }

    fn kept_in(&self, transcript: &Transcript) -> Option<usize> {
        place(self, transcript).filter(|&place| transcript.entries[place].hash == self.reply)
    }

    fn moved_in(&self, transcript: &Transcript) -> Option<usize> {
        let last = transcript.entries.iter().rposition(|entry| entry.author == Author::Assistant)?;
        // An earlier reply of the same words, before this turn's request, is not this reply.
        let before_this_turn = self.chain.contains(&transcript.chain[last + 1]);
        (self.says_anything && !before_this_turn && transcript.entries[last].hash == self.reply)
            .then_some(last)
    }

    fn reworded_in(&self, transcript: &Transcript) -> Option<usize> {
        place(self, transcript)
    }
}

/// Where the reply stands in a history that holds the request.
fn place(mark: &TurnMark, transcript: &Transcript) -> Option<usize> {
    let place = mark.chain.len() - 1;
    let entry = transcript.entries.get(place)?;
    (transcript.chain[place] == mark.request() && entry.author == Author::Assistant).then_some(place)
}
