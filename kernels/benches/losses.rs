//! The loss operations at a small and at a real vocabulary, in bytes of logits per second.
//!
//! `floor_read`, `floor_in_place` and `floor_copy` are the floors: reading the logits, changing them where they are,
//! and writing as many elsewhere. `kernels/compare.py` compares with PyTorch.
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
        apart::<f32>(c, &cpu, "f32", vocab);
        forward::<bf16>(c, &cpu, "bf16", vocab);
        in_place::<bf16>(c, &cpu, "bf16", vocab);
        apart::<bf16>(c, &cpu, "bf16", vocab);
    }
    head(c, &cpu, 2048);
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
                cpu.scope(|| cpu.row_loss(shape, loss, None, work, &mut stats)).expect("valid arguments");
            });
        });
    }
    group.finish();
}

/// Two matrices of logits: the gap of two models, and gradients that leave the logits as they are.
fn apart<T: Float>(c: &mut Criterion, cpu: &Cpu, dtype: &str, vocab: usize) {
    let mut group = c.benchmark_group(format!("losses/{dtype}"));
    group.throughput(Throughput::Bytes((2 * ROWS * vocab * size_of::<T>()) as u64));
    let shape = LogitsShape::dense(ROWS, vocab);
    let (source, targets) = (logits::<T>(vocab), targets(vocab));
    let mut other = source.clone();

    group.bench_function(BenchmarkId::new("floor_copy", vocab), |b| {
        b.iter(|| {
            let rows = black_box(&mut other).par_chunks_mut(vocab).zip(source.par_chunks(vocab));
            cpu.scope(|| rows.for_each(|(to, from)| to.copy_from_slice(from)));
        });
    });
    let (mut student, mut teacher, mut gap) = (vec![0.0; ROWS], vec![0.0; ROWS], vec![0.0; ROWS]);
    group.bench_function(BenchmarkId::new("logprob_gap", vocab), |b| {
        b.iter(|| {
            let out = GapOut { student: &mut student[..], teacher: &mut teacher[..], gap: &mut gap[..] };
            let (student, teacher) = (black_box(&source), &other);
            cpu.scope(|| cpu.logprob_gap(shape, student, teacher, &targets, out)).expect("valid arguments");
        });
    });
    let d_logprobs = vec![0.3; ROWS];
    group.bench_function(BenchmarkId::new("logprob_backward", vocab), |b| {
        b.iter(|| {
            let (source, target) = (Some(&source[..]), black_box(&mut other));
            cpu.scope(|| cpu.logprob_backward(shape, source, &targets, &d_logprobs, None, target))
                .expect("valid arguments");
        });
    });
    group.finish();
}

/// The head with its loss, beside its three bare products, in operations of the products.
fn head(c: &mut Criterion, cpu: &Cpu, vocab: usize) {
    const WIDTH: usize = 256;
    let mut group = c.benchmark_group("head/f32");
    group.throughput(Throughput::Elements((6 * ROWS * vocab * WIDTH) as u64));
    let mut rng = SmallRng::seed_from_u64(6);
    let mut uniform = |n: usize| (0..n).map(|_| rng.random_range(-0.2..0.2)).collect::<Vec<f32>>();
    let (hidden, weight, targets) = (uniform(ROWS * WIDTH), uniform(vocab * WIDTH), targets(vocab));
    let (mut d_hidden, mut d_weight) = (vec![0.0; ROWS * WIDTH], vec![0.0; vocab * WIDTH]);
    let mut logits = vec![0.0; ROWS * vocab];
    let (rows, transposed) = (MatrixLayout::rows, MatrixLayout::transposed);
    let product = |m, n, k, a, b| Matmul { m, n, k, a, b, c_row: n, accumulate: false };
    let products = [
        product(ROWS, vocab, WIDTH, rows(WIDTH), transposed(WIDTH)),
        product(ROWS, WIDTH, vocab, rows(vocab), rows(WIDTH)),
        product(vocab, WIDTH, ROWS, transposed(vocab), rows(WIDTH)),
    ];
    group.bench_function(BenchmarkId::new("floor_products", vocab), |b| {
        b.iter(|| {
            cpu.scope(|| {
                cpu.matmul(products[0], black_box(&hidden), &weight, &mut logits)?;
                cpu.matmul(products[1], &logits, &weight, &mut d_hidden)?;
                cpu.matmul(products[2], &logits, &hidden, &mut d_weight)
            })
            .expect("valid arguments");
        });
    });
    let shape = LinearShape::new(ROWS, WIDTH, vocab);
    let mut scratch = vec![0.0; shape.scratch_len()];
    let (weights, mut stats) = (vec![1.0 / ROWS as f32; ROWS], vec![RowStat::default(); ROWS]);
    let (mut logprobs, mut lse) = (vec![0.0; ROWS], vec![0.0; ROWS]);
    let head = Head { hidden: &hidden[..], weight: &weight[..] };
    group.bench_function(BenchmarkId::new("linear_loss", vocab), |b| {
        b.iter(|| {
            let out = HeadGradients {
                scratch: &mut scratch[..],
                d_hidden: &mut d_hidden[..],
                d_weight: &mut d_weight[..],
                stats: &mut stats[..],
            };
            let loss = RowLoss::cross_entropy(&weights[..], &targets[..]);
            cpu.scope(|| cpu.linear_loss(shape, loss, black_box(head), out)).expect("valid arguments");
        });
    });
    group.bench_function(BenchmarkId::new("linear_logprob", vocab), |b| {
        b.iter(|| {
            let out = ScoreOut {
                logprobs: &mut logprobs[..],
                lse: &mut lse[..],
                entropy: None,
                candidates: None,
                top: None,
            };
            let score = Score { targets: &targets[..], candidates: None };
            cpu.scope(|| cpu.linear_logprob(shape, score, black_box(head), &mut scratch, out))
                .expect("valid arguments");
        });
    });
    group.finish();
}

criterion_group!(benches, losses);
criterion_main!(benches);
