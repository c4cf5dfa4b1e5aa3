//! The largest logits of a row, collected while its blocks pass through the cache.

use super::blocks;

/// The slots of one row, in falling order of logit; an earlier id wins a tie.
pub(super) struct TopSlots<'a> {
    ids: &'a mut [i32],
    logits: &'a mut [f32],
}

impl<'a> TopSlots<'a> {
    pub(super) fn new(ids: &'a mut [i32], logits: &'a mut [f32]) -> Self {
        ids.fill(-1);
        logits.fill(f32::NEG_INFINITY);
        Self { ids, logits }
    }

    /// A logit has to exceed this to enter.
    pub(super) fn threshold(&self) -> f32 {
        self.logits.last().copied().unwrap_or(f32::INFINITY)
    }

    /// Takes what belongs here from a block whose first id is `first`.
    pub(super) fn collect(&mut self, block: &[f32], first: usize) {
        let mut at = blocks::first_above(block, 0, self.threshold());
        while at < block.len() {
            self.insert(block[at], (first + at) as i32);
            at = blocks::first_above(block, at + 1, self.threshold());
        }
    }

    fn insert(&mut self, logit: f32, id: i32) {
        let last = self.logits.len() - 1;
        let slot = self.logits.partition_point(|l| *l >= logit);
        self.logits.copy_within(slot..last, slot + 1);
        self.ids.copy_within(slot..last, slot + 1);
        self.logits[slot] = logit;
        self.ids[slot] = id;
    }
}
