//! How a checkpoint says it wants to be sampled, and which tokens end its responses.

use std::path::Path;

use serde_json::Value;

use crate::text_error::{TextError, read_json_if_present};
use crate::tokenizer::Tokenizer;

/// What generation_config.json sets. A value it does not set is `None`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GenerationConfig {
    /// A response ends with any of these.
    pub eos_token_ids: Vec<u32>,
    /// Divides the logits.
    pub temperature: Option<f32>,
    /// Smallest set of tokens with this much probability.
    pub top_p: Option<f32>,
    /// Most likely tokens kept; 0 keeps all.
    pub top_k: Option<usize>,
}

impl GenerationConfig {
    /// Reads generation_config.json if there is one. Where it names no end token, config.json's counts, else the one
    /// of tokenizer_config.json. A checkpoint with none of these has no end token.
    pub fn from_dir(dir: &Path) -> Result<Self, TextError> {
        let path = dir.join("generation_config.json");
        let json = read_json_if_present(&path)?.unwrap_or(Value::Null);
        let mut config = Self {
            eos_token_ids: token_ids(&path, &json)?,
            temperature: number_within(&path, &json, "temperature", 0.0..=100.0)?.map(|value| value as f32),
            top_p: number_within(&path, &json, "top_p", 0.0..=1.0)?.map(|value| value as f32),
            top_k: number_within(&path, &json, "top_k", 0.0..=u32::MAX.into())?.map(|value| value as usize),
        };
        if config.eos_token_ids.is_empty() {
            let path = dir.join("config.json");
            config.eos_token_ids = token_ids(&path, &read_json_if_present(&path)?.unwrap_or(Value::Null))?;
        }
        if config.eos_token_ids.is_empty() && dir.join("tokenizer.json").exists() {
            config.eos_token_ids = Tokenizer::from_dir(dir)?.eos_id().into_iter().collect();
        }
        Ok(config)
    }
}

fn token_ids(path: &Path, json: &Value) -> Result<Vec<u32>, TextError> {
    let key = "eos_token_id";
    let id = |value: &Value| {
        value
            .as_u64()
            .and_then(|id| u32::try_from(id).ok())
            .ok_or_else(|| invalid(path, key, format!("is {value}, not a token id or a list of them")))
    };
    match &json[key] {
        Value::Null => Ok(Vec::new()),
        Value::Array(ids) => ids.iter().map(id).collect(),
        single => Ok(vec![id(single)?]),
    }
}

fn number_within(
    path: &Path,
    json: &Value,
    key: &str,
    range: std::ops::RangeInclusive<f64>,
) -> Result<Option<f64>, TextError> {
    let value = &json[key];
    if value.is_null() {
        return Ok(None);
    }
    let number = value.as_f64().filter(|number| range.contains(number));
    let (low, high) = (range.start(), range.end());
    number
        .map(Some)
        .ok_or_else(|| invalid(path, key, format!("is {value}, not a number from {low} to {high}")))
}

fn invalid(path: &Path, key: &str, problem: String) -> TextError {
    TextError::Config { path: path.to_owned(), key: key.into(), problem }
}
