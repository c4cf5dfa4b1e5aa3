//! The loss operations at a small and at a real vocabulary, in bytes of logits per second.
//!
//! `floor_read` and `floor_in_place` are the floors: reading the logits, and changing them where they are.
#![allow(missing_docs)]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use half::bf16;
use openclaw_kernels::ops::*;
use openclaw_kernels::{Backend, Cpu, Float};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use rayon::prelude::*;

const ROWS: usize = 64;
const TOP_K: usize = 50;

/// Peaked rows, as a trained model writes them.
fn logits<T: Float>(vocab: usize) -> Vec<T> {
    let mut rng = SmallRng::seed_from_u64(5);
    let mut logits: Vec<T> = (0..ROWS * vocab).map(|_| T::from_f32(rng.random_range(-8.0..4.0))).collect();
    for (i, id) in targets(vocab).iter().enumerate() {
        logits[i * vocab + *id as usize] = T::from_f32(16.0);
    }
    logits
}

fn targets(vocab: usize) -> Vec<i32> {
    (0..ROWS).map(|i| ((i * 37) % vocab) as i32).collect()
}

fn losses(c: &mut Criterion) {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let cpu = Cpu::new("bench", threads).expect("threads start");
    for vocab in [2048, 151_936] {
        forward::<f32>(c, &cpu, "f32", vocab);
        in_place::<f32>(c, &cpu, "f32", vocab);
        forward::<bf16>(c, &cpu, "bf16", vocab);
        in_place::<bf16>(c, &cpu, "bf16", vocab);
    }
}

fn forward<T: Float>(c: &mut Criterion, cpu: &Cpu, dtype: &str, vocab: usize) {
    let mut group = c.benchmark_group(format!("losses/{dtype}"));
    group.throughput(Throughput::Bytes((ROWS * vocab * size_of::<T>()) as u64));
    let shape = LogitsShape::dense(ROWS, vocab);
    let (source, targets) = (logits::<T>(vocab), targets(vocab));

    group.bench_function(BenchmarkId::new("floor_read", vocab), |b| {
        let fold = |row: &[T]| bytemuck::cast_slice::<T, u16>(row).iter().fold(0u16, |a, b| a ^ *b);
        b.iter(|| cpu.scope(|| black_box(&source).par_chunks(vocab).map(fold).reduce(|| 0, |a, b| a ^ b)));
    });

    let (mut logprobs, mut lse) = (vec![0.0; ROWS], vec![0.0; ROWS]);
    let (mut ids, mut top) = (vec![0; ROWS * TOP_K], vec![0.0; ROWS * TOP_K]);
    for (name, k) in [("logprob", 0), ("logprob_top_k", TOP_K)] {
        group.bench_function(BenchmarkId::new(name, vocab), |b| {
            b.iter(|| {
                let top = TopK { k, ids: &mut ids[..ROWS * k], logprobs: &mut top[..ROWS * k] };
                let out = ScoreOut {
                    logprobs: &mut logprobs[..],
                    lse: &mut lse[..],
                    entropy: None,
                    candidates: None,
                    top: Some(top),
                };
                let score = Score { targets: &targets[..], candidates: None };
                cpu.scope(|| cpu.logprob(shape, black_box(&source), score, out)).expect("valid arguments");
            });
        });
    }
    group.finish();
}

/// Gradients are logits like any others: each iteration runs on what the one before wrote.
fn in_place<T: Float>(c: &mut Criterion, cpu: &Cpu, dtype: &str, vocab: usize) {
    let mut group = c.benchmark_group(format!("losses/{dtype}"));
    group.throughput(Throughput::Bytes((2 * ROWS * vocab * size_of::<T>()) as u64));
    let shape = LogitsShape::dense(ROWS, vocab);
    let (mut work, targets) = (logits::<T>(vocab), targets(vocab));
    let mut stats = vec![RowStat::default(); ROWS];

    group.bench_function(BenchmarkId::new("floor_in_place", vocab), |b| {
        let negate = |row: &mut [T]| {
            bytemuck::cast_slice_mut::<T, u16>(row).iter_mut().for_each(|x| *x ^= 0x8000);
        };
        b.iter(|| cpu.scope(|| black_box(&mut work).par_chunks_mut(vocab).for_each(negate)));
    });

    let (weights, advantages, old) = (vec![1.0 / ROWS as f32; ROWS], vec![0.7; ROWS], vec![-0.1; ROWS]);
    let policy = PolicyTerm {
        surrogate: Surrogate::Ppo { old_logprobs: &old[..] },
        advantages: &advantages[..],
        importance: None,
        clip: ClipRange { low: 0.2, high: 0.28, dual: None },
    };
    let policy =
        RowLoss { token: TokenTerm::Policy(policy), ..RowLoss::cross_entropy(&weights[..], &targets[..]) };
    let candidates: Vec<i32> = (0..ROWS * TOP_K).map(|at| ((at * 40) % vocab) as i32).collect();
    let teacher = vec![-6.0; ROWS * TOP_K];
    let distill = CandidateLoss::ReverseKl { teacher_logprobs: &teacher[..], entropy_coef: 0.0 };
    let distill = RowLoss {
        token: TokenTerm::None,
        candidates: Some(CandidateTerm { k: TOP_K, ids: &candidates[..], coef: 1.0, loss: distill }),
        ..policy
    };
    let with_entropy = RowLoss { entropy_coef: 0.01, ..policy };
    for (name, loss) in [("policy", policy), ("policy_with_entropy", with_entropy), ("topk_distill", distill)]
    {
        group.bench_function(BenchmarkId::new(name, vocab), |b| {
            b.iter(|| {
                let work = black_box(&mut work);
                cpu.scope(|| cpu.row_loss(shape, loss, work, &mut stats)).expect("valid arguments");
            });
        });
    }
    group.finish();
}

criterion_group!(benches, losses);
criterion_main!(benches);
