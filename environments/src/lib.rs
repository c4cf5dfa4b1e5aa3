//! What an agent acts in. It knows no actor: actions go in, observations come out.
//!
//! A new kind of environment is a folder that implements [`Environment`](world::Environment), a line in [`registry`], and a
//! config that names it.
pub mod agent;
pub mod browser;
pub mod calculator;
pub mod desktop;
pub mod dice;
pub mod draw;
pub mod gui;
mod io_thread;
pub mod openenv;
pub mod persona;
pub mod registry;
pub mod remote;
mod sandboxed;
mod shown;
mod stop;
pub mod swe;
pub mod terminal;
pub mod tool_call;
pub mod wire;
pub mod world;

pub use self::sandboxed::Sandbox;
