//! One file per operation.

pub(super) mod adamw;
pub(super) mod attention;
pub(super) mod embedding;
pub(super) mod fill;
pub(super) mod norm;
pub(super) mod paged;
pub(super) mod rope;
pub(super) mod sum_squares;
pub(super) mod swiglu;
pub(super) mod tables;
