//! Gradients of the decoder, layer by layer, into one flat buffer.

use std::ops::Range;

use openclaw_kernels::{
    Backend, KernelError,
    ops::{Matmul, MatrixLayout},
};

use crate::{
    adapter::Map,
    transformer::{LayerTrace, Ragged, Transformer, Weights},
};

type Result<T> = std::result::Result<T, KernelError>;

impl<B: Backend> Transformer<B> {
    /// Gradients of a linear map `y = x w^T`: adds to `d_w [out, in]`, or where `w` is frozen to its adapter's; returns `d_x`.
    fn linear_backward(
        &self,
        weights: &Weights<B>,
        grads: &mut B::Buffer<f32>,
        (index, map): (usize, Map),
        x: &B::Buffer<f32>,
        d_y: &B::Buffer<f32>,
        rows: usize,
    ) -> Result<B::Buffer<f32>> {
        let b = &self.backend;
        let (range, output, input) = self.map(index, map);
        let to_weight = Matmul {
            m: output,
            n: input,
            k: rows,
            a: MatrixLayout::transposed(output),
            b: MatrixLayout::rows(input),
            c_row: input,
            accumulate: true,
        };
        if weights.adapter.is_none() {
            b.matmul(to_weight, self.all(d_y), self.all(x), b.view_mut(grads, range.clone()))?;
        }
        let to_input = Matmul {
            m: rows,
            n: input,
            k: output,
            a: MatrixLayout::rows(output),
            b: MatrixLayout::rows(input),
            c_row: input,
            accumulate: false,
        };
        let mut d_x = b.uninitialized(rows * input)?;
        self.product(to_input, self.all(d_y), weights.base.matrix(b, range), self.all_mut(&mut d_x))?;
        if let Some(adapter) = &weights.adapter {
            self.adapt_backward(adapter, grads, (index, map), x, d_y, &mut d_x, rows)?;
        }
        Ok(d_x)
    }

    /// Adds the gradient through a norm to `d_x` and, where it is trained, to its weight's gradient.
    pub(crate) fn norm_backward(
        &self,
        weights: &Weights<B>,
        grads: &mut B::Buffer<f32>,
        range: &Range<usize>,
        x: &B::Buffer<f32>,
        d_out: &B::Buffer<f32>,
        d_x: &mut B::Buffer<f32>,
    ) -> Result<()> {
        let b = &self.backend;
        let weight = self.vector(&weights.base, range);
        let d_weight = b.view_mut(grads, weights.gradient(range));
        let eps = self.config.rms_norm_eps;
        b.rms_norm_backward(eps, self.all(x), weight, self.all(d_out), self.all_mut(d_x), d_weight)
    }

    /// One layer: turns `d` from the gradient of its output into the gradient of its input `x`.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn layer_backward(
        &self,
        weights: &Weights<B>,
        grads: &mut B::Buffer<f32>,
        index: usize,
        x: &B::Buffer<f32>,
        trace: &LayerTrace<B>,
        batch: &Ragged<B>,
        d: &mut B::Buffer<f32>,
    ) -> Result<()> {
        let (b, shape, layer) = (&self.backend, self.shape(), &self.layout.layers[index]);
        let (tokens, ff) = (batch.tokens, self.config.intermediate_size);
        let of = |map| (index, map);

        let d_activated = self.linear_backward(weights, grads, of(Map::Down), &trace.activated, d, tokens)?;
        let mut d_gate_up = b.uninitialized(tokens * 2 * ff)?;
        b.swiglu_backward(
            ff,
            self.all(&trace.gate_up),
            self.all(&d_activated),
            self.all_mut(&mut d_gate_up),
        )?;
        let normed = &trace.middle_normed;
        let d_normed = self.linear_backward(weights, grads, of(Map::GateUp), normed, &d_gate_up, tokens)?;
        self.norm_backward(weights, grads, &layer.post_norm, &trace.middle, &d_normed, d)?;

        let d_attended = self.linear_backward(weights, grads, of(Map::Output), &trace.attended, d, tokens)?;
        let mut d_qk = b.uninitialized(tokens * shape.qk_width())?;
        let mut d_qkv = b.uninitialized(tokens * shape.qkv_width())?;
        b.attention_backward(
            shape,
            &batch.sequences,
            self.all(&trace.qk),
            self.all(&trace.qkv),
            self.all(&trace.attended),
            self.all(&trace.lse),
            self.all(&d_attended),
            self.all_mut(&mut d_qk),
            self.all_mut(&mut d_qkv),
        )?;
        let mut d_q_norm = b.zeros(shape.norm_width())?;
        let mut d_k_norm = b.zeros(shape.norm_width())?;
        b.qk_norm_rope_backward(
            shape,
            self.all(&trace.qkv),
            b.view(&batch.positions, 0..tokens),
            self.rope(),
            self.vector(&weights.base, &layer.q_norm),
            self.vector(&weights.base, &layer.k_norm),
            self.all(&d_qk),
            self.all_mut(&mut d_qkv),
            self.all_mut(&mut d_q_norm),
            self.all_mut(&mut d_k_norm),
        )?;
        let is_trained = weights.adapter.is_none();
        if shape.normed && is_trained {
            self.add(grads, &layer.q_norm, &d_q_norm)?;
            self.add(grads, &layer.k_norm, &d_k_norm)?;
        }
        if !layer.qkv_bias.is_empty() && is_trained {
            let same = b.zeros::<u32>(tokens)?;
            let bias = b.view_mut(grads, layer.qkv_bias.clone());
            b.embedding_backward(shape.qkv_width(), self.ids(&same), self.all(&d_qkv), bias)?;
        }
        let d_normed = self.linear_backward(weights, grads, of(Map::Qkv), &trace.normed, &d_qkv, tokens)?;
        self.norm_backward(weights, grads, &layer.input_norm, x, &d_normed, d)
    }

    /// `grads[range] += part`.
    fn add(&self, grads: &mut B::Buffer<f32>, range: &Range<usize>, part: &B::Buffer<f32>) -> Result<()> {
        self.times(self.one(), part, self.backend.view_mut(grads, range.clone()), true)
    }

    /// Adds the gradient of the embedding lookup.
    pub(crate) fn embed_backward(
        &self,
        grads: &mut B::Buffer<f32>,
        ids: &B::Buffer<u32>,
        d: &B::Buffer<f32>,
    ) -> Result<()> {
        let b = &self.backend;
        let table = b.view_mut(grads, self.layout.embedding.clone());
        b.embedding_backward(self.config.hidden_size, b.view(ids, 0..b.len(ids)), self.all(d), table)
    }
}
