//! How fast the trainer learns: one step (forward, backward, clipping, AdamW) on 4 sequences of 512 tokens.

mod nano_shape;

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use openclaw_model::training::{AdamWConfig, Objective, TrainRow, TrainSequence, Trainer};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const SEQUENCES: usize = 4;
const TOKENS: usize = 512;

fn train(criterion: &mut Criterion) {
    let (transformer, weights) = nano_shape::model();
    let mut trainer =
        Trainer::new(transformer, &weights, AdamWConfig::default()).expect("the optimizer's state fits");
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let weight = 1.0 / (SEQUENCES * (TOKENS - 1)) as f32;
    let batch: Vec<TrainSequence> = (0..SEQUENCES)
        .map(|_| TrainSequence {
            ids: (0..TOKENS).map(|_| rng.random_range(0..nano_shape::VOCAB_SIZE as u32)).collect(),
            rows: (1..TOKENS).map(|position| TrainRow { position, weight, ..Default::default() }).collect(),
            temperature: 1.0,
        })
        .collect();
    let mut group = criterion.benchmark_group("train");
    group.sample_size(10).measurement_time(Duration::from_secs(10));
    group.throughput(Throughput::Elements((SEQUENCES * TOKENS) as u64));
    group.bench_function(BenchmarkId::new("step", SEQUENCES * TOKENS), |bencher| {
        bencher.iter(|| trainer.step(&batch, &Objective::CrossEntropy).expect("the CPU does not fail"));
    });
}

criterion_group!(benches, train);
criterion_main!(benches);
