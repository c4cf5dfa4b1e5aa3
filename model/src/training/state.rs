//! Everything a trainer carries from one step to the next, on the host: what a checkpoint holds and a restart
//! restores.

use std::borrow::Cow;

use openclaw_kernels::{Backend, KernelError};

use super::{Result, Trainer};

/// Weights and optimizer state after a step. A trainer restored from it goes on bit for bit.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TrainerState {
    /// Steps that the moments have seen.
    pub step: u32,
    /// What is trained, in the order of [`crate::ParameterLayout`] or of [`crate::AdapterLayout`].
    pub weights: Vec<f32>,
    /// First moments of the gradient.
    pub first: Vec<f32>,
    /// Second moments of the gradient.
    pub second: Vec<f32>,
}

impl TrainerState {
    /// Where training starts: these weights, and moments that have seen nothing.
    pub fn fresh(weights: Vec<f32>) -> Self {
        let empty = vec![0.0; weights.len()];
        Self { step: 0, weights, first: empty.clone(), second: empty }
    }
}

/// The same where it lies.
#[derive(Clone, Debug)]
pub struct StateView<'a> {
    /// Steps that the moments have seen.
    pub step: u32,
    /// What is trained.
    pub weights: Cow<'a, [f32]>,
    /// First moments of the gradient.
    pub first: Cow<'a, [f32]>,
    /// Second moments of the gradient.
    pub second: Cow<'a, [f32]>,
}

impl<'a> From<&'a TrainerState> for StateView<'a> {
    fn from(state: &'a TrainerState) -> Self {
        Self {
            step: state.step,
            weights: Cow::Borrowed(&state.weights),
            first: Cow::Borrowed(&state.first),
            second: Cow::Borrowed(&state.second),
        }
    }
}

impl<B: Backend> Trainer<B> {
    /// What the next step starts from, without a copy where the host is the device.
    pub fn view(&self) -> Result<StateView<'_>> {
        let (b, transformer) = (&self.transformer.backend, &self.transformer);
        Ok(StateView {
            step: self.step,
            weights: b.read(transformer.all(self.weights.trained()?))?,
            first: b.read(transformer.all(&self.first))?,
            second: b.read(transformer.all(&self.second))?,
        })
    }

    /// A copy of what the next step starts from.
    pub fn state(&self) -> Result<TrainerState> {
        let transformer = &self.transformer;
        let download = |buffer| transformer.backend.download(transformer.all(buffer));
        Ok(TrainerState {
            step: self.step,
            weights: self.weights.to_host(transformer)?,
            first: download(&self.first)?,
            second: download(&self.second)?,
        })
    }

    /// Makes the next step start from `state`; gradients accumulated so far are forgotten. A state that does not
    /// fit changes nothing.
    pub fn restore(&mut self, state: &TrainerState) -> Result<()> {
        let transformer = &self.transformer;
        let b = &transformer.backend;
        let expected = b.len(self.weights.trained()?);
        for (what, moments) in [("first", &state.first), ("second", &state.second)] {
            if moments.len() != expected {
                return Err(KernelError::Shape { op: "restore", what, found: moments.len(), expected });
            }
        }
        let weights = self.weights.with(transformer, &state.weights)?;
        let (first, second, grads) = (b.upload(&state.first)?, b.upload(&state.second)?, b.zeros(expected)?);
        (self.weights, self.first, self.second, self.grads) = (weights, first, second, grads);
        self.step = state.step;
        Ok(())
    }
}
