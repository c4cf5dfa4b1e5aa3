//! Where each named parameter lies in the one flat buffer that holds a version of the weights.

use std::ops::Range;

use crate::config::ModelConfig;

/// One named parameter.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// Its Hugging Face name.
    pub name: String,
    /// Its shape; a matrix is `[out, in]`.
    pub shape: Vec<usize>,
    /// Its place in the flat buffer.
    pub range: Range<usize>,
}

/// A layer's parameters. Query, key and value projections are one matrix, gate and up another. What a family has not got is
/// an empty range.
#[derive(Clone, Debug)]
pub struct LayerRanges {
    pub(crate) input_norm: Range<usize>,
    pub(crate) qkv: Range<usize>,
    /// Biases of queries, keys and values, one after another.
    pub(crate) qkv_bias: Range<usize>,
    pub(crate) q_norm: Range<usize>,
    pub(crate) k_norm: Range<usize>,
    pub(crate) output: Range<usize>,
    pub(crate) post_norm: Range<usize>,
    pub(crate) gate_up: Range<usize>,
    pub(crate) down: Range<usize>,
}

/// The whole model's parameters, in the order of the flat buffer.
#[derive(Clone, Debug)]
pub struct ParameterLayout {
    /// Every parameter once.
    pub parameters: Vec<Parameter>,
    pub(crate) layers: Vec<LayerRanges>,
    pub(crate) embedding: Range<usize>,
    pub(crate) norm: Range<usize>,
    /// The embedding again when the model is tied.
    pub(crate) head: Range<usize>,
}

impl ParameterLayout {
    /// The layout for a configuration.
    pub fn new(config: &ModelConfig) -> Self {
        let mut parameters: Vec<Parameter> = Vec::new();
        let mut push = |name: String, shape: &[usize]| {
            let start = parameters.last().map_or(0, |p| p.range.end);
            let range = start..start + shape.iter().product::<usize>();
            parameters.push(Parameter { name, shape: shape.to_vec(), range: range.clone() });
            range
        };
        let (hidden, ff) = (config.hidden_size, config.intermediate_size);
        let family = config.family.traits();
        let (q, kv) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
        let embedding = push("model.embed_tokens.weight".into(), &[config.vocab_size, hidden]);
        let layers = (0..config.layers)
            .map(|i| {
                let mut layer =
                    |part: &str, shape: &[usize]| push(format!("model.layers.{i}.{part}.weight"), shape);
                let input_norm = layer("input_layernorm", &[hidden]);
                let query = layer("self_attn.q_proj", &[q, hidden]);
                layer("self_attn.k_proj", &[kv, hidden]);
                let value = layer("self_attn.v_proj", &[kv, hidden]);
                let mut head_norm = |part| match family.qk_norm {
                    true => layer(part, &[config.head_dim]),
                    false => 0..0,
                };
                let (q_norm, k_norm) = (head_norm("self_attn.q_norm"), head_norm("self_attn.k_norm"));
                let output = layer("self_attn.o_proj", &[hidden, q]);
                let post_norm = layer("post_attention_layernorm", &[hidden]);
                let gate = layer("mlp.gate_proj", &[ff, hidden]);
                let up = layer("mlp.up_proj", &[ff, hidden]);
                let down = layer("mlp.down_proj", &[hidden, ff]);
                let qkv_bias = match family.qkv_bias {
                    true => {
                        let mut bias =
                            |part, len| push(format!("model.layers.{i}.self_attn.{part}.bias"), &[len]);
                        let start = bias("q_proj", q).start;
                        bias("k_proj", kv);
                        start..bias("v_proj", kv).end
                    }
                    false => 0..0,
                };
                LayerRanges {
                    input_norm,
                    qkv: query.start..value.end,
                    qkv_bias,
                    q_norm,
                    k_norm,
                    output,
                    post_norm,
                    gate_up: gate.start..up.end,
                    down,
                }
            })
            .collect();
        let norm = push("model.norm.weight".into(), &[hidden]);
        let head = if config.tied {
            embedding.clone()
        } else {
            push("lm_head.weight".into(), &[config.vocab_size, hidden])
        };
        Self { parameters, layers, embedding, norm, head }
    }

    /// The parameters that are vectors.
    pub(crate) fn vectors(&self) -> impl Iterator<Item = &Parameter> {
        self.parameters.iter().filter(|parameter| parameter.shape.len() == 1)
    }

    /// Where a vector begins if there are vectors alone.
    pub(crate) fn place_among_vectors(&self, range: &Range<usize>) -> usize {
        self.vectors()
            .take_while(|vector| vector.range.end <= range.start)
            .map(|vector| vector.range.len())
            .sum()
    }

    /// Ranges of neighbouring parameters that are all matrices, or all vectors.
    pub(crate) fn runs(&self) -> Vec<(bool, Range<usize>)> {
        let mut runs: Vec<(bool, Range<usize>)> = Vec::new();
        for parameter in &self.parameters {
            let (is_matrix, range) = (parameter.shape.len() > 1, parameter.range.clone());
            match runs.last_mut() {
                Some((same, run)) if *same == is_matrix => run.end = range.end,
                _ => runs.push((is_matrix, range)),
            }
        }
        runs
    }

    /// Length of the flat buffer.
    pub fn len(&self) -> usize {
        self.parameters.last().map_or(0, |p| p.range.end)
    }

    /// Whether there is no parameter.
    pub fn is_empty(&self) -> bool {
        self.parameters.is_empty()
    }
}
