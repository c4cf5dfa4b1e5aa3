//! Looks at a checkpoint folder without reading its weights: everything that would keep it from being served, at
//! once. It reads the configuration, the headers of the weights, the tokenizer and the template, and renders a short
//! conversation with them.

use std::{collections::BTreeSet, path::Path};

use serde_json::{Map, Value, json};

use super::{CheckpointError, stored::Stored};
use crate::{
    chat_template::ChatTemplate, config::ModelConfig, generation_config::GenerationConfig,
    params::ParameterLayout, text_error::TextError, tokenizer::Tokenizer,
};

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

/// Looks at the checkpoint folder `dir`; fails with everything that is wrong with it, at least one.
pub fn inspect(dir: &Path) -> Result<Inspection, Vec<CheckpointError>> {
    let mut wrong = Vec::new();
    let mut keep = |error: CheckpointError| wrong.push(error);
    let stated = ModelConfig::stated_in(dir).map_err(|error| keep(error.into())).ok();
    let tokenizer = Tokenizer::from_dir(dir).map_err(|error| keep(error.into())).ok();
    let tools = template(dir).map_err(&mut keep).ok();
    // Where the tokenizer is at fault, it was told of already.
    let ends = match GenerationConfig::from_dir(dir) {
        Ok(generation) => generation.eos_token_ids,
        Err(TextError::LoadTokenizer { .. }) => Vec::new(),
        // config.json was told of already.
        Err(TextError::ParseJson { path, .. }) if path.ends_with("config.json") && stated.is_none() => {
            Vec::new()
        }
        Err(error) => {
            keep(error.into());
            Vec::new()
        }
    };
    let weights = weights(dir, stated.as_ref()).map_err(|wrong| wrong.into_iter().for_each(&mut keep)).ok();
    if let (Some((config, _)), Some(tokenizer)) = (&stated, &tokenizer) {
        fits(dir, config, tokenizer, &ends).into_iter().for_each(&mut keep);
    }
    let (Some(Some(weights)), Some(tokenizer), Some(tools), true) =
        (weights, tokenizer, tools, wrong.is_empty())
    else {
        return Err(wrong);
    };
    let mut warnings = warnings(&weights.config, &tokenizer, &ends);
    warnings.extend(weights.warnings);
    Ok(Inspection {
        parameters: ParameterLayout::new(&weights.config).len(),
        dtypes: weights.dtypes.into_iter().collect(),
        tokens: tokenizer.vocab_size(),
        tools,
        warnings,
        config: weights.config,
    })
}

/// What the headers of the weights tell.
struct StoredModel {
    config: ModelConfig,
    dtypes: BTreeSet<String>,
    warnings: Vec<String>,
}

/// Checks the headers of the weights, against the shapes where those are known.
fn weights(
    dir: &Path,
    stated: Option<&(ModelConfig, bool)>,
) -> Result<Option<StoredModel>, Vec<CheckpointError>> {
    let stored = Stored::open(dir)?;
    let Some((config, says_tied)) = stated else { return Ok(None) };
    let config = ModelConfig { tied: stored.is_tied(says_tied.then_some(config.tied)), ..config.clone() };
    let layout = ParameterLayout::new(&config);
    let places = stored.places(&config, &layout)?;
    let mut warnings = Vec::new();
    if let Some(index) = &stored.unread_index {
        warnings.push(format!("{} is not read, as model.safetensors is there", index.display()));
    }
    if let [first, rest @ ..] = &stored.unread(&places)[..] {
        let more = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
        warnings
            .push(format!("the weights hold `{first}`{more}, for which this model has no place: not read"));
    }
    let dtypes = places.iter().map(|place| format!("{:?}", place.dtype)).collect();
    Ok(Some(StoredModel { config, dtypes, warnings }))
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
    // An error of reading names its file.
    let template = ChatTemplate::from_dir(dir)?;
    let unusable = |has_tools: bool| {
        let path = template.file(has_tools).to_owned();
        move |source: TextError| CheckpointError::Template { path, source }
    };
    let said = "Does this come through?";
    let user = json!({"role": "user", "content": said});
    let answered = [user.clone(), json!({"role": "assistant", "content": "It does."}), user.clone()];
    let rendered = template.render(&answered, &[], &Map::new(), true).map_err(unusable(false))?;
    if !rendered.contains(said) {
        return Err(CheckpointError::Mute { path: template.file(false).to_owned() });
    }
    let tool: Value = json!({"type": "function", "function": {
        "name": "look_up", "description": "Looks.",
        "parameters": {"type": "object", "properties": {"at": {"type": "string"}}},
    }});
    if template.has_tool_use() {
        let rendered = template
            .render(&answered, std::slice::from_ref(&tool), &Map::new(), true)
            .map_err(unusable(true))?;
        if !rendered.contains(said) {
            return Err(CheckpointError::Mute { path: template.file(true).to_owned() });
        }
    }
    let call = json!({"type": "function", "function": {"name": "look_up", "arguments": {"at": "noon"}}});
    let called = [
        user,
        json!({"role": "assistant", "content": "", "tool_calls": [call]}),
        json!({"role": "tool", "name": "look_up", "content": "It rains."}),
    ];
    // A template without tools is a template.
    let rendered = template.render(&called, &[tool], &Map::new(), true);
    Ok(rendered.is_ok_and(|text| text.contains("look_up")))
}
