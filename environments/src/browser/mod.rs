//! Pages in a browser: an agent reads a list of what is on a page, or sees it, and clicks and types. The browser runs in a
//! sandbox without network and is talked to over two pipes; each episode has a context of its own in it.
mod accessibility;
mod devtools;
mod engine;
mod environment;
pub mod families;
mod keys;
mod miniwob;
mod page;
mod rows;
mod settings;
mod world;

pub use self::{
    environment::{Browsers, KIND},
    settings::Settings,
};
