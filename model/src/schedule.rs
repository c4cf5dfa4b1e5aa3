//! Decides which tokens a serving step computes, and in which blocks of the pool their keys and values go.
//! Knows token counts and blocks, no weights.
//!
//! Every running sequence that waits for one token gets it (decoding never waits for a long prompt); what is left
//! of the step's budget goes to prompts, first come first served, in chunks. A sequence that finds no block takes
//! those of a younger one, which starts again later: the oldest always goes on, so there is no deadlock.

use std::collections::BTreeMap;

use crate::blocks::BlockId;
use crate::prefix_cache::PrefixCache;

/// Limits of a step and of the pool.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScheduleLimits {
    /// Most tokens in a step; at least `max_sequences`.
    pub max_batch_tokens: usize,
    /// Most running sequences.
    pub max_sequences: usize,
    pub blocks: usize,
    pub block_size: usize,
}

/// A sequence's share of a step: its tokens `start..start + new`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub id: u64,
    /// The set of weights this sequence runs on.
    pub epoch: u64,
    pub start: usize,
    pub new: usize,
    /// Whether the chunk reaches the sequence's last token, after which the next one is drawn.
    pub draws: bool,
}

/// What is known of a sequence's tokens and where their keys and values are.
#[derive(Debug)]
pub(crate) struct Scheduled {
    pub tokens: Vec<u32>,
    pub table: Vec<BlockId>,
    /// Tokens whose keys and values are in the pool.
    computed: usize,
    /// Blocks of `table` that the prefix cache knows.
    registered: usize,
    /// Set when the sequence first runs and kept to its end: one response, one version.
    pub epoch: Option<u64>,
    pub prompt_tokens: usize,
    /// Prompt tokens found in the prefix cache when the sequence first ran.
    pub cached_tokens: usize,
}

/// The waiting and the running, and their blocks. Ids grow with arrival: a smaller id is older.
#[derive(Debug)]
pub(crate) struct Schedule {
    limits: ScheduleLimits,
    cache: PrefixCache,
    waiting: BTreeMap<u64, Scheduled>,
    running: BTreeMap<u64, Scheduled>,
    preemptions: u64,
}

/// The chunk sizes decided so far, and what is left.
struct Step {
    budget: usize,
    chunks: BTreeMap<u64, usize>,
}

impl Schedule {
    pub fn new(limits: ScheduleLimits) -> Self {
        let cache = PrefixCache::new(limits.blocks, limits.block_size);
        Self { limits, cache, waiting: BTreeMap::new(), running: BTreeMap::new(), preemptions: 0 }
    }

    /// Queues a sequence. It must fit the pool alone: fewer tokens, drawn ones included, than it has slots.
    pub fn add(&mut self, id: u64, tokens: Vec<u32>) {
        let sequence = Scheduled {
            prompt_tokens: tokens.len(),
            tokens,
            table: Vec::new(),
            computed: 0,
            registered: 0,
            epoch: None,
            cached_tokens: 0,
        };
        self.waiting.insert(id, sequence);
    }

    /// Chooses a step's work; sequences that start now run on `epoch`.
    pub fn plan(&mut self, epoch: u64) -> Vec<Chunk> {
        let mut step = Step { budget: self.limits.max_batch_tokens, chunks: BTreeMap::new() };
        let (decoding, prefilling): (Vec<u64>, Vec<u64>) =
            self.running.keys().copied().partition(|id| self.running[id].pending() == 1);
        for id in decoding.into_iter().chain(prefilling) {
            self.extend(id, &mut step);
        }
        self.admit(epoch, &mut step);
        (step.chunks.into_iter())
            .map(|(id, new)| {
                let sequence = &self.running[&id];
                let epoch = sequence.epoch.expect("set when admitted");
                Chunk { id, epoch, start: sequence.computed, new, draws: new == sequence.pending() }
            })
            .collect()
    }

    /// Records that a chunk's keys and values are in the pool, and lets others find its full blocks.
    pub fn computed(&mut self, chunk: &Chunk) {
        let sequence = self.running.get_mut(&chunk.id).expect("a planned sequence runs until its step ends");
        let size = self.limits.block_size;
        sequence.computed += chunk.new;
        for at in sequence.registered..sequence.computed / size {
            let parent = at.checked_sub(1).map(|before| sequence.table[before]);
            let tokens = &sequence.tokens[at * size..(at + 1) * size];
            sequence.table[at] = self.cache.insert(chunk.epoch, parent, tokens, sequence.table[at]);
            sequence.registered = at + 1;
        }
    }

    /// Appends a drawn token; returns how many tokens the sequence has now.
    pub fn push(&mut self, id: u64, token: u32) -> usize {
        let sequence = self.running.get_mut(&id).expect("tokens are drawn for running sequences");
        sequence.tokens.push(token);
        sequence.tokens.len()
    }

    /// Ends a sequence; its full blocks stay findable while there is room.
    pub fn remove(&mut self, id: u64) -> Option<Scheduled> {
        let mut sequence = self.running.remove(&id).or_else(|| self.waiting.remove(&id))?;
        self.cache.release_all(&mut sequence.table);
        Some(sequence)
    }

    /// Evicts what was computed with weights that nobody will use again.
    pub fn forget(&mut self, epoch: u64) {
        self.cache.forget(epoch);
    }

    /// Whether a sequence still needs this set of weights.
    pub fn uses(&self, epoch: u64) -> bool {
        self.running.values().chain(self.waiting.values()).any(|sequence| sequence.epoch == Some(epoch))
    }

    pub fn sequence(&self, id: u64) -> &Scheduled {
        &self.running[&id]
    }

    pub fn running(&self) -> usize {
        self.running.len()
    }

    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub fn preemptions(&self) -> u64 {
        self.preemptions
    }

    pub fn cache(&self) -> &PrefixCache {
        &self.cache
    }

    /// Gives a running sequence as many of its pending tokens as budget and blocks allow, taking the blocks of
    /// younger sequences rather than none. Without any it keeps what it has and waits for an older one to end.
    fn extend(&mut self, id: u64, step: &mut Step) {
        let Some(sequence) = self.running.get(&id) else { return }; // an older one has just taken its blocks
        let wanted = sequence.pending().min(step.budget);
        let mut room = sequence.table.len() * self.limits.block_size - sequence.computed;
        while room < wanted {
            if let Some(block) = self.cache.allocate() {
                self.running.get_mut(&id).expect("looked up above").table.push(block);
                room += self.limits.block_size;
            } else if room > 0 || !self.preempt_younger_than(id, step) {
                break;
            }
        }
        let new = wanted.min(room);
        if new > 0 {
            step.budget -= new;
            step.chunks.insert(id, new);
        }
    }

    fn preempt_younger_than(&mut self, id: u64, step: &mut Step) -> bool {
        let Some(&youngest) = self.running.range(id + 1..).next_back().map(|(id, _)| id) else {
            return false;
        };
        let mut sequence = self.running.remove(&youngest).expect("found above");
        self.cache.release_all(&mut sequence.table);
        sequence.computed = 0;
        sequence.registered = 0;
        self.waiting.insert(youngest, sequence);
        step.budget += step.chunks.remove(&youngest).unwrap_or(0);
        self.preemptions += 1;
        true
    }

    /// Starts waiting sequences, oldest first, while there is room for the whole of them.
    fn admit(&mut self, epoch: u64, step: &mut Step) {
        let mut after = 0;
        while step.budget > 0 && self.running.len() < self.limits.max_sequences {
            let Some(id) = self.waiting.range(after..).next().map(|(&id, _)| id) else { return };
            after = id + 1;
            let sequence = &self.waiting[&id];
            let epoch = sequence.epoch.unwrap_or(epoch);
            // The last token is always computed: its logits are what the next one is drawn from.
            let mut table = self.cache.lookup(epoch, &sequence.tokens[..sequence.tokens.len() - 1]);
            let cached = table.len() * self.limits.block_size;
            if self.is_being_computed(epoch, &sequence.tokens, cached, step) {
                self.cache.release_all(&mut table);
                continue; // found in the cache a step later, at no cost
            }
            let missing = sequence.tokens.len() / self.limits.block_size + 1 - table.len();
            // A block of air for each running sequence: who starts now should not be preempted at once.
            if !self.running.is_empty() && self.cache.available() < missing + self.running.len() {
                self.cache.release_all(&mut table);
                return;
            }
            let mut sequence = self.waiting.remove(&id).expect("looked up above");
            if sequence.epoch.is_none() {
                sequence.epoch = Some(epoch);
                sequence.cached_tokens = cached;
            }
            sequence.computed = cached;
            sequence.registered = table.len();
            sequence.table = table;
            self.running.insert(id, sequence);
            self.extend(id, step);
        }
    }

    /// Whether this step computes the block that a sequence with `cached` known tokens would compute first: votes
    /// of a judge ask the same long prompt at the same time.
    fn is_being_computed(&self, epoch: u64, tokens: &[u32], cached: usize, step: &Step) -> bool {
        let end = cached + self.limits.block_size;
        end < tokens.len()
            && step.chunks.iter().any(|(id, new)| {
                let other = &self.running[id];
                other.epoch == Some(epoch)
                    && (other.computed..other.computed + new).contains(&(end - 1))
                    && other.tokens[..end] == tokens[..end]
            })
    }
}

impl Scheduled {
    fn pending(&self) -> usize {
        self.tokens.len() - self.computed
    }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    const SIZE: usize = 4;

    fn schedule(max_batch_tokens: usize, max_sequences: usize, blocks: usize) -> Schedule {
        Schedule::new(ScheduleLimits { max_batch_tokens, max_sequences, blocks, block_size: SIZE })
    }

    /// Runs one step in which every draw gives token 0; returns `(id, new)` per chunk.
    fn step(schedule: &mut Schedule) -> Vec<(u64, usize)> {
        let chunks = schedule.plan(0);
        for chunk in &chunks {
            schedule.computed(chunk);
            if chunk.draws {
                schedule.push(chunk.id, 0);
            }
        }
        chunks.iter().map(|chunk| (chunk.id, chunk.new)).collect()
    }

    fn prompt(first: u32, len: usize) -> Vec<u32> {
        (first..).take(len).collect()
    }

    #[test]
    fn a_long_prompt_leaves_every_decoding_sequence_its_token() {
        let mut schedule = schedule(8, 4, 64);
        schedule.add(1, prompt(100, 3));
        schedule.add(2, prompt(200, 3));
        assert_eq!(step(&mut schedule), [(1, 3), (2, 3)]);
        schedule.add(3, prompt(300, 20));
        assert_eq!(step(&mut schedule), [(1, 1), (2, 1), (3, 6)]);
        assert_eq!(step(&mut schedule), [(1, 1), (2, 1), (3, 6)]);
    }

    #[test]
    fn prompts_are_served_in_order_of_arrival() {
        let mut schedule = schedule(8, 4, 64);
        schedule.add(1, prompt(100, 12));
        schedule.add(2, prompt(200, 12));
        assert_eq!(step(&mut schedule), [(1, 8)]);
        assert_eq!(step(&mut schedule), [(1, 4), (2, 4)]);
        assert_eq!(step(&mut schedule), [(1, 1), (2, 7)]);
    }

    #[test]
    fn no_more_than_max_sequences_run() {
        let mut schedule = schedule(64, 2, 64);
        (1..=3).for_each(|id| schedule.add(id, prompt(100 * id as u32, 3)));
        assert_eq!(step(&mut schedule), [(1, 3), (2, 3)]);
        assert_eq!((schedule.running(), schedule.waiting()), (2, 1));
        schedule.remove(1);
        assert_eq!(step(&mut schedule), [(2, 1), (3, 3)]);
    }

    #[test]
    fn the_next_turn_computes_only_what_is_new() {
        let mut schedule = schedule(64, 2, 64);
        schedule.add(1, prompt(0, 10));
        (0..4).for_each(|_| drop(step(&mut schedule)));
        let turn = schedule.remove(1).unwrap().tokens;
        assert_eq!(turn.len(), 14, "ten of the prompt, four drawn, the last of them not computed");
        schedule.add(2, [turn, prompt(50, 5)].concat());
        assert_eq!(step(&mut schedule), [(2, 19 - 12)]);
        assert_eq!(schedule.sequence(2).cached_tokens, 12);
    }

    #[test]
    fn a_whole_prompt_in_the_cache_still_computes_its_last_token() {
        let mut schedule = schedule(64, 2, 64);
        schedule.add(1, prompt(0, 8));
        step(&mut schedule);
        schedule.add(2, prompt(0, 8));
        assert_eq!(step(&mut schedule), [(1, 1), (2, 4)]);
    }

    #[test]
    fn equal_prompts_that_arrive_together_are_computed_once() {
        let mut schedule = schedule(64, 4, 64);
        (1..=3).for_each(|id| schedule.add(id, prompt(0, 10)));
        schedule.add(4, prompt(500, 3));
        assert_eq!(step(&mut schedule), [(1, 10), (4, 3)]);
        assert_eq!(step(&mut schedule), [(1, 1), (2, 2), (3, 2), (4, 1)]);
    }

    #[test]
    fn the_oldest_takes_the_blocks_of_the_youngest() {
        let mut schedule = schedule(64, 2, 3);
        schedule.add(1, prompt(100, 3));
        schedule.add(2, prompt(200, 3));
        assert_eq!(step(&mut schedule), [(1, 3), (2, 3)]);
        assert_eq!(step(&mut schedule), [(1, 1), (2, 1)]);
        // The third block goes to the older; the younger keeps its own until that is needed too.
        (0..4).for_each(|_| assert_eq!(step(&mut schedule), [(1, 1)]));
        assert_eq!((schedule.running(), schedule.preemptions()), (2, 0));
        assert_eq!(step(&mut schedule), [(1, 1)]);
        assert_eq!((schedule.running(), schedule.waiting(), schedule.preemptions()), (1, 1, 1));
        schedule.remove(1);
        assert_eq!(step(&mut schedule), [(2, 5)], "the two drawn tokens are kept");
    }

    #[test]
    fn a_prompt_waits_until_it_has_room_beside_the_running() {
        let mut schedule = schedule(64, 2, 4);
        schedule.add(1, prompt(100, 7));
        schedule.add(2, prompt(200, 7));
        assert_eq!(step(&mut schedule), [(1, 7)], "two blocks each, and no air");
        schedule.remove(1);
        assert_eq!(step(&mut schedule), [(2, 7)]);
    }

    /// What a slot of the simulated pool holds: the weights and the whole prefix that its keys and values stand for.
    type Content = Option<(u64, Vec<u32>)>;

    /// The model of the simulation: the next token is a function of all before it.
    fn next_token(tokens: &[u32]) -> u32 {
        tokens.iter().fold(7u32, |hash, token| hash.wrapping_mul(31).wrapping_add(*token)) % 3
    }

    #[test]
    fn every_sequence_ends_and_reads_only_its_own_prefix_whatever_happens() {
        let mut preemptions = 0;
        for seed in 0..60 {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let blocks = rng.random_range(3..20);
            let max_sequences = rng.random_range(1..6);
            let mut schedule = schedule(max_sequences + rng.random_range(0..12), max_sequences, blocks);
            let budget = schedule.limits.max_batch_tokens;
            let mut pool: Vec<Content> = vec![None; blocks * SIZE];
            let mut ends: BTreeMap<u64, usize> = BTreeMap::new();
            let (mut epoch, mut next_id, mut ended) = (0, 1, 0);
            while ended < 40 {
                if next_id <= 40 && rng.random_bool(0.4) {
                    let len = rng.random_range(1..blocks * SIZE);
                    // Mostly zeros: prefixes are shared often.
                    schedule.add(next_id, (0..len).map(|_| u32::from(rng.random_bool(0.03))).collect());
                    ends.insert(next_id, rng.random_range(len + 1..=blocks * SIZE));
                    next_id += 1;
                }
                if rng.random_bool(0.05) {
                    let old = epoch;
                    epoch += 1;
                    schedule.forget(old);
                }
                if let Some(&id) = ends.keys().next().filter(|_| rng.random_bool(0.03)) {
                    schedule.remove(id).expect("listed sequences are scheduled");
                    ends.remove(&id);
                    ended += 1;
                }
                let chunks = schedule.plan(epoch);
                assert!(chunks.iter().map(|chunk| chunk.new).sum::<usize>() <= budget);
                assert!(!chunks.is_empty() || ends.is_empty(), "seed {seed}: a step without progress");
                for chunk in &chunks {
                    let sequence = schedule.sequence(chunk.id);
                    for at in chunk.start..chunk.start + chunk.new {
                        let slot = sequence.table[at / SIZE] as usize * SIZE + at % SIZE;
                        pool[slot] = Some((chunk.epoch, sequence.tokens[..=at].to_vec()));
                    }
                }
                for chunk in &chunks {
                    let sequence = schedule.sequence(chunk.id);
                    for at in 0..chunk.start + chunk.new {
                        let slot = sequence.table[at / SIZE] as usize * SIZE + at % SIZE;
                        let (epoch, prefix) = pool[slot].as_ref().expect("a read slot was written");
                        assert_eq!(
                            (*epoch, &prefix[..]),
                            (chunk.epoch, &sequence.tokens[..=at]),
                            "seed {seed}"
                        );
                    }
                }
                for chunk in &chunks {
                    schedule.computed(chunk);
                    let token = next_token(&schedule.sequence(chunk.id).tokens);
                    if chunk.draws && schedule.push(chunk.id, token) == ends[&chunk.id] {
                        schedule.remove(chunk.id);
                        ends.remove(&chunk.id);
                        ended += 1;
                    }
                }
            }
            assert_eq!((schedule.cache().used(), schedule.running(), schedule.waiting()), (0, 0, 0));
            (0..=epoch).for_each(|epoch| schedule.forget(epoch));
            assert_eq!(schedule.cache().available(), blocks);
            preemptions += schedule.preemptions();
        }
        assert!(
            preemptions > 100,
            "only {preemptions} preemptions: the pools are too large to show anything"
        );
    }
}
