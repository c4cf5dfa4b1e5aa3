//! The transformer's operations against float64 definitions on random shapes, every backward by central
//! differences of its definition, and what must hold of them bit for bit.

mod adamw;
mod attention;
mod cases;
mod devices;
mod embedding;
mod levels;
mod matmul;
mod norm;
mod paged;
mod rope;
mod swiglu;
