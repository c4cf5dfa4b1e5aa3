//! The softmax of one row: one reading pass for its sums, one writing pass for a gradient.

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

/// A row's softmax, around an offset near its largest logit: with `t = (x - offset) * base2`, the sums of `2^t` and
/// of `t 2^t`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Softmax {
    scale: Scale,
    offset: f32,
    sum: f64,
    weighted: f64,
}

impl Softmax {
    pub(super) fn of<T: Float>(row: &[T], scale: Scale) -> Self {
        Self::with_top(row, scale, None)
    }

    /// As [`Softmax::of`], and collects the largest logits in the same pass.
    pub(super) fn with_top<T: Float>(row: &[T], scale: Scale, mut top: Option<TopSlots<'_>>) -> Self {
        let mut all = Self::nothing(scale);
        for (index, block) in row.chunks(BLOCK).enumerate() {
            all.add_block(block);
            if let Some(top) = &mut top
                && blocks::maximum(block) > top.threshold()
            {
                blocks::widened(block, |block| top.collect(block, index * BLOCK));
            }
        }
        all
    }

    /// As [`Softmax::of`] the row with `-inf` in the places of `ids`, which it leaves as it is.
    pub(super) fn without<T: Float>(
        row: &[T],
        scale: Scale,
        ids: impl Iterator<Item = usize> + Clone,
    ) -> Self {
        let first_from = |start: usize| ids.clone().filter(|id| *id >= start).min().unwrap_or(usize::MAX);
        let (mut all, mut next) = (Self::nothing(scale), first_from(0));
        let mut buffer = [T::default(); BLOCK];
        for (index, block) in row.chunks(BLOCK).enumerate() {
            let places = index * BLOCK..index * BLOCK + block.len();
            if next >= places.end {
                all.add_block(block);
                continue;
            }
            let copy = &mut buffer[..block.len()];
            copy.copy_from_slice(block);
            for id in ids.clone().filter(|id| places.contains(id)) {
                copy[id - places.start] = T::from_f32(f32::NEG_INFINITY);
            }
            all.add_block(copy);
            next = first_from(places.end);
        }
        all
    }

    fn nothing(scale: Scale) -> Self {
        Self { scale, offset: f32::NEG_INFINITY, sum: 0.0, weighted: 0.0 }
    }

    fn add_block<T: Float>(&mut self, block: &[T]) {
        let (sum, weighted) = self.block_sums(block);
        self.sum += f64::from(sum);
        self.weighted += f64::from(weighted);
    }

    /// The sums of a block, after raising the offset where the block is above it.
    fn block_sums<T: Float>(&mut self, block: &[T]) -> (f32, f32) {
        if self.offset > f32::NEG_INFINITY {
            // Most blocks need no maximum of their own. One that the old offset is too low for shows it by its sum:
            // logits at the offset add up to 1024 at most. Below 2^12, no `t` is above 12 and all keep their digits.
            let sums = blocks::sums(block, self.offset, self.scale.base2);
            if sums.0 < 4096.0 {
                return sums;
            }
        }
        let max = blocks::maximum(block);
        if max > self.offset {
            self.raise(max);
        }
        // Before the first finite logit any finite offset will do: powers of -inf are 0, of NaN NaN.
        let offset = if self.offset == f32::NEG_INFINITY { f32::MIN } else { self.offset };
        blocks::sums(block, offset, self.scale.base2)
    }

    fn raise(&mut self, offset: f32) {
        if self.offset > f32::NEG_INFINITY {
            let shift = (f64::from(self.offset) - f64::from(offset)) * f64::from(self.scale.base2);
            let factor = shift.exp2();
            self.weighted = factor * (self.weighted + shift * self.sum);
            self.sum *= factor;
        }
        self.offset = offset;
    }

    /// Adds one more logit.
    pub(super) fn add(&mut self, logit: f32) {
        if logit == f32::NEG_INFINITY {
            return;
        }
        if logit > self.offset {
            self.raise(logit);
        }
        let t = self.exponent(logit);
        let power = t.exp2();
        self.sum += power;
        self.weighted += t * power;
    }

    fn exponent(&self, logit: f32) -> f64 {
        (f64::from(logit) - f64::from(self.offset)) * f64::from(self.scale.base2)
    }

    pub(super) fn logprob(&self, logit: f32) -> f64 {
        (self.exponent(logit) - self.sum.log2()) * self.scale.nats
    }

    pub(super) fn probability(&self, logit: f32) -> f64 {
        self.exponent(logit).exp2() / self.sum
    }

    /// The share of this distribution that `part`, some of its logits, holds.
    pub(super) fn share(&self, part: &Softmax) -> f64 {
        if part.sum == 0.0 { 0.0 } else { part.sum * self.exponent(part.offset).exp2() / self.sum }
    }

    pub(super) fn lse(&self) -> f64 {
        f64::from(self.offset) * self.scale.inverse_temperature + self.sum.log2() * self.scale.nats
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
        blocks::gradient(source, target, self.offset, self.scale.base2, a, b);
    }
}
