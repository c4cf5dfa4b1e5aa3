//! Words that came with `X-No-Train`. They are no evidence on the reply before them, and a request that carries them in
//! its history is not trained on either: its prompt holds them. Words are known by the history that they end, so that
//! those of another person, behind an equal opening, are that person's own.

use std::collections::HashMap;

use super::transcript::Transcript;

/// Most histories that are remembered of a session.
const MOST_HISTORIES: usize = 4096;

/// The histories of one session, by whether their last words may be learnt from.
#[derive(Debug, Default)]
pub struct Withheld {
    /// Names of whole requests, and whether each came with `X-No-Train` alone.
    requests: HashMap<u64, bool>,
}

impl Withheld {
    /// Takes in a request. The same one without `X-No-Train`, before or after, gives its words free.
    pub fn note(&mut self, request: u64, no_train: bool) {
        if self.requests.len() >= MOST_HISTORIES {
            self.requests.retain(|_, withheld| *withheld);
        }
        if !no_train {
            self.requests.insert(request, false);
        } else if self.requests.len() < MOST_HISTORIES {
            self.requests.entry(request).or_insert(true);
        }
    }

    /// Whether words behind the first `after` entries of a history are withheld. The last entry is what its own
    /// request brings.
    pub fn in_history(&self, transcript: &Transcript, after: usize) -> bool {
        let own = transcript.entries.len();
        let earlier = transcript.chain.get(after + 1..own).unwrap_or_default();
        earlier.iter().any(|history| self.requests.get(history) == Some(&true))
    }
}
