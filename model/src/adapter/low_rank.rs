//! What an adapter adds to a linear map, and its gradients. With `S = scale x A^T`: `y += S B^T`, and backwards
//! `dB += dy^T S`, `dS = scale dy B`, `dA += dS^T x`, `dx += dS A`. The frozen matrix has no gradient.

use std::ops::Range;

use openclaw_kernels::{
    Backend,
    ops::{Matmul, MatrixLayout},
};

use super::{Adapter, LowRank, Map, Result};
use crate::base::Matrix;
use crate::pass::PassWeights;
use crate::transformer::{Transformer, Weights};

impl<B: Backend> Transformer<B> {
    /// Adds to `y [_, output]`, the output of a map of `x [_, input]`, what the adapter of each row gives.
    pub(crate) fn adapt_rows(
        &self,
        weights: &PassWeights<'_, B>,
        at: (usize, Map),
        x: &B::Buffer<f32>,
        y: &mut B::Buffer<f32>,
    ) -> Result<()> {
        let mut parts = weights.adapters.iter();
        parts.try_for_each(|(rows, adapter)| self.adapt(adapter, at, x, y, rows.clone()))
    }

    fn adapt(
        &self,
        adapter: &Adapter<B>,
        (layer, map): (usize, Map),
        x: &B::Buffer<f32>,
        y: &mut B::Buffer<f32>,
        rows: Range<usize>,
    ) -> Result<()> {
        let (b, low, rank) = (&self.backend, adapter.layout.low_rank(layer, map), adapter.layout.config.rank);
        if low.parts.is_empty() {
            return Ok(());
        }
        let x = b.view(x, rows.start * low.input..rows.end * low.input);
        let inner = self.inner(adapter, low, x, rows.len())?;
        let width = low.parts.len() * rank;
        for (nth, part) in low.parts.iter().enumerate() {
            let shape = Matmul {
                m: rows.len(),
                n: part.columns.len(),
                k: rank,
                a: MatrixLayout::rows(width),
                b: MatrixLayout::transposed(rank),
                c_row: low.output,
                accumulate: true,
            };
            let s = b.view(&inner, nth * rank..rows.len() * width);
            let target = b.view_mut(y, rows.start * low.output + part.columns.start..rows.end * low.output);
            b.matmul(shape, s, b.view(&adapter.flat, part.b.clone()), target)?;
        }
        Ok(())
    }

    /// Adds the adapter's gradients to `grads`, and what goes through it to `d_x`.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn adapt_backward(
        &self,
        adapter: &Adapter<B>,
        grads: &mut B::Buffer<f32>,
        (layer, map): (usize, Map),
        x: &B::Buffer<f32>,
        d_y: &B::Buffer<f32>,
        d_x: &mut B::Buffer<f32>,
        rows: usize,
    ) -> Result<()> {
        let (b, low, rank) = (&self.backend, adapter.layout.low_rank(layer, map), adapter.layout.config.rank);
        if low.parts.is_empty() {
            return Ok(());
        }
        let inner = self.inner(adapter, low, self.all(x), rows)?;
        let width = low.parts.len() * rank;
        let mut d_inner = b.uninitialized(rows * width)?;
        for (nth, part) in low.parts.iter().enumerate() {
            let of_part = nth * rank..rows * width;
            let d_part = b.view(d_y, part.columns.start..rows * low.output);
            let to_b = Matmul {
                m: part.columns.len(),
                n: rank,
                k: rows,
                a: MatrixLayout::transposed(low.output),
                b: MatrixLayout::rows(width),
                c_row: rank,
                accumulate: true,
            };
            b.matmul(to_b, d_part, b.view(&inner, of_part.clone()), b.view_mut(grads, part.b.clone()))?;
            let to_inner = Matmul {
                m: rows,
                n: rank,
                k: part.columns.len(),
                a: MatrixLayout::rows(low.output),
                b: MatrixLayout::rows(rank),
                c_row: width,
                accumulate: false,
            };
            let matrix = b.view(&adapter.flat, part.b.clone());
            b.matmul(to_inner, d_part, matrix, b.view_mut(&mut d_inner, of_part))?;
        }
        let d_inner = self.scaled(adapter, &d_inner)?;
        let to_a = Matmul {
            m: width,
            n: low.input,
            k: rows,
            a: MatrixLayout::transposed(width),
            b: MatrixLayout::rows(low.input),
            c_row: low.input,
            accumulate: true,
        };
        b.matmul(to_a, self.all(&d_inner), self.all(x), b.view_mut(grads, low.a.clone()))?;
        let to_x = Matmul {
            m: rows,
            n: low.input,
            k: width,
            a: MatrixLayout::rows(width),
            b: MatrixLayout::rows(low.input),
            c_row: low.input,
            accumulate: true,
        };
        b.matmul(to_x, self.all(&d_inner), b.view(&adapter.flat, low.a.clone()), self.all_mut(d_x))
    }

    /// The weights that compute without an adapter what `weights` do with theirs, on the host: `W + scale B A` in place of each
    /// `W`.
    pub fn merged(&self, weights: &Weights<B>) -> Result<Vec<f32>> {
        let b = &self.backend;
        let mut flat = weights.base.to_host(b)?;
        let Some(adapter) = &weights.adapter else { return Ok(flat) };
        let rank = adapter.layout.config.rank;
        for (index, map) in (0..self.config.layers).flat_map(|index| Map::ALL.map(|map| (index, map))) {
            let (low, (place, ..)) = (adapter.layout.low_rank(index, map), self.map(index, map));
            for (nth, part) in low.parts.iter().enumerate() {
                let shape = Matmul {
                    m: part.columns.len(),
                    n: low.input,
                    k: rank,
                    a: MatrixLayout::rows(rank),
                    b: MatrixLayout::rows(low.input),
                    c_row: low.input,
                    accumulate: false,
                };
                let mut product = b.uninitialized(shape.m * shape.n)?;
                let start = low.a.start + nth * rank * low.input;
                let (one, other) = (part.b.clone(), start..start + rank * low.input);
                let (one, other) = (b.view(&adapter.flat, one), b.view(&adapter.flat, other));
                b.matmul(shape, one, other, self.all_mut(&mut product))?;
                let added = b.download(self.all(&self.scaled(adapter, &product)?))?;
                let from = place.start + part.columns.start * low.input;
                flat[from..from + added.len()]
                    .iter_mut()
                    .zip(added)
                    .for_each(|(weight, added)| *weight += added);
            }
        }
        Ok(flat)
    }

    /// `scale x A^T [rows, parts * rank]`.
    fn inner(
        &self,
        adapter: &Adapter<B>,
        low: &LowRank,
        x: B::View<'_, f32>,
        rows: usize,
    ) -> Result<B::Buffer<f32>> {
        let b = &self.backend;
        let width = low.parts.len() * adapter.layout.config.rank;
        let mut inner = b.uninitialized(rows * width)?;
        let matrix = b.view(&adapter.flat, low.a.clone());
        self.linear(x, Matrix::F32(matrix), self.all_mut(&mut inner), (rows, width, low.input), false)?;
        self.scaled(adapter, &inner)
    }

    /// The adapter's scale times `values`.
    fn scaled(&self, adapter: &Adapter<B>, values: &B::Buffer<f32>) -> Result<B::Buffer<f32>> {
        let mut scaled = self.backend.uninitialized(self.backend.len(values))?;
        self.times(self.all(&adapter.scale), values, self.all_mut(&mut scaled), false)?;
        Ok(scaled)
    }
}
