//! Experiments: what the tables of the README are made of, each by one command.

mod agents;
mod chart;
mod launched;
mod load;
pub mod node;
mod personalization;
mod recovery;
pub mod serving;
mod soak;
mod tastes;
mod users;

use std::io::Write;

use clap::Subcommand;
use openclaw_actors::stop::StopSignal;

pub use self::node::Reader;

/// Shown below `experiment --help`.
pub const EXAMPLES: &str = "\
Examples:
  openclaw-rl experiment personalization --out runs/personalization
  openclaw-rl experiment personalization --seeds 1 --topology configs/methods/opd.toml --set actors.judge.votes=3
  openclaw-rl experiment tastes --taste capitals --way bad --seeds 1
  openclaw-rl experiment agents --place terminal --seeds 1
  openclaw-rl experiment serving
  openclaw-rl experiment load --sessions 10000 --streams 200
  openclaw-rl experiment recovery --kills 10
  openclaw-rl experiment soak --minutes 30";

/// Which experiment.
#[derive(Clone, Debug, Subcommand)]
pub enum Experiment {
    /// Sessions until every simulated user is satisfied, for each method and without learning, over several seeds.
    Personalization(personalization::PersonalizationArgs),
    /// What outcomes alone, step rewards and hints teach an agent, on tool calls and in a shell, over several seeds.
    Agents(agents::AgentsArgs),
    /// Which wishes of one person are learnt, taught in which way, and what that costs in right answers.
    Tastes(tastes::TastesArgs),
    /// What a client that streams notices of training.
    Serving(serving::ServingArgs),
    /// Memory of many open sessions, and what many streams at once notice of each other.
    Load(load::LoadArgs),
    /// How long each part of a node needs after a crash until it does work again, and what is lost.
    Recovery(recovery::RecoveryArgs),
    /// A node under load and under kills for a long time: what it holds must not grow.
    Soak(soak::SoakArgs),
}

/// Runs an experiment on the topologies that `read` reads, and prints its table.
pub async fn command(experiment: Experiment, read: &Reader, stop: StopSignal) -> anyhow::Result<()> {
    let table = match experiment {
        Experiment::Personalization(args) => personalization::command(args, read, stop).await?,
        Experiment::Agents(args) => agents::command(args, read, stop).await?,
        Experiment::Tastes(args) => tastes::command(args, read, stop).await?,
        Experiment::Serving(args) => serving::command(args, read).await?,
        Experiment::Load(args) => load::command(args).await?,
        Experiment::Recovery(args) => recovery::command(args, read).await?,
        Experiment::Soak(args) => soak::command(args, read).await?,
    };
    std::io::stdout().write_all(table.as_bytes())?;
    Ok(())
}
