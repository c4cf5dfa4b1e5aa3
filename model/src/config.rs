//! The shape of a Qwen3-family model, read from a Hugging Face `config.json`.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// No model of this family is larger, in any direction.
const MOST_TOKENS: u64 = 1 << 24;
const MOST_WIDTH: u64 = 1 << 20;
const MOST_LAYERS: u64 = 1 << 10;
const MOST_HEADS: u64 = 1 << 12;
const MOST_POSITIONS: u64 = 1 << 30;

/// Shape and constants of a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelConfig {
    /// Rows of the embedding table.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the gated activation.
    pub intermediate_size: usize,
    /// Decoder layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of a head; may differ from `hidden_size / heads`.
    pub head_dim: usize,
    /// Epsilon of every RMS norm.
    pub rms_norm_eps: f32,
    /// Base of the rotary embedding.
    pub rope_theta: f64,
    /// Longest context.
    pub max_positions: usize,
    /// Whether the output head is the embedding table.
    pub tied: bool,
}

/// Why a `config.json` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not JSON.
    #[error("{path} is not JSON")]
    Json {
        /// The file.
        path: PathBuf,
        /// Where it stops being JSON.
        #[source]
        source: serde_json::Error,
    },
    /// A key is missing or holds what this engine cannot run.
    #[error("{path}: `{key}` {what}")]
    Key {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// What is wrong with it.
        what: String,
    },
}

impl ModelConfig {
    /// Reads `dir/config.json`.
    pub fn from_dir(dir: &Path) -> Result<Self, ConfigError> {
        let path = dir.join("config.json");
        let text = std::fs::read_to_string(&path)
            .map_err(|source| ConfigError::Read { path: path.clone(), source })?;
        let json: Value =
            serde_json::from_str(&text).map_err(|source| ConfigError::Json { path: path.clone(), source })?;
        Self::from_json(&json).map_err(|(key, what)| ConfigError::Key { path, key, what })
    }

    /// Reads the keys of a Hugging Face Qwen3 configuration; an error is a key and what is wrong with it.
    fn from_json(json: &Value) -> Result<Self, (String, String)> {
        fn bad<T>(key: &str, what: String) -> Result<T, (String, String)> {
            Err((key.to_owned(), what))
        }
        // Bounded, so that no product of them overflows: a file that somebody wrote must not end the process.
        let count = |key: &str, most: u64| match json.get(key) {
            None | Some(Value::Null) => bad(key, "is missing".into()),
            Some(value) => match value.as_u64() {
                Some(n) if (1..=most).contains(&n) => Ok(n as usize),
                _ => bad(key, format!("is {value}, expected an integer from 1 to {most}")),
            },
        };
        let number = |key: &str| json.get(key).and_then(Value::as_f64);
        let flag = |key: &str| json.get(key).and_then(Value::as_bool).unwrap_or(false);
        match json.get("model_type") {
            Some(family) if family == "qwen3" => {}
            None | Some(Value::Null) => return bad("model_type", "is missing, expected \"qwen3\"".into()),
            Some(other) => return bad("model_type", format!("is {other}, expected \"qwen3\"")),
        }
        for key in ["attention_bias", "use_sliding_window"] {
            if flag(key) {
                return bad(key, "is true, which this engine does not run".into());
            }
        }
        match json.get("hidden_act").and_then(Value::as_str) {
            None | Some("silu") => {}
            Some(other) => return bad("hidden_act", format!("is \"{other}\", expected \"silu\"")),
        }
        let hidden_size = count("hidden_size", MOST_WIDTH)?;
        let heads = count("num_attention_heads", MOST_HEADS)?;
        let kv_heads = if json.get("num_key_value_heads").is_none_or(Value::is_null) {
            heads
        } else {
            count("num_key_value_heads", MOST_HEADS)?
        };
        let head_dim = if json.get("head_dim").is_none_or(Value::is_null) {
            hidden_size / heads
        } else {
            count("head_dim", MOST_HEADS)?
        };
        if heads % kv_heads != 0 {
            return bad(
                "num_key_value_heads",
                format!("is {kv_heads}, which does not divide num_attention_heads ({heads})"),
            );
        }
        if head_dim == 0 || !head_dim.is_multiple_of(2) {
            return bad("head_dim", format!("is {head_dim}, expected an even number from 2"));
        }
        // transformers 5 writes `rope_parameters.rope_theta`, earlier versions a top-level `rope_theta`.
        let parameters = json.get("rope_parameters").or_else(|| json.get("rope_scaling"));
        let kind =
            parameters.and_then(|p| p.get("rope_type").or_else(|| p.get("type"))).and_then(Value::as_str);
        if let Some(kind) = kind.filter(|k| *k != "default") {
            return bad("rope_parameters", format!("asks for rope type \"{kind}\", expected \"default\""));
        }
        let rope_theta = parameters
            .and_then(|p| p.get("rope_theta"))
            .and_then(Value::as_f64)
            .or_else(|| number("rope_theta"))
            .unwrap_or(10_000.0);
        Ok(Self {
            vocab_size: count("vocab_size", MOST_TOKENS)?,
            hidden_size,
            intermediate_size: count("intermediate_size", MOST_WIDTH)?,
            layers: count("num_hidden_layers", MOST_LAYERS)?,
            heads,
            kv_heads,
            head_dim,
            rms_norm_eps: number("rms_norm_eps").unwrap_or(1e-6) as f32,
            rope_theta,
            max_positions: count("max_position_embeddings", MOST_POSITIONS)?,
            tied: flag("tie_word_embeddings"),
        })
    }

    /// The same as a Hugging Face configuration, both spellings of the rotary base included.
    pub fn to_json(&self, end_ids: &[u32], dtype: &str) -> Value {
        serde_json::json!({
            "architectures": ["Qwen3ForCausalLM"],
            "attention_bias": false,
            "attention_dropout": 0.0,
            "dtype": dtype,
            "eos_token_id": end_ids,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "hidden_size": self.hidden_size,
            "initializer_range": 0.02,
            "intermediate_size": self.intermediate_size,
            "max_position_embeddings": self.max_positions,
            "model_type": "qwen3",
            "num_attention_heads": self.heads,
            "num_hidden_layers": self.layers,
            "num_key_value_heads": self.kv_heads,
            "rms_norm_eps": self.rms_norm_eps as f64,
            "rope_parameters": { "rope_theta": self.rope_theta, "rope_type": "default" },
            "rope_theta": self.rope_theta,
            "tie_word_embeddings": self.tied,
            "torch_dtype": dtype,
            "use_cache": true,
            "use_sliding_window": false,
            "vocab_size": self.vocab_size,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tiny() -> ModelConfig {
        ModelConfig {
            vocab_size: 96,
            hidden_size: 32,
            intermediate_size: 48,
            layers: 2,
            heads: 4,
            kv_heads: 2,
            head_dim: 16,
            rms_norm_eps: 1e-6,
            rope_theta: 1e4,
            max_positions: 64,
            tied: true,
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let config = tiny();
        let read = ModelConfig::from_json(&config.to_json(&[1], "float32")).unwrap();
        assert_eq!(ModelConfig { rms_norm_eps: 1e-6, ..read }, config);
    }

    #[test]
    fn errors_name_the_key() {
        let mut json = tiny().to_json(&[1], "float32");
        json["num_key_value_heads"] = 3.into();
        let (key, what) = ModelConfig::from_json(&json).unwrap_err();
        assert_eq!((key.as_str(), what.contains('3')), ("num_key_value_heads", true));
        json["num_hidden_layers"] = u64::MAX.into();
        assert_eq!(ModelConfig::from_json(&json).unwrap_err().0, "num_key_value_heads", "the first one");
        json["num_key_value_heads"] = 2.into();
        assert_eq!(ModelConfig::from_json(&json).unwrap_err().0, "num_hidden_layers");
        json["model_type"] = "llama".into();
        let told = |json: &Value| ModelConfig::from_json(json).unwrap_err();
        let expected = |what: &str| ("model_type".to_owned(), what.to_owned());
        assert_eq!(told(&json), expected("is \"llama\", expected \"qwen3\""));
        assert_eq!(told(&serde_json::json!({})), expected("is missing, expected \"qwen3\""));
    }
}
