//! What untrusted code tries, against bubblewrap.

#[path = "attacks/mod.rs"]
mod attempts;
mod host;

every_attempt!(bubblewrap);
