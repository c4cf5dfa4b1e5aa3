//! What an agent acts in. It knows no actor: text goes in, text comes out.
pub mod dice;
pub mod persona;
pub mod terminal;
pub mod tool_call;
