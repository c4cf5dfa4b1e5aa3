//! Adapters against PEFT on randomly initialised checkpoints, and what must hold of any.
//! `tests/reference/make_fixtures.py` makes the reference arrays.

use std::{collections::HashMap, path::PathBuf, sync::Arc};

use openclaw_kernels::Cpu;
use openclaw_model::{
    AdamWConfig, AdapterConfig, AdapterLayout, Batcher, BatcherConfig, Objective, ScoreRequest, Target,
    Tokenizer, TrainRow, TrainSequence, Trainer, Transformer, Weights, checkpoint, load_adapter,
    save_adapter,
};
use safetensors::SafeTensors;

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures")
}

/// A base and an adapter on it, as PEFT has saved it.
struct Case {
    variant: &'static str,
    transformer: Transformer<Cpu>,
    base: Weights<Cpu>,
    layout: Arc<AdapterLayout>,
    flat: Vec<f32>,
    sequences: Vec<Vec<u32>>,
    arrays: HashMap<String, Vec<f32>>,
}

impl Case {
    fn open(variant: &'static str) -> Self {
        let folder = fixtures().join("adapters").join(variant);
        let text = std::fs::read_to_string(folder.join("adapter_config.json")).expect("a configuration");
        let stated: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let base = stated["base_model_name_or_path"].as_str().expect("a base");
        let (config, flat) = checkpoint::load(&fixtures().join(base)).expect("a checkpoint");
        let (layout, adapter) = load_adapter(&folder, &config).expect("an adapter");
        let transformer =
            Transformer::new(config, Cpu::new("adapters", 2).expect("threads")).expect("a model");
        let base = Weights::from_host(&transformer, &flat).expect("it fits");
        let bytes = std::fs::read(folder.join("reference.safetensors")).expect("a reference");
        let tensors = SafeTensors::deserialize(&bytes).expect("safetensors");
        let data = |name: &str| tensors.tensor(name).expect("it is there").data().to_vec();
        let integers = |name: &str| -> Vec<u32> {
            let bytes = data(name);
            bytes.as_chunks::<8>().0.iter().map(|bytes| i64::from_le_bytes(*bytes) as u32).collect()
        };
        let mut ids = integers("ids").into_iter();
        let sequences = integers("lengths").into_iter();
        let sequences = sequences.map(|length| ids.by_ref().take(length as usize).collect()).collect();
        let floats = tensors.names().into_iter().filter(|name| !["ids", "lengths"].contains(name));
        let arrays = floats
            .map(|name| {
                let bytes = data(name);
                let values =
                    bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
                (name.to_owned(), values)
            })
            .collect();
        Self { variant, transformer, base, layout, flat: adapter, sequences, arrays }
    }

    fn adapted(&self, flat: &[f32]) -> Weights<Cpu> {
        self.base.adapted(&self.transformer, self.layout.clone(), flat).expect("it fits")
    }

    fn logits(&self, weights: &Weights<Cpu>) -> Vec<f32> {
        let sequences: Vec<&[u32]> = self.sequences.iter().map(Vec::as_slice).collect();
        self.transformer.logits(weights, &sequences).expect("logits")
    }

    fn batch(&self) -> Vec<TrainSequence> {
        let predicted: usize = self.sequences.iter().map(|ids| ids.len() - 1).sum();
        let row = |position| TrainRow { position, weight: 1.0 / predicted as f32, ..TrainRow::default() };
        let sequence = |ids: &Vec<u32>| TrainSequence {
            ids: ids.clone(),
            rows: (1..ids.len()).map(row).collect(),
            temperature: 1.0,
        };
        self.sequences.iter().map(sequence).collect()
    }
}

const VARIANTS: [&str; 3] = ["all", "stabilised", "patterns"];

fn worst(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn logits_agree_with_peft() {
    for case in VARIANTS.map(Case::open) {
        let error = worst(&case.logits(&case.adapted(&case.flat)), &case.arrays["logits"]);
        assert!(error < 1e-4, "{}: logits differ by {error:e}", case.variant);
        let without = worst(&case.logits(&case.base), &case.arrays["logits"]);
        assert!(without > 1e-2, "{}: the adapter does nothing", case.variant);
    }
}

#[test]
fn every_gradient_agrees_with_peft() {
    for case in VARIANTS.map(Case::open) {
        let weights = case.adapted(&case.flat);
        for (recompute, micro_batch_tokens) in [(false, 4096), (true, 4096), (true, 1)] {
            let transformer = case.transformer.clone();
            let mut trainer = Trainer::of(transformer, &weights, AdamWConfig::default()).expect("a trainer");
            (trainer.recompute, trainer.micro_batch_tokens) = (recompute, micro_batch_tokens);
            let report = trainer.accumulate(&case.batch(), &Objective::CrossEntropy).expect("gradients");
            assert!((report.loss as f32 - case.arrays["loss"][0]).abs() < 1e-5, "{}: loss", case.variant);
            let grads = trainer.gradients().expect("gradients");
            assert_eq!(grads.len(), case.layout.len(), "of the adapter alone");
            for parameter in &case.layout.parameters {
                let name = parameter.name.replace(".weight", ".default.weight");
                let expected = &case.arrays[&format!("grad.{name}")];
                // A narrower matrix is padded, and its scale taken into the other.
                if case.variant == "patterns" && name.contains("layers.0.self_attn.q_proj") {
                    continue;
                }
                let scale = expected.iter().fold(1e-6f32, |most, grad| most.max(grad.abs()));
                let error = worst(&grads[parameter.range.clone()], expected) / scale;
                assert!(error < 1e-4, "{}: gradient of {name} is off by {error:e}", case.variant);
            }
        }
    }
}

#[test]
fn gradients_are_finite_differences_of_the_loss() {
    let case = Case::open("patterns");
    let loss = |flat: &[f32]| {
        let mut trainer = Trainer::of(case.transformer.clone(), &case.adapted(flat), AdamWConfig::default())
            .expect("a trainer");
        let report = trainer.accumulate(&case.batch(), &Objective::CrossEntropy).expect("a loss");
        (report.loss, trainer.gradients().expect("gradients"))
    };
    let (_, grads) = loss(&case.flat);
    for parameter in &case.layout.parameters {
        let at = (parameter.range.start..parameter.range.end)
            .max_by(|one, other| grads[*one].abs().total_cmp(&grads[*other].abs()))
            .expect("a matrix has numbers");
        let moved = |by: f32| {
            let mut flat = case.flat.clone();
            flat[at] += by;
            loss(&flat).0
        };
        let (step, found) = (4e-3, f64::from(grads[at]));
        let expected = (moved(step) - moved(-step)) / f64::from(2.0 * step);
        assert!(
            (found - expected).abs() < 3e-3 * expected.abs() + 1e-5,
            "{}: {found} {expected}",
            parameter.name
        );
    }
}

#[test]
fn a_fresh_adapter_changes_no_bit_and_a_step_changes_the_adapter_alone() {
    let case = Case::open("all");
    let fresh = case.layout.fresh(3);
    let weights = case.adapted(&fresh);
    assert_eq!(case.logits(&weights), case.logits(&case.base));
    let before = case.base.to_host(&case.transformer).expect("a copy");
    let mut trainer = Trainer::of(
        case.transformer.clone(),
        &weights,
        AdamWConfig { learning_rate: 1e-2, ..AdamWConfig::default() },
    )
    .expect("a trainer");
    let losses: Vec<f64> = (0..30)
        .map(|_| trainer.step(&case.batch(), &Objective::CrossEntropy).expect("a step").loss)
        .collect();
    assert!(losses[29] < losses[0] - 0.5, "{losses:?}");
    let state = trainer.state().expect("a state");
    let lengths = [state.weights.len(), state.first.len(), state.second.len()];
    assert_eq!(lengths, [case.layout.len(); 3], "nothing of the base is kept");
    assert_eq!(case.base.to_host(&case.transformer).expect("a copy"), before);
    assert_eq!(
        weights.to_host(&case.transformer).expect("a copy"),
        fresh,
        "what it was made of keeps its values"
    );

    // From its state it goes on bit for bit, and what it serves is what it has.
    let mut other = Trainer::of(
        case.transformer.clone(),
        &weights,
        AdamWConfig { learning_rate: 1e-2, ..AdamWConfig::default() },
    )
    .expect("a trainer");
    other.restore(&state).expect("a state");
    let step = |trainer: &mut Trainer<Cpu>| {
        trainer.step(&case.batch(), &Objective::CrossEntropy).expect("a step");
        trainer.state().expect("a state")
    };
    let next = step(&mut trainer);
    assert_eq!(step(&mut other), next);
    let served = trainer.weights().expect("weights");
    assert_eq!(case.logits(&served), case.logits(&case.adapted(&next.weights)));
}

#[test]
fn what_is_served_is_what_is_trained() {
    let case = Case::open("all");
    let weights = Arc::new(case.adapted(&case.flat));
    let tokenizer = Tokenizer::from_dir(&fixtures().join("tokenizer")).expect("a tokenizer");
    let config = BatcherConfig {
        max_batch_tokens: 16,
        max_sequences: 4,
        kv_blocks: 64,
        block_size: 4,
        max_waiting: 8,
        step_time: None,
    };
    let mut batcher =
        Batcher::new(case.transformer.clone(), tokenizer, Vec::new(), config, 0, weights.clone())
            .expect("a batcher");
    for ids in &case.sequences {
        let request = ScoreRequest { ids: ids.clone(), start: 1, ..ScoreRequest::default() };
        let expected = case.transformer.score(&weights, &request).expect("a score");
        batcher.submit_score(request).expect("a place");
        let scored = loop {
            if let Some((_, scored)) = batcher.step_scores().expect("a step").pop() {
                break scored;
            }
        };
        assert!(worst(&scored.logprobs, &expected.logprobs) < 1e-4);
    }
}

#[test]
fn merged_weights_compute_the_same_without_it() {
    for case in VARIANTS.map(Case::open) {
        let weights = case.adapted(&case.flat);
        let flat = case.transformer.merged(&weights).expect("they are merged");
        let merged = Weights::from_host(&case.transformer, &flat).expect("it fits");
        let error = worst(&case.logits(&merged), &case.logits(&weights));
        assert!(error < 1e-4, "{}: logits differ by {error:e}", case.variant);
    }
}

#[test]
fn a_folder_that_is_written_is_read_back() {
    let case = Case::open("all");
    let dir = tempfile::tempdir().expect("a folder");
    save_adapter(dir.path(), &case.layout, &case.flat, "base").expect("written");
    let (layout, flat) = load_adapter(dir.path(), &case.transformer.config).expect("read");
    assert_eq!((&layout.config, &flat), (&case.layout.config, &case.flat));
    let some = AdapterConfig { targets: [Target::Key, Target::Down].into(), ..AdapterConfig::of_all(3, 7.0) };
    let layout = AdapterLayout::new(&case.transformer.config, some);
    let flat = layout.fresh(1);
    save_adapter(dir.path(), &layout, &flat, "base").expect("written over");
    let (read, found) = load_adapter(dir.path(), &case.transformer.config).expect("read");
    assert_eq!((&read.config, &found), (&layout.config, &flat));
}

#[test]
fn what_is_not_done_here_is_refused_by_name() {
    let case = Case::open("all");
    let written = |key: &str, value: serde_json::Value| {
        let dir = tempfile::tempdir().expect("a folder");
        save_adapter(dir.path(), &case.layout, &case.flat, "base").expect("written");
        let path = dir.path().join("adapter_config.json");
        let mut stated: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&path).expect("a file")).expect("JSON");
        stated[key] = value;
        std::fs::write(&path, stated.to_string()).expect("written");
        load_adapter(dir.path(), &case.transformer.config).map(|_| ()).map_err(|error| error.to_string())
    };
    for (key, value) in [
        ("use_dora", true.into()),
        ("bias", "all".into()),
        ("peft_type", "LOHA".into()),
        ("init_lora_weights", "pissa".into()),
        ("modules_to_save", serde_json::json!(["lm_head"])),
        ("layer_replication", serde_json::json!([[0, 1]])),
        ("alpha_pattern", serde_json::json!({".*q_proj": 3})),
        ("lora_alpha", 0.into()),
        ("something_new", serde_json::json!({"x": 1})),
    ] {
        let told = written(key, value).expect_err("refused");
        assert!(told.contains("adapter_config.json") && told.contains(key), "{told}");
    }
    assert_eq!(written("something_new", serde_json::json!({})), Ok(()));
    assert_eq!(written("lora_dropout", 0.1.into()), Ok(()));

    // Matrices that have no place.
    let larger = Case::open("stabilised");
    let error = load_adapter(&fixtures().join("adapters/all"), &{
        let mut config = larger.transformer.config.clone();
        config.layers = 1;
        config
    });
    let told = error.map(|_| ()).expect_err("refused").to_string();
    assert!(told.contains("layers.1") && told.contains("no such matrix"), "{told}");
}
