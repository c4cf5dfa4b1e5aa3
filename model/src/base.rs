//! A model's own parameters as they lie in memory: what is trained in `f32`, and what is frozen in `f32` or in `bf16`.

use std::ops::Range;

use half::bf16;
use openclaw_kernels::{Backend, KernelError};

use crate::{checkpoint::WeightDtype, mapped::Mapped, params::ParameterLayout, transformer::Transformer};

type Result<T> = std::result::Result<T, KernelError>;

/// Parameters on the host, in the order of [`ParameterLayout`].
#[derive(Clone, Debug, PartialEq)]
pub enum HostWeights {
    /// As they are trained.
    F32(Vec<f32>),
    /// Of a base that is frozen.
    Bf16(Vec<bf16>),
    /// The same in a file.
    Mapped(Mapped),
}

impl HostWeights {
    /// Zeros.
    pub(crate) fn zeros(dtype: WeightDtype, len: usize) -> Self {
        match dtype {
            WeightDtype::F32 => Self::F32(vec![0.0; len]),
            WeightDtype::Bf16 => Self::Bf16(vec![bf16::ZERO; len]),
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::Bf16(values) => values.len(),
            Self::Mapped(mapped) => mapped.values().len(),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts values at a place; `bf16` rounds them to nearest, ties to even.
    pub(crate) fn put(&mut self, at: usize, values: &[f32]) {
        match self {
            Self::F32(to) => to[at..][..values.len()].copy_from_slice(values),
            Self::Bf16(to) => {
                let to = &mut to[at..][..values.len()];
                to.iter_mut().zip(values).for_each(|(to, value)| *to = bf16::from_f32(*value));
            }
            Self::Mapped(_) => unreachable!("a file is mapped whole"),
        }
    }

    /// Those of a range, as `f32`.
    pub(crate) fn wide(&self, range: Range<usize>) -> Vec<f32> {
        match self {
            Self::F32(values) => values[range].to_vec(),
            Self::Bf16(values) => widened(&values[range]),
            Self::Mapped(mapped) => widened(&mapped.values()[range]),
        }
    }
}

fn widened(values: &[bf16]) -> Vec<f32> {
    values.iter().map(|value| value.to_f32()).collect()
}

/// The same on a device.
pub(crate) enum Base<B: Backend> {
    F32(B::Buffer<f32>),
    /// All in `bf16`, and the vectors among them (norms and biases) also in `f32`, one after another.
    Bf16 {
        all: Narrow<B>,
        vectors: B::Buffer<f32>,
    },
}

/// Numbers in `bf16` that are read alone.
pub(crate) enum Narrow<B: Backend> {
    /// In the device's memory.
    Own(B::Buffer<bf16>),
    /// In a file, where the device reads that.
    Mapped(Mapped),
}

impl<B: Backend> Narrow<B> {
    fn view(&self, b: &B, range: Range<usize>) -> B::View<'_, bf16> {
        match self {
            Self::Own(buffer) => b.view(buffer, range),
            Self::Mapped(mapped) => {
                b.host_view(&mapped.values()[range]).expect("it is kept for such a device alone")
            }
        }
    }

    fn len(&self, b: &B) -> usize {
        match self {
            Self::Own(buffer) => b.len(buffer),
            Self::Mapped(mapped) => mapped.values().len(),
        }
    }
}

/// A matrix of them.
pub(crate) enum Matrix<'a, B: Backend> {
    F32(B::View<'a, f32>),
    Bf16(B::View<'a, bf16>),
}

impl<B: Backend> Base<B> {
    /// A copy of what is on the host.
    pub(crate) fn upload(transformer: &Transformer<B>, flat: &[f32]) -> Result<Self> {
        check(&transformer.layout, flat.len())?;
        Ok(Self::F32(transformer.backend.upload(flat)?))
    }

    /// Where the host is the device they are not copied.
    pub(crate) fn adopt(transformer: &Transformer<B>, host: HostWeights) -> Result<Self> {
        let (b, layout) = (&transformer.backend, &transformer.layout);
        check(layout, host.len())?;
        let vectors =
            || -> Vec<f32> { layout.vectors().flat_map(|vector| host.wide(vector.range.clone())).collect() };
        Ok(match host {
            HostWeights::F32(values) => Self::F32(b.adopt(values)?),
            HostWeights::Bf16(_) => {
                let vectors = b.adopt(vectors())?;
                let HostWeights::Bf16(values) = host else { unreachable!("it was matched") };
                Self::Bf16 { all: Narrow::Own(b.adopt(values)?), vectors }
            }
            HostWeights::Mapped(ref mapped) => {
                let vectors = b.adopt(vectors())?;
                let read_there = b.host_view(mapped.values()).is_some();
                let all = if read_there {
                    Narrow::Mapped(mapped.clone())
                } else {
                    Narrow::Own(b.upload(mapped.values())?)
                };
                Self::Bf16 { all, vectors }
            }
        })
    }

    /// A vector by its place in the layout; several where they follow one another.
    pub(crate) fn vector(&self, b: &B, layout: &ParameterLayout, range: &Range<usize>) -> B::View<'_, f32> {
        match self {
            Self::F32(flat) => b.view(flat, range.clone()),
            Self::Bf16 { vectors, .. } => {
                let start = layout.place_among_vectors(range);
                b.view(vectors, start..start + range.len())
            }
        }
    }

    /// A matrix by its place in the layout.
    pub(crate) fn matrix(&self, b: &B, range: &Range<usize>) -> Matrix<'_, B> {
        match self {
            Self::F32(flat) => Matrix::F32(b.view(flat, range.clone())),
            Self::Bf16 { all, .. } => Matrix::Bf16(all.view(b, range.clone())),
        }
    }

    /// A copy on the host, as `f32`.
    pub(crate) fn to_host(&self, b: &B) -> Result<Vec<f32>> {
        match self {
            Self::F32(flat) => b.download(b.view(flat, 0..b.len(flat))),
            Self::Bf16 { all, .. } => {
                let values = b.download(all.view(b, 0..all.len(b)))?;
                Ok(values.into_iter().map(bf16::to_f32).collect())
            }
        }
    }

    /// What can be trained: `bf16` would lose the steps.
    pub(crate) fn trained(&self) -> Result<&B::Buffer<f32>> {
        match self {
            Self::F32(flat) => Ok(flat),
            Self::Bf16 { .. } => Err(frozen()),
        }
    }

    pub(crate) fn trained_mut(&mut self) -> Result<&mut B::Buffer<f32>> {
        match self {
            Self::F32(flat) => Ok(flat),
            Self::Bf16 { .. } => Err(frozen()),
        }
    }
}

fn check(layout: &ParameterLayout, found: usize) -> Result<()> {
    let expected = layout.len();
    if found == expected {
        return Ok(());
    }
    Err(KernelError::Shape { op: "weights", what: "flat", found, expected })
}

fn frozen() -> KernelError {
    let what = "weights in bf16 are frozen: train an adapter on them, or load them as f32".to_owned();
    KernelError::Argument { op: "weights", what }
}
