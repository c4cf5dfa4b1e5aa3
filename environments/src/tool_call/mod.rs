//! Problems that are solved with a code tool: rows of a problem set, or families of small problems that are made from a
//! seed. Code runs in a sandbox, a final answer is checked by its box, and servers of tools can stand beside the code tool.
pub mod boxed;
mod environment;
pub mod families;
mod interpreter;
pub mod math;
mod mcp;
pub mod reward;
pub mod rows;
mod settings;
mod tools;
mod world;

pub use environment::KIND;
pub use settings::{SYSTEM, SYSTEM_WITHOUT_CODE, Server, Settings};
