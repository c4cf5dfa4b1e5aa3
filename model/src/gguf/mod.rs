//! GGUF files, as llama.cpp and what is built on it hold models: made checkpoint folders of.

mod blocks;
mod reader;
#[cfg(test)]
mod tests;
mod vocabulary;

use std::{collections::BTreeMap, path::Path};

use serde_json::json;

use self::reader::{Gguf, Tensor};
use crate::{
    chat_template::ChatTemplate,
    checkpoint::{self, CheckpointError, Speech, WeightDtype},
    config::ModelConfig,
    family::{Family, RopeScaling},
    params::{Parameter, ParameterLayout},
    text_error::TextError,
};

/// Why a file cannot be made a checkpoint folder of.
#[derive(Debug, thiserror::Error)]
pub enum GgufError {
    /// It cannot be read.
    #[error("cannot read it")]
    Read(#[from] std::io::Error),
    /// It is not of the form.
    #[error("it is not a GGUF file that can be read: {0}")]
    Header(String),
    /// A key is missing, or holds what this engine cannot run.
    #[error("`{key}` {what}")]
    Key {
        /// The key.
        key: String,
        /// What is wrong with it.
        what: String,
    },
    /// A tensor is missing, or is not as it should be.
    #[error("the tensor `{name}` {what}")]
    Tensor {
        /// Its name in the file.
        name: String,
        /// What is wrong with it.
        what: String,
    },
    /// Its chat template cannot be used.
    #[error(transparent)]
    Text(#[from] TextError),
    /// The folder cannot be written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

/// What became of a file.
#[derive(Clone, Debug)]
pub struct Imported {
    /// The model's shape.
    pub config: ModelConfig,
    /// What works, and probably not as it was meant.
    pub warnings: Vec<String>,
}

/// Architectures that are read, by `general.architecture`. With the last, the rows of queries and keys stand in pairs that
/// turn together, as that architecture's original code has them, and are put back in halves.
const ARCHITECTURES: [(&str, Family, bool); 3] =
    [("llama", Family::Llama, true), ("qwen2", Family::Qwen2, false), ("qwen3", Family::Qwen3, false)];

/// What a file without a template gets: as many models understand it.
const CHATML: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + \
                      '<|im_end|>' + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}\
                      {% endif %}";

/// Makes the checkpoint folder `dir` of a file, whole or not at all. Weights are widened to f32, which loses nothing, and
/// stored as `dtype`.
pub fn import(file: &Path, dir: &Path, dtype: WeightDtype) -> Result<Imported, GgufError> {
    let mut gguf = Gguf::open(file)?;
    let mut warnings = Vec::new();
    let (config, permuted) = config(&mut gguf)?;
    let vocabulary = vocabulary::read(&gguf)?;
    let template = match gguf.text("tokenizer.chat_template")? {
        Some(source) => ChatTemplate::with_tokens(source, vocabulary.tokenizer.named().clone())?,
        None if vocabulary.tokenizer.special_id("<|im_start|>").is_some() => {
            warnings.push("it holds no chat template: ChatML is taken".to_owned());
            ChatTemplate::with_tokens(CHATML, vocabulary.tokenizer.named().clone())?
        }
        None => {
            let what = "is missing, and the vocabulary has no <|im_start|> for the usual one".to_owned();
            return Err(GgufError::Key { key: "tokenizer.chat_template".to_owned(), what });
        }
    };
    let layout = ParameterLayout::new(&config);
    let mut flat = vec![0f32; layout.len()];
    let tensors = std::mem::take(&mut gguf.tensors);
    // Of two with one name the first.
    let mut left: BTreeMap<String, Tensor> =
        tensors.into_iter().rev().map(|tensor| (tensor.name.clone(), tensor)).collect();
    left.remove(ROPE);
    for parameter in &layout.parameters {
        let name = name_in_file(&parameter.name);
        let Some(tensor) = left.remove(&name) else {
            return Err(GgufError::Tensor { name, what: "is missing".to_owned() });
        };
        fits(&tensor, parameter)?;
        let mut values = gguf.read(&tensor)?;
        if permuted {
            let heads = match parameter.name.rsplit('.').nth(1) {
                Some("q_proj") => config.heads,
                Some("k_proj") => config.kv_heads,
                _ => 0,
            };
            if heads > 0 {
                values = in_halves(&values, heads, config.head_dim);
            }
        }
        flat[parameter.range.clone()].copy_from_slice(&values);
    }
    if let Some(name) = left.keys().next() {
        let more = match left.len() - 1 {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let what = format!("{more}: this model has no place for it");
        return Err(GgufError::Tensor { name: name.clone(), what });
    }
    let generation = json!({
        "bos_token_id": vocabulary.bos,
        "eos_token_id": vocabulary.ends,
        "pad_token_id": vocabulary.pad,
    });
    let speech = Speech { tokenizer: &vocabulary.tokenizer, template: &template, generation: &generation };
    checkpoint::save_new(dir, &config, &flat, dtype, &vocabulary.ends, speech)?;
    Ok(Imported { config, warnings })
}

/// Factors by which frequencies of the rotary embedding are slowed down.
const ROPE: &str = "rope_freqs.weight";

/// The shape, and whether queries and keys are permuted.
fn config(gguf: &mut Gguf) -> Result<(ModelConfig, bool), GgufError> {
    let bad = |key: &str, what: String| GgufError::Key { key: key.to_owned(), what };
    let key = "general.architecture";
    let name = gguf.text(key)?.ok_or_else(|| bad(key, "is missing".to_owned()))?.to_owned();
    let Some((_, family, permuted)) = ARCHITECTURES.into_iter().find(|(known, ..)| *known == name) else {
        let known = ARCHITECTURES.map(|(known, ..)| known).join(", ");
        return Err(bad(key, format!("is {name}, which is not read: {known} are")));
    };
    let key = |part: &str| format!("{name}.{part}");
    let count = |gguf: &Gguf, part: &str| -> Result<usize, GgufError> {
        let key = key(part);
        gguf.count(&key)?.filter(|count| *count > 0).ok_or_else(|| bad(&key, "is missing".to_owned()))
    };
    for (part, plain) in [("expert_count", 0), ("attention.sliding_window", 0)] {
        if gguf.count(&key(part))?.is_some_and(|count| count != plain) {
            return Err(bad(&key(part), "is set, which this engine does not run".to_owned()));
        }
    }
    if let Some(kind) = gguf.text(&key("rope.scaling.type"))?
        && kind != "none"
    {
        return Err(bad(&key("rope.scaling.type"), format!("is {kind}, which this engine does not run")));
    }
    let (hidden_size, heads) = (count(gguf, "embedding_length")?, count(gguf, "attention.head_count")?);
    let head_dim = gguf.count(&key("attention.key_length"))?.unwrap_or(hidden_size / heads);
    for part in ["attention.value_length", "rope.dimension_count"] {
        if gguf.count(&key(part))?.is_some_and(|width| width != head_dim) {
            return Err(bad(&key(part), format!("is not {head_dim}, the width of a head")));
        }
    }
    let embeddings = gguf.tensors.iter().find(|tensor| tensor.name == "token_embd.weight");
    let vocab_size = embeddings.and_then(|tensor| tensor.shape().first().copied()).unwrap_or(0);
    let rope_theta = gguf.number(&key("rope.freq_base"))?.unwrap_or(10_000.0);
    let eps_key = key("attention.layer_norm_rms_epsilon");
    let eps = gguf.number(&eps_key)?.ok_or_else(|| bad(&eps_key, "is missing".to_owned()))?;
    let mut config = ModelConfig {
        family,
        vocab_size,
        hidden_size,
        intermediate_size: count(gguf, "feed_forward_length")?,
        layers: count(gguf, "block_count")?,
        heads,
        kv_heads: gguf.count(&key("attention.head_count_kv"))?.unwrap_or(heads),
        head_dim,
        // As checkpoints say it: the nearest f32 of a short decimal.
        rms_norm_eps: eps as f32,
        rope_theta,
        rope_scaling: None,
        max_positions: count(gguf, "context_length")?,
        tied: !gguf.tensors.iter().any(|tensor| tensor.name == "output.weight"),
    };
    if let Some(factors) = gguf.tensors.iter().find(|tensor| tensor.name == ROPE).cloned() {
        config.rope_scaling = Some(scaling(&gguf.read(&factors)?, &config)?);
    }
    // What a file says is as strange as what a folder says.
    let config =
        ModelConfig::checked(&config).map_err(|(key, what)| bad(&format!("of {name}: {key}"), what))?;
    Ok((config, permuted))
}

/// What Llama 3.1 does to frequencies, of which the file holds the outcome alone.
fn scaling(factors: &[f32], config: &ModelConfig) -> Result<RopeScaling, GgufError> {
    let scaling = RopeScaling {
        factor: factors.iter().copied().fold(1.0, f32::max).into(),
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 8192.0,
    };
    let is_that = factors.iter().enumerate().all(|(pair, factor)| {
        let frequency = config.rope_theta.powf(-2.0 * pair as f64 / config.head_dim as f64) as f32;
        (frequency / scaling.scaled(frequency) / factor - 1.0).abs() < 1e-3
    });
    match is_that && factors.len() * 2 == config.head_dim {
        true => Ok(scaling),
        false => Err(GgufError::Tensor {
            name: ROPE.to_owned(),
            what: "does not hold the factors of Llama 3.1; others are not run".to_owned(),
        }),
    }
}

fn name_in_file(name: &str) -> String {
    const OUTSIDE: [(&str, &str); 3] = [
        ("model.embed_tokens.weight", "token_embd.weight"),
        ("model.norm.weight", "output_norm.weight"),
        ("lm_head.weight", "output.weight"),
    ];
    const INSIDE: [(&str, &str); 11] = [
        ("input_layernorm", "attn_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("self_attn.q_norm", "attn_q_norm"),
        ("self_attn.k_norm", "attn_k_norm"),
        ("post_attention_layernorm", "ffn_norm"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ];
    if let Some((_, found)) = OUTSIDE.iter().find(|(known, _)| *known == name) {
        return (*found).to_owned();
    }
    let within = name.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.'));
    let found = within.and_then(|(layer, part)| {
        let (part, kind) = part.rsplit_once('.')?;
        let (_, found) = INSIDE.iter().find(|(known, _)| *known == part)?;
        Some(format!("blk.{layer}.{found}.{kind}"))
    });
    found.expect("every parameter of a layout has a name there")
}

fn fits(tensor: &Tensor, parameter: &Parameter) -> Result<(), GgufError> {
    let found = tensor.shape();
    match found == parameter.shape {
        true => Ok(()),
        false => {
            let what = format!("has the shape {found:?}, expected {:?}", parameter.shape);
            Err(GgufError::Tensor { name: tensor.name.clone(), what })
        }
    }
}

/// Rows of each head: those that turn together stand side by side, and are put half a head apart.
fn in_halves(rows: &[f32], heads: usize, head_dim: usize) -> Vec<f32> {
    let width = rows.len() / (heads * head_dim);
    let mut out = vec![0.0; rows.len()];
    for head in 0..heads {
        for at in 0..head_dim {
            let to = head * head_dim + at % 2 * (head_dim / 2) + at / 2;
            let from = head * head_dim + at;
            out[to * width..(to + 1) * width].copy_from_slice(&rows[from * width..(from + 1) * width]);
        }
    }
    out
}
