//! Arguments and results of the loss operations. `F` is a view of `f32`, `I` a view of `i32`.

mod check;
mod ratios;
mod row;
mod score;
mod weights;

pub(crate) use check::{Length, check_linear, check_logits, check_row_loss, check_score, unknown_id};
pub use ratios::sequence_ratios;
pub use row::{
    CandidateLoss, CandidateTerm, ClipRange, Clipped, KlKind, KlTerm, PolicyTerm, RowLoss, RowStat,
    Surrogate, TokenTerm,
};
pub use score::{Candidates, GapOut, GapSide, Score, ScoreOut, TopK};
pub use weights::{sample_mean_weights, token_mean_weights};

/// Rows of logits and how they become probabilities: `softmax(logits / temperature)`.
///
/// Row `i` starts at `i * stride`; its columns from `vocab` on are padding and never read.
/// A row whose logits are all `-inf` has no distribution: its results are NaN.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogitsShape {
    /// Number of rows.
    pub rows: usize,
    /// Logits in a row.
    pub vocab: usize,
    /// Distance between rows, at least `vocab`.
    pub stride: usize,
    /// Divides the logits.
    pub temperature: f32,
}

impl LogitsShape {
    /// Rows without padding, at temperature 1.
    pub fn dense(rows: usize, vocab: usize) -> Self {
        Self { rows, vocab, stride: vocab, temperature: 1.0 }
    }
}

/// The language-model head over a batch: `hidden [rows, width]`, `weight [vocab, width]`.
///
/// Logits exist for `chunk_rows` rows at a time, in a scratch buffer of [`LinearShape::scratch_len`] elements.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LinearShape {
    /// Number of rows.
    pub rows: usize,
    /// Width of a hidden state.
    pub width: usize,
    /// Logits in a row.
    pub vocab: usize,
    /// Divides the logits.
    pub temperature: f32,
    /// Rows whose logits exist at the same time.
    pub chunk_rows: usize,
}

/// What the head multiplies: views of floating-point types. Where hidden states are `f32`, the weight may be `bf16`.
#[derive(Clone, Copy, Debug)]
pub struct Head<F, W = F> {
    /// Hidden states, `[rows, width]`.
    pub hidden: F,
    /// The head's (or the tied embedding's) weight, `[vocab, width]`.
    pub weight: W,
}

/// Where the results of the head's loss go; `X`, `F` and `S` are exclusive views of the head's type, of `f32` and of
/// [`RowStat`].
#[derive(Debug)]
pub struct HeadGradients<X, F, S> {
    /// Working memory of [`LinearShape::scratch_len`] elements, whatever they hold.
    pub scratch: X,
    /// Overwritten by the gradient to the hidden states.
    pub d_hidden: F,
    /// The gradient to the weight is added to it; empty where the weight is frozen.
    pub d_weight: F,
    /// What happened in each row.
    pub stats: S,
}

impl LinearShape {
    /// Temperature 1, and chunks that keep the logits near 4 MiB without starving the matrix product of rows.
    pub fn new(rows: usize, width: usize, vocab: usize) -> Self {
        let chunk_rows = ((1 << 20) / vocab.max(1)).clamp(64, 1024);
        Self { rows, width, vocab, temperature: 1.0, chunk_rows }
    }
    /// Elements of the scratch buffer.
    pub fn scratch_len(&self) -> usize {
        self.chunk_rows * (self.vocab + self.width)
    }
}
