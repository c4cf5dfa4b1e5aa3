//! Attention over pages equals plain attention, however a sequence is cut into steps and its pages scattered.

use openclaw_kernels::ops::{PagedSegment, PagedShape};

use crate::attention::{Batch, HEADS, LENGTHS, definition};
use crate::cases::{Random, assert_close, qkv_shape, refusal, wide};
use crate::devices::{Device, Operations, bits, on_every_device};

on_every_device!(
    decoding_and_chunked_prefill_equal_plain_attention,
    decoding_agrees_with_the_definition_and_not_with_its_neighbours,
    long_contexts_are_read_whole,
    storing_writes_its_slots_alone,
    wrong_arguments_are_named_and_change_nothing,
);

/// Sizes of a step's chunk: mostly decoding.
const CHUNKS: [usize; 6] = [1, 1, 5, 64, 65, 100];

/// One forward of every sequence's next chunk.
#[derive(Default)]
struct Step {
    segments: Vec<PagedSegment>,
    /// Row of the whole batch for each row of the step.
    tokens: Vec<usize>,
    slots: Vec<u32>,
}

/// A batch laid out in a pool with pages in a random order.
struct Layout {
    shape: PagedShape,
    blocks: usize,
    tables: Vec<u32>,
    steps: Vec<Step>,
}

impl Layout {
    /// `cuts` decides how sequences are cut into chunks, `pages` where they lie.
    fn new(batch: &Batch, block_size: usize, cuts: u64, pages: u64) -> Self {
        let (mut cuts, mut pages) = (Random::new(cuts), Random::new(pages));
        let needed = |len: usize| len.div_ceil(block_size);
        let blocks = batch.sequences.iter().map(|s| needed(s.len())).sum::<usize>() + 5;
        let mut free = pages.shuffled(blocks);
        // Words between the tables that no sequence may read.
        let (mut tables, mut starts) = (vec![u32::MAX; 3], vec![]);
        for sequence in &batch.sequences {
            starts.push(tables.len());
            tables.extend(free.drain(..needed(sequence.len())));
            tables.push(u32::MAX);
        }
        let mut past = vec![0; batch.sequences.len()];
        let mut steps = vec![];
        while batch.sequences.iter().zip(&past).any(|(s, past)| *past < s.len()) {
            let mut step = Step::default();
            for (i, sequence) in batch.sequences.iter().enumerate() {
                let new = CHUNKS[cuts.below(CHUNKS.len())].min(sequence.len() - past[i]);
                if new == 0 {
                    continue;
                }
                step.segments.push(PagedSegment {
                    row: step.tokens.len(),
                    new,
                    past: past[i],
                    table: starts[i],
                });
                for position in past[i]..past[i] + new {
                    step.tokens.push(sequence.start + position);
                    let block = tables[starts[i] + position / block_size];
                    step.slots.push(block * block_size as u32 + (position % block_size) as u32);
                }
                past[i] += new;
            }
            steps.push(step);
        }
        Self { shape: PagedShape { qkv: batch.shape, block_size }, blocks, tables, steps }
    }

    /// A pool with every token in its slot, and NaN elsewhere.
    fn store(&self, ops: &dyn Operations, batch: &Batch) -> Vec<f32> {
        let mut pool = vec![f32::NAN; self.blocks * self.shape.block_len()];
        for step in &self.steps {
            let qk = gather(&batch.qk, batch.shape.qk_width(), &step.tokens);
            let qkv = gather(&batch.qkv, batch.shape.qkv_width(), &step.tokens);
            ops.paged_store(self.shape, &step.slots, &qk, &qkv, &mut pool).expect("valid arguments");
        }
        pool
    }

    /// Outputs of the whole batch. What was never stored is NaN, so that reading it would show.
    fn run(&self, cpu: &dyn Operations, batch: &Batch) -> Vec<f32> {
        let width = batch.shape.out_width();
        let mut pool = vec![f32::NAN; self.blocks * self.shape.block_len()];
        let mut outs = vec![f32::NAN; batch.qk.len() / batch.shape.qk_width() * width];
        for step in &self.steps {
            let qk = gather(&batch.qk, batch.shape.qk_width(), &step.tokens);
            let qkv = gather(&batch.qkv, batch.shape.qkv_width(), &step.tokens);
            let mut out = vec![f32::NAN; step.tokens.len() * width];
            cpu.paged_store(self.shape, &step.slots, &qk, &qkv, &mut pool).expect("valid arguments");
            cpu.paged_attention(self.shape, &step.segments, &self.tables, &qk, &pool, &mut out)
                .expect("valid arguments");
            for (token, row) in step.tokens.iter().zip(out.chunks(width)) {
                outs[token * width..][..width].copy_from_slice(row);
            }
        }
        outs
    }
}

fn gather(x: &[f32], width: usize, rows: &[usize]) -> Vec<f32> {
    rows.iter().flat_map(|row| &x[row * width..][..width]).copied().collect()
}

fn decoding_and_chunked_prefill_equal_plain_attention(device: &Device) {
    for (seed, heads) in (0..).zip(HEADS) {
        let batch = Batch::new(heads, &LENGTHS);
        let plain = wide(&batch.forward(device)[0]);
        for block_size in [1, 5, 16, 64] {
            let layout = Layout::new(&batch, block_size, seed, 7);
            let found = device.on_any_threads(|cpu| vec![layout.run(cpu, &batch)]).concat();
            assert_close(&format!("{heads:?}, blocks of {block_size}"), &found, &plain, 4e-6);
            if let Device::Emulated = device {
                // One kernel serves training, prefill and decoding: a policy scores what it drew.
                assert!(
                    bits(&found) == bits(&batch.forward(device)[0]),
                    "{heads:?}: a step changes the result"
                );
            }
            let elsewhere = device.on(1, |cpu| Layout::new(&batch, block_size, seed, 8).run(cpu, &batch));
            assert!(bits(&elsewhere) == bits(&found), "{heads:?}: the result depends on where pages lie");
        }
    }
}

fn decoding_agrees_with_the_definition_and_not_with_its_neighbours(device: &Device) {
    for heads in HEADS {
        let batch = Batch::new(heads, &[1, 40, 130]);
        let width = batch.shape.out_width();
        let layout = Layout::new(&batch, 16, 1, 2);
        // Everything is stored first; then the last token of every sequence is decoded in one step.
        let last: Vec<usize> = batch.sequences.iter().map(|s| s.end - 1).collect();
        let pool = device.on(1, |ops| layout.store(ops, &batch));
        let segments: Vec<PagedSegment> = batch
            .sequences
            .iter()
            .enumerate()
            .map(|(row, sequence)| {
                let first = layout.steps[0].segments[row];
                PagedSegment { row, new: 1, past: sequence.len() - 1, table: first.table }
            })
            .collect();
        let queries = gather(&batch.qk, batch.shape.qk_width(), &last);
        let found = device
            .on_any_threads(|cpu| {
                let mut out = vec![f32::NAN; segments.len() * width];
                cpu.paged_attention(layout.shape, &segments, &layout.tables, &queries, &pool, &mut out)
                    .expect("valid arguments");
                vec![out]
            })
            .concat();
        for (row, sequence) in batch.sequences.iter().enumerate() {
            let tokens: Vec<usize> = sequence.clone().collect();
            let qk = wide(&gather(&batch.qk, batch.shape.qk_width(), &tokens));
            let qkv = wide(&gather(&batch.qkv, batch.shape.qkv_width(), &tokens));
            let (expected, _) = definition(batch.shape, &qk, &qkv);
            let found = &found[row * width..][..width];
            assert_close(&format!("{heads:?}"), found, &expected[expected.len() - width..], 4e-6);
            let (segment, mut alone) = (PagedSegment { row: 0, ..segments[row] }, vec![f32::NAN; width]);
            let query = &queries[row * batch.shape.qk_width()..][..batch.shape.qk_width()];
            device
                .on(1, |cpu| {
                    cpu.paged_attention(layout.shape, &[segment], &layout.tables, query, &pool, &mut alone)
                })
                .expect("valid arguments");
            assert!(bits(&alone) == bits(found), "{heads:?}: row {row} depends on its neighbours");
        }
    }
}

fn long_contexts_are_read_whole(device: &Device) {
    // Beyond 512 keys CUDA splits a tile's keys over blocks: one new token, a few, and two tiles of them.
    for ((heads, kv_heads, head_dim), new) in [((2, 1, 16), 1), ((2, 1, 16), 40), ((3, 1, 6), 5)] {
        let batch = Batch::new((heads, kv_heads, head_dim), &[3, 1300]);
        let (width, sequence) = (batch.shape.out_width(), batch.sequences[1].clone());
        let layout = Layout::new(&batch, 16, 3, 4);
        let stored = device.on(1, |ops| layout.store(ops, &batch));
        let segment = PagedSegment {
            row: 0,
            new,
            past: sequence.len() - new,
            table: layout.steps[0].segments[1].table,
        };
        let tokens: Vec<usize> = (sequence.end - new..sequence.end).collect();
        let queries = gather(&batch.qk, batch.shape.qk_width(), &tokens);
        let found = device.on_any_threads(|ops| {
            let mut out = vec![f32::NAN; new * width];
            ops.paged_attention(layout.shape, &[segment], &layout.tables, &queries, &stored, &mut out)
                .expect("valid arguments");
            vec![out]
        });
        let tokens: Vec<usize> = sequence.collect();
        let qk = wide(&gather(&batch.qk, batch.shape.qk_width(), &tokens));
        let qkv = wide(&gather(&batch.qkv, batch.shape.qkv_width(), &tokens));
        let (expected, _) = definition(batch.shape, &qk, &qkv);
        assert_close(&format!("{new} tokens"), &found[0], &expected[expected.len() - new * width..], 4e-6);
    }
}

fn storing_writes_its_slots_alone(device: &Device) {
    let shape = PagedShape { qkv: qkv_shape(2, 1, 2), block_size: 2 };
    // Rows are [q0 q0 q1 q1 | k k | v v].
    let (qk, qkv) = ([1., 2., 3., 4., 5., 6.], [0., 0., 0., 0., 0., 0., 7., 8.]);
    let mut pool = vec![-1.0; 3 * shape.block_len()];
    device.on(1, |cpu| cpu.paged_store(shape, &[3], &qk, &qkv, &mut pool)).expect("valid arguments");
    let mut expected = vec![-1.0; 24];
    expected[8 + 2..8 + 4].copy_from_slice(&[5.0, 6.0]);
    expected[8 + 6..8 + 8].copy_from_slice(&[7.0, 8.0]);
    assert_eq!(pool, expected);
}

fn wrong_arguments_are_named_and_change_nothing(device: &Device) {
    let shape = PagedShape { qkv: qkv_shape(2, 1, 2), block_size: 2 };
    let (x, mut pool) = ([0.5; 32], vec![1.0; 3 * shape.block_len()]);
    let mut store = |shape: PagedShape, slots: &[u32], qk: usize, qkv: usize, len: usize| {
        let e =
            refusal(device.on(1, |cpu| cpu.paged_store(shape, slots, &x[..qk], &x[..qkv], &mut pool[..len])));
        assert!(pool.iter().all(|v| *v == 1.0), "{e}, yet the pool changed");
        e
    };
    assert_eq!(store(shape, &[0, 6], 12, 16, 24), "paged_store: slot 6 is outside a pool of 6");
    assert_eq!(store(shape, &[0, 1], 11, 16, 24), "paged_store: qk has 11 elements, expected 12");
    assert_eq!(store(shape, &[0, 1], 12, 15, 24), "paged_store: qkv has 15 elements, expected 16");
    let e = store(shape, &[0, 1], 12, 16, 23);
    assert_eq!(e, "paged_store: pool has 23 elements, which are no rows of 8");
    let e = store(PagedShape { block_size: 0, ..shape }, &[], 0, 0, 24);
    assert_eq!(e, "paged_store: pool has 24 elements, which are no rows of 0");

    let attend = |segments: &[PagedSegment], tables: &[u32], qk: usize, out: usize| {
        let mut out = vec![2.0; out];
        let e = refusal(
            device.on(2, |cpu| cpu.paged_attention(shape, segments, tables, &x[..qk], &x[..24], &mut out)),
        );
        assert!(out.iter().all(|v| *v == 2.0), "{e}, yet the output changed");
        e
    };
    let segment = PagedSegment { row: 0, new: 2, past: 1, table: 0 };
    assert_eq!(attend(&[segment], &[0], 12, 8), "paged_attention: no block table of 2 at 0");
    let far = PagedSegment { table: 9, ..segment };
    assert_eq!(attend(&[far], &[0, 1], 12, 8), "paged_attention: no block table of 2 at 9");
    assert_eq!(attend(&[segment], &[0, 3], 12, 8), "paged_attention: block 3 of a pool of 3");
    for (qk, out) in [(11, 8), (12, 7)] {
        let e = attend(&[segment], &[0, 1], qk, out);
        assert!(e.starts_with("paged_attention: segment") && e.ends_with("is outside the step"), "{e}");
    }
    let e = attend(&[segment, PagedSegment { row: 1, ..segment }], &[0, 1], 18, 12);
    assert!(e.starts_with("paged_attention: segment") && e.ends_with("overlaps the rows before 2"), "{e}");
}
