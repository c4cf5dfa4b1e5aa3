//! The softmax of one row: one reading pass for its sums, one writing pass for a gradient.

use std::any::TypeId;

use half::bf16;

use super::blocks::{self, BLOCK};
use super::top_k::TopSlots;
use crate::backend::Float;

/// Conversions between logits, powers of two and nats at one temperature.
///
/// `base2` is rounded to `f32`; the other factors are derived from the rounded value, so that its rounding
/// cancels in log-probs however far the logits are from 0.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    base2: f32,
    /// Nats in one unit of `t`.
    nats: f64,
    pub(super) inverse_temperature: f64,
}

impl Scale {
    pub(super) fn new(temperature: f32) -> Self {
        let temperature = f64::from(temperature);
        let base2 = (std::f64::consts::LOG2_E / temperature) as f32;
        let nats = 1.0 / (f64::from(base2) * temperature);
        Self { base2, nats, inverse_temperature: 1.0 / temperature }
    }
}

/// A row's softmax: with `t = (x - max) * base2`, the sums of `2^t` and of `t 2^t`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Softmax {
    scale: Scale,
    max: f32,
    sum: f64,
    weighted: f64,
}

impl Softmax {
    pub(super) fn of<T: Float>(row: &[T], scale: Scale) -> Self {
        Self::with_top(row, scale, None)
    }

    /// As [`Softmax::of`], and collects the largest logits in the same pass.
    pub(super) fn with_top<T: Float>(row: &[T], scale: Scale, mut top: Option<TopSlots<'_>>) -> Self {
        let mut all = Self { scale, max: f32::NEG_INFINITY, sum: 0.0, weighted: 0.0 };
        let mut buffer = [0f32; BLOCK];
        for (index, block) in row.chunks(BLOCK).enumerate() {
            let block = widened(block, &mut buffer);
            let max = blocks::maximum(block);
            if max > all.max {
                all.raise(max);
            }
            // Before the first finite logit any finite offset will do: powers of -inf are 0, of NaN NaN.
            let offset = if all.max == f32::NEG_INFINITY { f32::MIN } else { all.max };
            let (sum, weighted) = blocks::sums(block, offset, scale.base2);
            all.sum += f64::from(sum);
            all.weighted += f64::from(weighted);
            if let Some(top) = &mut top
                && max > top.threshold()
            {
                top.collect(block, index * BLOCK);
            }
        }
        all
    }

    fn raise(&mut self, max: f32) {
        if self.max > f32::NEG_INFINITY {
            let shift = (f64::from(self.max) - f64::from(max)) * f64::from(self.scale.base2);
            let factor = shift.exp2();
            self.weighted = factor * (self.weighted + shift * self.sum);
            self.sum *= factor;
        }
        self.max = max;
    }

    /// Adds one more logit.
    pub(super) fn add(&mut self, logit: f32) {
        if logit == f32::NEG_INFINITY {
            return;
        }
        if logit > self.max {
            self.raise(logit);
        }
        let t = self.exponent(logit);
        let power = t.exp2();
        self.sum += power;
        self.weighted += t * power;
    }

    fn exponent(&self, logit: f32) -> f64 {
        (f64::from(logit) - f64::from(self.max)) * f64::from(self.scale.base2)
    }

    pub(super) fn logprob(&self, logit: f32) -> f64 {
        (self.exponent(logit) - self.sum.log2()) * self.scale.nats
    }

    pub(super) fn probability(&self, logit: f32) -> f64 {
        self.exponent(logit).exp2() / self.sum
    }

    /// The share of this distribution that `part`, some of its logits, holds.
    pub(super) fn share(&self, part: &Softmax) -> f64 {
        if part.sum == 0.0 { 0.0 } else { part.sum * self.exponent(part.max).exp2() / self.sum }
    }

    pub(super) fn lse(&self) -> f64 {
        f64::from(self.max) * self.scale.inverse_temperature + self.sum.log2() * self.scale.nats
    }

    pub(super) fn entropy(&self) -> f64 {
        let entropy = (self.sum.log2() - self.weighted / self.sum) * self.scale.nats;
        if entropy < 0.0 { 0.0 } else { entropy }
    }

    /// The whole gradient at one logit whose log-prob has derivative `own`: the dense part of
    /// [`Softmax::write_gradient`] and its own.
    pub(super) fn gradient_at(&self, logit: f32, own: f64, u: f64, e: f64) -> f64 {
        let p = self.probability(logit);
        let entropy = if e == 0.0 || p == 0.0 { 0.0 } else { e * (self.logprob(logit) + self.entropy()) };
        (own - p * (u - entropy)) * self.scale.inverse_temperature
    }

    /// Turns logits into `(p_j (e (log p_j + H) - u)) / temperature`: the dense part of the gradient of a loss
    /// whose derivatives by log-probs sum to `u` and by entropy are `-e`. Reads `source`, or `target` itself.
    pub(super) fn write_gradient<T: Float>(&self, source: Option<&[T]>, target: &mut [T], u: f64, e: f64) {
        let factor = self.scale.inverse_temperature / self.sum;
        let a = if e == 0.0 { -u } else { e * (self.entropy() - self.sum.log2() * self.scale.nats) - u };
        let (a, b) = ((a * factor) as f32, (e * self.scale.nats * factor) as f32);
        let mut buffer = [0f32; BLOCK];
        for (index, target) in target.chunks_mut(BLOCK).enumerate() {
            if let Some(source) = source {
                target.copy_from_slice(&source[index * BLOCK..][..target.len()]);
            }
            if let Some(target) = as_f32_mut(target) {
                blocks::gradient(target, self.max, self.scale.base2, a, b);
            } else {
                let len = target.len();
                widened(target, &mut buffer);
                blocks::gradient(&mut buffer[..len], self.max, self.scale.base2, a, b);
                narrow(&buffer[..len], target);
            }
        }
    }
}

fn same<T: 'static, U: 'static>() -> bool {
    TypeId::of::<T>() == TypeId::of::<U>()
}

fn as_f32_mut<T: Float>(block: &mut [T]) -> Option<&mut [f32]> {
    same::<T, f32>().then(|| bytemuck::cast_slice_mut(block))
}

/// The block as `f32`, through `buffer` unless it already is.
fn widened<'a, T: Float>(block: &'a [T], buffer: &'a mut [f32; BLOCK]) -> &'a [f32] {
    if same::<T, f32>() {
        return bytemuck::cast_slice(block);
    }
    let buffer = &mut buffer[..block.len()];
    if same::<T, bf16>() {
        blocks::widen(bytemuck::cast_slice(block), buffer);
    } else {
        buffer.iter_mut().zip(block).for_each(|(to, from)| *to = from.to_f32());
    }
    buffer
}

fn narrow<T: Float>(from: &[f32], to: &mut [T]) {
    if same::<T, bf16>() {
        blocks::narrow(from, bytemuck::cast_slice_mut(to));
    } else {
        to.iter_mut().zip(from).for_each(|(to, from)| *to = T::from_f32(*from));
    }
}
