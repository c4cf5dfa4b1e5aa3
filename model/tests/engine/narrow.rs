//! A frozen base in bf16 is the same model as its numbers in f32, served, scored, and trained through an adapter; on a GPU, whose
//! products are of bf16 alone, to the rounding of what is multiplied with it.

use std::{fs, os::unix::fs::MetadataExt, sync::Arc};

use crate::emulated::emulated;
use half::bf16;
use openclaw_kernels::{Backend, Cpu};
use openclaw_model::{
    AdamWConfig, AdapterConfig, AdapterLayout, Batcher, BatcherConfig, Family, GenerateEvent,
    GenerateRequest, HostWeights, ModelConfig, Objective, SamplingParams, ScoreRequest, TrainRow,
    TrainSequence, Trainer, Transformer, WeightDtype, Weights, checkpoint, random_weights, train_bpe,
};

const VOCAB: usize = 259;

/// One with biases and a tied head, one with norms of queries and keys and a head of its own.
fn configs() -> [ModelConfig; 2] {
    let tied = ModelConfig {
        family: Family::Qwen2,
        vocab_size: VOCAB,
        hidden_size: 48,
        intermediate_size: 80,
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
    [tied.clone(), ModelConfig { family: Family::Qwen3, tied: false, ..tied }]
}

/// Of which bf16 holds each exactly.
fn weights(config: &ModelConfig) -> Vec<f32> {
    let mut flat = random_weights(config, 5);
    for (at, weight) in flat.iter_mut().enumerate() {
        let moved =
            if *weight == 0.0 || *weight == 1.0 { *weight + (at % 7) as f32 * 0.03 } else { *weight * 6.0 };
        *weight = bf16::from_f32(moved).to_f32();
    }
    flat
}

fn both<B: Backend>(transformer: &Transformer<B>) -> [Weights<B>; 2] {
    let flat = weights(&transformer.config);
    let narrow = HostWeights::Bf16(flat.iter().map(|value| bf16::from_f32(*value)).collect());
    let layout = Arc::new(AdapterLayout::new(&transformer.config, AdapterConfig::of_all(3, 6.0)));
    let adapter: Vec<f32> = layout.fresh(1).iter().map(|value| value + 0.01).collect();
    [HostWeights::F32(flat), narrow].map(|host| {
        let base = Weights::adopt(transformer, host).expect("it fits");
        base.adapted(transformer, layout.clone(), &adapter).expect("it fits")
    })
}

fn ids(len: u32, of: u32) -> Vec<u32> {
    (0..len).map(|i| 1 + (i * 37 + of * 101) % (VOCAB as u32 - 1)).collect()
}

fn far(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(1e-9f32, |largest, x| largest.max(x.abs()));
    found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / largest
}

/// A reply that is drawn, with its log-probs.
fn reply<B: Backend>(transformer: &Transformer<B>, weights: &Arc<Weights<B>>) -> Vec<(u32, f32)> {
    let tokenizer = train_bpe(std::iter::empty(), 257, &["<|im_end|>"]).expect("256 bytes and one");
    let limits = BatcherConfig {
        max_batch_tokens: 24,
        max_sequences: 4,
        kv_blocks: 40,
        block_size: 5,
        max_waiting: 8,
        step_time: None,
    };
    let mut batcher =
        Batcher::new(transformer.clone(), tokenizer, vec![0], limits, 1, weights.clone()).expect("valid");
    let request = GenerateRequest {
        prompt_ids: ids(31, 3),
        drawn_ids: Vec::new(),
        sampling: SamplingParams { seed: Some(7), ..SamplingParams::default() },
        max_new_tokens: 12,
        stop: Vec::new(),
        top_logprobs: 0,
        constraint: None,
    };
    batcher.submit(request).expect("it can be served");
    let mut drawn = Vec::new();
    while !batcher.is_idle() {
        for (_, event) in batcher.step().expect("a step") {
            if let GenerateEvent::Token { token, .. } = event {
                drawn.push((token.id, token.logprob));
            }
        }
    }
    drawn
}

fn batch() -> Vec<TrainSequence> {
    let row = |position| TrainRow { position, weight: 0.01, ..TrainRow::default() };
    let sequence =
        |ids: Vec<u32>| TrainSequence { rows: (1..ids.len()).map(row).collect(), ids, temperature: 1.0 };
    vec![sequence(ids(75, 1)), sequence(ids(20, 2))]
}

fn gradients<B: Backend>(transformer: &Transformer<B>, weights: &Weights<B>) -> Vec<f32> {
    let mut trainer =
        Trainer::of(transformer.clone(), weights, AdamWConfig::default()).expect("a small model fits");
    trainer.accumulate(&batch(), &Objective::CrossEntropy).expect("gradients");
    trainer.gradients().expect("they are there")
}

#[test]
fn on_the_cpu_it_is_the_same_model() {
    for config in configs() {
        let transformer = Transformer::new(config, Cpu::new("narrow", 2).expect("threads")).expect("it fits");
        let [wide, narrow] = both(&transformer).map(Arc::new);
        let sequences = [ids(75, 1), ids(1, 2), ids(33, 3)];
        let logits = |weights: &Weights<Cpu>| {
            transformer.logits(weights, &sequences.each_ref().map(Vec::as_slice)).expect("logits")
        };
        assert!(far(&logits(&narrow), &logits(&wide)) < 1e-5);
        assert_eq!(
            reply(&transformer, &narrow),
            reply(&transformer, &wide),
            "decoding is the same to the bit"
        );
        assert!(far(&gradients(&transformer, &narrow), &gradients(&transformer, &wide)) < 1e-4);
        let merged = |weights: &Weights<Cpu>| transformer.merged(weights).expect("it fits");
        assert_eq!(merged(&narrow), merged(&wide));
    }
}

#[test]
fn serving_scoring_and_training_of_it_agree() {
    for config in configs() {
        let cpu = Cpu::new("narrow", 2).expect("threads");
        agree(1e-4, &Transformer::new(config.clone(), cpu).expect("it fits"));
        if let Some(cuda) = emulated() {
            agree(1e-4, &Transformer::new(config, cuda).expect("it fits"));
        }
    }
}

fn agree<B: Backend>(tolerance: f32, transformer: &Transformer<B>) {
    let [_, narrow] = both(transformer).map(Arc::new);
    let drawn = reply(transformer, &narrow);
    let prompt = ids(31, 3);
    let all: Vec<u32> = prompt.iter().copied().chain(drawn.iter().map(|(id, _)| *id)).collect();
    let request = ScoreRequest { ids: all.clone(), start: prompt.len(), ..ScoreRequest::default() };
    let scored = transformer.score(&narrow, &request).expect("scores").logprobs;
    for (at, ((_, served), scored)) in drawn.iter().zip(&scored).enumerate() {
        assert!((served - scored).abs() < tolerance, "token {at}: served {served}, scored {scored}");
    }
    // The mean loss of the same tokens.
    let row = |position| TrainRow { position, weight: 1.0 / scored.len() as f32, ..TrainRow::default() };
    let rows = (prompt.len()..all.len()).map(row).collect();
    let sequence = TrainSequence { ids: all, rows, temperature: 1.0 };
    let mut trainer =
        Trainer::of(transformer.clone(), &narrow, AdamWConfig::default()).expect("a small model fits");
    let report = trainer.accumulate(&[sequence], &Objective::CrossEntropy).expect("a loss");
    let mean = -scored.iter().sum::<f32>() / scored.len() as f32;
    assert!((report.loss as f32 - mean).abs() < tolerance, "trained {}, scored {mean}", report.loss);
}

#[test]
fn on_emulated_cuda_it_is_the_same_to_the_rounding_of_what_is_multiplied() {
    for config in configs() {
        let cpu = Cpu::new("narrow", 2).expect("threads");
        let here = Transformer::new(config.clone(), cpu).expect("it fits");
        let Some(cuda) = emulated() else { return };
        let there = Transformer::new(config, cuda).expect("it fits");
        let ([_, on_cpu], [_, on_cuda]) = (both(&here), both(&there));
        let sequences = [ids(75, 1), ids(33, 3)];
        let expected = here.logits(&on_cpu, &sequences.each_ref().map(Vec::as_slice)).expect("logits");
        let found = there.logits(&on_cuda, &sequences.each_ref().map(Vec::as_slice)).expect("logits");
        assert!(far(&found, &expected) < 0.05, "{}", far(&found, &expected));
        let (found, expected) = (gradients(&there, &on_cuda), gradients(&here, &on_cpu));
        assert!(far(&found, &expected) < 0.1, "{}", far(&found, &expected));
    }
}

#[test]
fn a_folder_in_bf16_is_read_as_it_is_and_has_one_name_in_both_types() {
    let [config, _] = configs();
    let flat = weights(&config);
    let dir = tempfile::tempdir().expect("a folder");
    let folder = dir.path().join("model");
    checkpoint::save(&folder, &config, &flat, WeightDtype::Bf16, &[0], None).expect("written");
    let mut told = None;
    let (read, narrow) = checkpoint::load_as(
        &folder,
        |stored| {
            told = Some((stored.parameters, stored.dtype));
            stored.dtype
        },
        None,
    )
    .expect("read");
    assert_eq!(told, Some((flat.len(), WeightDtype::Bf16)));
    assert_eq!(narrow, HostWeights::Bf16(flat.iter().map(|value| bf16::from_f32(*value)).collect()));
    let wide = checkpoint::load(&folder).expect("read").1;
    assert_eq!(wide, flat);
    let name = checkpoint::fingerprint(&read, &wide);
    assert_eq!(checkpoint::fingerprint_in(&read, &narrow), name);

    let transformer = Transformer::new(read, Cpu::new("narrow", 1).expect("a thread")).expect("it fits");
    let base = Weights::adopt(&transformer, narrow).expect("it fits");
    let trainer = Trainer::of(transformer, &base, AdamWConfig::default()).expect("it fits");
    assert_eq!(trainer.state().expect("a state").weights, flat, "what is trained whole is a copy in f32");
}

#[test]
fn a_mapped_base_is_made_once_and_again_when_the_checkpoint_changes() {
    let [config, _] = configs();
    let flat = weights(&config);
    let dir = tempfile::tempdir().expect("a folder");
    let (folder, cache) = (dir.path().join("model"), dir.path().join("bases"));
    let save = |flat: &[f32]| {
        checkpoint::save(&folder, &config, flat, WeightDtype::Bf16, &[0], None).expect("written");
    };
    let load = || checkpoint::load_as(&folder, |stored| stored.dtype, Some(&cache)).expect("read");
    let files = || -> Vec<_> {
        let entries = fs::read_dir(&cache).expect("it is there").map(|entry| entry.expect("an entry").path());
        entries.map(|path| (path.clone(), fs::metadata(&path).expect("it is there").ino())).collect()
    };
    save(&flat);
    let (read, mapped) = load();
    let wide = checkpoint::load(&folder).expect("read").1;
    let narrow = HostWeights::Bf16(wide.iter().map(|value| bf16::from_f32(*value)).collect());
    let HostWeights::Mapped(values) = &mapped else { panic!("it is not mapped") };
    assert_eq!(HostWeights::Bf16(values.values().to_vec()), narrow);
    assert_eq!(checkpoint::fingerprint_in(&read, &mapped), checkpoint::fingerprint_in(&read, &narrow));
    let made = files();
    assert_eq!(made.len(), 1, "{made:?}");
    assert_eq!((load().1, files()), (mapped.clone(), made.clone()), "found again");
    // A torn one is made again, and so is one of weights that were.
    let path = &made[0].0;
    let whole = fs::read(path).expect("it is there");
    fs::remove_file(path).expect("what is mapped stays");
    fs::write(path, &whole[..8192]).expect("written");
    drop(load());
    assert_eq!(load().1, HostWeights::Mapped(values.clone()));
    let transformer =
        Transformer::new(read.clone(), Cpu::new("mapped", 1).expect("a thread")).expect("it fits");
    let base = Weights::adopt(&transformer, mapped.clone()).expect("it fits");
    let trainer = Trainer::of(transformer, &base, AdamWConfig::default()).expect("it fits");
    assert_eq!(trainer.state().expect("a state").weights, wide, "it is what is read through the engine");
    save(&flat.iter().map(|value| -value).collect::<Vec<_>>());
    let (_, other) = load();
    assert_eq!(files().len(), 1);
    let negated = wide.iter().map(|value| bf16::from_f32(-value)).collect::<Vec<_>>();
    let HostWeights::Mapped(found) = &other else { panic!("it is not mapped") };
    assert_eq!(found.values(), negated);
    assert_ne!(checkpoint::fingerprint_in(&read, &other), checkpoint::fingerprint_in(&read, &mapped));
}
