//! Remembers each session's last verdict, so that the same answer given again after a complaint is recognised.
//!
//! It is kept in memory alone: after a restart of the process the answer to a complaint that came before is judged by
//! votes and not by the rule. No wrong verdict follows from what is forgotten.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use openclaw_journal::SessionId;

/// Sessions remembered; the longest known goes first.
const MOST_SESSIONS: usize = 8192;

/// The last verdict of each session. Clones share it.
#[derive(Clone, Default)]
pub struct RecentVerdicts {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    last: HashMap<SessionId, (u32, Option<i8>)>,
    order: VecDeque<SessionId>,
}

impl RecentVerdicts {
    /// Nothing is known.
    pub fn new() -> Self {
        Self::default()
    }

    pub(super) fn remember(&self, session: &SessionId, index: u32, reward: Option<i8>) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.last.insert(session.clone(), (index, reward)).is_none() {
            inner.order.push_back(session.clone());
            if inner.order.len() > MOST_SESSIONS
                && let Some(oldest) = inner.order.pop_front()
            {
                inner.last.remove(&oldest);
            }
        }
    }

    /// The reward of the turn with this number, if it is the session's last that was judged.
    pub(super) fn reward(&self, session: &SessionId, index: u32) -> Option<i8> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let (known, reward) = inner.last.get(session)?;
        (*known == index).then_some(*reward)?
    }
}
