//! An adapter's folder as PEFT, vLLM and SGLang read it: `adapter_config.json` and `adapter_model.safetensors`. What is written
//! has one rank and plain scaling; what is read may have several, or rank-stabilised scaling, and becomes that: narrower
//! matrices are padded with zeros, and each scale is taken into its `B`.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use safetensors::SafeTensors;
use serde_json::{Map, Value, json};

use super::{AdapterConfig, AdapterLayout, Target};
use crate::{
    checkpoint::{self, CheckpointError, Content, WeightDtype},
    config::ModelConfig,
    durable,
};

/// What the adapter is.
const CONFIG: &str = "adapter_config.json";
/// Its matrices.
pub(crate) const MATRICES: &str = "adapter_model.safetensors";
/// Keys that change nothing of what the adapter computes.
const SAYS_NOTHING: [&str; 10] = [
    "auto_mapping",
    "base_model_name_or_path",
    "inference_mode",
    "lora_dropout",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "target_modules",
    "task_type",
];
/// What a fresh adapter may begin with: anything else changes the base, too.
const PLAIN_STARTS: [&str; 3] = ["gaussian", "eva", "orthogonal"];

/// Why a folder is no adapter of a model.
#[derive(Debug, thiserror::Error)]
pub enum AdapterError {
    /// A file cannot be read or written, or is not safetensors, or a tensor of it is wrong.
    #[error(transparent)]
    File(#[from] CheckpointError),
    /// The configuration is not JSON.
    #[error("{path} is not a JSON object")]
    Json {
        /// The file.
        path: PathBuf,
    },
    /// A key of the configuration is missing, or asks for what is not done here.
    #[error("{path}: {key}: {what}")]
    Key {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// What is wrong.
        what: String,
    },
    /// A tensor belongs to no matrix that can have an adapter here.
    #[error("{path}: `{tensor}`: {what}")]
    Tensor {
        /// The file.
        path: PathBuf,
        /// Its name.
        tensor: String,
        /// What is wrong.
        what: String,
    },
}

/// Whether a folder is an adapter's.
pub fn is_folder(dir: &Path) -> bool {
    dir.join(CONFIG).exists()
}

/// Whether a file of this name is part of an adapter.
pub fn belongs(name: &str) -> bool {
    [CONFIG, MATRICES, checkpoint::MEASURED].contains(&name)
}

/// Whether an adapter may be written to `dir`, as [`checkpoint::may_write`] says it of checkpoints.
pub fn may_write(dir: &Path, replace: bool) -> Result<(), CheckpointError> {
    checkpoint::may_write_files(dir, replace, belongs)
}

/// Reads an adapter of `model`: its layout and its parameters.
pub fn load_adapter(dir: &Path, model: &ModelConfig) -> Result<(Arc<AdapterLayout>, Vec<f32>), AdapterError> {
    let scaling = Scaling::read(&dir.join(CONFIG))?;
    let path = dir.join(MATRICES);
    let bytes = fs::read(&path).map_err(|source| CheckpointError::Io { path: path.clone(), source })?;
    let tensors = checkpoint::tensors(&path, &bytes)?;
    let modules = modules(&path, &tensors, model)?;
    let widest = modules.values().map(|module| module.rank).max();
    let Some(rank) = widest else {
        let what = "it has no matrix".to_owned();
        return Err(AdapterError::Tensor { path, tensor: "*".to_owned(), what });
    };
    let first = modules.iter().find(|(_, module)| module.rank == rank);
    let scale = first.map_or(0.0, |(name, module)| scaling.of(name, module.rank));
    let targets = modules.values().map(|module| module.target).collect();
    let config = AdapterConfig { rank, alpha: scale * rank as f32, targets };
    let layout = AdapterLayout::new(model, config);
    let mut flat = vec![0.0; layout.len()];
    for parameter in &layout.parameters {
        let (module, side) = split(&parameter.name).expect("the layout's own names");
        // A layer may have none: zeros add nothing, and learn nothing.
        let Some(Module { rank: own, .. }) = modules.get(module).copied() else { continue };
        let (rows, columns) = (parameter.shape[0], parameter.shape[1]);
        let found = if side == Side::A { [own, columns] } else { [rows, own] };
        let mut values = vec![0.0; found[0] * found[1]];
        checkpoint::read(&path, &parameter.name, &found, &tensors, &mut values)?;
        let target = &mut flat[parameter.range.clone()];
        match side {
            Side::A => target[..values.len()].copy_from_slice(&values),
            Side::B => {
                let fold = scaling.of(module, own) / scale;
                for (row, values) in target.chunks_exact_mut(columns).zip(values.chunks_exact(own)) {
                    row.iter_mut().zip(values).for_each(|(target, value)| *target = value * fold);
                }
            }
        }
    }
    Ok((Arc::new(layout), flat))
}

/// The files of an adapter, by name; `base` says what it is an adapter of.
pub(crate) fn files_of<'a>(
    layout: &AdapterLayout,
    flat: &'a [f32],
    base: &str,
) -> Vec<(String, Content<'a>)> {
    let config = &layout.config;
    let alpha = if config.alpha.fract() == 0.0 { json!(config.alpha as i64) } else { json!(config.alpha) };
    let stated = json!({
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": config.rank,
        "lora_alpha": alpha,
        "target_modules": config.targets.iter().map(|target| target.name()).collect::<Vec<_>>(),
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": false,
        "use_rslora": false,
        "use_dora": false,
        "modules_to_save": null,
        "rank_pattern": {},
        "alpha_pattern": {},
        "inference_mode": true,
    });
    vec![
        (MATRICES.to_owned(), checkpoint::tensor_file(&layout.parameters, flat, WeightDtype::F32)),
        (CONFIG.to_owned(), Content::Bytes(format!("{stated:#}\n").into_bytes())),
    ]
}

/// Writes an adapter's folder; files of one that is there are replaced, and what was measured of it goes.
pub fn save_adapter(
    dir: &Path,
    layout: &AdapterLayout,
    flat: &[f32],
    base: &str,
) -> Result<(), AdapterError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| CheckpointError::Io { path, source }
    };
    fs::create_dir_all(dir).map_err(io(dir))?;
    // It was found of the one before.
    let measured = dir.join(checkpoint::MEASURED);
    if measured.exists() {
        fs::remove_file(&measured).map_err(io(&measured))?;
    }
    for (name, content) in files_of(layout, flat, base) {
        let path = dir.join(name);
        durable::write_with(&path, durable::Access::Umask, |file| content.write_to(file))
            .map_err(io(&path))?;
    }
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    A,
    B,
}

#[derive(Clone, Copy, Debug)]
struct Module {
    target: Target,
    rank: usize,
}

/// A tensor's module, as patterns name it, and its side.
fn split(name: &str) -> Option<(&str, Side)> {
    let name = name.strip_prefix("base_model.model.")?;
    let a = name.strip_suffix(".lora_A.weight").map(|module| (module, Side::A));
    a.or_else(|| name.strip_suffix(".lora_B.weight").map(|module| (module, Side::B)))
}

/// The modules that a file has matrices of.
fn modules(
    path: &Path,
    tensors: &SafeTensors<'_>,
    model: &ModelConfig,
) -> Result<BTreeMap<String, Module>, AdapterError> {
    let mut modules = BTreeMap::new();
    for name in tensors.names() {
        let wrong = |what: &str| AdapterError::Tensor {
            path: path.to_owned(),
            tensor: name.to_owned(),
            what: what.to_owned(),
        };
        let (module, side) = split(name).ok_or_else(|| wrong("adapters of this are not read"))?;
        let target = target(module, model).ok_or_else(|| wrong("this model has no such matrix to adapt"))?;
        let shape = tensors.tensor(name).map(|tensor| tensor.shape().to_vec()).unwrap_or_default();
        let rank = shape.get(if side == Side::A { 0 } else { 1 }).copied().filter(|rank| *rank > 0);
        let rank = rank.ok_or_else(|| wrong("it is no matrix"))?;
        match modules.insert(module.to_owned(), Module { target, rank }) {
            Some(other) if other.rank != rank => return Err(wrong("its other matrix has another rank")),
            _ => {}
        }
    }
    Ok(modules)
}

/// What `model.layers.3.self_attn.q_proj` is.
fn target(module: &str, model: &ModelConfig) -> Option<Target> {
    let (layer, part) = module.strip_prefix("model.layers.")?.split_once('.')?;
    let layer: usize = layer.parse().ok()?;
    let (block, name) = part.split_once('.')?;
    let target = Target::named(name)?;
    (layer < model.layers && target.names().0 == block).then_some(target)
}

/// What each module's product is multiplied by.
struct Scaling {
    alpha: f64,
    patterns: Vec<(String, f64)>,
    /// Divided by the root of the rank.
    is_stabilised: bool,
}

impl Scaling {
    fn read(path: &Path) -> Result<Self, AdapterError> {
        let bytes = fs::read(path).map_err(|source| CheckpointError::Io { path: path.to_owned(), source })?;
        let stated: Map<String, Value> =
            serde_json::from_slice(&bytes).map_err(|_| AdapterError::Json { path: path.to_owned() })?;
        let wrong =
            |key: &str, what: String| AdapterError::Key { path: path.to_owned(), key: key.to_owned(), what };
        let mut scaling = Self { alpha: f64::NAN, patterns: Vec::new(), is_stabilised: false };
        for (key, value) in &stated {
            let refused = || Err(wrong(key, format!("{value} is not done here")));
            match key.as_str() {
                "peft_type" if value == "LORA" => {}
                "bias" if value == "none" => {}
                "r" if value.as_u64().is_some_and(|rank| rank > 0) => {}
                "lora_alpha" => scaling.alpha = value.as_f64().unwrap_or(f64::NAN),
                "use_rslora" => scaling.is_stabilised = value == true,
                // Ranks are those of the matrices.
                "rank_pattern" if value.is_object() => {}
                "alpha_pattern" if value.is_object() => {
                    for (module, alpha) in value.as_object().into_iter().flatten() {
                        let is_plain = module.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '_'));
                        match alpha.as_f64() {
                            Some(alpha) if is_plain => scaling.patterns.push((module.clone(), alpha)),
                            _ => return refused(),
                        }
                    }
                }
                "init_lora_weights" => {
                    let is_plain =
                        value.is_boolean() || value.as_str().is_some_and(|s| PLAIN_STARTS.contains(&s));
                    if !is_plain {
                        return refused();
                    }
                }
                key if SAYS_NOTHING.contains(&key) => {}
                _ if says_no(value) => {}
                _ => return refused(),
            }
        }
        if stated.get("peft_type").is_none() {
            return Err(wrong("peft_type", "missing".to_owned()));
        }
        if !scaling.alpha.is_finite() || scaling.alpha == 0.0 {
            return Err(wrong("lora_alpha", "not a number other than 0".to_owned()));
        }
        Ok(scaling)
    }

    fn of(&self, module: &str, rank: usize) -> f32 {
        let names = |pattern: &str| {
            let rest = module.strip_suffix(pattern);
            rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        let own = self.patterns.iter().find(|(pattern, _)| names(pattern)).map(|(_, alpha)| *alpha);
        let rank = rank as f64;
        let divisor = if self.is_stabilised { rank.sqrt() } else { rank };
        (own.unwrap_or(self.alpha) / divisor) as f32
    }
}

/// Whether a key is there, and asks for nothing.
fn says_no(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(all) => all.is_empty(),
        Value::Object(all) => all.is_empty(),
        _ => false,
    }
}
