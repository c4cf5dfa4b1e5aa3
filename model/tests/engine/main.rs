//! The model's tests. One program: each would compile the engine's generic code anew.

mod adapters;
mod checkpoints;
mod constrained;
mod devices;
mod dialogue;
mod emulated;
mod inspect;
mod narrow;
mod parity;
mod prompts;
mod serving;
mod surrogates;
mod templates;
mod tokenizer;
mod version;
