//! Low-rank adapters (LoRA; Hu and others, 2021): beside a frozen matrix `W [out, in]` stand `A [rank, in]` and `B [out, rank]`,
//! and the model uses `W + alpha / rank B A`. What is trained, kept and announced is the two alone.

mod folder;
mod low_rank;

use std::{collections::BTreeSet, ops::Range, sync::Arc};

use openclaw_kernels::{Backend, KernelError};
use rand::{RngExt, SeedableRng};

pub use self::folder::{AdapterError, load_adapter, save_adapter};
pub(crate) use self::folder::{MATRICES, files_of};
pub use self::folder::{belongs, is_folder, may_write};
use crate::{
    config::ModelConfig,
    params::Parameter,
    transformer::{Transformer, Weights},
};

type Result<T> = std::result::Result<T, KernelError>;

/// A matrix of a layer that an adapter can stand beside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// Queries.
    Query,
    /// Keys.
    Key,
    /// Values.
    Value,
    /// What attention gives to the residual stream.
    Output,
    /// The gate of the feed-forward block.
    Gate,
    /// What is gated.
    Up,
    /// What the feed-forward block gives to the residual stream.
    Down,
}

impl Target {
    /// Every one, in the order of a layer.
    pub const ALL: [Self; 7] =
        [Self::Query, Self::Key, Self::Value, Self::Output, Self::Gate, Self::Up, Self::Down];

    /// Its name in checkpoints, in its block and alone.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Query => ("self_attn", "q_proj"),
            Self::Key => ("self_attn", "k_proj"),
            Self::Value => ("self_attn", "v_proj"),
            Self::Output => ("self_attn", "o_proj"),
            Self::Gate => ("mlp", "gate_proj"),
            Self::Up => ("mlp", "up_proj"),
            Self::Down => ("mlp", "down_proj"),
        }
    }

    /// Its name in a list of targets: `q_proj`.
    pub fn name(self) -> &'static str {
        self.names().1
    }

    /// The one of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|target| target.name() == name)
    }

    /// `[out, in]`.
    fn shape(self, model: &ModelConfig) -> [usize; 2] {
        let (hidden, ff) = (model.hidden_size, model.intermediate_size);
        let (q, kv) = (model.heads * model.head_dim, model.kv_heads * model.head_dim);
        match self {
            Self::Query => [q, hidden],
            Self::Key | Self::Value => [kv, hidden],
            Self::Output => [hidden, q],
            Self::Gate | Self::Up => [ff, hidden],
            Self::Down => [hidden, ff],
        }
    }
}

/// The linear maps of a layer, as the flat buffer of the weights holds them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Map {
    Qkv,
    Output,
    GateUp,
    Down,
}

impl Map {
    const ALL: [Self; 4] = [Self::Qkv, Self::Output, Self::GateUp, Self::Down];

    /// The matrices that are one here, from the top.
    fn targets(self) -> &'static [Target] {
        match self {
            Self::Qkv => &[Target::Query, Target::Key, Target::Value],
            Self::Output => &[Target::Output],
            Self::GateUp => &[Target::Gate, Target::Up],
            Self::Down => &[Target::Down],
        }
    }
}

/// What an adapter is, beside its numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterConfig {
    /// Rows of each `A`.
    pub rank: usize,
    /// `alpha / rank` scales what the adapter adds.
    pub alpha: f32,
    /// The matrices that have one.
    pub targets: BTreeSet<Target>,
}

impl AdapterConfig {
    /// Of every matrix of a layer, which learns best for its size (Thinking Machines, "LoRA without regret", 2025).
    pub fn of_all(rank: usize, alpha: f32) -> Self {
        Self { rank, alpha, targets: Target::ALL.into() }
    }

    /// What multiplies `B A`.
    pub fn scale(&self) -> f32 {
        self.alpha / self.rank as f32
    }
}

/// The adapter of one linear map: those of its parts have their `A`s one below another.
#[derive(Clone, Debug)]
struct LowRank {
    input: usize,
    /// Columns of the map's whole output.
    output: usize,
    /// `[parts * rank, input]` in the adapter's buffer.
    a: Range<usize>,
    parts: Vec<Part>,
}

/// What one of the matrices adds to.
#[derive(Clone, Debug)]
struct Part {
    /// Its columns of the output.
    columns: Range<usize>,
    /// `[columns, rank]` in the adapter's buffer.
    b: Range<usize>,
}

/// Where each matrix of an adapter lies in its one flat buffer.
#[derive(Clone, Debug)]
pub struct AdapterLayout {
    /// What it is.
    pub config: AdapterConfig,
    /// Every matrix, by PEFT's names.
    pub parameters: Vec<Parameter>,
    layers: Vec<[LowRank; 4]>,
    len: usize,
}

impl AdapterLayout {
    /// The layout for a model.
    pub fn new(model: &ModelConfig, config: AdapterConfig) -> Self {
        let (mut parameters, mut len) = (Vec::new(), 0);
        let mut take = |count: usize| {
            len += count;
            len - count..len
        };
        let rank = config.rank;
        let layers = (0..model.layers).map(|layer| {
            Map::ALL.map(|map| {
                let (mut adapted, mut output) = (Vec::new(), 0);
                for target in map.targets() {
                    let [out, _] = target.shape(model);
                    if config.targets.contains(target) {
                        adapted.push((*target, output..output + out));
                    }
                    output += out;
                }
                let input = map.targets()[0].shape(model)[1];
                let a = take(adapted.len() * rank * input);
                let parts = adapted.into_iter().enumerate().map(|(nth, (target, columns))| {
                    let (block, name) = target.names();
                    let b = take(columns.len() * rank);
                    let mut push = |side: &str, shape: [usize; 2], range: Range<usize>| {
                        let name = format!(
                            "base_model.model.model.layers.{layer}.{block}.{name}.lora_{side}.weight"
                        );
                        parameters.push(Parameter { name, shape: shape.to_vec(), range });
                    };
                    let start = a.start + nth * rank * input;
                    push("A", [rank, input], start..start + rank * input);
                    push("B", [columns.len(), rank], b.clone());
                    Part { columns, b }
                });
                LowRank { input, output, parts: parts.collect(), a }
            })
        });
        let layers = layers.collect();
        Self { config, parameters, layers, len }
    }

    /// Length of the flat buffer.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no matrix.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// An adapter that adds nothing yet: each `A` uniform as `kaiming_uniform_(a = sqrt(5))` makes it, each `B` zero.
    pub fn fresh(&self, seed: u64) -> Vec<f32> {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        let mut flat = vec![0.0; self.len];
        for low in self.layers.iter().flatten() {
            let bound = 1.0 / (low.input as f32).sqrt();
            for value in &mut flat[low.a.clone()] {
                *value = bound * (2.0 * rng.random::<f32>() - 1.0);
            }
        }
        flat
    }

    fn low_rank(&self, layer: usize, map: Map) -> &LowRank {
        &self.layers[layer][map as usize]
    }
}

/// An adapter on a device.
pub(crate) struct Adapter<B: Backend> {
    pub(crate) layout: Arc<AdapterLayout>,
    pub(crate) flat: B::Buffer<f32>,
    /// The one number that scales what it adds.
    scale: B::Buffer<f32>,
}

impl<B: Backend> Adapter<B> {
    /// From the host, in the order of the layout.
    pub(crate) fn from_host(backend: &B, layout: Arc<AdapterLayout>, flat: &[f32]) -> Result<Self> {
        let expected = layout.len();
        if flat.len() != expected {
            return Err(KernelError::Shape { op: "adapter", what: "flat", found: flat.len(), expected });
        }
        Self::of(backend, layout, backend.upload(flat)?)
    }

    /// From a buffer of the layout's length.
    pub(crate) fn of(backend: &B, layout: Arc<AdapterLayout>, flat: B::Buffer<f32>) -> Result<Self> {
        let scale = backend.upload(&[layout.config.scale()])?;
        Ok(Self { layout, flat, scale })
    }
}

impl<B: Backend> Weights<B> {
    /// The same base, which is shared and not copied, with an adapter on it.
    pub fn adapted(
        &self,
        transformer: &Transformer<B>,
        layout: Arc<AdapterLayout>,
        flat: &[f32],
    ) -> Result<Self> {
        let adapter = Adapter::from_host(&transformer.backend, layout, flat)?;
        Ok(Self { base: self.base.clone(), adapter: Some(adapter) })
    }

    /// The layout of its adapter, if it has one.
    pub fn adapter_layout(&self) -> Option<&Arc<AdapterLayout>> {
        self.adapter.as_ref().map(|adapter| &adapter.layout)
    }
}
