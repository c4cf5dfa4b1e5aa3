//! How a turn is recognised when a later request carries it as history. Kept in the journal, so that a session goes on
//! after a restart.

use std::sync::Arc;

use openclaw_journal::{MARK_OPENING, TurnMark};
use openclaw_model::answer_in;
use serde_json::Value;

use super::transcript::{
    Author, Transcript, follow, message_text, reply_hash, reply_words, says_anything, words, words_hash,
};

/// A reply of fewer letters and digits is not recognised by a part of it, nor by itself alone.
pub(super) const FEWEST_WORDS: usize = 12;

/// Recognises a request when a later one carries it as history.
#[derive(Clone, Debug, PartialEq)]
pub struct Fingerprint {
    /// Names of the request's prefixes, the empty one first, the whole request last.
    pub(super) chain: Arc<[u64]>,
    /// Name of the last message that is not the system's.
    pub(super) before: u64,
    /// The session gave its name; else its histories are remembered to find it again.
    pub(super) named: bool,
    /// The request ended its session.
    pub(super) last: bool,
}

impl Fingerprint {
    /// Of the request and its reply, an assistant message.
    pub fn mark(&self, reply: &Value) -> TurnMark {
        let words = reply_words(reply);
        TurnMark {
            chain: self.chain.clone(),
            named: self.named,
            last: self.last,
            reply: reply_hash(reply),
            says_anything: says_anything(reply),
            person: self.chain[0],
            before: self.before,
            words: u32::try_from(words.chars().count()).unwrap_or(u32::MAX),
            opening: words.chars().take(MARK_OPENING).collect::<String>().into(),
        }
    }
}

/// A reply found in a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// The last of its messages.
    pub end: usize,
    /// What a client has written behind it, in the same message.
    pub behind: Option<String>,
}

/// What a mark tells of a later request.
pub(super) trait Recognise {
    /// Names the request.
    fn request(&self) -> u64;

    /// Names the request with its reply.
    fn answered(&self) -> u64;

    /// Whether its words are more than what anybody might say.
    fn is_distinct(&self) -> bool;

    /// The same request answered by the same words.
    fn repeats(&self, other: &Self) -> bool;

    /// The history holds the request and right after it the reply, as it was, cut up, cut off, or with something behind.
    fn kept_in(&self, transcript: &Transcript, messages: &[Value]) -> Option<Found>;

    /// The history was rewritten before the reply (another system prompt, a window, a summary), but its last reply is
    /// this one, and it answers what this one answered.
    fn tail_in(&self, transcript: &Transcript, messages: &[Value]) -> Option<Found>;

    /// The same, whatever the history says that it answers.
    fn moved_in(&self, transcript: &Transcript, messages: &[Value]) -> Option<Found>;

    /// The history holds the request, and after it a reply that the client put into other words.
    fn reworded_in(&self, transcript: &Transcript) -> Option<Found>;
}

impl Recognise for TurnMark {
    fn request(&self) -> u64 {
        *self.chain.last().expect("a transcript's chain starts with one element")
    }

    fn answered(&self) -> u64 {
        follow(self.request(), Author::Assistant, self.reply)
    }

    fn is_distinct(&self) -> bool {
        // An older mark says nothing of its words.
        self.before != 0 && (self.words as usize >= FEWEST_WORDS || self.words == 0 && self.says_anything)
    }

    fn repeats(&self, other: &Self) -> bool {
        self.request() == other.request() && self.reply == other.reply
    }

    fn kept_in(&self, transcript: &Transcript, messages: &[Value]) -> Option<Found> {
        // However short it is: what else would stand there?
        reply_at(self, place(self, transcript)?, 1, transcript, messages)
    }

    fn tail_in(&self, transcript: &Transcript, messages: &[Value]) -> Option<Found> {
        let reply = transcript.last_reply()?;
        let answers_the_same = self.before != 0 && transcript.before(reply.start) == self.before;
        self.moved_in(transcript, messages).filter(|_| answers_the_same)
    }

    fn moved_in(&self, transcript: &Transcript, messages: &[Value]) -> Option<Found> {
        let reply = transcript.last_reply()?;
        // An earlier reply of the same words, before this turn's request, is not this reply.
        let before_this_turn = self.chain.contains(&transcript.chain[reply.end]);
        let found = reply.rev().find_map(|at| reply_at(self, at, FEWEST_WORDS, transcript, messages))?;
        (self.says_anything && !before_this_turn).then_some(found)
    }

    fn reworded_in(&self, transcript: &Transcript) -> Option<Found> {
        place(self, transcript).map(|end| Found { end, behind: None })
    }
}

/// Where the reply stands in a history that holds the request.
fn place(mark: &TurnMark, transcript: &Transcript) -> Option<usize> {
    let place = mark.chain.len() - 1;
    let entry = transcript.entries.get(place)?;
    (transcript.chain[place] == mark.request() && entry.author == Author::Assistant).then_some(place)
}

/// The reply, if it is what the assistant says at `at`; by a part of it if it has `fewest` letters and digits.
fn reply_at(
    mark: &TurnMark,
    at: usize,
    fewest: usize,
    transcript: &Transcript,
    messages: &[Value],
) -> Option<Found> {
    if transcript.entries[at].hash == mark.reply {
        return Some(Found { end: at, behind: None });
    }
    let wanted = mark.words as usize;
    if wanted < fewest {
        return None;
    }
    // Clients cut a long reply into messages.
    let mut said = String::new();
    for (end, entry) in transcript.entries.iter().enumerate().skip(at) {
        if entry.author != Author::Assistant {
            break;
        }
        said.push_str(&reply_words(&messages[entry.position]));
        if said.chars().count() == wanted && words_hash(&said) == mark.reply {
            return Some(Found { end, behind: None });
        }
    }
    let text = message_text(&messages[transcript.entries[at].position]);
    let visible = answer_in(&text, false);
    let said = words(visible);
    let count = said.chars().count();
    if count > wanted {
        let own: String = said.chars().take(wanted).collect();
        let is_it = own.starts_with(&*mark.opening) && words_hash(&own) == mark.reply;
        return is_it.then(|| Found { end: at, behind: Some(behind(visible, wanted).to_owned()) });
    }
    let known: String = said.chars().take(MARK_OPENING).collect();
    let cut_off = (FEWEST_WORDS..wanted).contains(&count) && mark.opening.starts_with(&known);
    cut_off.then_some(Found { end: at, behind: None })
}

/// What is behind the first so many letters and digits.
fn behind(text: &str, words: usize) -> &str {
    let last = text.char_indices().filter(|(_, c)| c.is_alphanumeric()).nth(words - 1);
    last.map_or("", |(at, c)| &text[at + c.len_utf8()..])
}
