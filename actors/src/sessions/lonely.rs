//! Tells an operator when a client is not understood, which else nothing shows.

use tracing::warn;

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
        Self { ended: 0, followed: 0, warning: 5 }
    }
}

impl Lonely {
    /// A next state was found.
    pub fn follow(&mut self) {
        self.followed += 1;
    }

    /// A conversation without a name ended, and nothing had followed its only reply.
    pub fn end(&mut self) {
        self.ended += 1;
        metrics::counter!("openclaw_sessions_of_one_reply_total").increment(1);
        // A few are people who were content; when hardly anything is followed, it is the client.
        if self.ended >= self.warning && self.ended > 4 * self.followed {
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
