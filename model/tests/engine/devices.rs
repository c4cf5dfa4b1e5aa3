//! The engine on emulated CUDA does what it does on the CPU, to rounding: logits, serving, scores, training.

use std::{collections::HashMap, sync::Arc};

use crate::emulated::emulated;
use openclaw_kernels::{
    Backend, Cpu,
    ops::{ClipRange, KlKind},
};
use openclaw_model::{
    AdamWConfig, AdapterConfig, AdapterLayout, Batcher, BatcherConfig, CandidateObjective, GenerateEvent,
    GenerateRequest, ModelConfig, Objective, PolicyObjective, SamplingParams, ScoreRequest, SurrogateKind,
    TokenLogprob, TrainCandidate, TrainRow, TrainSequence, Trainer, Transformer, Weights, random_weights,
    train_bpe,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const VOCAB: usize = 259;

/// A small model of each kind: heads that share keys, a head of its own for the output, an odd width.
fn configs() -> [ModelConfig; 2] {
    let tied = ModelConfig {
        family: Default::default(),
        vocab_size: VOCAB,
        hidden_size: 32,
        intermediate_size: 48,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        head_dim: 16,
        rms_norm_eps: 1e-6,
        rope_theta: 1e4,
        rope_scaling: None,
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

/// Does `work` on both devices and compares.
fn compare<W: Work>(work: &W, same: impl Fn(&ModelConfig, W::Outcome, W::Outcome)) {
    for config in configs() {
        let flat = weights(&config);
        let cpu = Cpu::new("devices", 2).expect("threads start");
        let expected = work.on(Transformer::new(config.clone(), cpu).expect("a small model fits"), &flat);
        if let Some(cuda) = emulated() {
            let transformer = Transformer::new(config.clone(), cuda).expect("a small model fits");
            same(&config, work.on(transformer, &flat), expected);
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

/// Prompts of all lengths, two with a beginning in common.
fn prompts() -> Vec<Vec<u32>> {
    let shared = ids(1, 40);
    vec![shared.clone(), [shared, ids(2, 9)].concat(), ids(3, 3), ids(4, 61), ids(5, 17), ids(6, 1)]
}

/// Greedy replies to prompts, in steps so small that prompts are cut and decoding goes on beside them.
struct Serving(Vec<Vec<u32>>);
impl Work for Serving {
    type Outcome = Vec<Vec<TokenLogprob>>;
    fn on<B: Backend>(&self, transformer: Transformer<B>, flat: &[f32]) -> Self::Outcome {
        let tokenizer = train_bpe(std::iter::empty(), 257, &["<|im_end|>"]).expect("256 bytes and one");
        let weights = Arc::new(Weights::from_host(&transformer, flat).expect("the layout fits"));
        let limits = BatcherConfig {
            max_batch_tokens: 24,
            max_sequences: 4,
            kv_blocks: 40,
            block_size: 5,
            max_waiting: 8,
            step_time: None,
        };
        let mut batcher =
            Batcher::new(transformer, tokenizer, vec![0], limits, 1, weights).expect("valid limits");
        let submitted: Vec<_> = (self.0.iter())
            .map(|prompt_ids| GenerateRequest {
                prompt_ids: prompt_ids.clone(),
                drawn_ids: Vec::new(),
                sampling: SamplingParams { temperature: 0.0, ..SamplingParams::default() },
                max_new_tokens: 12,
                stop: Vec::new(),
                top_logprobs: 3,
                constraint: None,
            })
            .map(|request| batcher.submit(request).expect("it can be served"))
            .collect();
        let mut drawn = HashMap::<_, Vec<_>>::new();
        while !batcher.is_idle() {
            for (id, event) in batcher.step().expect("the device does not fail") {
                match event {
                    GenerateEvent::Token { token, .. } => drawn.entry(id).or_default().push(token),
                    GenerateEvent::Finished { .. } => {}
                    GenerateEvent::Failed { error, .. } => panic!("{error}"),
                }
            }
        }
        let cached = batcher.stats().cached_tokens > 0;
        assert!(cached || self.0.len() == 1, "nothing was found in the prefix cache");
        submitted.iter().map(|id| drawn.remove(id).expect("it was answered")).collect()
    }
}

#[test]
fn the_batcher_draws_the_same_tokens() {
    compare(&Serving(prompts()), |_, found, expected| {
        for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let ids = |tokens: &[TokenLogprob]| tokens.iter().map(|t| t.id).collect::<Vec<_>>();
            let logprobs = |tokens: &[TokenLogprob]| {
                tokens.iter().flat_map(|t| t.top.iter().map(|(_, logprob)| *logprob)).collect::<Vec<_>>()
            };
            assert_eq!(ids(found), ids(expected), "reply {i}");
            assert_close(&format!("log-probs of reply {i}"), &logprobs(found), &logprobs(expected), 2e-5);
        }
    });
}

// Our kernels' part of it: the emulation's matrix products are the CPU's, and cuBLAS may sum another number of rows
// in another order.
#[test]
fn a_reply_on_emulated_cuda_has_the_same_bits_alone_and_in_company() {
    let Some(cuda) = emulated() else { return };
    for config in configs() {
        let (flat, prompts) = (weights(&config), prompts());
        let transformer = Transformer::new(config, cuda.clone()).expect("a small model fits");
        let together = Serving(prompts.clone()).on(transformer.clone(), &flat);
        for (prompt, expected) in prompts.into_iter().zip(together) {
            assert_eq!(Serving(vec![prompt]).on(transformer.clone(), &flat), [expected]);
        }
    }
}

struct Scores;
impl Work for Scores {
    type Outcome = openclaw_model::Scored;
    fn on<B: Backend>(&self, transformer: Transformer<B>, flat: &[f32]) -> Self::Outcome {
        let weights = Weights::from_host(&transformer, flat).expect("the layout fits");
        let (sequence, start) = (ids(7, 50), 4);
        let candidates = sequence[start..].iter().map(|id| vec![*id, (id + 1) % VOCAB as u32]).collect();
        let request = ScoreRequest {
            ids: sequence,
            start,
            temperature: 0.7,
            top_k: 3,
            candidates,
            ..Default::default()
        };
        transformer.score(&weights, &request).expect("valid arguments")
    }
}

#[test]
fn scores_agree() {
    compare(&Scores, |_, found, expected| {
        assert_close("log-probs", &found.logprobs, &expected.logprobs, 1e-5);
        assert_close("entropy", &found.entropy, &expected.entropy, 1e-5);
        let of = |pairs: &[Vec<(u32, f32)>]| pairs.concat().into_iter().unzip::<_, _, Vec<_>, Vec<_>>();
        let ((ids, logprobs), (expected_ids, expected_logprobs)) = (of(&found.top), of(&expected.top));
        assert_eq!(ids, expected_ids);
        assert_close("top", &logprobs, &expected_logprobs, 1e-5);
        assert_close("candidates", &found.candidates.concat(), &expected.candidates.concat(), 1e-5);
    });
}

struct Training {
    recompute: bool,
    objective: Objective,
    /// On a frozen base.
    adapter: bool,
}

impl Training {
    fn batch() -> Vec<TrainSequence> {
        let mut rng = ChaCha8Rng::seed_from_u64(8);
        let mut sequence = |seed: u64, len: usize, temperature: f32| {
            let ids = ids(seed, len);
            let row = |position: usize| TrainRow {
                position,
                weight: if position.is_multiple_of(5) { 0.0 } else { 0.02 },
                advantage: rng.random_range(-1.0..1.0),
                old_logprob: rng.random_range(-7.0..-5.0),
                importance: rng.random_range(0.5..1.5),
                reference_logprob: rng.random_range(-7.0..-5.0),
                candidates: (0..position as u32 % 4)
                    .map(|k| TrainCandidate {
                        id: (position as u32 * 7 + k * 31) % VOCAB as u32,
                        weight: 0.3,
                        advantage: 0.5 - k as f32,
                        old_logprob: -5.5,
                        teacher_logprob: -3.0 - k as f32,
                    })
                    .collect(),
            };
            TrainSequence { rows: (len / 2..len).map(row).collect(), ids, temperature }
        };
        vec![sequence(1, 70, 1.0), sequence(2, 12, 1.0), sequence(3, 30, 0.8)]
    }
}

/// Loss and the rest of the report, gradients, moments and weights after two steps.
struct Trained {
    report: Vec<f32>,
    gradients: Vec<f32>,
    state: openclaw_model::TrainerState,
}

impl Work for Training {
    type Outcome = Trained;
    fn on<B: Backend>(&self, transformer: Transformer<B>, flat: &[f32]) -> Trained {
        // Adam's first steps are as long for a gradient of pure rounding as for any other, unless eps is larger.
        let hyper = AdamWConfig { learning_rate: 1e-2, eps: 1e-3, ..AdamWConfig::default() };
        let mut trainer = if self.adapter {
            let layout = AdapterLayout::new(&transformer.config, AdapterConfig::of_all(3, 6.0));
            // Without zeros: then every part of it has a gradient.
            let of_it: Vec<f32> = layout.fresh(1).iter().map(|value| value + 0.01).collect();
            let base = Weights::from_host(&transformer, flat).expect("the layout fits");
            let weights = base.adapted(&transformer, Arc::new(layout), &of_it).expect("it fits");
            Trainer::of(transformer, &weights, hyper).expect("a small model fits")
        } else {
            Trainer::new(transformer, flat, hyper).expect("a small model fits")
        };
        (trainer.recompute, trainer.micro_batch_tokens) = (self.recompute, 90);
        let batch = Self::batch();
        trainer.accumulate(&batch, &self.objective).expect("valid arguments");
        let gradients = trainer.gradients().expect("the device does not fail");
        let state = trainer.state().expect("the device does not fail");
        trainer.restore(&state).expect("its own state fits");
        let reports = [0; 2].map(|_| trainer.step(&batch, &self.objective).expect("valid arguments"));
        assert_eq!(reports.map(|r| (r.step, r.skipped)), [(1, false), (2, false)]);
        let report = reports.into_iter().flat_map(|r| {
            [r.loss, r.grad_norm, r.entropy, r.kl, r.policy_kl, r.clip_fraction].map(|x| x as f32)
        });
        let state = trainer.state().expect("the device does not fail");
        Trained { report: report.collect(), gradients, state }
    }
}

fn objectives() -> [Objective; 3] {
    let clip = ClipRange { low: 0.2, high: 0.3, dual: Some(3.0) };
    let policy = PolicyObjective {
        surrogate: SurrogateKind::Ppo,
        clip,
        kl: Some((KlKind::K3, 0.1)),
        entropy_coef: 0.01,
        candidates: Some(CandidateObjective::Policy { coef: 0.5, clip }),
    };
    let distilling = PolicyObjective {
        surrogate: SurrogateKind::Gspo,
        candidates: Some(CandidateObjective::ReverseKl { coef: 0.7 }),
        ..policy.clone()
    };
    [Objective::CrossEntropy, Objective::Policy(policy), Objective::Policy(distilling)]
}

#[test]
fn training_steps_agree() {
    let [cross_entropy, policy, distilling] = objectives();
    for (recompute, objective, adapter) in [
        (false, cross_entropy, false),
        (true, policy.clone(), false),
        (false, distilling, false),
        (true, policy, true),
    ] {
        compare(&Training { recompute, objective, adapter }, |config, found, expected| {
            let parameters = match adapter {
                true => AdapterLayout::new(config, AdapterConfig::of_all(3, 6.0)).parameters,
                false => openclaw_model::ParameterLayout::new(config).parameters,
            };
            for parameter in &parameters {
                let range = parameter.range.clone();
                let (found, expected) = (&found.gradients[range.clone()], &expected.gradients[range]);
                assert_close(&format!("gradient of {}", parameter.name), found, expected, 5e-5);
            }
            assert_close("report", &found.report, &expected.report, 1e-5);
            assert_close("first moments", &found.state.first, &expected.state.first, 1e-4);
            assert_close("second moments", &found.state.second, &expected.state.second, 1e-4);
            assert_close("weights", &found.state.weights, &expected.state.weights, 1e-5);
        });
    }
}
