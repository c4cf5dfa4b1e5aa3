//! Shapes and options of the operations, shared by every backend.

mod transformer;

pub use transformer::{AdamW, Matmul, MatrixLayout, PagedSegment, PagedShape, QkvShape, RopeTable};
