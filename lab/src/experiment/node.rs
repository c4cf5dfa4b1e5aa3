//! What an experiment needs of a node. Topologies, wiring and supervision are the binary's: it implements [`Plan`] and
//! [`Parts`] over them, and hands the experiments its [`Reader`].

use std::path::{Path, PathBuf};

use futures::future::BoxFuture;
use openclaw_actors::{publisher::Versions, rollout::SessionReport};
use openclaw_environments::world::User;
use openclaw_journal::Journal;
use tokio::sync::mpsc;

/// Reads a topology file with `KEY=VALUE`s put over its keys, and tells all that is wrong with it.
pub type Reader = dyn Fn(&Path, &[String]) -> anyhow::Result<Box<dyn Plan>> + Send + Sync;

/// A topology that can be launched.
pub trait Plan: Send + Sync {
    /// What an experiment reads of it.
    fn facts(&self) -> Facts;

    /// Gives it a folder of its own within its run's; an earlier one of that name is set aside.
    fn begin_anew_in(&mut self, folder: &str) -> anyhow::Result<()>;

    /// Starts its node within this process.
    fn start(&self) -> BoxFuture<'_, anyhow::Result<Node>>;

    /// Opens the journal of its run, which no node may hold.
    fn journal(&self) -> anyhow::Result<Journal>;
}

/// What an experiment reads of a topology.
#[derive(Clone, Debug)]
pub struct Facts {
    /// `run.name`.
    pub name: String,
    /// What clients call the policy.
    pub served_model: String,
    /// The policy's checkpoint folder.
    pub policy: PathBuf,
    /// The policy's sampling temperature.
    pub temperature: f32,
    /// CPU threads of the node, for serving and for training together.
    pub threads: usize,
    /// Whether it has simulated users.
    pub has_users: bool,
    /// Sessions that each simulated user has at most.
    pub max_sessions: usize,
}

/// A node that runs within this process.
pub struct Node {
    /// Where clients connect: `http://host:port/v1`.
    pub url: String,
    /// Everything recorded.
    pub journal: Journal,
    /// The announcement of versions.
    pub versions: Versions,
    /// Its simulated users.
    pub users: Vec<User>,
    /// Their sessions, as they end; none are left once every user is through.
    pub sessions: mpsc::Receiver<SessionReport>,
    /// Its actors.
    pub parts: Box<dyn Parts>,
}

/// The supervised actors of a node.
pub trait Parts: Send + Sync {
    /// Ends a part as a crash would; returns once its successor runs.
    fn crash<'a>(&'a self, part: &'a str) -> BoxFuture<'a, anyhow::Result<()>>;

    /// Restarts a part, which forgets its crashes.
    fn restart<'a>(&'a self, part: &'a str) -> BoxFuture<'a, anyhow::Result<()>>;

    /// Stops all of them, in order.
    fn stop(self: Box<Self>) -> BoxFuture<'static, ()>;
}
