//! Two sources of one fact: what `transformers` 5 reads is read, or the folder is refused by name. What only looks
//! different is the same model.

use std::{collections::BTreeMap, fs, path::Path};

use openclaw_model::{CheckpointError, ModelConfig, WeightDtype, checkpoint, inspect, random_weights};
use safetensors::{Dtype, tensor::TensorView};
use serde_json::{Value, json};

/// Name, element type and bytes of each tensor, and its shape.
type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

struct Folder {
    dir: tempfile::TempDir,
    config: ModelConfig,
    flat: Vec<f32>,
}

impl Folder {
    fn new(tied: bool) -> Self {
        let config = ModelConfig {
            family: Default::default(),
            vocab_size: 24,
            hidden_size: 8,
            intermediate_size: 12,
            layers: 2,
            heads: 2,
            kv_heads: 1,
            head_dim: 4,
            rms_norm_eps: 1e-6,
            rope_theta: 1e4,
            rope_scaling: None,
            max_positions: 64,
            tied,
        };
        let flat = random_weights(&config, 7);
        let dir = tempfile::tempdir().unwrap();
        checkpoint::save(&dir.path().join("model"), &config, &flat, WeightDtype::F32, &[1], None).unwrap();
        Self { dir, config, flat }
    }

    fn path(&self) -> std::path::PathBuf {
        self.dir.path().join("model")
    }

    fn set(&self, key: &str, value: Option<Value>) {
        let path = self.path().join("config.json");
        let mut json: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        match value {
            Some(value) => json[key] = value,
            None => drop(json.as_object_mut().unwrap().remove(key)),
        }
        fs::write(path, json.to_string()).unwrap();
    }

    fn tensors(&self) -> Tensors {
        let bytes = fs::read(self.path().join("model.safetensors")).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let each = tensors.tensors().into_iter();
        each.map(|(name, view)| (name, (view.dtype(), view.shape().to_vec(), view.data().to_vec()))).collect()
    }

    fn write(&self, file: &str, tensors: &Tensors) {
        let views = tensors.iter().map(|(name, (dtype, shape, bytes))| {
            (name.as_str(), TensorView::new(*dtype, shape.clone(), bytes).unwrap())
        });
        fs::write(self.path().join(file), safetensors::serialize(views, None).unwrap()).unwrap();
    }

    fn change(&self, change: impl FnOnce(&mut Tensors)) {
        let mut tensors = self.tensors();
        change(&mut tensors);
        self.write("model.safetensors", &tensors);
    }

    fn index(&self, map: Value) {
        let index = json!({"weight_map": map}).to_string();
        fs::write(self.path().join("model.safetensors.index.json"), index).unwrap();
    }

    fn refused(&self) -> String {
        checkpoint::load(&self.path()).expect_err("it is refused").to_string()
    }

    /// It is read as the model that it was made of.
    #[track_caller]
    fn is_the_model(&self, tied: bool) {
        let (config, flat) = checkpoint::load(&self.path()).unwrap();
        assert_eq!(ModelConfig { rms_norm_eps: 1e-6, ..config }, ModelConfig { tied, ..self.config.clone() });
        assert!(flat == self.flat, "its weights are others");
    }
}

const EMBEDDING: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";

#[test]
fn a_tied_flag_beside_a_head_is_compared_with_it() {
    let folder = Folder::new(true);
    folder.change(|tensors| drop(tensors.insert(HEAD.into(), tensors[EMBEDDING].clone())));
    folder.is_the_model(true);
    // The same numbers in another type.
    folder.change(|tensors| {
        let (_, shape, bytes) = tensors[EMBEDDING].clone();
        let (values, _) = bytes.as_chunks::<4>();
        let wide = values.iter().flat_map(|value| f64::from(f32::from_le_bytes(*value)).to_le_bytes());
        tensors.insert(HEAD.into(), (Dtype::F64, shape, wide.collect()));
    });
    folder.is_the_model(true);
    folder.change(|tensors| {
        let mut head = tensors[EMBEDDING].clone();
        *head.2.last_mut().unwrap() ^= 0x80;
        tensors.insert(HEAD.into(), head);
    });
    let told = folder.refused();
    assert!(told.contains("`lm_head.weight` is not `model.embed_tokens.weight`"), "{told}");
    assert!(told.contains("tie_word_embeddings") && told.contains("model.safetensors"), "{told}");
    let looked = inspect(&folder.path()).unwrap_err();
    assert!(looked.iter().any(|error| matches!(error, CheckpointError::Heads { .. })), "{looked:?}");
    folder.set("tie_word_embeddings", Some(false.into()));
    assert!(!checkpoint::load(&folder.path()).unwrap().0.tied, "the head is meant");
}

#[test]
fn a_head_that_is_stored_once_is_found_where_it_is() {
    let folder = Folder::new(true);
    folder.set("tie_word_embeddings", None);
    folder.is_the_model(true);
    folder.set("tie_word_embeddings", Some(true.into()));
    folder.change(|tensors| {
        let embedding = tensors.remove(EMBEDDING).unwrap();
        tensors.insert(HEAD.into(), embedding);
    });
    folder.is_the_model(true);

    let untied = Folder::new(false);
    untied.set("tie_word_embeddings", None);
    untied.is_the_model(false);
    untied.change(|tensors| drop(tensors.remove(HEAD)));
    untied.set("tie_word_embeddings", Some(false.into()));
    assert!(untied.refused().contains("has no tensor `lm_head.weight`"));
}

#[test]
fn names_of_the_inner_part_and_wide_numbers_are_the_same_model() {
    let folder = Folder::new(true);
    folder.change(|tensors| {
        *tensors = std::mem::take(tensors)
            .into_iter()
            .map(|(name, (_, shape, bytes))| {
                let (values, _) = bytes.as_chunks::<4>();
                let wide =
                    values.iter().flat_map(|value| f64::from(f32::from_le_bytes(*value)).to_le_bytes());
                (name.strip_prefix("model.").unwrap().to_owned(), (Dtype::F64, shape, wide.collect()))
            })
            .collect();
    });
    folder.is_the_model(true);
    folder.change(|tensors| {
        let norm = tensors["norm.weight"].clone();
        tensors.insert("model.norm.weight".into(), norm);
    });
    let told = folder.refused();
    assert!(told.contains("`model.norm.weight` is stored twice: as `model.norm.weight` of "), "{told}");
    assert!(told.contains("as `norm.weight` of "), "{told}");
}

#[test]
fn an_index_that_was_left_behind_is_not_read() {
    let folder = Folder::new(true);
    let mut stale = folder.tensors();
    stale.values_mut().for_each(|(_, _, bytes)| bytes.fill(0));
    folder.write("model-00001-of-00001.safetensors", &stale);
    let map = stale.keys().map(|name| (name.clone(), "model-00001-of-00001.safetensors".into()));
    folder.index(Value::Object(map.collect()));
    folder.is_the_model(true);
}

#[test]
fn files_are_believed_and_not_what_the_index_says_of_them() {
    let folder = Folder::new(true);
    let (one, two) = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors");
    let mut first = folder.tensors();
    let second: Tensors = first.extract_if(.., |name, _| name.contains("layers.1")).collect();
    folder.write(one, &first);
    folder.write(two, &second);
    fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    // Each tensor is in the other file than it says.
    let map = first.keys().map(|name| (name.clone(), two.into()));
    folder.index(Value::Object(map.chain(second.keys().map(|name| (name.clone(), one.into()))).collect()));
    folder.is_the_model(true);
    folder.write(
        two,
        &second
            .into_iter()
            .chain([("model.norm.weight".into(), first["model.norm.weight"].clone())])
            .collect(),
    );
    let told = folder.refused();
    assert!(
        told.contains("`model.norm.weight` is stored twice") && told.contains(one) && told.contains(two),
        "{told}"
    );
}

#[test]
fn an_adapter_beside_the_weights_is_not_left_out_silently() {
    let folder = Folder::new(true);
    fs::write(folder.path().join("adapter_config.json"), "{}").unwrap();
    assert!(folder.refused().contains("adapter_config.json describes an adapter"), "{}", folder.refused());
}

/// What is stored and not read is told of.
#[test]
fn what_is_left_out_is_warned_of() {
    let nano = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/models/nano");
    let folder = Folder::new(true);
    for file in
        ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]
    {
        fs::copy(nano.join(file), folder.path().join(file)).unwrap();
    }
    folder.index(json!({}));
    folder.change(|tensors| {
        let bias = (Dtype::F32, vec![1], vec![0; 4]);
        tensors.insert("model.layers.0.self_attn.q_proj.bias".into(), bias.clone());
        tensors.insert("model.layers.9.mlp.up_proj.weight".into(), bias);
    });
    let warnings = inspect(&folder.path()).unwrap().warnings;
    let [index, tensors] = &warnings[..] else { panic!("{warnings:?}") };
    assert!(index.contains("model.safetensors.index.json is not read"), "{index}");
    assert!(tensors.contains("`model.layers.0.self_attn.q_proj.bias` and 1 more"), "{tensors}");
}
