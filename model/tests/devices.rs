//! The engine on emulated CUDA does what it does on the CPU, to rounding.

use std::{collections::BTreeMap, sync::Arc};

use openclaw_kernels::{Backend, Cpu, Cuda};
use openclaw_model::{
    Batcher, BatcherConfig, GenerateEvent, GenerateRequest, ModelConfig, SamplingParams, SequenceId,
    TokenLogprob, Transformer, Weights, random_weights, train_bpe,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const VOCAB: usize = 259;

/// A small model of each kind: heads that share keys, a head of its own for the output, an odd width.
fn configs() -> [ModelConfig; 2] {
    let tied = ModelConfig {
        vocab_size: VOCAB,
        hidden_size: 32,
        intermediate_size: 48,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        head_dim: 16,
        rms_norm_eps: 1e-6,
        rope_theta: 1e4,
        max_positions: 192,
        tied: true,
    };
    [tied.clone(), ModelConfig { hidden_size: 22, heads: 3, kv_heads: 1, head_dim: 6, tied: false, ..tied }]
}

/// Larger than a fresh model's, so that what is computed depends on every token before.
fn weights(config: &ModelConfig) -> Vec<f32> {
    let mut flat = random_weights(config, 5);
    flat.iter_mut().filter(|weight| **weight != 1.0).for_each(|weight| *weight *= 6.0);
    flat
}

fn ids(seed: u64, len: usize) -> Vec<u32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..len).map(|_| rng.random_range(1..VOCAB as u32)).collect()
}

/// Work on any device.
trait Work {
    type Outcome;
    fn on<B: Backend>(&self, transformer: Transformer<B>, flat: &[f32]) -> Self::Outcome;
}

/// Does `work` on both devices and compares; on the CPU alone, with the reason printed, where CUDA cannot be emulated.
fn compare<W: Work>(work: &W, same: impl Fn(&ModelConfig, W::Outcome, W::Outcome)) {
    for config in configs() {
        let flat = weights(&config);
        let cpu = Cpu::new("devices", 2).expect("threads start");
        let expected = work.on(Transformer::new(config.clone(), cpu).expect("a small model fits"), &flat);
        match Cuda::emulated() {
            Ok(cuda) => {
                let transformer = Transformer::new(config.clone(), cuda).expect("a small model fits");
                same(&config, work.on(transformer, &flat), expected);
            }
            Err(error) => {
                assert!(std::env::var_os("OPENCLAW_REQUIRE_ALL").is_none(), "{error}");
                eprintln!("skipped: {error}");
            }
        }
    }
}

/// Differences are at most `tolerance` of the largest element.
fn assert_close(what: &str, found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let allowed = tolerance * expected.iter().fold(0f32, |size, x| size.max(x.abs()));
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let close = (found - expected).abs() <= allowed;
        assert!(close, "{what} [{i}]: {found}, on the CPU {expected}, {allowed:e} allowed");
    }
}

struct Logits;
impl Work for Logits {
    type Outcome = Vec<f32>;
    fn on<B: Backend>(&self, transformer: Transformer<B>, flat: &[f32]) -> Vec<f32> {
        let weights = Weights::from_host(&transformer, flat).expect("the layout fits");
        let sequences = [ids(1, 75), ids(2, 1), ids(3, 33)];
        transformer.logits(&weights, &sequences.each_ref().map(Vec::as_slice)).expect("valid arguments")
    }
}

#[test]
fn logits_agree() {
    compare(&Logits, |_, found, expected| assert_close("logits", &found, &expected, 1e-5));
}

/// Several prompts, two with a beginning in common, in steps so small that prompts are cut and decoding goes on
/// beside them.
struct Serving;
impl Work for Serving {
    type Outcome = BTreeMap<SequenceId, Vec<TokenLogprob>>;
    fn on<B: Backend>(&self, transformer: Transformer<B>, flat: &[f32]) -> Self::Outcome {
        let tokenizer = train_bpe(std::iter::empty(), 257, &["<|im_end|>"]).expect("256 bytes and one");
        let weights = Arc::new(Weights::from_host(&transformer, flat).expect("the layout fits"));
        let limits = BatcherConfig {
            max_batch_tokens: 24,
            max_sequences: 4,
            kv_blocks: 40,
            block_size: 5,
            max_waiting: 8,
        };
        let mut batcher =
            Batcher::new(transformer, tokenizer, vec![0], limits, 1, weights).expect("valid limits");
        let shared = ids(1, 40);
        let prompts =
            [shared.clone(), [shared, ids(2, 9)].concat(), ids(3, 3), ids(4, 61), ids(5, 17), ids(6, 1)];
        for prompt_ids in prompts {
            let request = GenerateRequest {
                prompt_ids,
                drawn_ids: Vec::new(),
                sampling: SamplingParams { temperature: 0.0, ..SamplingParams::default() },
                max_new_tokens: 12,
                stop: Vec::new(),
                top_logprobs: 3,
            };
            batcher.submit(request).expect("it can be served");
        }
        let mut drawn = BTreeMap::<_, Vec<_>>::new();
        while !batcher.is_idle() {
            for (id, event) in batcher.step().expect("the device does not fail") {
                match event {
                    GenerateEvent::Token { token, .. } => drawn.entry(id).or_default().push(token),
                    GenerateEvent::Finished { .. } => {}
                    GenerateEvent::Failed { error } => panic!("{error}"),
                }
            }
        }
        assert!(batcher.stats().cached_tokens > 0, "nothing was found in the prefix cache");
        drawn
    }
}

#[test]
fn the_batcher_draws_the_same_tokens() {
    compare(&Serving, |_, found, expected| {
        assert_eq!(found.len(), expected.len());
        for (id, expected) in expected {
            let ids = |tokens: &[TokenLogprob]| tokens.iter().map(|t| t.id).collect::<Vec<_>>();
            let logprobs = |tokens: &[TokenLogprob]| {
                tokens.iter().flat_map(|t| t.top.iter().map(|(_, logprob)| *logprob)).collect::<Vec<_>>()
            };
            assert_eq!(ids(&found[&id]), ids(&expected), "{id:?}");
            assert_close(&format!("log-probs of {id:?}"), &logprobs(&found[&id]), &logprobs(&expected), 2e-5);
        }
    });
}
