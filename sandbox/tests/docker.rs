//! What every backend promises and what untrusted code tries, of docker and against it, by a daemon of the test's own.

#[path = "attacks/mod.rs"]
mod attempts;
mod host;
#[path = "conformance/mod.rs"]
mod promises;

every_promise!(docker);
every_attempt!(docker);
