//! The shape of a model, read from a Hugging Face `config.json`.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::family::{Family, RopeScaling};

/// No model of this family is larger, in any direction.
const MOST_TOKENS: u64 = 1 << 24;
const MOST_WIDTH: u64 = 1 << 20;
const MOST_LAYERS: u64 = 1 << 10;
const MOST_HEADS: u64 = 1 << 12;
const MOST_POSITIONS: u64 = 1 << 30;

/// Whether the output head is the embedding table.
const TIED: &str = "tie_word_embeddings";
/// What `transformers` takes where no file names a base.
const DEFAULT_ROPE_THETA: f64 = 10_000.0;

/// Shape and constants of a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelConfig {
    /// What it has beside its shape.
    #[serde(default)]
    pub family: Family,
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
    /// How its frequencies are slowed down; mostly they are not.
    #[serde(default)]
    pub rope_scaling: Option<RopeScaling>,
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
    /// Keys and values that are kept of a token, in all layers.
    pub fn kv_values(&self) -> usize {
        2 * self.layers * self.kv_heads * self.head_dim
    }

    /// Reads `dir/config.json`. Where that does not say whether the head is tied, it is not.
    pub fn from_dir(dir: &Path) -> Result<Self, ConfigError> {
        Ok(Self::stated_in(dir)?.0)
    }

    /// Reads `dir/config.json`, and whether that says if the head is tied.
    pub(crate) fn stated_in(dir: &Path) -> Result<(Self, bool), ConfigError> {
        let path = dir.join("config.json");
        let text = std::fs::read_to_string(&path)
            .map_err(|source| ConfigError::Read { path: path.clone(), source })?;
        let json: Value =
            serde_json::from_str(&text).map_err(|source| ConfigError::Json { path: path.clone(), source })?;
        let config = Self::from_json(&json).map_err(|(key, what)| ConfigError::Key { path, key, what })?;
        Ok((config, json.get(TIED).is_some()))
    }

    /// Reads the keys of a Hugging Face configuration; an error is a key and what is wrong with it.
    fn from_json(json: &Value) -> Result<Self, KeyProblem> {
        // Bounded, so that no product of them overflows: a file that somebody wrote must not end the process.
        let count = |key: &str, most: u64| match json.get(key) {
            None | Some(Value::Null) => bad(key, "is missing".into()),
            Some(value) => match value.as_u64() {
                Some(n) if (1..=most).contains(&n) => Ok(n as usize),
                _ => bad(key, format!("is {value}, expected an integer from 1 to {most}")),
            },
        };
        // `transformers` takes no null, text or number for a flag either.
        let flag = |key: &str| match json.get(key) {
            None => Ok(false),
            Some(Value::Bool(set)) => Ok(*set),
            Some(other) => bad(key, format!("is {other}, expected true or false")),
        };
        let family = family(json)?;
        for key in family.traits().refused {
            if flag(key)? {
                return bad(key, "is true, which this engine does not run".into());
            }
        }
        match json.get("hidden_act") {
            None => {}
            Some(kind) if kind == "silu" || kind == "swish" => {}
            Some(other) => return bad("hidden_act", format!("is {other}, expected \"silu\"")),
        }
        if json.get("quantization_config").is_some_and(|value| !value.is_null()) {
            return bad("quantization_config", "is set, which this engine does not run".into());
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
        let layers = count("num_hidden_layers", MOST_LAYERS)?;
        check_layer_types(json, layers)?;
        let rms_norm_eps =
            json.get("rms_norm_eps").map_or(Ok(1e-6), |value| positive("rms_norm_eps", value))?;
        let max_positions = count("max_position_embeddings", MOST_POSITIONS)?;
        check_window(json, family, max_positions)?;
        let (rope_theta, rope_scaling) = rope(json)?;
        Ok(Self {
            family,
            vocab_size: count("vocab_size", MOST_TOKENS)?,
            hidden_size,
            intermediate_size: count("intermediate_size", MOST_WIDTH)?,
            layers,
            heads,
            kv_heads,
            head_dim,
            rms_norm_eps: rms_norm_eps as f32,
            rope_theta,
            rope_scaling,
            max_positions,
            tied: flag(TIED)?,
        })
    }

    /// The same, or the key and what is wrong with it, where it was not read from a `config.json`.
    pub(crate) fn checked(&self) -> Result<Self, KeyProblem> {
        Self::from_json(&self.to_json(&[], "float32"))
    }

    /// The same as a Hugging Face configuration, both spellings of the rotary base included.
    pub fn to_json(&self, end_ids: &[u32], dtype: &str) -> Value {
        let family = self.family.traits();
        let mut rope = serde_json::json!({ "rope_theta": self.rope_theta, "rope_type": "default" });
        if let Some(scaling) = &self.rope_scaling {
            rope["rope_type"] = "llama3".into();
            rope["factor"] = scaling.factor.into();
            rope["low_freq_factor"] = scaling.low_freq_factor.into();
            rope["high_freq_factor"] = scaling.high_freq_factor.into();
            rope["original_max_position_embeddings"] =
                (scaling.original_max_position_embeddings as u64).into();
        }
        let mut json = serde_json::json!({
            "architectures": [family.architecture],
            "attention_dropout": 0.0,
            "dtype": dtype,
            "eos_token_id": end_ids,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "hidden_size": self.hidden_size,
            "initializer_range": 0.02,
            "intermediate_size": self.intermediate_size,
            "max_position_embeddings": self.max_positions,
            "model_type": family.model_type,
            "num_attention_heads": self.heads,
            "num_hidden_layers": self.layers,
            "num_key_value_heads": self.kv_heads,
            "rms_norm_eps": self.rms_norm_eps as f64,
            "rope_parameters": rope,
            "rope_theta": self.rope_theta,
            "tie_word_embeddings": self.tied,
            "torch_dtype": dtype,
            "use_cache": true,
            "vocab_size": self.vocab_size,
        });
        for key in family.refused {
            json[key] = false.into();
        }
        if family.window.is_some() {
            json["sliding_window"] = Value::Null;
        }
        json
    }
}

/// A key, and what is wrong with it.
type KeyProblem = (String, String);

fn bad<T>(key: &str, what: String) -> Result<T, KeyProblem> {
    Err((key.to_owned(), what))
}

fn positive(key: &str, value: &Value) -> Result<f64, KeyProblem> {
    match value.as_f64().filter(|number| number.is_finite() && *number > 0.0) {
        Some(number) => Ok(number),
        None => bad(key, format!("is {value}, expected a number above 0")),
    }
}

fn family(json: &Value) -> Result<Family, KeyProblem> {
    let key = "model_type";
    let known = || {
        let names: Vec<String> =
            Family::ALL.iter().map(|family| format!("\"{}\"", family.traits().model_type)).collect();
        names.join(", ")
    };
    match json.get(key) {
        None | Some(Value::Null) => bad(key, format!("is missing, expected one of {}", known())),
        Some(name) => match name.as_str().and_then(Family::named) {
            Some(family) => Ok(family),
            None => bad(key, format!("is {name}, expected one of {}", known())),
        },
    }
}

/// No position attends to less than all before it.
fn check_window(json: &Value, family: Family, max_positions: usize) -> Result<(), KeyProblem> {
    let Some(default) = family.traits().window else { return Ok(()) };
    let key = "sliding_window";
    let window = match json.get(key) {
        None => default,
        Some(Value::Null) => return Ok(()),
        Some(value) => match value.as_u64() {
            Some(width) => width,
            None => return bad(key, format!("is {value}, expected null or an integer")),
        },
    };
    if window < max_positions as u64 {
        return bad(key, format!("is {window}, less than the context, which this engine does not run"));
    }
    Ok(())
}

/// Every layer attends to all that came before it, and is named once.
fn check_layer_types(json: &Value, layers: usize) -> Result<(), KeyProblem> {
    let key = "layer_types";
    let types = match json.get(key) {
        None | Some(Value::Null) => return Ok(()),
        Some(Value::Array(types)) => types,
        Some(other) => return bad(key, format!("is {other}, expected a list")),
    };
    if let Some(other) = types.iter().find(|kind| *kind != "full_attention") {
        return bad(key, format!("names {other}, expected \"full_attention\" alone"));
    }
    if types.len() != layers {
        return bad(key, format!("names {} layers, num_hidden_layers is {layers}", types.len()));
    }
    Ok(())
}

/// The base of the rotary embedding and what its frequencies are scaled by. They may stand in three places:
/// `transformers` 5 writes `rope_parameters`, earlier versions wrote `rope_theta` and kept a scaling in `rope_scaling`. What counts is what `transformers` 5 reads, and
/// whatever is stated beside it must agree, as other versions read that.
fn rope(json: &Value) -> Result<(f64, Option<RopeScaling>), KeyProblem> {
    let mut stated = Vec::new();
    let mut scalings: Vec<(&str, Option<RopeScaling>)> = Vec::new();
    let mut read_by_transformers = None;
    for place in ["rope_parameters", "rope_scaling"] {
        let fields = match json.get(place) {
            None | Some(Value::Null) => continue,
            Some(Value::Object(fields)) => fields,
            Some(other) => return bad(place, format!("is {other}, expected an object")),
        };
        let (theta, scaling) = rope_fields(place, fields)?;
        stated.extend(theta.clone());
        if !fields.is_empty() {
            read_by_transformers = theta;
            scalings.push((place, scaling));
        }
    }
    let whole_head = |value: &Value| value.is_null() || value.as_f64() == Some(1.0);
    if let Some(part) = json.get("partial_rotary_factor").filter(|value| !whole_head(value)) {
        return bad("partial_rotary_factor", format!("is {part}, which this engine does not run"));
    }
    let top = match json.get("rope_theta") {
        None => None,
        // Nothing is stated, and what is needed stands elsewhere.
        Some(Value::Null) if read_by_transformers.is_some() => None,
        Some(value) => Some(("rope_theta".to_owned(), positive("rope_theta", value)?)),
    };
    stated.extend(top.clone());
    let default = ("the default".to_owned(), DEFAULT_ROPE_THETA);
    let (place, theta) = read_by_transformers.or(top).unwrap_or(default);
    if let Some((key, other)) = stated.into_iter().find(|(_, other)| *other != theta) {
        return bad(&key, format!("is {other}, but {place}, which counts, is {theta}"));
    }
    match scalings[..] {
        [(place, one), (_, other)] if one != other => bad(place, "and rope_scaling differ".to_owned()),
        _ => Ok((theta, scalings.last().and_then(|(_, scaling)| *scaling))),
    }
}

/// The base and the scaling that an object of rotary parameters states. Anything but a plain rotary embedding and that of
/// Llama 3.1 is refused.
#[allow(clippy::type_complexity)]
fn rope_fields(
    place: &str,
    fields: &Map<String, Value>,
) -> Result<(Option<(String, f64)>, Option<RopeScaling>), KeyProblem> {
    let mut theta = None;
    let kind = fields.get("rope_type").or_else(|| fields.get("type"));
    let scaling = match kind.is_some_and(|kind| kind == "llama3") {
        true => {
            let number = |field: &str| match fields.get(field) {
                Some(value) => positive(&format!("{place}.{field}"), value),
                None => bad(&format!("{place}.{field}"), "is missing".to_owned()),
            };
            Some(RopeScaling {
                factor: number("factor")?,
                low_freq_factor: number("low_freq_factor")?,
                high_freq_factor: number("high_freq_factor")?,
                original_max_position_embeddings: number("original_max_position_embeddings")?,
            })
        }
        false => None,
    };
    if let Some(RopeScaling { low_freq_factor, high_freq_factor, .. }) = scaling
        && low_freq_factor >= high_freq_factor
    {
        return bad(&format!("{place}.high_freq_factor"), "is not above low_freq_factor".to_owned());
    }
    for (field, value) in fields {
        let key = format!("{place}.{field}");
        match field.as_str() {
            "rope_type" | "type" if value == "default" || scaling.is_some() && value == "llama3" => {}
            "rope_type" | "type" => {
                return bad(&key, format!("is {value}, expected \"default\" or \"llama3\""));
            }
            "factor" | "low_freq_factor" | "high_freq_factor" | "original_max_position_embeddings"
                if scaling.is_some() => {}
            "rope_theta" => theta = Some((key.clone(), positive(&key, value)?)),
            "partial_rotary_factor" if value.as_f64() == Some(1.0) => {}
            _ => return bad(&key, format!("is {value}, which this engine does not run")),
        }
    }
    Ok((theta, scaling))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tiny() -> ModelConfig {
        ModelConfig {
            family: Default::default(),
            vocab_size: 96,
            hidden_size: 32,
            intermediate_size: 48,
            layers: 2,
            heads: 4,
            kv_heads: 2,
            head_dim: 16,
            rms_norm_eps: 1e-6,
            rope_theta: 1e4,
            rope_scaling: None,
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
        json["model_type"] = "gpt2".into();
        let told = |json: &Value| ModelConfig::from_json(json).unwrap_err();
        let expected = |what: &str| ("model_type".to_owned(), what.to_owned());
        let known = "expected one of \"qwen3\", \"qwen2\", \"llama\", \"mistral\"";
        assert_eq!(told(&json), expected(&format!("is \"gpt2\", {known}")));
        assert_eq!(told(&serde_json::json!({})), expected(&format!("is missing, {known}")));
    }

    #[test]
    fn every_family_is_read_back_and_refuses_what_it_does_not_run() {
        let scaling = RopeScaling {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 32.0,
        };
        for family in Family::ALL {
            for rope_scaling in [None, Some(scaling)] {
                let config = ModelConfig { family, rope_scaling, ..tiny() };
                let json = config.to_json(&[1], "float32");
                let read = ModelConfig::from_json(&json).unwrap();
                assert_eq!(ModelConfig { rms_norm_eps: 1e-6, ..read }, config);
                for key in family.traits().refused {
                    let mut json = json.clone();
                    json[*key] = true.into();
                    assert_eq!(ModelConfig::from_json(&json).unwrap_err().0, *key);
                }
            }
        }
        let mut json = ModelConfig { family: Family::Mistral, ..tiny() }.to_json(&[1], "float32");
        let window = |json: &Value| ModelConfig::from_json(json).map_err(|(key, _)| key).err();
        json["max_position_embeddings"] = 8192.into();
        assert_eq!(window(&json), None);
        json["sliding_window"] = 8192.into();
        assert_eq!(window(&json), None);
        json["sliding_window"] = 4096.into();
        assert_eq!(window(&json).as_deref(), Some("sliding_window"));
        // `transformers` takes 4096 where nothing is said.
        json.as_object_mut().unwrap().remove("sliding_window");
        assert_eq!(window(&json).as_deref(), Some("sliding_window"));
        let mut json = ModelConfig { family: Family::Llama, rope_scaling: Some(scaling), ..tiny() }
            .to_json(&[1], "float32");
        json["rope_parameters"].as_object_mut().unwrap().remove("factor");
        assert_eq!(window(&json).as_deref(), Some("rope_parameters.factor"));
        // As versions before `transformers` 5 wrote it.
        let older = json!({
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        });
        json.as_object_mut().unwrap().remove("rope_parameters");
        json["rope_scaling"] = older;
        assert_eq!(ModelConfig::from_json(&json).unwrap().rope_scaling, Some(scaling));
        json["rope_parameters"] = json!({"rope_theta": 1e4, "rope_type": "default"});
        assert_eq!(window(&json).as_deref(), Some("rope_parameters"), "they differ");
    }

    /// What `transformers` 5.24 makes of each: a base where it loads, or the key that is refused, as it fails there,
    /// runs another model, or versions of it differ.
    #[test]
    fn two_sources_of_one_fact_are_compared() {
        let theta = |expected: f64, changes: Value| (Ok(expected), changes);
        let refused = |key: &'static str, changes: Value| (Err(key), changes);
        let yarn = || json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8192});
        let plain = |theta: f64| json!({"rope_theta": theta, "rope_type": "default"});
        let cases = [
            theta(1e4, json!({})),
            theta(5e5, json!({"rope_parameters": plain(5e5), "rope_theta": null})),
            theta(5e5, json!({"rope_parameters": null, "rope_theta": 5e5})),
            theta(5e5, json!({"rope_parameters": {"rope_type": "default"}, "rope_theta": 5e5})),
            theta(5e5, json!({"rope_parameters": null, "rope_scaling": {}, "rope_theta": 5e5})),
            theta(
                5e5,
                json!({"rope_parameters": {}, "rope_scaling": {"type": "default"}, "rope_theta": 5e5}),
            ),
            theta(5e5, json!({"rope_parameters": plain(5e5), "rope_scaling": plain(5e5), "rope_theta": 5e5})),
            refused("rope_scaling.rope_type", json!({"rope_parameters": null, "rope_scaling": yarn()})),
            refused(
                "rope_scaling.rope_type",
                json!({"rope_parameters": {"rope_theta": 1e4}, "rope_scaling": yarn()}),
            ),
            refused("rope_scaling.rope_type", json!({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}})),
            refused("rope_scaling.type", json!({"rope_scaling": {"rope_type": "default", "type": "yarn"}})),
            refused("rope_scaling.factor", json!({"rope_scaling": {"factor": 4.0}})),
            refused("rope_scaling", json!({"rope_scaling": [4.0]})),
            // `transformers` reads rope_scaling alone, and takes 1e4.
            refused(
                "rope_parameters.rope_theta",
                json!({"rope_parameters": plain(5e5), "rope_scaling": {"type": "default"}, "rope_theta": 1e4}),
            ),
            refused("rope_theta", json!({"rope_parameters": plain(5e5), "rope_theta": 1e4})),
            refused("rope_theta", json!({"rope_parameters": null, "rope_theta": null})),
            refused("rope_theta", json!({"rope_parameters": null, "rope_theta": "1e4"})),
            refused("rope_theta", json!({"rope_parameters": null, "rope_theta": 0})),
            refused("rope_parameters.rope_theta", json!({"rope_parameters": {"rope_theta": null}})),
            refused(
                "rope_parameters.rope_type",
                json!({"rope_parameters": {"rope_type": null, "rope_theta": 1e4}}),
            ),
            refused(
                "rope_parameters.full_attention",
                json!({"rope_parameters": {"full_attention": plain(5e5)}}),
            ),
            refused("partial_rotary_factor", json!({"partial_rotary_factor": 0.5})),
            theta(1e4, json!({"layer_types": ["full_attention", "full_attention"]})),
            theta(1e4, json!({"layer_types": null})),
            refused("layer_types", json!({"layer_types": ["sliding_attention", "sliding_attention"]})),
            refused("layer_types", json!({"layer_types": ["full_attention"]})),
            refused("layer_types", json!({"layer_types": "full_attention"})),
            refused("use_sliding_window", json!({"use_sliding_window": "false"})),
            refused("attention_bias", json!({"attention_bias": null})),
            refused("tie_word_embeddings", json!({"tie_word_embeddings": 1})),
            refused("tie_word_embeddings", json!({"tie_word_embeddings": null})),
            refused("hidden_act", json!({"hidden_act": null})),
            theta(1e4, json!({"hidden_act": "swish"})),
            refused("rms_norm_eps", json!({"rms_norm_eps": null})),
            refused("rms_norm_eps", json!({"rms_norm_eps": "1e-6"})),
            refused("quantization_config", json!({"quantization_config": {"quant_method": "fp8"}})),
        ];
        for (expected, changes) in cases {
            let mut json = tiny().to_json(&[1], "float32");
            for (key, value) in changes.as_object().unwrap() {
                json[key] = value.clone();
            }
            let found = ModelConfig::from_json(&json).map(|config| config.rope_theta).map_err(|(key, _)| key);
            assert_eq!(found, expected.map_err(str::to_owned), "{changes}");
        }
        let mut json = tiny().to_json(&[1], "float32");
        for key in ["rope_parameters", "rope_theta", "rms_norm_eps", "hidden_act", "use_sliding_window"] {
            json.as_object_mut().unwrap().remove(key);
        }
        assert_eq!(ModelConfig::from_json(&json).unwrap().rope_theta, 1e4, "the default");
    }
}
