//! The model that the benches measure: random, of the nano model's shape; speed depends on shapes alone.

use openclaw_kernels::Cpu;
use openclaw_model::{ModelConfig, Transformer, random_weights};

/// Ids of the vocabulary.
pub const VOCAB_SIZE: usize = 4096;

/// The model on `OPENCLAW_BENCH_THREADS` threads (default 2), and its weights.
pub fn model() -> (Transformer<Cpu>, Vec<f32>) {
    let config = ModelConfig {
        family: Default::default(),
        vocab_size: VOCAB_SIZE,
        hidden_size: 256,
        intermediate_size: 768,
        layers: 6,
        heads: 4,
        kv_heads: 2,
        head_dim: 64,
        rms_norm_eps: 1e-6,
        rope_theta: 1e6,
        rope_scaling: None,
        max_positions: 4096,
        tied: true,
    };
    let threads = std::env::var("OPENCLAW_BENCH_THREADS").map_or(2, |text| text.parse().expect("a number"));
    let weights = random_weights(&config, 1);
    let backend = Cpu::new("bench", threads).expect("threads start");
    (Transformer::new(config, backend).expect("a small model fits"), weights)
}
