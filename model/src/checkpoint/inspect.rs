//! Looks at a checkpoint folder without reading its weights: everything that would keep it from being served, at
//! once. It reads the configuration, the headers of the weights, the tokenizer and the template, and renders a short
//! conversation with them.

use std::{collections::BTreeSet, fs::File, io::Read, path::Path};

use safetensors::{SafeTensorError, tensor::Metadata};
use serde_json::{Map, Value, json};

use super::{CheckpointError, WeightFiles, check_form, files, io};
use crate::{
    chat_template::ChatTemplate,
    config::ModelConfig,
    generation_config::GenerationConfig,
    params::{Parameter, ParameterLayout},
    text_error::TextError,
    tokenizer::Tokenizer,
};

/// Bytes before the header, which hold its length.
const LENGTH_BYTES: u64 = 8;
/// No header is longer.
const MOST_HEADER_BYTES: u64 = 100_000_000;
/// A tokenizer with a smaller share of the embedding's rows is probably of another model: a vocabulary is padded by
/// a few hundred rows at most.
const FEW_TOKENS: f64 = 0.9;

/// What a folder holds that can be served.
#[derive(Clone, Debug, PartialEq)]
pub struct Inspection {
    /// The model's shape.
    pub config: ModelConfig,
    /// Parameters of the model.
    pub parameters: usize,
    /// What they are stored in: `F32`, `BF16`, or several.
    pub dtypes: Vec<String>,
    /// Tokens of the tokenizer.
    pub tokens: usize,
    /// Whether the template shows tools to the model.
    pub tools: bool,
    /// What works, and probably not as it was meant.
    pub warnings: Vec<String>,
}

impl Inspection {
    /// The `model_type` that is read.
    pub const FAMILY: &str = "qwen3";
}

/// Looks at the checkpoint folder `dir`; fails with everything that is wrong with it, at least one.
pub fn inspect(dir: &Path) -> Result<Inspection, Vec<CheckpointError>> {
    let mut wrong = Vec::new();
    let mut keep = |error: CheckpointError| wrong.push(error);
    let config = ModelConfig::from_dir(dir).map_err(|error| keep(error.into())).ok();
    let tokenizer = Tokenizer::from_dir(dir).map_err(|error| keep(error.into())).ok();
    let tools = template(dir).map_err(&mut keep).ok();
    // Where the tokenizer is at fault, it was told of already.
    let ends = match GenerationConfig::from_dir(dir) {
        Ok(generation) => generation.eos_token_ids,
        Err(TextError::LoadTokenizer { .. }) => Vec::new(),
        // config.json was told of already.
        Err(TextError::ParseJson { path, .. }) if path.ends_with("config.json") && config.is_none() => {
            Vec::new()
        }
        Err(error) => {
            keep(error.into());
            Vec::new()
        }
    };
    let layout = config.as_ref().map(ParameterLayout::new);
    let dtypes = weights(dir, layout.as_ref(), &mut keep);
    if let (Some(config), Some(tokenizer)) = (&config, &tokenizer) {
        fits(dir, config, tokenizer, &ends).into_iter().for_each(&mut keep);
    }
    let (Some(config), Some(layout), Some(tokenizer), Some(tools), true) =
        (config, layout, tokenizer, tools, wrong.is_empty())
    else {
        return Err(wrong);
    };
    Ok(Inspection {
        parameters: layout.len(),
        dtypes: dtypes.into_iter().collect(),
        tokens: tokenizer.vocab_size(),
        tools,
        warnings: warnings(&config, &tokenizer, &ends),
        config,
    })
}

fn warnings(config: &ModelConfig, tokenizer: &Tokenizer, ends: &[u32]) -> Vec<String> {
    let mut warnings = Vec::new();
    let (tokens, rows) = (tokenizer.vocab_size(), config.vocab_size);
    if (tokens as f64) < FEW_TOKENS * rows as f64 {
        warnings.push(format!(
            "the tokenizer has {tokens} tokens for the model's {rows}: is it this model's? What the model draws \
             beyond them is no text"
        ));
    }
    if ends.is_empty() {
        warnings.push("no eos_token_id is named: every reply runs to its limit".to_owned());
    }
    warnings
}

/// Every id that can come up has a row.
fn fits(dir: &Path, config: &ModelConfig, tokenizer: &Tokenizer, ends: &[u32]) -> Vec<CheckpointError> {
    let (limit, rows) = (tokenizer.id_limit(), config.vocab_size);
    let mut wrong = Vec::new();
    if limit > rows {
        let (path, highest) = (dir.join("tokenizer.json"), limit - 1);
        wrong.push(CheckpointError::Vocabulary { path, highest, rows });
    }
    let beyond = ends.iter().find(|id| **id as usize >= rows);
    wrong.extend(beyond.map(|id| CheckpointError::EndToken { dir: dir.into(), id: *id, rows }));
    wrong
}

/// Renders a short conversation; whether one with tools comes out with the tools in it.
fn template(dir: &Path) -> Result<bool, CheckpointError> {
    let path = ChatTemplate::file_in(dir);
    let unusable = |source: TextError| match source {
        // These name their file.
        source
        @ (TextError::NoTemplate { .. } | TextError::ReadFile { .. } | TextError::ParseJson { .. }) => {
            CheckpointError::Text(source)
        }
        source => CheckpointError::Template { path: path.clone(), source },
    };
    let template = ChatTemplate::from_dir(dir).map_err(unusable)?;
    let said = "Does this come through?";
    let user = json!({"role": "user", "content": said});
    let answered = [user.clone(), json!({"role": "assistant", "content": "It does."}), user.clone()];
    let rendered = template.render(&answered, &[], &Map::new(), true).map_err(unusable)?;
    if !rendered.contains(said) {
        return Err(CheckpointError::Mute { path });
    }
    let call = json!({"type": "function", "function": {"name": "look_up", "arguments": {"at": "noon"}}});
    let called = [
        user,
        json!({"role": "assistant", "content": "", "tool_calls": [call]}),
        json!({"role": "tool", "name": "look_up", "content": "It rains."}),
    ];
    let tool: Value = json!({"type": "function", "function": {
        "name": "look_up", "description": "Looks.",
        "parameters": {"type": "object", "properties": {"at": {"type": "string"}}},
    }});
    // A template without tools is a template.
    let rendered = template.render(&called, &[tool], &Map::new(), true);
    Ok(rendered.is_ok_and(|text| text.contains("look_up")))
}

/// Checks the headers of the weights, against the shapes where those are known; what the parameters are stored in.
fn weights(
    dir: &Path,
    layout: Option<&ParameterLayout>,
    keep: &mut impl FnMut(CheckpointError),
) -> BTreeSet<String> {
    let files = match layout {
        Some(layout) => files(dir, layout),
        None => WeightFiles::find(dir).map(|files| match files {
            WeightFiles::One(file) => vec![(file, Vec::new())],
            WeightFiles::Several { map, .. } => {
                let names: BTreeSet<String> = map.into_values().collect();
                names.into_iter().map(|name| (dir.join(name), Vec::new())).collect()
            }
        }),
    };
    let mut dtypes = BTreeSet::new();
    match files {
        Ok(files) => files.iter().for_each(|(file, parameters)| match parameters_in(file, parameters) {
            Ok(found) => dtypes.extend(found),
            Err(error) => keep(error),
        }),
        Err(error) => keep(error),
    }
    dtypes
}

/// Names the first parameter of a file that is not as it should be.
fn parameters_in(path: &Path, parameters: &[&Parameter]) -> Result<BTreeSet<String>, CheckpointError> {
    let header = header(path)?;
    let mut dtypes = BTreeSet::new();
    for parameter in parameters {
        let missing = || CheckpointError::Missing { path: path.into(), tensor: parameter.name.clone() };
        let tensor = header.info(&parameter.name).ok_or_else(missing)?;
        check_form(path, parameter, tensor.dtype, &tensor.shape)?;
        dtypes.insert(format!("{:?}", tensor.dtype));
    }
    Ok(dtypes)
}

/// Reads the header of a safetensors file, and whether the file is as long as it says.
pub(super) fn header(path: &Path) -> Result<Metadata, CheckpointError> {
    let format = |source| CheckpointError::Format { path: path.into(), source };
    let mut file = File::open(path).map_err(io(path))?;
    let bytes = file.metadata().map_err(io(path))?.len();
    if bytes < LENGTH_BYTES {
        return Err(format(SafeTensorError::HeaderTooSmall));
    }
    let mut length = [0; LENGTH_BYTES as usize];
    file.read_exact(&mut length).map_err(io(path))?;
    let length = u64::from_le_bytes(length);
    if length > MOST_HEADER_BYTES {
        return Err(format(SafeTensorError::HeaderTooLarge));
    }
    if length > bytes - LENGTH_BYTES {
        return Err(format(SafeTensorError::InvalidHeaderLength));
    }
    let mut header = vec![0; length as usize];
    file.read_exact(&mut header).map_err(io(path))?;
    let metadata: Metadata = serde_json::from_slice(&header)
        .map_err(|error| format(SafeTensorError::InvalidHeaderDeserialization(error)))?;
    if metadata.data_len() as u64 != bytes - LENGTH_BYTES - length {
        return Err(format(SafeTensorError::MetadataIncompleteBuffer));
    }
    Ok(metadata)
}
