//! The decoder: forward passes for training, scoring and serving over one set of kernels.

use std::{ops::Range, sync::Arc};

use openclaw_kernels::{
    Backend, Float, KernelError,
    ops::{Matmul, MatrixLayout, PagedSegment, PagedShape, QkvShape, RopeTable},
};
use rand::{RngExt, SeedableRng};

use crate::{
    adapter::{Adapter, Map},
    base::{Base, HostWeights, Matrix},
    config::ModelConfig,
    params::ParameterLayout,
    pass::PassWeights,
};

type Result<T> = std::result::Result<T, KernelError>;

/// Immutable weights of one version: the base, and an adapter on it or none. Several versions share a base that is
/// frozen.
pub struct Weights<B: Backend> {
    pub(crate) base: Arc<Base<B>>,
    pub(crate) adapter: Option<Adapter<B>>,
}

/// A model's shape on a device. Cheap to clone; holds no weights.
pub struct Transformer<B: Backend> {
    /// The shape.
    pub config: ModelConfig,
    /// Where every parameter lies.
    pub layout: Arc<ParameterLayout>,
    /// The device.
    pub backend: B,
    tables: Arc<Tables<B>>,
}

/// What every forward and backward reads.
struct Tables<B: Backend> {
    rope: RopeTable<B::Buffer<f32>>,
    /// The 1 x 1 identity.
    one: B::Buffer<f32>,
}

/// Keys and values of every layer, in blocks.
pub struct KvPool<B: Backend> {
    buffer: B::Buffer<f32>,
    blocks: usize,
    block_size: usize,
}

impl<B: Backend> KvPool<B> {
    /// Number of blocks.
    pub fn blocks(&self) -> usize {
        self.blocks
    }
    /// Tokens of a block.
    pub fn block_size(&self) -> usize {
        self.block_size
    }
}

/// New tokens of several sequences over a paged pool.
#[derive(Clone, Debug, Default)]
pub struct PagedStep {
    /// The tokens, sequence by sequence.
    pub ids: Vec<u32>,
    /// Position of each in its sequence.
    pub positions: Vec<u32>,
    /// Where each token's key and value go: `block * block_size + offset`.
    pub slots: Vec<u32>,
    /// The sequences.
    pub segments: Vec<PagedSegment>,
    /// Block numbers of the sequences, one after another.
    pub block_tables: Vec<u32>,
    /// Rows whose logits are wanted.
    pub logit_rows: Vec<u32>,
}

/// What a layer's forward leaves for its backward.
pub(crate) struct LayerTrace<B: Backend> {
    pub normed: B::Buffer<f32>,
    pub qkv: B::Buffer<f32>,
    pub qk: B::Buffer<f32>,
    pub attended: B::Buffer<f32>,
    pub lse: B::Buffer<f32>,
    pub middle: B::Buffer<f32>,
    pub middle_normed: B::Buffer<f32>,
    pub gate_up: B::Buffer<f32>,
    pub activated: B::Buffer<f32>,
}

/// A ragged batch on the device.
pub(crate) struct Ragged<B: Backend> {
    pub ids: B::Buffer<u32>,
    pub positions: B::Buffer<u32>,
    pub sequences: Vec<Range<usize>>,
    pub tokens: usize,
}

impl<B: Backend> Weights<B> {
    /// Weights from the host, in the order of [`ParameterLayout`].
    pub fn from_host(transformer: &Transformer<B>, flat: &[f32]) -> Result<Self> {
        Base::upload(transformer, flat).map(Self::of)
    }

    /// The same of weights that nobody else needs: where the host is the device they are not copied.
    pub fn adopt(transformer: &Transformer<B>, host: HostWeights) -> Result<Self> {
        Base::adopt(transformer, host).map(Self::of)
    }

    fn of(base: Base<B>) -> Self {
        Self { base: Arc::new(base), adapter: None }
    }

    /// The same model with others in place of what is trained of it: its adapter's parameters, or without one all.
    pub fn with(&self, transformer: &Transformer<B>, trained: &[f32]) -> Result<Self> {
        match self.adapter_layout() {
            Some(layout) => self.adapted(transformer, layout.clone(), trained),
            None => Self::from_host(transformer, trained),
        }
    }

    /// A copy on the host of what is trained of it: its adapter's parameters, or without one all.
    pub fn to_host(&self, transformer: &Transformer<B>) -> Result<Vec<f32>> {
        let b = &transformer.backend;
        match &self.adapter {
            Some(adapter) => b.download(transformer.all(&adapter.flat)),
            None => self.base.to_host(b),
        }
    }

    /// What is trained of it.
    pub(crate) fn trained(&self) -> Result<&B::Buffer<f32>> {
        match &self.adapter {
            Some(adapter) => Ok(&adapter.flat),
            None => self.base.trained(),
        }
    }

    /// The range of a gradient, in a buffer that holds what is trained: none of a base that is frozen.
    pub(crate) fn gradient(&self, range: &Range<usize>) -> Range<usize> {
        if self.adapter.is_some() { 0..0 } else { range.clone() }
    }
}

/// Fresh weights: norms 1, biases 0, matrices normal with deviation 0.02, those that write to the residual stream
/// smaller by the root of twice the number of layers (GPT-2's rule).
pub fn random_weights(config: &ModelConfig, seed: u64) -> Vec<f32> {
    let layout = ParameterLayout::new(config);
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    let mut flat = vec![1f32; layout.len()];
    for bias in layout.parameters.iter().filter(|p| p.name.ends_with(".bias")) {
        flat[bias.range.clone()].fill(0.0);
    }
    for parameter in layout.parameters.iter().filter(|p| p.shape.len() == 2) {
        let residual =
            parameter.name.ends_with("o_proj.weight") || parameter.name.ends_with("down_proj.weight");
        let deviation = if residual { 0.02 / ((2 * config.layers) as f32).sqrt() } else { 0.02 };
        for value in &mut flat[parameter.range.clone()] {
            // Box-Muller; 1 - u keeps the logarithm finite.
            let (u, v): (f32, f32) = (rng.random(), rng.random());
            *value = deviation * (-2.0 * (1.0 - u).ln()).sqrt() * (std::f32::consts::TAU * v).cos();
        }
    }
    flat
}

// A derived `Clone` would ask for buffers that can be cloned.
impl<B: Backend> Clone for Transformer<B> {
    fn clone(&self) -> Self {
        self.on(self.backend.clone())
    }
}

impl<B: Backend> Transformer<B> {
    /// Prepares a model's tables on a device.
    pub fn new(config: ModelConfig, backend: B) -> Result<Self> {
        let half = config.head_dim / 2;
        let (mut cos, mut sin) = (Vec::new(), Vec::new());
        let frequencies: Vec<f32> = (0..half)
            .map(|i| 1.0 / config.rope_theta.powf((2 * i) as f64 / config.head_dim as f64) as f32)
            .map(|frequency| config.rope_scaling.map_or(frequency, |scaling| scaling.scaled(frequency)))
            .collect();
        for position in 0..config.max_positions {
            for frequency in &frequencies {
                // The angle is rounded to f32 first, as transformers does.
                let angle = position as f32 * frequency;
                cos.push(angle.cos());
                sin.push(angle.sin());
            }
        }
        let rope = RopeTable { cos: backend.upload(&cos)?, sin: backend.upload(&sin)? };
        let tables = Arc::new(Tables { rope, one: backend.upload(&[1.0])? });
        let layout = Arc::new(ParameterLayout::new(&config));
        Ok(Self { config, layout, backend, tables })
    }

    /// The same model with its operations on another backend of the same device: other threads, say.
    pub fn on(&self, backend: B) -> Self {
        Self {
            config: self.config.clone(),
            layout: self.layout.clone(),
            backend,
            tables: self.tables.clone(),
        }
    }

    pub(crate) fn all<'a>(&self, buffer: &'a B::Buffer<f32>) -> B::View<'a, f32> {
        self.backend.view(buffer, 0..self.backend.len(buffer))
    }

    pub(crate) fn all_mut<'a>(&self, buffer: &'a mut B::Buffer<f32>) -> B::ViewMut<'a, f32> {
        let len = self.backend.len(buffer);
        self.backend.view_mut(buffer, 0..len)
    }

    pub(crate) fn ids<'a>(&self, buffer: &'a B::Buffer<u32>) -> B::View<'a, u32> {
        self.backend.view(buffer, 0..self.backend.len(buffer))
    }

    pub(crate) fn shape(&self) -> QkvShape {
        QkvShape {
            heads: self.config.heads,
            kv_heads: self.config.kv_heads,
            head_dim: self.config.head_dim,
            eps: self.config.rms_norm_eps,
            normed: self.config.family.traits().qk_norm,
        }
    }

    pub(crate) fn rope(&self) -> RopeTable<B::View<'_, f32>> {
        let RopeTable { cos, sin } = &self.tables.rope;
        RopeTable { cos: self.all(cos), sin: self.all(sin) }
    }

    /// The 1 x 1 identity.
    pub(crate) fn one(&self) -> B::View<'_, f32> {
        self.all(&self.tables.one)
    }

    /// The place of a linear map's matrix, and its outputs and inputs.
    pub(crate) fn map(&self, index: usize, map: Map) -> (&Range<usize>, usize, usize) {
        let layer = &self.layout.layers[index];
        let (hidden, ff) = (self.config.hidden_size, self.config.intermediate_size);
        match map {
            Map::Qkv => (&layer.qkv, self.shape().qkv_width(), hidden),
            Map::Output => (&layer.output, hidden, self.shape().out_width()),
            Map::GateUp => (&layer.gate_up, 2 * ff, hidden),
            Map::Down => (&layer.down, hidden, ff),
        }
    }

    /// `y [rows, out] (+)= x [rows, in] w [out, in]^T`.
    pub(crate) fn linear(
        &self,
        x: B::View<'_, f32>,
        weight: Matrix<'_, B>,
        y: B::ViewMut<'_, f32>,
        (rows, output, input): (usize, usize, usize),
        accumulate: bool,
    ) -> Result<()> {
        let shape = Matmul {
            m: rows,
            n: output,
            k: input,
            a: MatrixLayout::rows(input),
            b: MatrixLayout::transposed(input),
            c_row: output,
            accumulate,
        };
        self.product(shape, x, weight, y)
    }

    /// `y = x w` or `y += x w`, in the layouts of the shape.
    pub(crate) fn product(
        &self,
        shape: Matmul,
        x: B::View<'_, f32>,
        weight: Matrix<'_, B>,
        y: B::ViewMut<'_, f32>,
    ) -> Result<()> {
        match weight {
            Matrix::F32(weight) => self.backend.matmul(shape, x, weight, y),
            Matrix::Bf16(weight) => self.backend.matmul(shape, x, weight, y),
        }
    }

    /// `target (+)= factor values`, as a product with a 1 x 1 matrix, so that no operation is needed for it.
    pub(crate) fn times(
        &self,
        factor: B::View<'_, f32>,
        values: &B::Buffer<f32>,
        target: B::ViewMut<'_, f32>,
        accumulate: bool,
    ) -> Result<()> {
        let n = self.backend.len(values);
        let shape = Matmul {
            m: 1,
            n,
            k: 1,
            a: MatrixLayout::rows(1),
            b: MatrixLayout::rows(n),
            c_row: n,
            accumulate,
        };
        self.backend.matmul(shape, factor, self.all(values), target)
    }

    /// Puts sequences on the device, one after another; positions start at 0 in each.
    pub(crate) fn ragged<'a>(&self, sequences: impl Iterator<Item = &'a [u32]>) -> Result<Ragged<B>> {
        let (mut ids, mut positions, mut ranges) = (Vec::new(), Vec::new(), Vec::new());
        for sequence in sequences {
            let start = ids.len();
            ids.extend_from_slice(sequence);
            positions.extend(0..sequence.len() as u32);
            ranges.push(start..ids.len());
        }
        if let Some(long) = ranges.iter().find(|r| r.len() > self.config.max_positions) {
            let what = format!("{} tokens in a context of {}", long.len(), self.config.max_positions);
            return Err(KernelError::Argument { op: "forward", what });
        }
        Ok(Ragged {
            tokens: ids.len(),
            ids: self.backend.upload(&ids)?,
            positions: self.backend.upload(&positions)?,
            sequences: ranges,
        })
    }

    /// Embeddings of `tokens` ids.
    pub(crate) fn embed(
        &self,
        base: &Base<B>,
        ids: B::View<'_, u32>,
        tokens: usize,
    ) -> Result<B::Buffer<f32>> {
        match base.matrix(&self.backend, &self.layout.embedding) {
            Matrix::F32(table) => self.rows(table, ids, tokens),
            Matrix::Bf16(table) => self.rows(table, ids, tokens),
        }
    }

    /// `count` rows of a `[_, hidden]` table.
    pub(crate) fn rows<W: Float>(
        &self,
        table: B::View<'_, W>,
        rows: B::View<'_, u32>,
        count: usize,
    ) -> Result<B::Buffer<f32>> {
        let hidden = self.config.hidden_size;
        let mut out = self.backend.uninitialized(count * hidden)?;
        self.backend.embedding(hidden, rows, table, self.all_mut(&mut out))?;
        Ok(out)
    }

    /// A norm's weight, or biases, by their place.
    pub(crate) fn vector<'a>(&self, base: &'a Base<B>, range: &Range<usize>) -> B::View<'a, f32> {
        base.vector(&self.backend, &self.layout, range)
    }

    pub(crate) fn norm(
        &self,
        base: &Base<B>,
        range: &Range<usize>,
        x: &B::Buffer<f32>,
    ) -> Result<B::Buffer<f32>> {
        let b = &self.backend;
        let mut out = b.uninitialized(b.len(x))?;
        let weight = self.vector(base, range);
        b.rms_norm(self.config.rms_norm_eps, self.all(x), weight, self.all_mut(&mut out))?;
        Ok(out)
    }

    /// Projects to queries, keys and values and rotates: `(normed, qkv, qk)`.
    #[allow(clippy::type_complexity)]
    fn project(
        &self,
        weights: &PassWeights<'_, B>,
        index: usize,
        x: &B::Buffer<f32>,
        positions: B::View<'_, u32>,
        tokens: usize,
    ) -> Result<(B::Buffer<f32>, B::Buffer<f32>, B::Buffer<f32>)> {
        let (b, shape, layer) = (&self.backend, self.shape(), &self.layout.layers[index]);
        let normed = self.norm(weights.base, &layer.input_norm, x)?;
        let mut qkv = b.uninitialized(tokens * shape.qkv_width())?;
        let has_bias = !layer.qkv_bias.is_empty();
        if has_bias {
            // The same row for every token.
            let same = b.zeros::<u32>(tokens)?;
            let bias = self.vector(weights.base, &layer.qkv_bias);
            b.embedding(shape.qkv_width(), self.ids(&same), bias, self.all_mut(&mut qkv))?;
        }
        let weight = weights.base.matrix(b, &layer.qkv);
        let dims = (tokens, shape.qkv_width(), self.config.hidden_size);
        self.linear(self.all(&normed), weight, self.all_mut(&mut qkv), dims, has_bias)?;
        self.adapt_rows(weights, (index, Map::Qkv), &normed, &mut qkv)?;
        let mut qk = b.uninitialized(tokens * shape.qk_width())?;
        b.qk_norm_rope(
            shape,
            self.all(&qkv),
            positions,
            self.rope(),
            self.vector(weights.base, &layer.q_norm),
            self.vector(weights.base, &layer.k_norm),
            self.all_mut(&mut qk),
        )?;
        Ok((normed, qkv, qk))
    }

    /// A copy of hidden states.
    fn copied(&self, x: &B::Buffer<f32>) -> Result<B::Buffer<f32>> {
        let mut copy = self.backend.uninitialized(self.backend.len(x))?;
        self.backend.copy(self.all_mut(&mut copy), self.all(x))?;
        Ok(copy)
    }

    /// Adds `x w^T` to the hidden states `to`: what a block of a layer gives to the residual stream.
    fn add_linear(
        &self,
        weights: &PassWeights<'_, B>,
        (index, map): (usize, Map),
        x: &B::Buffer<f32>,
        to: &mut B::Buffer<f32>,
        tokens: usize,
    ) -> Result<()> {
        let (range, ..) = self.map(index, map);
        let weight = weights.base.matrix(&self.backend, range);
        let hidden = self.config.hidden_size;
        let dims = (tokens, hidden, range.len() / hidden);
        self.linear(self.all(x), weight, self.all_mut(to), dims, true)?;
        self.adapt_rows(weights, (index, map), x, to)
    }

    /// The gated part of a layer: `(middle_normed, gate_up, activated)`.
    #[allow(clippy::type_complexity)]
    fn gate(
        &self,
        weights: &PassWeights<'_, B>,
        index: usize,
        middle: &B::Buffer<f32>,
        tokens: usize,
    ) -> Result<(B::Buffer<f32>, B::Buffer<f32>, B::Buffer<f32>)> {
        let (b, ff, layer) = (&self.backend, self.config.intermediate_size, &self.layout.layers[index]);
        let middle_normed = self.norm(weights.base, &layer.post_norm, middle)?;
        let mut gate_up = b.uninitialized(tokens * 2 * ff)?;
        let weight = weights.base.matrix(b, &layer.gate_up);
        let dims = (tokens, 2 * ff, self.config.hidden_size);
        self.linear(self.all(&middle_normed), weight, self.all_mut(&mut gate_up), dims, false)?;
        self.adapt_rows(weights, (index, Map::GateUp), &middle_normed, &mut gate_up)?;
        let mut activated = b.uninitialized(tokens * ff)?;
        b.swiglu(ff, self.all(&gate_up), self.all_mut(&mut activated))?;
        Ok((middle_normed, gate_up, activated))
    }

    /// One layer over a ragged batch.
    pub(crate) fn layer_forward(
        &self,
        weights: &Weights<B>,
        index: usize,
        x: &B::Buffer<f32>,
        batch: &Ragged<B>,
    ) -> Result<(B::Buffer<f32>, LayerTrace<B>)> {
        let (b, shape) = (&self.backend, self.shape());
        let weights = &PassWeights::of(weights, batch.tokens);
        let (normed, qkv, qk) = self.project(weights, index, x, self.ids(&batch.positions), batch.tokens)?;
        let mut attended = b.uninitialized(batch.tokens * shape.out_width())?;
        let mut lse = b.uninitialized(batch.tokens * shape.heads)?;
        b.attention(
            shape,
            &batch.sequences,
            self.all(&qk),
            self.all(&qkv),
            self.all_mut(&mut attended),
            self.all_mut(&mut lse),
        )?;
        let mut middle = self.copied(x)?;
        self.add_linear(weights, (index, Map::Output), &attended, &mut middle, batch.tokens)?;
        let (middle_normed, gate_up, activated) = self.gate(weights, index, &middle, batch.tokens)?;
        let mut output = self.copied(&middle)?;
        self.add_linear(weights, (index, Map::Down), &activated, &mut output, batch.tokens)?;
        let trace = LayerTrace { normed, qkv, qk, attended, lse, middle, middle_normed, gate_up, activated };
        Ok((output, trace))
    }

    /// Final normed hidden states `[tokens, hidden]` of a ragged batch; nothing is kept for a backward.
    pub(crate) fn hidden_states(&self, weights: &Weights<B>, batch: &Ragged<B>) -> Result<B::Buffer<f32>> {
        let mut x = self.embed(&weights.base, self.ids(&batch.ids), batch.tokens)?;
        for index in 0..self.config.layers {
            x = self.layer_forward(weights, index, &x, batch)?.0;
        }
        self.norm(&weights.base, &self.layout.norm, &x)
    }

    /// Logits `[tokens, vocab]` of whole sequences. For tests and small models: nothing is chunked.
    pub fn logits(&self, weights: &Weights<B>, sequences: &[&[u32]]) -> Result<Vec<f32>> {
        self.backend.scope(|| {
            let batch = self.ragged(sequences.iter().copied())?;
            let hidden = self.hidden_states(weights, &batch)?;
            self.head(&weights.base, self.all(&hidden), batch.tokens)
        })
    }

    fn head(&self, base: &Base<B>, hidden: B::View<'_, f32>, rows: usize) -> Result<Vec<f32>> {
        let b = &self.backend;
        let mut logits = b.uninitialized(rows * self.config.vocab_size)?;
        let weight = base.matrix(b, &self.layout.head);
        let dims = (rows, self.config.vocab_size, self.config.hidden_size);
        self.linear(hidden, weight, self.all_mut(&mut logits), dims, false)?;
        b.download(self.all(&logits))
    }

    /// Device memory for keys and values: `blocks` blocks of `block_size` tokens in every layer.
    pub fn kv_pool(&self, blocks: usize, block_size: usize) -> Result<KvPool<B>> {
        let shape = PagedShape { qkv: self.shape(), block_size };
        let buffer = self.backend.zeros(self.config.layers * blocks * shape.block_len())?;
        Ok(KvPool { buffer, blocks, block_size })
    }

    /// Runs new tokens over the pool, storing their keys and values; returns logits
    /// `[logit_rows.len(), vocab]` on the host.
    pub fn forward_paged(
        &self,
        weights: &Weights<B>,
        pool: &mut KvPool<B>,
        step: &PagedStep,
    ) -> Result<Vec<f32>> {
        self.forward_mixed(&PassWeights::of(weights, step.ids.len()), pool, step)
    }

    /// [`Self::forward_paged`] under several versions of one base, each for rows of its own.
    pub(crate) fn forward_mixed(
        &self,
        weights: &PassWeights<'_, B>,
        pool: &mut KvPool<B>,
        step: &PagedStep,
    ) -> Result<Vec<f32>> {
        self.backend.scope(|| self.forward_paged_here(weights, pool, step))
    }

    fn forward_paged_here(
        &self,
        weights: &PassWeights<'_, B>,
        pool: &mut KvPool<B>,
        step: &PagedStep,
    ) -> Result<Vec<f32>> {
        let b = &self.backend;
        let (x, words) = self.residual_paged(weights, pool, step)?;
        if step.logit_rows.is_empty() {
            return Ok(Vec::new());
        }
        let end = b.len(&words);
        let logit_rows = b.view(&words, end - step.logit_rows.len()..end);
        let wanted = self.rows(self.all(&x), logit_rows, step.logit_rows.len())?;
        let normed = self.norm(weights.base, &self.layout.norm, &wanted)?;
        self.head(weights.base, self.all(&normed), step.logit_rows.len())
    }

    /// The residual stream `[tokens, hidden]` behind the last layer, and what the device was told of the step, the
    /// rows whose logits are wanted last.
    pub(crate) fn residual_paged(
        &self,
        weights: &PassWeights<'_, B>,
        pool: &mut KvPool<B>,
        step: &PagedStep,
    ) -> Result<(B::Buffer<f32>, B::Buffer<u32>)> {
        let b = &self.backend;
        let shape = PagedShape { qkv: self.shape(), block_size: pool.block_size };
        let layer_len = pool.blocks * shape.block_len();
        let tokens = step.ids.len();
        // One copy for everything that the device must know about the step.
        let parts = [&step.ids, &step.positions, &step.slots, &step.block_tables, &step.logit_rows];
        let words = b.upload(&parts.map(Vec::as_slice).concat())?;
        let mut end = 0;
        let [ids, positions, slots, tables, _] = parts.map(|part| {
            end += part.len();
            b.view(&words, end - part.len()..end)
        });
        let mut x = self.embed(weights.base, ids, tokens)?;
        for index in 0..self.config.layers {
            let (_, qkv, qk) = self.project(weights, index, &x, positions, tokens)?;
            let range = index * layer_len..(index + 1) * layer_len;
            let target = b.view_mut(&mut pool.buffer, range.clone());
            b.paged_store(shape, slots, self.all(&qk), self.all(&qkv), target)?;
            let mut attended = b.uninitialized(tokens * shape.qkv.out_width())?;
            b.paged_attention(
                shape,
                &step.segments,
                tables,
                self.all(&qk),
                b.view(&pool.buffer, range),
                self.all_mut(&mut attended),
            )?;
            // Nothing is kept for a backward: the residual stream stays in one place.
            self.add_linear(weights, (index, Map::Output), &attended, &mut x, tokens)?;
            let (_, _, activated) = self.gate(weights, index, &x, tokens)?;
            self.add_linear(weights, (index, Map::Down), &activated, &mut x, tokens)?;
        }
        Ok((x, words))
    }
}
