//! Hugging Face checkpoint folders: one or several safetensors files to and from one flat buffer.

mod companions;
mod content;
mod inspect;
mod stored;
mod version;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use safetensors::{Dtype, SafeTensorError};
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};

pub use self::{
    companions::text_files,
    inspect::{Inspection, inspect},
    version::{StagedVersion, StoredVersion, VersionFolders, VersionManifest, fingerprint, fingerprint_in},
};
use self::{
    companions::{companions, is_companion},
    content::Tensors,
    stored::{Place, Stored, read_places},
};
pub(crate) use self::{
    content::Content,
    stored::{read, tensors},
};
use crate::{
    base::HostWeights,
    chat_template::ChatTemplate,
    config::{ConfigError, ModelConfig},
    durable, mapped,
    params::{Parameter, ParameterLayout},
    text_error::{TextError, write_text},
    tokenizer::Tokenizer,
};

/// Why a checkpoint folder cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// Its configuration is unusable.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file cannot be read or written.
    #[error("cannot access {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The folder has neither `model.safetensors` nor an index.
    #[error("{dir} has neither model.safetensors nor model.safetensors.index.json")]
    NoWeights {
        /// The folder.
        dir: PathBuf,
    },
    /// A folder is there and holds what no checkpoint holds: replacing it would lose something.
    #[error("{dir} is not a checkpoint folder: it holds `{file}`, which would be lost")]
    Occupied {
        /// The folder.
        dir: PathBuf,
        /// What it holds.
        file: String,
    },
    /// There is a checkpoint already, and nobody said that it may go.
    #[error("{dir} holds a model already: name another folder, or `--force` to replace it")]
    Exists {
        /// The folder.
        dir: PathBuf,
    },
    /// The index is not JSON of the expected form.
    #[error("{path} is not a safetensors index")]
    Index {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A file is truncated or not safetensors.
    #[error("{path} is truncated or not a safetensors file")]
    Format {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: SafeTensorError,
    },
    /// There is an adapter beside the weights, or in place of them.
    #[error("{path} describes an adapter, which is not applied: merge it, or remove the file")]
    Adapter {
        /// The file.
        path: PathBuf,
    },
    /// A tensor is stored in two places, or under two names.
    #[error("tensor `{tensor}` is stored twice: as {first} and as {second}")]
    Twice {
        /// The tensor.
        tensor: String,
        /// A name and its file.
        first: String,
        /// The other.
        second: String,
    },
    /// A tied model has a head of its own.
    #[error(
        "{path}: `lm_head.weight` is not `model.embed_tokens.weight`, and tie_word_embeddings in config.json is true: set \
         it to false, or remove the tensor"
    )]
    Heads {
        /// The file of the head.
        path: PathBuf,
    },
    /// A tensor is missing.
    #[error("{path} has no tensor `{tensor}`")]
    Missing {
        /// The file or folder.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A tensor has another shape than the configuration asks for.
    #[error("{path}: tensor `{tensor}` has shape {found:?}, expected {expected:?}")]
    Shape {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape that the configuration asks for.
        expected: Vec<usize>,
    },
    /// A file of a version folder is not as it was written.
    #[error("{path} is torn: {what}")]
    Torn {
        /// The file.
        path: PathBuf,
        /// What it is and what it should be.
        what: String,
    },
    /// The tokenizer, or the configuration of generation, is unusable.
    #[error(transparent)]
    Text(#[from] TextError),
    /// The chat template does not render a short conversation.
    #[error("the chat template in {path} is unusable")]
    Template {
        /// The file that holds it.
        path: PathBuf,
        /// Why.
        #[source]
        source: TextError,
    },
    /// The chat template leaves out what was said.
    #[error("the chat template in {path} leaves out the user's message")]
    Mute {
        /// The file that holds it.
        path: PathBuf,
    },
    /// The tokenizer has ids for which the model has no row.
    #[error("{path} has ids up to {highest}, vocab_size in config.json is {rows}: they are of two models")]
    Vocabulary {
        /// The tokenizer's file.
        path: PathBuf,
        /// The highest id of a token.
        highest: usize,
        /// Rows of the embedding.
        rows: usize,
    },
    /// A response is to end with a token for which the model has no row.
    #[error("{dir}: eos_token_id {id} is not below the vocab_size of config.json, {rows}")]
    EndToken {
        /// The checkpoint folder.
        dir: PathBuf,
        /// The token.
        id: u32,
        /// Rows of the embedding.
        rows: usize,
    },
    /// A tensor's element type is not supported.
    #[error("{path}: tensor `{tensor}` has dtype {dtype:?}, expected F64, F32, BF16 or F16")]
    Dtype {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its element type.
        dtype: Dtype,
    },
}

/// Element type of saved weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WeightDtype {
    /// 32-bit.
    #[default]
    F32,
    /// 16-bit brain float.
    Bf16,
}

impl WeightDtype {
    /// The name that Hugging Face configurations use.
    pub fn hf_name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::Bf16 => "bfloat16",
        }
    }
}

/// Reads a checkpoint folder's configuration and weights; every supported element type becomes `f32`.
pub fn load(dir: &Path) -> Result<(ModelConfig, Vec<f32>), CheckpointError> {
    match load_as(dir, |_| WeightDtype::F32, None)? {
        (config, HostWeights::F32(weights)) => Ok((config, weights)),
        _ => unreachable!("f32 was asked for"),
    }
}

/// What a folder has, before it is read.
#[derive(Clone, Copy, Debug)]
pub struct InFolder {
    /// How many parameters.
    pub parameters: usize,
    /// The narrowest type that holds them all exactly.
    pub dtype: WeightDtype,
}

/// The same in the element type that is wanted of what is there. What is wanted in `bf16` lies in a file of the folder
/// `cache`, where that is given (see [`crate::base_cache_folder`]).
pub fn load_as(
    dir: &Path,
    dtype: impl FnOnce(InFolder) -> WeightDtype,
    cache: Option<&Path>,
) -> Result<(ModelConfig, HostWeights), CheckpointError> {
    let (mut config, says_tied) = ModelConfig::stated_in(dir)?;
    let stored = Stored::open(dir).map_err(first)?;
    config.tied = stored.is_tied(says_tied.then_some(config.tied));
    let layout = ParameterLayout::new(&config);
    let places = stored.places(&config, &layout).map_err(first)?;
    let mut by_file: BTreeMap<&Path, Vec<&Place<'_>>> = BTreeMap::new();
    for place in &places {
        by_file.entry(&place.file).or_default().push(place);
    }
    let narrow = places.iter().all(|place| place.dtype == Dtype::BF16);
    let stored = if narrow { WeightDtype::Bf16 } else { WeightDtype::F32 };
    let wanted = dtype(InFolder { parameters: layout.len(), dtype: stored });
    let cache = cache.filter(|_| wanted == WeightDtype::Bf16);
    let files: Vec<PathBuf> = by_file.keys().map(|file| real(file)).collect();
    let source = mapped::Source::of(&files, &config)?;
    if let Some(kept) = cache.map(|cache| mapped::find(cache, &source, layout.len())).transpose()?.flatten() {
        return Ok((config, HostWeights::Mapped(kept)));
    }
    let mut weights = HostWeights::zeros(wanted, layout.len());
    for (file, places) in by_file {
        read_places(file, &places, &mut weights)?;
    }
    if let (Some(cache), HostWeights::Bf16(values)) = (cache, &weights) {
        let kept = mapped::keep(cache, source, values, fingerprint_in(&config, &weights))?;
        return Ok((config, HostWeights::Mapped(kept)));
    }
    Ok((config, weights))
}

/// Where a file is, by whatever way it is named: a hub's cache names its files by links.
fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

fn first(wrong: Vec<CheckpointError>) -> CheckpointError {
    wrong.into_iter().next().expect("it failed with at least one")
}

fn io(path: &Path) -> impl Fn(std::io::Error) -> CheckpointError + use<> {
    let path = path.to_owned();
    move |source| CheckpointError::Io { path: path.clone(), source }
}

/// What was found of a model as a judge lies beside it, or beside the adapter on it, and goes with it.
pub const MEASURED: &str = "judging.json";

/// Whether a file or a folder, by its path in a folder, is one of a checkpoint there.
pub fn belongs(path: &str) -> bool {
    let first = path.split('/').next().unwrap_or(path);
    let is_weights = |name: &str| name.starts_with("model") && name.contains(".safetensors");
    is_companion(first)
        || ["config.json", MEASURED].contains(&path)
        || is_weights(path) && !path.contains('/')
}

/// Whether a checkpoint may be written to `dir`: into nothing or an empty folder, over another checkpoint only with
/// `replace`, and never over a folder of something else. To be asked before work is done that would be lost.
pub fn may_write(dir: &Path, replace: bool) -> Result<(), CheckpointError> {
    may_write_files(dir, replace, belongs)
}

/// The same of a folder whose files are those that `belongs` says.
pub(crate) fn may_write_files(
    dir: &Path,
    replace: bool,
    belongs: fn(&str) -> bool,
) -> Result<(), CheckpointError> {
    let Ok(entries) = fs::read_dir(dir) else { return Ok(()) };
    let names: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    match names.iter().find(|name| !belongs(name)) {
        Some(file) => Err(CheckpointError::Occupied { dir: dir.into(), file: file.clone() }),
        None if !names.is_empty() && !replace => Err(CheckpointError::Exists { dir: dir.into() }),
        None => Ok(()),
    }
}

/// Writes a complete checkpoint folder. `template`, when given, is the folder whose tokenizer and
/// configuration are copied; otherwise `config.json` is written from `config`.
///
/// The folder appears whole or not at all: it is written beside its place and renamed. A checkpoint folder that is
/// there already goes once the new one is complete (ask [`may_write`] first); any other is left alone, and an error.
pub fn save(
    dir: &Path,
    config: &ModelConfig,
    weights: &[f32],
    dtype: WeightDtype,
    end_ids: &[u32],
    template: Option<&Path>,
) -> Result<(), CheckpointError> {
    may_write(dir, true)?;
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = dir.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let (partial, old) = (parent.join(format!(".{name}.partial")), parent.join(format!(".{name}.old")));
    for left in [&partial, &old] {
        if left.exists() {
            fs::remove_dir_all(left).map_err(io(left))?;
        }
    }
    fs::create_dir_all(&partial).map_err(io(&partial))?;
    for (name, content) in files_of(config, weights, dtype, end_ids, template)? {
        let path = partial.join(name);
        make_parent(&path)?;
        durable::write_with(&path, durable::Access::Umask, |file| content.write_to(file))
            .map_err(io(&path))?;
    }
    // Renamed last: whoever opens the folder finds all of it or none, and what it replaces goes only then.
    let replaces = dir.exists();
    if replaces {
        fs::rename(dir, &old).map_err(io(dir))?;
    }
    fs::rename(&partial, dir).map_err(io(dir))?;
    durable::sync_folder(parent).map_err(io(parent))?;
    if replaces {
        fs::remove_dir_all(&old).map_err(io(&old))?;
    }
    Ok(())
}

/// What makes a text of tokens, and how they are drawn, of a model that no folder holds yet.
#[derive(Clone, Copy, Debug)]
pub struct Speech<'a> {
    /// Its tokens.
    pub tokenizer: &'a Tokenizer,
    /// Its chat template.
    pub template: &'a ChatTemplate,
    /// Its `generation_config.json`.
    pub generation: &'a serde_json::Value,
}

/// The same of a model that no folder holds yet.
pub fn save_new(
    dir: &Path,
    config: &ModelConfig,
    weights: &[f32],
    dtype: WeightDtype,
    end_ids: &[u32],
    speech: Speech<'_>,
) -> Result<(), CheckpointError> {
    let Speech { tokenizer, template, generation } = speech;
    // Gone with this function, whatever it ends with.
    let companions = tempfile::tempdir().map_err(io(&std::env::temp_dir()))?;
    let companions = companions.path();
    tokenizer.save(companions)?;
    template.save(companions)?;
    write_text(&companions.join("generation_config.json"), &format!("{generation:#}\n"))?;
    save(dir, config, weights, dtype, end_ids, Some(companions))
}

/// Every file of a checkpoint folder, by name.
fn files_of<'a>(
    config: &ModelConfig,
    weights: &'a [f32],
    dtype: WeightDtype,
    end_ids: &[u32],
    template: Option<&Path>,
) -> Result<Vec<(String, Content<'a>)>, CheckpointError> {
    let json = config.to_json(end_ids, dtype.hf_name());
    let text = serde_json::to_string_pretty(&json).expect("a JSON value always serialises");
    let mut files = vec![
        (
            "model.safetensors".to_owned(),
            tensor_file(&ParameterLayout::new(config).parameters, weights, dtype),
        ),
        ("config.json".to_owned(), Content::Bytes((text + "\n").into_bytes())),
    ];
    if let Some(template) = template {
        let taken = companions(template)?.into_iter();
        files.extend(taken.map(|(name, bytes)| (name, Content::Bytes(bytes))));
    }
    Ok(files)
}

/// A file of a checkpoint may lie in a folder of it.
fn make_parent(path: &Path) -> Result<(), CheckpointError> {
    let parent = path.parent().expect("a file of a checkpoint lies in it");
    fs::create_dir_all(parent).map_err(io(parent))
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A safetensors file of these parameters of a flat buffer.
pub(crate) fn tensor_file<'a>(parameters: &[Parameter], flat: &'a [f32], dtype: WeightDtype) -> Content<'a> {
    let tensors = parameters
        .iter()
        .map(|parameter| (parameter.name.clone(), parameter.shape.clone(), &flat[parameter.range.clone()]));
    Content::Tensors(Tensors::new(dtype, json!({"format": "pt"}), tensors))
}
