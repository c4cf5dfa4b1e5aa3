//! Steps, versions and their samples when the optimizer or the publisher dies.

mod faults;
// The library's own tests use more of it.
#[allow(dead_code)]
#[path = "../../src/tiny.rs"]
mod tiny;

use openclaw_actors::{breaker, engine, optimizer, policy, publisher};
