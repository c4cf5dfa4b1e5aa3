//! The journal when its process or its writer dies.

mod faults;
mod kill;
mod speed;
mod turns;
