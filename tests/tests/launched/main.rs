//! What a person meets who runs the binary. One program: each would link all of it anew.

mod adapters;
mod agents;
mod chat;
mod cli;
mod configs;
mod connections;
mod dashboards;
mod episodes;
mod full_disk;
mod kill;
mod launch;
mod openclaw;
mod operate;
mod page;
mod people;
mod pull;
mod refused;
mod soak;
mod versions;
mod watch;
