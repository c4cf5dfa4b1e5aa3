//! Tells an operator when a client is not understood, which else nothing shows.

use tracing::warn;

/// Fewer may be people who were content.
const FEWEST: u64 = 5;

/// Whether clients rewrite their histories beyond recognition: conversations that ended behind their first reply.
#[derive(Debug)]
pub(super) struct Lonely {
    ended: u64,
    followed: u64,
    /// So many make the next warning.
    warning: u64,
}

impl Default for Lonely {
    fn default() -> Self {
        Self { ended: 0, followed: 0, warning: FEWEST }
    }
}

impl Lonely {
    /// A next state was found.
    pub fn follow(&mut self) {
        self.followed += 1;
    }

    /// How many there were, if an operator should know.
    pub fn conversations(&self) -> u64 {
        if self.ended >= FEWEST && self.is_the_client() { self.ended } else { 0 }
    }

    /// When hardly anything is followed, it is the client.
    fn is_the_client(&self) -> bool {
        self.ended > 4 * self.followed
    }

    /// A conversation without a name ended, and nothing had followed its only reply.
    pub fn end(&mut self) {
        self.ended += 1;
        metrics::counter!("openclaw_sessions_of_one_reply_total").increment(1);
        if self.ended >= self.warning && self.is_the_client() {
            self.warning = 2 * self.ended;
            warn!(
                conversations = self.ended,
                followed = self.followed,
                "conversations of one reply, and nothing followed: does your client rewrite its history? Send \
                 X-Session-Id (README, \"Use it with your agent\")"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_conversations_of_one_reply_say_nothing_and_neither_do_many_among_others() {
        let mut lonely = Lonely::default();
        (1..FEWEST).for_each(|_| lonely.end());
        assert_eq!(lonely.conversations(), 0);
        lonely.end();
        assert_eq!(lonely.conversations(), FEWEST);
        lonely.follow();
        lonely.follow();
        assert_eq!(lonely.conversations(), 0);
    }
}
