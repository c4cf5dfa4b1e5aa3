//! What families of decoders differ in. Otherwise they are alike: layers that norm first, attention with grouped keys and a
//! half-split rotary embedding, and a gated SiLU.

use serde::{Deserialize, Serialize};

/// A family of decoders.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// Qwen3, dense; what this project trains itself.
    #[default]
    Qwen3,
    /// Qwen2 and Qwen2.5.
    Qwen2,
    /// Llama 2 and 3, SmolLM2, and others of that form.
    Llama,
    /// Mistral without a sliding window.
    Mistral,
}

/// A row of the table.
#[derive(Debug)]
pub struct Traits {
    /// What `config.json` calls it.
    pub model_type: &'static str,
    /// What `transformers` calls its class.
    pub architecture: &'static str,
    /// Each head of queries and keys is normed before it is rotated.
    pub qk_norm: bool,
    /// Queries, keys and values have a bias.
    pub qkv_bias: bool,
    /// Flags of `config.json` that have to be false.
    pub(crate) refused: &'static [&'static str],
    /// A `sliding_window` counts though no flag turns it on, and this is its width where none is stated.
    pub(crate) window: Option<u64>,
}

const QWEN3: Traits = Traits {
    model_type: "qwen3",
    architecture: "Qwen3ForCausalLM",
    qk_norm: true,
    qkv_bias: false,
    refused: &["attention_bias", "use_sliding_window"],
    window: None,
};
const QWEN2: Traits = Traits {
    model_type: "qwen2",
    architecture: "Qwen2ForCausalLM",
    qk_norm: false,
    qkv_bias: true,
    refused: &["use_sliding_window"],
    window: None,
};
const LLAMA: Traits = Traits {
    model_type: "llama",
    architecture: "LlamaForCausalLM",
    qk_norm: false,
    qkv_bias: false,
    refused: &["attention_bias", "mlp_bias"],
    window: None,
};
const MISTRAL: Traits = Traits {
    model_type: "mistral",
    architecture: "MistralForCausalLM",
    qk_norm: false,
    qkv_bias: false,
    refused: &[],
    window: Some(4096),
};

impl Family {
    /// All that are run.
    pub const ALL: [Self; 4] = [Self::Qwen3, Self::Qwen2, Self::Llama, Self::Mistral];

    /// Its row.
    pub fn traits(self) -> &'static Traits {
        match self {
            Self::Qwen3 => &QWEN3,
            Self::Qwen2 => &QWEN2,
            Self::Llama => &LLAMA,
            Self::Mistral => &MISTRAL,
        }
    }

    /// The one with this `model_type`.
    pub fn named(model_type: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|family| family.traits().model_type == model_type)
    }
}

/// Frequencies of the rotary embedding that are slowed down for long contexts, as Llama 3.1 does: waves longer than the
/// context that the model was first trained on turn `factor` times slower, short ones as before, and those between in part.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RopeScaling {
    /// By how much.
    pub factor: f64,
    /// Waves of which fewer than this fit into the first context are long.
    pub low_freq_factor: f64,
    /// Waves of which more than this fit into it are short.
    pub high_freq_factor: f64,
    /// The first context.
    pub original_max_position_embeddings: f64,
}

impl RopeScaling {
    /// What becomes of a frequency, in radians per position (`_compute_llama3_parameters` of `transformers`).
    pub fn scaled(&self, frequency: f32) -> f32 {
        let Self { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } = *self;
        let wave = std::f64::consts::TAU / f64::from(frequency);
        let fit = original_max_position_embeddings / wave;
        let slow = f64::from(frequency) / factor;
        let scaled = if fit < low_freq_factor {
            slow
        } else if fit > high_freq_factor {
            f64::from(frequency)
        } else {
            let smooth = (fit - low_freq_factor) / (high_freq_factor - low_freq_factor);
            (1.0 - smooth) * slow + smooth * f64::from(frequency)
        };
        scaled as f32
    }
}
