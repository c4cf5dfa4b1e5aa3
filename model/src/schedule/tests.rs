use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;

const SIZE: usize = 4;
const COST: Cost = Cost::flat();

fn schedule(max_batch_tokens: usize, max_sequences: usize, blocks: usize) -> Schedule {
    Schedule::new(ScheduleLimits { max_batch_tokens, max_sequences, blocks, block_size: SIZE, cost: COST })
}

/// Runs one step in which every draw gives token 0; returns `(id, new)` per chunk.
fn step(schedule: &mut Schedule) -> Vec<(u64, usize)> {
    let chunks = schedule.plan(0, UNLIMITED);
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
fn a_short_prompt_does_not_wait_for_a_long_one_which_gets_on_all_the_same() {
    let mut schedule = schedule(8, 4, 64);
    schedule.add(1, prompt(100, 60));
    assert_eq!(step(&mut schedule), [(1, 8)]);
    schedule.add(2, prompt(200, 12));
    assert_eq!(step(&mut schedule), [(1, 2), (2, 6)]);
    assert_eq!(step(&mut schedule), [(1, 2), (2, 6)]);
    assert_eq!(step(&mut schedule), [(1, 7), (2, 1)]);
}

#[test]
fn what_is_left_counts_and_not_how_long_a_prompt_is() {
    let mut schedule = schedule(8, 4, 64);
    schedule.add(1, prompt(0, 40));
    while step(&mut schedule) != [(1, 1)] {}
    schedule.add(2, prompt(500, 20));
    schedule.add(3, [prompt(0, 40), prompt(900, 7)].concat());
    assert_eq!(step(&mut schedule), [(1, 1), (2, 1), (3, 6)], "nearly all of it is in the cache");
}

#[test]
fn a_prompt_that_was_passed_over_for_long_is_the_next_to_start() {
    // The long one needs the whole pool, and short ones never end to come.
    let mut schedule = schedule(8, 4, 8);
    schedule.add(1, prompt(100, 3));
    step(&mut schedule);
    schedule.add(2, prompt(1000, 28));
    let mut passed = 0;
    for id in 3.. {
        schedule.add(id, prompt(10 * id as u32 + 2000, 4));
        step(&mut schedule);
        schedule.remove(if id == 3 { 1 } else { id - 1 });
        passed += 1;
        if schedule.running.contains_key(&2) {
            break;
        }
        assert!(passed < 100, "it never starts");
    }
    assert!(passed > 10, "shorter ones went first for a while");
}

#[test]
fn a_prompts_piece_is_cut_by_its_work_and_never_to_nothing() {
    let cost = Cost::flat();
    let limits =
        ScheduleLimits { max_batch_tokens: 512, max_sequences: 4, blocks: 512, block_size: SIZE, cost };
    let mut schedule = Schedule::new(limits);
    schedule.add(1, prompt(0, 1000));
    let mut piece = |work| {
        let chunks = schedule.plan(0, work);
        chunks.iter().for_each(|chunk| schedule.computed(chunk));
        chunks.iter().map(|chunk| chunk.new).sum::<usize>()
    };
    assert_eq!(piece(100.0), 100);
    assert_eq!(piece(1.0), LEAST_TOKENS);
}

#[test]
fn those_that_are_only_scored_give_their_blocks_to_anyone_and_go_on_where_they_were() {
    let mut schedule = schedule(8, 4, 6);
    let score = |schedule: &mut Schedule| -> Vec<(u64, usize, usize)> {
        let chunks = schedule.plan_scoring(0, UNLIMITED);
        chunks.iter().for_each(|chunk| schedule.computed(chunk));
        chunks.iter().map(|chunk| (chunk.id, chunk.start, chunk.new)).collect()
    };
    schedule.add_scoring(1, prompt(0, 20), 2);
    assert_eq!(score(&mut schedule), [(1, 0, 8)]);
    assert_eq!(score(&mut schedule), [(1, 8, 8)]);
    schedule.add(2, prompt(100, 18));
    while !schedule.is_decoding() {
        step(&mut schedule);
    }
    assert_eq!(schedule.preemptions(), 1, "the younger one is served");
    assert_eq!(score(&mut schedule), [], "it waits for a block");
    schedule.remove(2);
    assert_eq!(score(&mut schedule), [(1, 4, 8)], "the block that nobody needed is still known");
    schedule.remove(1);
    assert_eq!(schedule.cache().used(), 0);
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
            let chunks = schedule.plan(epoch, UNLIMITED);
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
                    assert_eq!((*epoch, &prefix[..]), (chunk.epoch, &sequence.tokens[..=at]), "seed {seed}");
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
    assert!(preemptions > 100, "only {preemptions} preemptions: the pools are too large to show anything");
}
