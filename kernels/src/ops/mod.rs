//! Shapes and options of the operations, shared by every backend.

mod loss;
mod transformer;

pub use loss::{
    CandidateLoss, CandidateTerm, Candidates, ClipRange, Clipped, GapOut, GapSide, Head, HeadGradients,
    KlKind, KlTerm, LinearShape, LogitsShape, PolicyTerm, RowLoss, RowStat, Score, ScoreOut, Surrogate,
    TokenTerm, TopK, sample_mean_weights, sequence_ratios, token_mean_weights,
};
pub(crate) use loss::{Length, check_linear, check_logits, check_row_loss, check_score, unknown_id};
pub use transformer::{AdamW, Matmul, MatrixLayout, PagedSegment, PagedShape, QkvShape, RopeTable};
