//! Hands out the blocks of the key-value pool and counts who holds them. Knows numbers only: what a block
//! contains is the prefix cache's business, where it lies is the device's.

/// Number of a block in the pool.
pub(crate) type BlockId = u32;

/// Reference counts and the list of free blocks.
#[derive(Debug)]
pub(crate) struct BlockAllocator {
    holders: Vec<u32>,
    free: Vec<BlockId>,
}

impl BlockAllocator {
    pub fn new(blocks: usize) -> Self {
        let count = u32::try_from(blocks).expect("BatcherConfig::validate bounds the number of slots by u32");
        // Popped from the end: low numbers first keeps a lightly used pool in few pages.
        Self { holders: vec![0; blocks], free: (0..count).rev().collect() }
    }

    /// A block with one holder; none when all are taken.
    pub fn allocate(&mut self) -> Option<BlockId> {
        let block = self.free.pop()?;
        self.holders[block as usize] = 1;
        Some(block)
    }

    /// One more holder.
    pub fn retain(&mut self, block: BlockId) {
        self.holders[block as usize] += 1;
    }

    /// One holder less; returns how many are left. The block is not free before [`BlockAllocator::free`].
    pub fn release(&mut self, block: BlockId) -> u32 {
        let holders = &mut self.holders[block as usize];
        *holders = holders.checked_sub(1).expect("a block is released once by each of its holders");
        *holders
    }

    /// Makes a block without holders available again.
    pub fn free(&mut self, block: BlockId) {
        debug_assert_eq!(self.holders(block), 0, "block {block} is freed while held");
        self.free.push(block);
    }

    pub fn holders(&self, block: BlockId) -> u32 {
        self.holders[block as usize]
    }

    pub fn free_blocks(&self) -> usize {
        self.free.len()
    }

    pub fn total(&self) -> usize {
        self.holders.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_hands_out_each_block_once_until_it_is_freed() {
        let mut blocks = BlockAllocator::new(3);
        let taken: Vec<_> = std::iter::from_fn(|| blocks.allocate()).collect();
        assert_eq!(taken, [0, 1, 2]);
        assert_eq!(blocks.free_blocks(), 0);
        assert_eq!(blocks.release(1), 0);
        assert_eq!(blocks.allocate(), None, "released is not yet free");
        blocks.free(1);
        assert_eq!(blocks.allocate(), Some(1));
    }

    #[test]
    fn a_shared_block_is_released_by_every_holder() {
        let mut blocks = BlockAllocator::new(1);
        let block = blocks.allocate().unwrap();
        blocks.retain(block);
        assert_eq!(blocks.release(block), 1);
        assert_eq!(blocks.release(block), 0);
    }

    #[test]
    #[should_panic(expected = "released once")]
    fn releasing_an_unheld_block_is_a_bug() {
        BlockAllocator::new(1).release(0);
    }
}
