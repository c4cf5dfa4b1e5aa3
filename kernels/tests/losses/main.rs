//! The loss operations against definitions in float64, on random shapes, and what must hold of them exactly.

#[macro_use]
mod device;

mod apart;
mod cases;
mod definition;
mod exactness;
mod gradients;
mod head;
mod levels;
mod rereads;
mod scores;
mod sizes;
mod surrogates;
