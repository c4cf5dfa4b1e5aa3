//! The engine against `transformers` on randomly initialised checkpoints of several shapes.
//! `tests/reference/make_fixtures.py` makes the reference arrays.

use std::{collections::HashMap, path::PathBuf};

use openclaw_kernels::Cpu;
use openclaw_model::{
    AdamWConfig, CheckpointError, Objective, ScoreRequest, TrainRow, TrainSequence, Trainer, Transformer,
    WeightDtype, Weights, checkpoint,
};
use safetensors::SafeTensors;

const VARIANTS: [&str; 13] = [
    "mha",
    "gqa4",
    "wide_head",
    "untied",
    "sharded",
    "bf16",
    "rope_parameters",
    "rope_top_level",
    "../families/qwen2",
    "../families/qwen2_untied",
    "../families/llama",
    "../families/llama3_rope",
    "../families/mistral",
];

fn folder(variant: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/qwen3").join(variant)
}

struct Reference {
    sequences: Vec<Vec<u32>>,
    arrays: HashMap<String, Vec<f32>>,
}

fn reference(variant: &str) -> Reference {
    let bytes = std::fs::read(folder(variant).join("reference.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let integers = |name: &str| -> Vec<u32> {
        let data = tensors.tensor(name).unwrap().data().to_vec();
        data.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as u32).collect()
    };
    let ids = integers("ids");
    let mut sequences = Vec::new();
    let mut start = 0;
    for length in integers("lengths") {
        sequences.push(ids[start..start + length as usize].to_vec());
        start += length as usize;
    }
    let arrays = tensors
        .names()
        .into_iter()
        .filter(|n| !["ids", "lengths"].contains(n))
        .map(|n| {
            let data = tensors.tensor(n).unwrap().data().to_vec();
            let values = data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
            (n.to_owned(), values)
        })
        .collect();
    Reference { sequences, arrays }
}

fn open(variant: &str) -> (Transformer<Cpu>, Weights<Cpu>) {
    let (config, flat) = checkpoint::load(&folder(variant)).unwrap();
    let transformer = Transformer::new(config, Cpu::new("parity", 2).unwrap()).unwrap();
    let weights = Weights::from_host(&transformer, &flat).unwrap();
    (transformer, weights)
}

fn worst(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn logits_agree_with_transformers() {
    for variant in VARIANTS {
        let (transformer, weights) = open(variant);
        let reference = reference(variant);
        let sequences: Vec<&[u32]> = reference.sequences.iter().map(Vec::as_slice).collect();
        let logits = transformer.logits(&weights, &sequences).unwrap();
        let error = worst(&logits, &reference.arrays["logits"]);
        assert!(error < 1e-4, "{variant}: logits differ by {error:e}");
    }
}

#[test]
fn a_broken_checkpoint_is_an_error_that_names_file_and_tensor() {
    let scratch = tempfile::tempdir().unwrap();
    let fresh = |name: &str| {
        let dir = scratch.path().join(name);
        std::fs::create_dir(&dir).unwrap();
        for file in std::fs::read_dir(folder("mha")).unwrap() {
            let file = file.unwrap().path();
            std::fs::copy(&file, dir.join(file.file_name().unwrap())).unwrap();
        }
        dir
    };
    let dir = fresh("no_weights");
    std::fs::remove_file(dir.join("model.safetensors")).unwrap();
    assert!(matches!(checkpoint::load(&dir), Err(CheckpointError::NoWeights { .. })));

    let dir = fresh("truncated");
    let file = dir.join("model.safetensors");
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    let error = checkpoint::load(&dir).unwrap_err().to_string();
    assert!(error.contains("model.safetensors is truncated"), "{error}");

    let dir = fresh("wrong_shape");
    let path = dir.join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config["intermediate_size"] = 40.into();
    std::fs::write(&path, config.to_string()).unwrap();
    let error = checkpoint::load(&dir).unwrap_err().to_string();
    assert!(error.contains("model.layers.0.mlp.gate_proj.weight") && error.contains("40"), "{error}");

    let dir = fresh("no_config");
    std::fs::remove_file(dir.join("config.json")).unwrap();
    assert!(checkpoint::load(&dir).unwrap_err().to_string().contains("config.json"));

    let dir = fresh("one_layer_more");
    let path = dir.join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let layers = config["num_hidden_layers"].as_u64().unwrap();
    config["num_hidden_layers"] = (layers + 1).into();
    config["layer_types"] = serde_json::Value::Null;
    std::fs::write(&path, config.to_string()).unwrap();
    let error = checkpoint::load(&dir).unwrap_err().to_string();
    assert!(error.contains(&format!("model.layers.{layers}.input_layernorm.weight")), "{error}");
}

#[test]
fn scored_logprobs_agree_with_transformers() {
    for variant in VARIANTS {
        let (transformer, weights) = open(variant);
        let reference = reference(variant);
        let mut expected = reference.arrays["logprobs"].as_slice();
        for ids in &reference.sequences {
            let request = ScoreRequest { ids: ids.clone(), start: 1, top_k: 3, ..ScoreRequest::default() };
            let scored = transformer.score(&weights, &request).unwrap();
            let (these, rest) = expected.split_at(ids.len() - 1);
            expected = rest;
            let error = worst(&scored.logprobs, these);
            assert!(error < 1e-4, "{variant}: log-probs differ by {error:e}");
        }
    }
}

#[test]
fn every_gradient_agrees_with_transformers() {
    for variant in VARIANTS {
        let (config, flat) = checkpoint::load(&folder(variant)).unwrap();
        let transformer = Transformer::new(config, Cpu::new("parity", 2).unwrap()).unwrap();
        let reference = reference(variant);
        let predicted: usize = reference.sequences.iter().map(|s| s.len() - 1).sum();
        let batch: Vec<TrainSequence> = reference
            .sequences
            .iter()
            .map(|ids| {
                let row =
                    |position| TrainRow { position, weight: 1.0 / predicted as f32, ..TrainRow::default() };
                TrainSequence { ids: ids.clone(), rows: (1..ids.len()).map(row).collect(), temperature: 1.0 }
            })
            .collect();
        // Recomputing layers and splitting the batch must not change anything.
        for (recompute, micro_batch_tokens) in [(false, 4096), (true, 4096), (true, 1)] {
            let mut trainer = Trainer::new(transformer.clone(), &flat, AdamWConfig::default()).unwrap();
            (trainer.recompute, trainer.micro_batch_tokens) = (recompute, micro_batch_tokens);
            let report = trainer.accumulate(&batch, &Objective::CrossEntropy).unwrap();
            assert!((report.loss as f32 - reference.arrays["loss"][0]).abs() < 1e-5, "{variant}: loss");
            let grads = trainer.gradients().unwrap();
            for parameter in &transformer.layout.parameters {
                let expected = &reference.arrays[&format!("grad.{}", parameter.name)];
                let scale = expected.iter().fold(1e-6f32, |m, g| m.max(g.abs()));
                let error = worst(&grads[parameter.range.clone()], expected) / scale;
                assert!(error < 1e-4, "{variant}: gradient of {} is off by {error:e}", parameter.name);
            }
        }
    }
}

#[test]
fn a_saved_checkpoint_is_read_back_and_never_replaces_anything_else() {
    let (config, flat) = checkpoint::load(&folder("gqa4")).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("model");
    for _ in 0..2 {
        checkpoint::save(&dir, &config, &flat, WeightDtype::F32, &[1], None).unwrap();
        assert_eq!(checkpoint::load(&dir).unwrap().1, flat);
    }
    checkpoint::save(&dir, &config, &flat, WeightDtype::Bf16, &[1], None).unwrap();
    let rounded = checkpoint::load(&dir).unwrap().1;
    assert!(rounded.iter().zip(&flat).all(|(a, b)| (a - b).abs() <= b.abs() / 256.0) && rounded != flat);
    std::fs::write(dir.join("thesis.txt"), "years of work").unwrap();
    let error = checkpoint::save(&dir, &config, &flat, WeightDtype::F32, &[1], None).unwrap_err();
    assert!(error.to_string().contains("thesis.txt"), "{error}");
    assert!(dir.join("thesis.txt").exists());
}
