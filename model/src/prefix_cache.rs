//! Remembers which full blocks hold the keys and values of which tokens, so that a session's next turn computes
//! only what is new. A block is found by its parent block and its own token ids, compared exactly: a chain of
//! blocks is a prefix, and no hash collision can mix two conversations. Blocks nobody holds stay until room is
//! needed; the least recently used leaf goes first.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::blocks::{BlockAllocator, BlockId};

/// What stands before a block: nothing (but keys and values belong to one set of weights), or another block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Parent {
    Epoch(u64),
    Block(BlockId),
}

type Key = (Parent, Arc<[u32]>);

/// A block that can be found.
#[derive(Debug)]
struct Entry {
    key: Key,
    epoch: u64,
    children: u32,
    last_used: u64,
}

/// The blocks of a pool: held by sequences, kept for later, or free.
#[derive(Debug)]
pub(crate) struct PrefixCache {
    block_size: usize,
    blocks: BlockAllocator,
    index: HashMap<Key, BlockId>,
    entries: Vec<Option<Entry>>,
    /// Blocks without holder and children, oldest first.
    evictable: BTreeSet<(u64, BlockId)>,
    /// Blocks without holder that can be found; their descendants have no holder either, so all can be evicted.
    idle: usize,
    clock: u64,
}

impl PrefixCache {
    pub fn new(blocks: usize, block_size: usize) -> Self {
        Self {
            block_size,
            blocks: BlockAllocator::new(blocks),
            index: HashMap::new(),
            entries: (0..blocks).map(|_| None).collect(),
            evictable: BTreeSet::new(),
            idle: 0,
            clock: 0,
        }
    }

    /// The blocks of the longest known prefix of `ids`, each with one more holder.
    pub fn lookup(&mut self, epoch: u64, ids: &[u32]) -> Vec<BlockId> {
        let mut found = Vec::new();
        let mut parent = Parent::Epoch(epoch);
        for tokens in ids.chunks_exact(self.block_size) {
            let Some(&block) = self.index.get(&(parent, Arc::from(tokens))) else { break };
            self.hold(block);
            found.push(block);
            parent = Parent::Block(block);
        }
        found
    }

    /// How many blocks [`PrefixCache::lookup`] would find.
    pub fn known(&self, epoch: u64, ids: &[u32]) -> usize {
        let mut parent = Parent::Epoch(epoch);
        let found = ids.chunks_exact(self.block_size).map_while(|tokens| {
            let block = *self.index.get(&(parent, Arc::from(tokens)))?;
            parent = Parent::Block(block);
            Some(block)
        });
        found.count()
    }

    /// An unused block; evicts the least recently used one when none is free. None when all are held.
    pub fn allocate(&mut self) -> Option<BlockId> {
        if self.blocks.free_blocks() == 0 {
            let &(_, oldest) = self.evictable.first()?;
            self.evict(oldest);
        }
        self.blocks.allocate()
    }

    /// Makes a full block findable after `parent` (none: at the start of a sequence). Where the same tokens are
    /// known already, the caller's hold moves to the known block, whose number is returned.
    pub fn insert(&mut self, epoch: u64, parent: Option<BlockId>, tokens: &[u32], block: BlockId) -> BlockId {
        debug_assert_eq!(tokens.len(), self.block_size);
        debug_assert!(self.entries[block as usize].is_none(), "block {block} is inserted twice");
        let key = (parent.map_or(Parent::Epoch(epoch), Parent::Block), Arc::from(tokens));
        if let Some(&known) = self.index.get(&key) {
            self.hold(known);
            self.release(block);
            return known;
        }
        if let Some(parent) = parent {
            self.entry_mut(parent).children += 1;
        }
        self.index.insert(key.clone(), block);
        self.entries[block as usize] = Some(Entry { key, epoch, children: 0, last_used: 0 });
        block
    }

    /// Gives up a sequence's blocks. From the last to the first, so that a prefix outlives what follows it.
    pub fn release_all(&mut self, table: &mut Vec<BlockId>) {
        while let Some(block) = table.pop() {
            self.release(block);
        }
    }

    /// Evicts every block of one set of weights that no sequence holds.
    pub fn forget(&mut self, epoch: u64) {
        loop {
            let stale: Vec<BlockId> = (self.evictable.iter().map(|&(_, block)| block))
                .filter(|&block| self.entries[block as usize].as_ref().is_some_and(|e| e.epoch == epoch))
                .collect();
            if stale.is_empty() {
                return; // each round removes the leaves, so the chains shrink to nothing
            }
            stale.into_iter().for_each(|block| self.evict(block));
        }
    }

    /// Blocks held by sequences.
    pub fn used(&self) -> usize {
        self.blocks.total() - self.available()
    }

    /// Blocks that [`PrefixCache::allocate`] can still hand out.
    pub fn available(&self) -> usize {
        self.blocks.free_blocks() + self.idle
    }

    /// Blocks kept only because a later prompt may ask for them.
    pub fn idle(&self) -> usize {
        self.idle
    }

    fn hold(&mut self, block: BlockId) {
        if self.blocks.holders(block) == 0 {
            let entry = self.entries[block as usize].as_ref().expect("a findable block has an entry");
            self.evictable.remove(&(entry.last_used, block));
            self.idle -= 1;
        }
        self.blocks.retain(block);
    }

    fn release(&mut self, block: BlockId) {
        if self.blocks.release(block) > 0 {
            return;
        }
        let Some(entry) = &mut self.entries[block as usize] else { return self.blocks.free(block) };
        self.clock += 1;
        entry.last_used = self.clock;
        if entry.children == 0 {
            self.evictable.insert((self.clock, block));
        }
        self.idle += 1;
    }

    fn evict(&mut self, block: BlockId) {
        let entry = self.entries[block as usize].take().expect("an evictable block has an entry");
        self.evictable.remove(&(entry.last_used, block));
        self.index.remove(&entry.key);
        self.idle -= 1;
        self.blocks.free(block);
        if let Parent::Block(parent) = entry.key.0 {
            let holders = self.blocks.holders(parent);
            let parent_entry = self.entry_mut(parent);
            parent_entry.children -= 1;
            let leaf = parent_entry.children == 0;
            let last_used = parent_entry.last_used;
            if leaf && holders == 0 {
                self.evictable.insert((last_used, parent));
            }
        }
    }

    fn entry_mut(&mut self, block: BlockId) -> &mut Entry {
        // Who holds a child holds its parents, and only leaves are evicted.
        self.entries[block as usize].as_mut().expect("a parent stays as long as its children")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    const SIZE: usize = 4;

    fn ids(range: std::ops::Range<u32>) -> Vec<u32> {
        range.collect()
    }

    fn run(cache: &mut PrefixCache, epoch: u64, ids: &[u32]) -> Option<Vec<BlockId>> {
        run_noting(cache, epoch, ids, |_, _| ())
    }

    /// Computes and registers all full blocks of `ids`, as a sequence does; reports each block and where it ends.
    fn run_noting(
        cache: &mut PrefixCache,
        epoch: u64,
        ids: &[u32],
        mut computed: impl FnMut(BlockId, usize),
    ) -> Option<Vec<BlockId>> {
        let mut table = cache.lookup(epoch, ids);
        for at in table.len()..ids.len().div_ceil(SIZE) {
            let Some(block) = cache.allocate() else {
                cache.release_all(&mut table);
                return None;
            };
            let end = ids.len().min((at + 1) * SIZE);
            let tokens = &ids[at * SIZE..end];
            let parent = table.last().copied();
            let block = if tokens.len() == SIZE { cache.insert(epoch, parent, tokens, block) } else { block };
            computed(block, end);
            table.push(block);
        }
        Some(table)
    }

    #[test]
    fn the_next_turn_finds_the_full_blocks_of_the_last() {
        let mut cache = PrefixCache::new(8, SIZE);
        let mut first = run(&mut cache, 0, &ids(0..10)).unwrap();
        let known = first[..2].to_vec();
        cache.release_all(&mut first);
        assert_eq!((cache.used(), cache.idle()), (0, 2), "the half block is free again");
        assert_eq!(cache.lookup(0, &ids(0..20)), known);
        assert_eq!(cache.used(), 2);
    }

    #[test]
    fn a_block_is_found_only_after_the_same_prefix_and_weights() {
        let mut cache = PrefixCache::new(8, SIZE);
        run(&mut cache, 0, &ids(0..8)).unwrap();
        assert!(cache.lookup(1, &ids(0..8)).is_empty(), "other weights");
        assert!(cache.lookup(0, &ids(4..8)).is_empty(), "same tokens, other place");
        assert_eq!(cache.lookup(0, &[0, 1, 2, 3, 4, 5, 6, 9]).len(), 1);
    }

    #[test]
    fn equal_blocks_computed_twice_are_kept_once() {
        let mut cache = PrefixCache::new(8, SIZE);
        let known = run(&mut cache, 0, &ids(0..4)).unwrap();
        let block = cache.allocate().unwrap();
        assert_eq!(cache.insert(0, None, &ids(0..4), block), known[0]);
        assert_eq!(cache.used(), 1);
    }

    #[test]
    fn the_least_recently_used_leaf_is_evicted_first() {
        let mut cache = PrefixCache::new(4, SIZE);
        let mut old = run(&mut cache, 0, &ids(0..8)).unwrap();
        let mut young = run(&mut cache, 0, &ids(100..108)).unwrap();
        cache.release_all(&mut old);
        cache.release_all(&mut young);
        let kept = cache.allocate().unwrap();
        assert_eq!(cache.lookup(0, &ids(0..8)).len(), 1, "the leaf went, its parent stayed");
        assert_eq!(cache.lookup(0, &ids(100..108)).len(), 2);
        assert_eq!(cache.allocate(), None, "every block is held: {kept}");
    }

    #[test]
    fn forgetting_weights_frees_what_nobody_holds() {
        let mut cache = PrefixCache::new(8, SIZE);
        let mut done = run(&mut cache, 0, &ids(0..12)).unwrap();
        let mut held = cache.lookup(0, &ids(0..4));
        cache.release_all(&mut done);
        let mut other = run(&mut cache, 1, &ids(0..4)).unwrap();
        cache.release_all(&mut other);
        cache.forget(0);
        assert_eq!((cache.used(), cache.idle()), (1, 1));
        cache.release_all(&mut held);
        cache.forget(0);
        assert_eq!((cache.used(), cache.idle()), (0, 1), "the other weights' block stays");
    }

    #[test]
    fn no_sequence_of_operations_loses_or_doubles_a_block() {
        for seed in 0..40 {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let blocks = rng.random_range(1..24);
            let mut cache = PrefixCache::new(blocks, SIZE);
            let mut live: BTreeMap<u64, (Vec<u32>, Vec<BlockId>)> = BTreeMap::new();
            // What each block was last filled with: a block found later must still hold it.
            let mut content: Vec<(u64, Vec<u32>)> = vec![Default::default(); blocks];
            for op in 0..400 {
                match rng.random_range(0..10) {
                    0..6 => {
                        let epoch = rng.random_range(0..2);
                        let len = rng.random_range(1..32);
                        // Two token values, mostly the first: prefixes are shared often.
                        let ids: Vec<u32> = (0..len).map(|_| u32::from(rng.random_bool(0.05))).collect();
                        for (at, block) in cache.lookup(epoch, &ids).into_iter().enumerate() {
                            assert_eq!(content[block as usize], (epoch, ids[..(at + 1) * SIZE].to_vec()));
                            cache.release(block);
                        }
                        let before = cache.used();
                        let note =
                            |block: BlockId, end| content[block as usize] = (epoch, ids[..end].to_vec());
                        match run_noting(&mut cache, epoch, &ids, note) {
                            Some(table) => drop(live.insert(op, (ids, table))),
                            None => assert_eq!(cache.used(), before, "a failed run gives everything back"),
                        }
                    }
                    6..9 => {
                        let pick = live.keys().nth(rng.random_range(0..live.len().max(1))).copied();
                        if let Some((_, mut table)) = pick.and_then(|key| live.remove(&key)) {
                            cache.release_all(&mut table);
                        }
                    }
                    _ => cache.forget(rng.random_range(0..2)),
                }
                let held: BTreeSet<BlockId> = live.values().flat_map(|(_, table)| table.clone()).collect();
                assert_eq!(cache.used(), held.len());
                for (ids, table) in live.values() {
                    for (at, &block) in table.iter().enumerate() {
                        assert_eq!(content[block as usize].1, ids[..ids.len().min((at + 1) * SIZE)]);
                    }
                }
            }
            live.into_values().for_each(|(_, mut table)| cache.release_all(&mut table));
            assert_eq!(cache.used(), 0);
            cache.forget(0);
            cache.forget(1);
            assert_eq!((cache.idle(), cache.available()), (0, blocks));
        }
    }
}
