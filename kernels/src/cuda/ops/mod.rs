//! One file per operation.

pub(super) mod adamw;
pub(super) mod attention;
pub(super) mod copy_rows;
pub(super) mod embedding;
pub(super) mod fill;
pub(super) mod linear_logprob;
pub(super) mod linear_loss;
pub(super) mod logprob;
pub(super) mod logprob_gap;
pub(super) mod norm;
pub(super) mod paged;
pub(super) mod product;
pub(super) mod rope;
pub(super) mod row_loss;
pub(super) mod rows;
pub(super) mod sum_squares;
pub(super) mod swiglu;
pub(super) mod tables;
