//! A lexer makes its states as it meets them, which is half the work of a first response. What one response met is kept
//! for the next of the same constraint.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use llguidance::Matcher;

/// A compiled constraint; has matched nothing.
pub(super) type Pristine = Arc<Mutex<Matcher>>;

/// Work that went into the states of one lexer that is kept, in `llguidance`'s fuel: some 20 a state of 1 to 2 KiB.
pub(super) const MAX_COST: u64 = 250_000;
/// And into those of all.
pub(super) const MAX_COST_OF_ALL: u64 = 8 * MAX_COST;

/// A matcher that has matched nothing. Its copies share its lexer, so that only one of them may be at work.
pub(super) struct Unused {
    pub matcher: Matcher,
    /// Work that went into its lexer.
    pub cost: u64,
}

/// Those that no response has; the oldest first.
#[derive(Default)]
pub(super) struct WarmLexers {
    kept: Mutex<VecDeque<(Pristine, Unused)>>,
}

impl WarmLexers {
    /// For one response alone.
    pub fn unused(&self, of: &Pristine) -> Unused {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = kept.iter().rposition(|(pristine, _)| Arc::ptr_eq(pristine, of));
        if let Some((_, unused)) = newest.and_then(|at| kept.remove(at)) {
            return unused;
        }
        drop(kept);
        let matcher = of.lock().unwrap_or_else(PoisonError::into_inner).deep_clone();
        Unused { matcher, cost: 0 }
    }

    /// Takes it back from a response that did not fail. The oldest make room.
    pub fn keep(&self, of: &Pristine, unused: Unused) {
        if unused.cost > MAX_COST {
            return;
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push_back((of.clone(), unused));
        while kept.iter().map(|(_, unused)| unused.cost).sum::<u64>() > MAX_COST_OF_ALL {
            kept.pop_front();
        }
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}
