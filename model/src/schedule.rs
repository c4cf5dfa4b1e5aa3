//! Decides which tokens a serving step computes, and in which blocks of the pool their keys and values go.
//! Knows token counts and blocks, no weights.
//!
//! Every running sequence that waits for one token gets it (decoding never waits for a long prompt). Prompts share
//! what the step may do beside: a quarter is the oldest's, so that it always gets on, the rest goes to those that
//! have the least to do, so that nobody waits behind another's long prompt. A sequence that finds no block takes
//! those of a younger one, which starts again later: the oldest always goes on, so there is no deadlock. Sequences
//! that are only scored have steps of their own, and give their blocks to anyone.

use std::collections::BTreeMap;

use crate::blocks::BlockId;
use crate::pace::{Cost, LEAST_TOKENS};
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
    /// What a token costs.
    pub cost: Cost,
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
    /// The first token whose pass through the model somebody asked for: the prefix cache may answer for those before.
    needed: usize,
    /// Tokens of prompts that had been computed for others when it came.
    came: u64,
    /// While it waits: tokens that the prefix cache would not know, as of the last look.
    missing: usize,
}

/// The waiting and the running, and their blocks. Ids grow with arrival: a smaller id is older.
#[derive(Debug)]
pub(crate) struct Schedule {
    limits: ScheduleLimits,
    cache: PrefixCache,
    waiting: BTreeMap<u64, Scheduled>,
    running: BTreeMap<u64, Scheduled>,
    /// Those that are only scored; one that has not begun has no blocks.
    scoring: BTreeMap<u64, Scheduled>,
    preemptions: u64,
    /// Tokens of prompts computed so far.
    clock: u64,
    /// Of the newest plan.
    epoch: u64,
    /// Whether prompts were computed since `missing` was last looked up.
    stale: bool,
}

/// Tokens of each sequence in the step that is being planned.
type Chunks = BTreeMap<u64, usize>;

/// What is left of a step.
struct Room {
    tokens: usize,
    /// For prompts.
    work: f64,
    /// Tokens that the first prompt gets in any case.
    least: usize,
}

/// The part of a step's prompt work that is the oldest prompt's.
const OLDEST_SHARE: f64 = 0.25;
/// A prompt that was passed over for this many times its own length is the next to start.
const MOST_PASSED: u64 = 4;

/// Work without a limit.
pub(crate) const UNLIMITED: f64 = 1e30;

impl Schedule {
    pub fn new(limits: ScheduleLimits) -> Self {
        let cache = PrefixCache::new(limits.blocks, limits.block_size);
        Self {
            limits,
            cache,
            waiting: BTreeMap::new(),
            running: BTreeMap::new(),
            scoring: BTreeMap::new(),
            preemptions: 0,
            clock: 0,
            epoch: 0,
            stale: false,
        }
    }

    /// Queues a sequence. It must fit the pool alone: fewer tokens, drawn ones included, than it has slots.
    pub fn add(&mut self, id: u64, tokens: Vec<u32>) {
        // The last token is always computed: its logits are what the next one is drawn from.
        let needed = tokens.len() - 1;
        let mut sequence = Scheduled::new(tokens, needed, self.clock);
        sequence.missing = self.missing(&sequence);
        self.waiting.insert(id, sequence);
    }

    /// Queues a sequence whose tokens from `needed` on are to be passed through the model, and none drawn.
    pub fn add_scoring(&mut self, id: u64, tokens: Vec<u32>, needed: usize) {
        self.scoring.insert(id, Scheduled::new(tokens, needed, self.clock));
    }

    /// Chooses a step's work, of prompts no more than `work`; sequences that start now run on `epoch`.
    pub fn plan(&mut self, epoch: u64, work: f64) -> Vec<Chunk> {
        self.look_again(epoch);
        let (mut room, mut chunks) = (self.room(work), Chunks::new());
        let (decoding, prompts): (Vec<u64>, Vec<u64>) =
            self.running.keys().copied().partition(|id| self.running[id].pending() == 1);
        for id in decoding {
            self.extend(id, &mut room, &mut chunks);
        }
        let begun = (prompts.into_iter())
            .filter_map(|id| self.running.get(&id).map(|sequence| (sequence.pending(), id)));
        let waiting = self.waiting.iter().map(|(&id, sequence)| (sequence.missing, id));
        let mut prompts: Vec<(usize, u64)> = begun.chain(waiting).collect();
        prompts.sort_unstable();
        // Nobody starts before a prompt that was passed over for long, or its blocks would never be free.
        let overdue = self.waiting.iter().next().filter(|(_, sequence)| self.is_overdue(sequence));
        let overdue = overdue.map(|(&id, _)| id);
        let oldest = prompts.iter().map(|&(_, id)| id).min();
        // It needs no share of its own where it is the first anyway.
        if let Some(oldest) = oldest.filter(|&oldest| prompts[0].1 != oldest) {
            let mut share = room.split(OLDEST_SHARE);
            self.serve(oldest, epoch, overdue, &mut share, &mut chunks);
            room.join(share);
        }
        for (_, id) in prompts {
            self.serve(id, epoch, overdue, &mut room, &mut chunks);
        }
        self.chunks(chunks)
    }

    /// Chooses a step's work among the sequences that are only scored, oldest first, no more than `work`.
    pub fn plan_scoring(&mut self, epoch: u64, work: f64) -> Vec<Chunk> {
        let (mut room, mut chunks) = (self.room(work), Chunks::new());
        let ids: Vec<u64> = self.scoring.keys().copied().collect();
        for id in ids {
            self.score(id, epoch, &mut room, &mut chunks);
            if !chunks.contains_key(&id) {
                break;
            }
        }
        self.chunks(chunks)
    }

    /// Records that a chunk's keys and values are in the pool, and lets others find its full blocks.
    pub fn computed(&mut self, chunk: &Chunk) {
        let of_prompt = self.running.get(&chunk.id).is_some_and(|sequence| sequence.pending() > 1);
        if of_prompt {
            self.clock += chunk.new as u64;
            self.stale |= chunk.draws;
        }
        let size = self.limits.block_size;
        let sequence = self.running.get_mut(&chunk.id).or_else(|| self.scoring.get_mut(&chunk.id));
        let sequence = sequence.expect("a planned sequence runs until its step ends");
        sequence.computed += chunk.new;
        sequence.needed = sequence.needed.max(sequence.computed.min(sequence.tokens.len() - 1));
        for at in sequence.registered..sequence.computed / size {
            let parent = at.checked_sub(1).map(|before| sequence.table[before]);
            let tokens = &sequence.tokens[at * size..(at + 1) * size];
            sequence.table[at] = self.cache.insert(chunk.epoch, parent, tokens, sequence.table[at]);
            sequence.registered = at + 1;
        }
    }

    /// The prompts' work in a step.
    pub fn work(&self, chunks: &[Chunk]) -> f64 {
        let of_prompts = chunks.iter().filter(|chunk| chunk.new > 1);
        of_prompts.map(|chunk| self.limits.cost.work(chunk.start, chunk.new)).sum()
    }

    /// Appends a drawn token; returns how many tokens the sequence has now.
    pub fn push(&mut self, id: u64, token: u32) -> usize {
        let sequence = self.running.get_mut(&id).expect("tokens are drawn for running sequences");
        sequence.tokens.push(token);
        sequence.tokens.len()
    }

    /// Ends a sequence; its full blocks stay findable while there is room.
    pub fn remove(&mut self, id: u64) -> Option<Scheduled> {
        let sequence = self.running.remove(&id).or_else(|| self.waiting.remove(&id));
        let mut sequence = sequence.or_else(|| self.scoring.remove(&id))?;
        self.cache.release_all(&mut sequence.table);
        Some(sequence)
    }

    /// Evicts what was computed with weights that nobody will use again.
    pub fn forget(&mut self, epoch: u64) {
        self.cache.forget(epoch);
    }

    /// Whether a sequence still needs this set of weights.
    pub fn uses(&self, epoch: u64) -> bool {
        let sequences = self.running.values().chain(self.waiting.values()).chain(self.scoring.values());
        sequences.into_iter().any(|sequence| sequence.epoch == Some(epoch))
    }

    /// One that runs or is scored.
    pub fn sequence(&self, id: u64) -> &Scheduled {
        self.running.get(&id).unwrap_or_else(|| &self.scoring[&id])
    }

    /// Whether a sequence waits for one token only.
    pub fn is_decoding(&self) -> bool {
        self.running.values().any(|sequence| sequence.pending() == 1)
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

    fn room(&self, work: f64) -> Room {
        Room { tokens: self.limits.max_batch_tokens, work, least: LEAST_TOKENS }
    }

    fn chunks(&self, chunks: Chunks) -> Vec<Chunk> {
        (chunks.into_iter())
            .map(|(id, new)| {
                let sequence = self.sequence(id);
                let epoch = sequence.epoch.expect("set when admitted");
                let draws = self.running.contains_key(&id) && new == sequence.pending();
                Chunk { id, epoch, start: sequence.computed, new, draws }
            })
            .collect()
    }

    /// Asks the prefix cache again what the waiting miss, where that may have changed.
    fn look_again(&mut self, epoch: u64) {
        let is_stale = std::mem::take(&mut self.stale);
        if std::mem::replace(&mut self.epoch, epoch) == epoch && !is_stale {
            return;
        }
        let missing: Vec<usize> = self.waiting.values().map(|sequence| self.missing(sequence)).collect();
        self.waiting.values_mut().zip(missing).for_each(|(sequence, missing)| sequence.missing = missing);
    }

    fn missing(&self, sequence: &Scheduled) -> usize {
        let epoch = sequence.epoch.unwrap_or(self.epoch);
        let known = self.cache.known(epoch, &sequence.tokens[..sequence.needed]);
        sequence.tokens.len() - known * self.limits.block_size
    }

    fn is_overdue(&self, sequence: &Scheduled) -> bool {
        self.clock - sequence.came > MOST_PASSED * sequence.tokens.len() as u64
    }

    /// Goes on with a prompt, or starts it.
    fn serve(&mut self, id: u64, epoch: u64, overdue: Option<u64>, room: &mut Room, chunks: &mut Chunks) {
        if room.is_empty() {
            return;
        }
        let may_start = || overdue.is_none_or(|overdue| overdue == id);
        if self.running.contains_key(&id) || may_start() && self.admit(id, epoch) {
            self.extend(id, room, chunks);
        }
    }

    /// Gives a running sequence as many of its pending tokens as room and blocks allow, taking the blocks of
    /// those that come after it rather than none. Without any it keeps what it has and waits for an older one to end.
    fn extend(&mut self, id: u64, room: &mut Room, chunks: &mut Chunks) {
        let Some(sequence) = self.running.get(&id) else { return }; // an older one has just taken its blocks
        let planned = chunks.get(&id).copied().unwrap_or(0);
        let past = sequence.computed + planned;
        let wanted = match sequence.pending() - planned {
            1 => room.tokens.min(1),
            pending => pending.min(room.fits(&self.limits.cost, past)),
        };
        let new = self.grow(id, past, wanted, |schedule, is_without| {
            schedule.take_from_scoring(None) || is_without && schedule.preempt_younger_than(id, room, chunks)
        });
        room.take(&self.limits.cost, past, new);
        if new > 0 {
            chunks.insert(id, planned + new);
        }
    }

    /// Gives a sequence blocks for `wanted` tokens behind `past`, as far as there are any; returns for how many. `take`
    /// takes those of others, and is told whether the sequence could do nothing else.
    fn grow(
        &mut self,
        id: u64,
        past: usize,
        wanted: usize,
        mut take: impl FnMut(&mut Self, bool) -> bool,
    ) -> usize {
        let size = self.limits.block_size;
        let mut slots = self.sequence(id).table.len() * size - past;
        while slots < wanted {
            if let Some(block) = self.cache.allocate() {
                let sequence = self.running.get_mut(&id).or_else(|| self.scoring.get_mut(&id));
                sequence.expect("nobody takes its own blocks").table.push(block);
                slots += size;
            } else if !take(self, slots == 0) {
                break;
            }
        }
        wanted.min(slots)
    }

    fn preempt_younger_than(&mut self, id: u64, room: &mut Room, chunks: &mut Chunks) -> bool {
        let Some(&youngest) = self.running.range(id + 1..).next_back().map(|(id, _)| id) else {
            return false;
        };
        let mut sequence = self.running.remove(&youngest).expect("found above");
        sequence.give_up(&mut self.cache);
        sequence.missing = sequence.tokens.len();
        self.waiting.insert(youngest, sequence);
        room.tokens += chunks.remove(&youngest).unwrap_or(0);
        self.preemptions += 1;
        true
    }

    /// Takes the blocks of the youngest sequence that is only scored, and is younger than `than`.
    fn take_from_scoring(&mut self, than: Option<u64>) -> bool {
        let after = than.map_or(0, |id| id + 1);
        let mut holders = self.scoring.range_mut(after..).filter(|(_, sequence)| !sequence.table.is_empty());
        let Some((_, sequence)) = holders.next_back() else { return false };
        sequence.give_up(&mut self.cache);
        self.preemptions += 1;
        true
    }

    /// Starts a waiting sequence if there is room for the whole of it.
    fn admit(&mut self, id: u64, epoch: u64) -> bool {
        if self.running.len() >= self.limits.max_sequences {
            return false;
        }
        let Some(sequence) = self.waiting.get(&id) else { return false };
        let epoch = sequence.epoch.unwrap_or(epoch);
        let mut table = self.cache.lookup(epoch, &sequence.tokens[..sequence.tokens.len() - 1]);
        let cached = table.len() * self.limits.block_size;
        let missing = sequence.tokens.len() / self.limits.block_size + 1 - table.len();
        // Found in the cache later, at no cost.
        let mut starts = !self.is_being_computed(epoch, &sequence.tokens, cached);
        // A block of air for each running sequence: who starts now should not be preempted at once.
        while starts && !self.running.is_empty() && self.cache.available() < missing + self.running.len() {
            starts = self.take_from_scoring(None);
        }
        if !starts {
            self.cache.release_all(&mut table);
            return false;
        }
        let mut sequence = self.waiting.remove(&id).expect("looked up above");
        sequence.begin(epoch, table, self.limits.block_size);
        self.running.insert(id, sequence);
        true
    }

    /// Gives a sequence that is only scored as many of its tokens as room and blocks allow.
    fn score(&mut self, id: u64, epoch: u64, room: &mut Room, chunks: &mut Chunks) {
        let size = self.limits.block_size;
        let sequence = self.scoring.get_mut(&id).expect("listed");
        if sequence.table.is_empty() {
            let epoch = sequence.epoch.unwrap_or(epoch);
            let table = self.cache.lookup(epoch, &sequence.tokens[..sequence.needed]);
            sequence.begin(epoch, table, size);
        }
        let past = sequence.computed;
        let wanted = sequence.pending().min(room.fits(&self.limits.cost, past));
        let new = self.grow(id, past, wanted, |schedule, is_without| {
            is_without && schedule.take_from_scoring(Some(id))
        });
        room.take(&self.limits.cost, past, new);
        if new > 0 {
            chunks.insert(id, new);
        }
    }

    /// Whether a running sequence will compute the block that one with `cached` known tokens would compute first:
    /// votes of a judge ask the same long prompt at the same time.
    fn is_being_computed(&self, epoch: u64, tokens: &[u32], cached: usize) -> bool {
        let end = cached + self.limits.block_size;
        end < tokens.len()
            && self.running.values().any(|other| {
                other.epoch == Some(epoch)
                    && (other.computed + 1..=other.tokens.len()).contains(&end)
                    && other.tokens[..end] == tokens[..end]
            })
    }
}

impl Scheduled {
    fn new(tokens: Vec<u32>, needed: usize, came: u64) -> Self {
        Self {
            prompt_tokens: tokens.len(),
            missing: tokens.len(),
            tokens,
            table: Vec::new(),
            computed: 0,
            registered: 0,
            epoch: None,
            cached_tokens: 0,
            needed,
            came,
        }
    }

    /// Starts on the blocks that the prefix cache has found for it.
    fn begin(&mut self, epoch: u64, table: Vec<BlockId>, block_size: usize) {
        if self.epoch.is_none() {
            self.epoch = Some(epoch);
            self.cached_tokens = table.len() * block_size;
        }
        self.computed = table.len() * block_size;
        self.registered = table.len();
        self.table = table;
    }

    /// Loses its blocks, and what was computed in them.
    fn give_up(&mut self, cache: &mut PrefixCache) {
        cache.release_all(&mut self.table);
        (self.computed, self.registered) = (0, 0);
    }

    fn pending(&self) -> usize {
        self.tokens.len() - self.computed
    }
}

impl Room {
    fn is_empty(&self) -> bool {
        self.tokens == 0 || self.least == 0 && self.work <= 0.0
    }

    /// Parts with `share` of what there is.
    fn split(&mut self, share: f64) -> Self {
        let tokens = ((self.tokens as f64 * share) as usize).max(1).min(self.tokens);
        let part = Self { tokens, work: self.work * share, least: self.least };
        self.tokens -= part.tokens;
        self.work -= part.work;
        part
    }

    /// Takes back what is left of a part.
    fn join(&mut self, part: Self) {
        self.tokens += part.tokens;
        self.work += part.work;
    }

    /// Tokens of a prompt, behind `past` others, that fit.
    fn fits(&self, cost: &Cost, past: usize) -> usize {
        cost.tokens(past, self.work).max(self.least).min(self.tokens)
    }

    fn take(&mut self, cost: &Cost, past: usize, new: usize) {
        self.tokens -= new;
        if new > 1 {
            self.work -= cost.work(past, new);
            self.least = 0;
        }
    }
}

#[cfg(test)]
mod tests;
