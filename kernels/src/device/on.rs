//! Arguments of an operation, as one of the two backends has them.

use std::ops::Range;

use super::{DeviceView, DeviceViewMut};
use crate::backend::Element;
use crate::cpu::Cpu;
use crate::cuda::{Cuda, CudaView, CudaViewMut};
use crate::ops::*;

/// A value that means the same on the backend `B`, unless it lies elsewhere.
pub(super) trait On<B> {
    /// What `B` knows it as.
    type There;
    /// `None` when a view is on the other backend.
    fn on(self) -> Option<Self::There>;
}

impl<'a, T: Element> On<Cpu> for DeviceView<'a, T> {
    type There = &'a [T];
    fn on(self) -> Option<&'a [T]> {
        if let Self::Cpu(view) = self { Some(view) } else { None }
    }
}
impl<'a, T: Element> On<Cuda> for DeviceView<'a, T> {
    type There = CudaView<'a, T>;
    fn on(self) -> Option<CudaView<'a, T>> {
        if let Self::Cuda(view) = self { Some(view) } else { None }
    }
}
impl<'a, T: Element> On<Cpu> for DeviceViewMut<'a, T> {
    type There = &'a mut [T];
    fn on(self) -> Option<&'a mut [T]> {
        if let Self::Cpu(view) = self { Some(view) } else { None }
    }
}
impl<'a, T: Element> On<Cuda> for DeviceViewMut<'a, T> {
    type There = CudaViewMut<'a, T>;
    fn on(self) -> Option<CudaViewMut<'a, T>> {
        if let Self::Cuda(view) = self { Some(view) } else { None }
    }
}

/// Values that are the same everywhere.
macro_rules! everywhere {
    ($($t:ty),+ $(,)?) => {
        $(impl<B> On<B> for $t {
            type There = Self;
            fn on(self) -> Option<Self> {
                Some(self)
            }
        })+
    };
}
everywhere!(usize, f32, Matmul, QkvShape, PagedShape, AdamW, LogitsShape, LinearShape, GapSide);

impl<B> On<B> for &[Range<usize>] {
    type There = Self;
    fn on(self) -> Option<Self> {
        Some(self)
    }
}
impl<B> On<B> for &[PagedSegment] {
    type There = Self;
    fn on(self) -> Option<Self> {
        Some(self)
    }
}

impl<B, V: On<B>> On<B> for Option<V> {
    type There = Option<V::There>;
    fn on(self) -> Option<Self::There> {
        match self {
            None => Some(None),
            Some(value) => value.on().map(Some),
        }
    }
}

impl<B, V: On<B>> On<B> for RopeTable<V> {
    type There = RopeTable<V::There>;
    fn on(self) -> Option<Self::There> {
        let Self { cos, sin } = self;
        Some(RopeTable { cos: cos.on()?, sin: sin.on()? })
    }
}

impl<B, I: On<B>> On<B> for Score<I> {
    type There = Score<I::There>;
    fn on(self) -> Option<Self::There> {
        let Self { targets, candidates } = self;
        Some(Score { targets: targets.on()?, candidates: candidates.on()? })
    }
}
impl<B, I: On<B>> On<B> for Candidates<I> {
    type There = Candidates<I::There>;
    fn on(self) -> Option<Self::There> {
        let Self { k, ids } = self;
        Some(Candidates { k, ids: ids.on()? })
    }
}
impl<B, F: On<B>, I: On<B>> On<B> for ScoreOut<F, I> {
    type There = ScoreOut<F::There, I::There>;
    fn on(self) -> Option<Self::There> {
        let Self { logprobs, lse, entropy, candidates, top } = self;
        Some(ScoreOut {
            logprobs: logprobs.on()?,
            lse: lse.on()?,
            entropy: entropy.on()?,
            candidates: candidates.on()?,
            top: top.on()?,
        })
    }
}
impl<B, F: On<B>, I: On<B>> On<B> for TopK<F, I> {
    type There = TopK<F::There, I::There>;
    fn on(self) -> Option<Self::There> {
        let Self { k, ids, logprobs } = self;
        Some(TopK { k, ids: ids.on()?, logprobs: logprobs.on()? })
    }
}
impl<B, F: On<B>> On<B> for GapOut<F> {
    type There = GapOut<F::There>;
    fn on(self) -> Option<Self::There> {
        let Self { student, teacher, gap } = self;
        Some(GapOut { student: student.on()?, teacher: teacher.on()?, gap: gap.on()? })
    }
}

impl<B, F: On<B>, I: On<B>> On<B> for RowLoss<F, I> {
    type There = RowLoss<F::There, I::There>;
    fn on(self) -> Option<Self::There> {
        let Self { weights, targets, token, kl, candidates, entropy_coef } = self;
        Some(RowLoss {
            weights: weights.on()?,
            targets: targets.on()?,
            token: token.on()?,
            kl: kl.on()?,
            candidates: candidates.on()?,
            entropy_coef,
        })
    }
}
impl<B, F: On<B>> On<B> for TokenTerm<F> {
    type There = TokenTerm<F::There>;
    fn on(self) -> Option<Self::There> {
        Some(match self {
            Self::None => TokenTerm::None,
            Self::CrossEntropy => TokenTerm::CrossEntropy,
            Self::Policy(term) => TokenTerm::Policy(term.on()?),
        })
    }
}
impl<B, F: On<B>> On<B> for PolicyTerm<F> {
    type There = PolicyTerm<F::There>;
    fn on(self) -> Option<Self::There> {
        let Self { surrogate, advantages, importance, clip } = self;
        Some(PolicyTerm {
            surrogate: surrogate.on()?,
            advantages: advantages.on()?,
            importance: importance.on()?,
            clip,
        })
    }
}
impl<B, F: On<B>> On<B> for Surrogate<F> {
    type There = Surrogate<F::There>;
    fn on(self) -> Option<Self::There> {
        Some(match self {
            Self::Ppo { old_logprobs } => Surrogate::Ppo { old_logprobs: old_logprobs.on()? },
            Self::Cispo { old_logprobs } => Surrogate::Cispo { old_logprobs: old_logprobs.on()? },
            Self::Gspo { ratios } => Surrogate::Gspo { ratios: ratios.on()? },
        })
    }
}
impl<B, F: On<B>> On<B> for KlTerm<F> {
    type There = KlTerm<F::There>;
    fn on(self) -> Option<Self::There> {
        let Self { kind, coef, reference } = self;
        Some(KlTerm { kind, coef, reference: reference.on()? })
    }
}
impl<B, F: On<B>, I: On<B>> On<B> for CandidateTerm<F, I> {
    type There = CandidateTerm<F::There, I::There>;
    fn on(self) -> Option<Self::There> {
        let Self { k, ids, coef, loss } = self;
        Some(CandidateTerm { k, ids: ids.on()?, coef, loss: loss.on()? })
    }
}
impl<B, F: On<B>> On<B> for CandidateLoss<F> {
    type There = CandidateLoss<F::There>;
    fn on(self) -> Option<Self::There> {
        Some(match self {
            Self::ReverseKl { teacher_logprobs, entropy_coef } => {
                CandidateLoss::ReverseKl { teacher_logprobs: teacher_logprobs.on()?, entropy_coef }
            }
            Self::Policy { advantages, weights, old_logprobs, clip } => CandidateLoss::Policy {
                advantages: advantages.on()?,
                weights: weights.on()?,
                old_logprobs: old_logprobs.on()?,
                clip,
            },
        })
    }
}

impl<B, F: On<B>, W: On<B>> On<B> for Head<F, W> {
    type There = Head<F::There, W::There>;
    fn on(self) -> Option<Self::There> {
        let Self { hidden, weight } = self;
        Some(Head { hidden: hidden.on()?, weight: weight.on()? })
    }
}
impl<B, X: On<B>, F: On<B>, S: On<B>> On<B> for HeadGradients<X, F, S> {
    type There = HeadGradients<X::There, F::There, S::There>;
    fn on(self) -> Option<Self::There> {
        let Self { scratch, d_hidden, d_weight, stats } = self;
        Some(HeadGradients {
            scratch: scratch.on()?,
            d_hidden: d_hidden.on()?,
            d_weight: d_weight.on()?,
            stats: stats.on()?,
        })
    }
}
