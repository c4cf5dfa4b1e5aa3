//! One file per operation.

pub(super) mod fill;
pub(super) mod sum_squares;
pub(super) mod swiglu;
