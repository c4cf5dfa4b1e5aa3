//! Puts the turns of a session together again. A session is one conversation while each request carries the one before
//! and its reply; a client that asks again, edits or compacts its history begins another one within the session.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::transcript::{Author, Transcript, follow, reply_hash};

/// The conversations of one session, as far as its turns were placed.
#[derive(Debug, Default)]
pub struct Branches {
    /// Which conversation ends with this history.
    ends: HashMap<u64, usize>,
    /// Every history that was part of one.
    seen: HashSet<u64>,
    conversations: usize,
}

/// Where a turn belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Its conversation, from 0 in the order in which they began.
    pub conversation: usize,
    /// So many messages of its request, the reply before it the last, are the turns before it; 0 for the first one.
    pub told: usize,
    /// So many are not new: they belong to turns before it, or to other conversations, or to turns that are not kept.
    pub copied: usize,
}

impl Branches {
    /// Places a turn by its request and its reply; to be called in the order in which they were answered.
    pub fn place(&mut self, request: &[Value], reply: &Value) -> Placed {
        let transcript = Transcript::read(request);
        let known = (1..=transcript.entries.len()).rev().find_map(|length| {
            let entry = &transcript.entries[length - 1];
            let end = &transcript.chain[length];
            let goes_on = entry.author == Author::Assistant;
            Some((*end, *self.ends.get(end).filter(|_| goes_on)?, entry.position + 1))
        });
        let placed = match known {
            Some((end, conversation, told)) => {
                self.ends.remove(&end);
                Placed { conversation, told, copied: told }
            }
            None => {
                self.conversations += 1;
                let copied = self.copied(&transcript);
                Placed { conversation: self.conversations - 1, told: 0, copied }
            }
        };
        let answered = follow(transcript.whole(), Author::Assistant, reply_hash(reply));
        self.ends.insert(answered, placed.conversation);
        self.seen.extend(transcript.chain.into_iter().skip(1).chain([answered]));
        placed
    }

    fn copied(&self, transcript: &Transcript) -> usize {
        let seen = transcript.chain[1..].iter().take_while(|history| self.seen.contains(*history)).count();
        let replied = transcript.entries.iter().rposition(|entry| entry.author == Author::Assistant);
        let entries = seen.max(replied.map_or(0, |last| last + 1));
        entries.checked_sub(1).map_or(0, |last| transcript.entries[last].position + 1)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn said(role: &str, content: &str) -> Value {
        json!({"role": role, "content": content})
    }

    fn talk(texts: &[&str]) -> Vec<Value> {
        let roles = ["user", "assistant"].into_iter().cycle();
        texts.iter().zip(roles).map(|(text, role)| said(role, text)).collect()
    }

    fn places(turns: &[(Vec<Value>, &str)]) -> Vec<(usize, usize, usize)> {
        let mut branches = Branches::default();
        let place = |(request, reply): &(Vec<Value>, &str)| {
            let Placed { conversation, told, copied } = branches.place(request, &said("assistant", reply));
            (conversation, told, copied)
        };
        turns.iter().map(place).collect()
    }

    #[test]
    fn a_conversation_goes_on_behind_its_reply_however_the_client_wrote_it() {
        let mut second = talk(&["hi", "**Hello**, you!", "2 + 2?"]);
        second.insert(0, said("system", "be brief"));
        let first = vec![said("system", "be brief"), said("user", "hi")];
        assert_eq!(
            places(&[(first, "<think>x</think>\n\nHello, you!"), (second, "4")]),
            [(0, 0, 0), (0, 3, 3)]
        );
    }

    #[test]
    fn a_request_that_is_answered_again_begins_another_conversation() {
        let asked = || talk(&["hi"]);
        let on = talk(&["hi", "hey", "2 + 2?"]);
        assert_eq!(
            places(&[(asked(), "hello"), (asked(), "hey"), (on, "4")]),
            [(0, 0, 0), (1, 0, 1), (1, 2, 2)]
        );
    }

    #[test]
    fn a_branch_from_the_middle_copies_what_was_said_before_it() {
        let turns = [
            (talk(&["a"]), "1"),
            (talk(&["a", "1", "b"]), "2"),
            (talk(&["a", "1", "c"]), "3"),
            (talk(&["a", "1", "b", "2", "d"]), "4"),
        ];
        assert_eq!(places(&turns), [(0, 0, 0), (0, 2, 2), (1, 0, 2), (0, 4, 4)]);
    }

    #[test]
    fn a_rewritten_history_is_context_up_to_its_last_reply() {
        let turns = [
            (talk(&["a"]), "1"),
            (talk(&["summary", "1", "b"]), "2"),
            (talk(&["a, edited", "another answer", "c"]), "3"),
        ];
        assert_eq!(places(&turns), [(0, 0, 0), (1, 0, 2), (2, 0, 2)]);
    }

    #[test]
    fn what_came_before_the_first_kept_turn_is_context() {
        assert_eq!(places(&[(talk(&["a", "1", "b"]), "2")]), [(0, 0, 2)]);
    }
}
