//! How fast the batcher reads and writes: a prompt of 512 tokens, then decoding at 1 and 8 streams after prompts of 128;
//! and what one draw costs. `compare_transformers.py` reads criterion's results and sets them against `transformers`.

mod nano_shape;

use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use openclaw_kernels::Cpu;
use openclaw_model::{Batcher, BatcherConfig, GenerateRequest, Sampler, SamplingParams, Weights, train_bpe};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const PREFILL_TOKENS: usize = 512;
const DECODE_PROMPT_TOKENS: usize = 128;
const DECODE_STEPS: usize = 64;

fn batcher() -> Batcher<Cpu> {
    let (transformer, weights) = nano_shape::model();
    let weights = Arc::new(Weights::from_host(&transformer, &weights).expect("the layout fits"));
    let tokenizer = train_bpe(std::iter::empty(), 256, &[]).expect("the 256 bytes");
    let limits = BatcherConfig {
        max_batch_tokens: 4096,
        max_sequences: 64,
        kv_blocks: 1024,
        block_size: 16,
        max_waiting: 64,
        step_time: None,
    };
    Batcher::new(transformer, tokenizer, Vec::new(), limits, 1, weights).expect("valid limits")
}

/// A prompt that no cache has seen.
fn request(rng: &mut ChaCha8Rng, prompt_tokens: usize, max_new_tokens: usize) -> GenerateRequest {
    GenerateRequest {
        drawn_ids: Vec::new(),
        prompt_ids: (0..prompt_tokens).map(|_| rng.random_range(0..nano_shape::VOCAB_SIZE as u32)).collect(),
        sampling: SamplingParams { seed: Some(1), ..Default::default() },
        max_new_tokens,
        stop: Vec::new(),
        top_logprobs: 0,
        constraint: None,
    }
}

fn generate(criterion: &mut Criterion) {
    let mut batcher = batcher();
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut group = criterion.benchmark_group("generate");
    group.sample_size(20);

    group.throughput(Throughput::Elements(PREFILL_TOKENS as u64));
    group.bench_function(BenchmarkId::new("prefill", PREFILL_TOKENS), |bencher| {
        bencher.iter_custom(|iterations| {
            let mut spent = Duration::ZERO;
            for _ in 0..iterations {
                batcher.submit(request(&mut rng, PREFILL_TOKENS, 1)).expect("the queue is empty");
                let start = Instant::now();
                while !batcher.is_idle() {
                    batcher.step().expect("the CPU does not fail");
                }
                spent += start.elapsed();
            }
            spent
        });
    });

    for streams in [1, 8] {
        group.throughput(Throughput::Elements((streams * DECODE_STEPS) as u64));
        group.bench_function(BenchmarkId::new("decode", streams), |bencher| {
            bencher.iter_custom(|iterations| {
                let mut spent = Duration::ZERO;
                for _ in 0..iterations {
                    for _ in 0..streams {
                        let request = request(&mut rng, DECODE_PROMPT_TOKENS, DECODE_STEPS + 1);
                        batcher.submit(request).expect("the queue is empty");
                    }
                    batcher.step().expect("the CPU does not fail"); // the prompts, and a first token each
                    let start = Instant::now();
                    while !batcher.is_idle() {
                        batcher.step().expect("the CPU does not fail");
                    }
                    spent += start.elapsed();
                }
                spent
            });
        });
    }
}

fn draw(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("draw");
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    for vocab_size in [nano_shape::VOCAB_SIZE, 151_936] {
        let logits: Vec<f32> = (0..vocab_size).map(|_| rng.random_range(-6.0..6.0)).collect();
        for (name, top_p) in [("plain", 1.0), ("top_p", 0.9)] {
            let params = SamplingParams { temperature: 0.8, top_p, seed: Some(1), ..Default::default() };
            let mut sampler = Sampler::new(params, 0).expect("parameters in range");
            group.bench_function(BenchmarkId::new(name, vocab_size), |bencher| {
                bencher.iter(|| sampler.draw(&logits).expect("finite logits"));
            });
        }
    }
}

criterion_group!(benches, generate, draw);
criterion_main!(benches);
