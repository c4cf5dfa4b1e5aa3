//! The HTTP API over real sockets, with a policy that says what a test scripts, through the real engine, tokenizer,
//! chat template and sessions.

mod episodes;
mod house;
mod openapi;
mod protocols;
mod requests;
mod resumption;
mod sessions;
mod shape;
mod streams;
