//! Problems that are solved with a code tool: how their rows are read, how a final answer is checked, and the
//! families of small problems that are made from a seed.
pub mod boxed;
pub mod families;
pub mod math;
pub mod reward;
pub mod rows;
