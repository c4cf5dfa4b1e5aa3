//! What every backend promises, of bubblewrap.

mod host;
#[path = "conformance/mod.rs"]
mod promises;

every_promise!(bubblewrap);
