//! Tasks on a desktop: windows of real programs on an X server, in a sandbox for each episode. Tasks are in the format of
//! OSWorld, read from a folder or made from a seed.
mod bus;
mod environment;
pub mod families;
mod hands;
mod keys;
mod look;
mod machine;
pub mod osworld;
mod settings;
mod wire;
mod world;
mod x11;

pub use self::{
    environment::{DesktopEnvironment, KIND},
    settings::Settings,
};
