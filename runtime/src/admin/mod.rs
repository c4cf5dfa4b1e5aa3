//! The node's operator: its verbs over a unix socket in the run's folder, for its owner alone, and on a loopback
//! port for whoever holds the token.
//!
//! `operator` is what can be asked and answered, `routes` the same as HTTP, `socket` and `server` how it is
//! reached, `client` the other end, `node` and `corrections` the verbs on a real node, `panel` what it sees of each role,
//! `actor` its place in the tree.

mod actor;
mod client;
mod corrections;
mod node;
mod operator;
mod panel;
mod routes;
mod server;
mod socket;
#[cfg(test)]
pub(crate) mod tests;

pub use actor::{PortAddress, child};
pub use client::{AdminClient, ClientError};
pub use corrections::Corrections;
pub use node::{NodeArguments, NodeOperator};
pub use operator::{
    ActorStatus, AuditEntry, Command, DeadTurn, DeadTurnStory, Done, InboxView, JournalStatus,
    LearningStatus, NodeStatus, Operator, Rating, ServingStatus, StandingWish,
};
pub use panel::{Gate, Panel, Seen, TokenRates};
#[cfg(test)]
pub(crate) use server::Token;
pub use server::{AdminServer, Port, ServeError, TOKEN_FILE};
pub use socket::{SOCKET_FILE, is_live};
