//! The journal when its process or its writer dies.

#[cfg(feature = "failpoints")]
mod faults;
mod kill;
mod speed;
mod turns;
