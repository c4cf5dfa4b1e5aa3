//! The operator's verbs on the command line: each asks the running node over its socket and prints the answer.

pub(crate) mod columns;
mod lists;
mod table;
mod target;
mod watch;

use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context;
use clap::{Args, Subcommand};
use serde::Serialize;

pub(crate) use self::target::{NodeArgs, RunArgs};
use crate::{
    admin::{AdminClient, ClientError, Command, TOKEN_FILE},
    exit::{EXIT_FAILED, EXIT_NO_NODE, EXIT_NOT_POSSIBLE, EXIT_UNKNOWN, EXIT_USAGE},
    refusal::{Refusal, RefusalKind},
};

/// How often it is looked whether a node that was told to stop is gone.
const GONE_PERIOD: Duration = Duration::from_millis(50);

/// A verb for a running node.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Shows the running node: every actor, its state, its work, and what brings back what failed.
    #[command(after_help = "\
Examples:
  openclaw-rl status
  openclaw-rl status --watch
  openclaw-rl status --json | jq '.actors[] | select(.state == \"failed\")'

States: starting, running, paused, stuck (up, and not well), draining, restarting, failed (ended too often: down until \
it is restarted by hand), stopped (on purpose).

JSON: run, dir, node, pid, stopping, uptime_secs, gateway, page, version, sessions, journal {healthy, detail}, \
learning {steps, withheld, trained, loss, approved, rejected, neutral, hinted, versions [{version, replies, approved, \
rejected, first, first_approved}]}, serving {tokens_per_sec, in_flight, recent {period_secs, tokens_per_sec [], \
in_flight []}}, actors [{name, role, state, up_secs, restarts, last_error, last_error_secs, version, inbox {waiting, \
leased, capacity, oldest_wait_secs, dead_letters, paused}, detail, advice}]. What is not known is null; keys are added and \
never renamed.

--watch on a terminal: the arrow keys choose an actor, Enter shows it whole, r restarts it; ? tells the other keys.")]
    Status {
        #[command(flatten)]
        node: NodeArgs,
        /// Shows it live, and does what is asked by key; off a terminal, prints it every second until Ctrl-C.
        #[arg(long, conflicts_with = "json")]
        watch: bool,
        #[command(flatten)]
        format: Format,
    },
    /// Gives an actor, or each of a role, a new start.
    #[command(after_help = "\
Examples:
  openclaw-rl restart judge.0
  openclaw-rl restart judge
  openclaw-rl restart optimizer --drain")]
    Restart {
        #[command(flatten)]
        node: NodeArgs,
        /// Such as judge.0, or judge for all of them.
        name: String,
        /// Lets it finish what it has under way first.
        #[arg(long)]
        drain: bool,
    },
    /// Ends an actor as a crash would; its supervisor brings it back.
    #[command(after_help = "\
Examples:
  openclaw-rl kill policy.0")]
    Kill {
        #[command(flatten)]
        node: NodeArgs,
        /// Such as judge.0, or judge for all of them.
        name: String,
    },
    /// Hands a role no further work, until it is resumed; its work waits and nothing is lost.
    #[command(after_help = "\
Examples:
  openclaw-rl pause judge
  openclaw-rl pause optimizer     # serving and judging go on, nothing is trained")]
    Pause {
        #[command(flatten)]
        node: NodeArgs,
        /// judge, teacher, optimizer, publisher or rollout.
        name: String,
    },
    /// Ends a pause, and starts what was drained.
    #[command(after_help = "\
Examples:
  openclaw-rl resume judge")]
    Resume {
        #[command(flatten)]
        node: NodeArgs,
        /// Such as judge.0, or judge for all of them.
        name: String,
    },
    /// Lets an actor finish what it has under way, and keeps it down until it is resumed.
    #[command(after_help = "\
Examples:
  openclaw-rl drain judge.1
  openclaw-rl drain optimizer")]
    Drain {
        #[command(flatten)]
        node: NodeArgs,
        /// Such as judge.0, or judge for all of them.
        name: String,
    },
    /// Makes a role this many actors, until the node ends.
    #[command(after_help = "\
Examples:
  openclaw-rl scale judge 3")]
    Scale {
        #[command(flatten)]
        node: NodeArgs,
        /// judge, teacher or rollout.
        role: String,
        /// How many.
        count: usize,
    },
    /// Turns that killed their reader too often.
    #[command(subcommand)]
    Dead(Dead),
    /// Writes the policy and the optimizer's state now.
    #[command(after_help = "\
Examples:
  openclaw-rl checkpoint")]
    Checkpoint {
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Serves an earlier version from now on; the next step trains from it.
    #[command(after_help = "\
Examples:
  openclaw-rl versions
  openclaw-rl rollback 12")]
    Rollback {
        #[command(flatten)]
        node: NodeArgs,
        /// A version that `versions` lists as kept.
        version: u64,
    },
    /// Lists the versions of the policy.
    #[command(after_help = "\
Examples:
  openclaw-rl versions
  openclaw-rl versions --json")]
    Versions {
        #[command(flatten)]
        node: NodeArgs,
        #[command(flatten)]
        format: Format,
    },
    /// Prints the link to the running node's page, where a browser shows what it hears and learns.
    ///
    /// The link holds the token of the operator's port (`nodes.X.admin`): whoever has it operates the node until it ends.
    #[command(after_help = "\
Examples:
  openclaw-rl page
  xdg-open \"$(openclaw-rl page)\"")]
    Page {
        #[command(flatten)]
        node: NodeArgs,
    },
    /// What people explicitly wished for, which stands until it is withdrawn (`actors.judge.remember_hints`).
    #[command(
        subcommand,
        after_help = "\
Examples:
  openclaw-rl wishes list
  openclaw-rl wishes forget 3"
    )]
    Wishes(Wishes),
    /// Lists what operators did.
    #[command(after_help = "\
Examples:
  openclaw-rl audit")]
    Audit {
        #[command(flatten)]
        node: NodeArgs,
        #[command(flatten)]
        format: Format,
    },
    /// Ends the node in order, and returns when it is gone.
    #[command(after_help = "\
Examples:
  openclaw-rl stop
  openclaw-rl stop --now     # as kill would; the journal has everything that was acknowledged")]
    Stop {
        #[command(flatten)]
        node: NodeArgs,
        /// At once, without waiting for replies under way.
        #[arg(long)]
        now: bool,
    },
}

/// What to do with dead turns.
#[derive(Debug, Subcommand)]
pub enum Dead {
    /// Lists them.
    #[command(after_help = "\
Examples:
  openclaw-rl dead list
  openclaw-rl dead list --json")]
    List {
        #[command(flatten)]
        node: NodeArgs,
        #[command(flatten)]
        format: Format,
    },
    /// Shows one: what was asked, what was replied, and why it was given up.
    #[command(after_help = "\
Examples:
  openclaw-rl dead show 4be1")]
    Show {
        #[command(flatten)]
        node: NodeArgs,
        /// Its id, or how it begins.
        turn: String,
        #[command(flatten)]
        format: Format,
    },
    /// Gives them another try.
    #[command(after_help = "\
Examples:
  openclaw-rl dead retry 4be1
  openclaw-rl dead retry --all")]
    Retry(Which),
    /// Gives them up for good: they are not trained on.
    #[command(after_help = "\
Examples:
  openclaw-rl dead drop 4be1 77c0
  openclaw-rl dead drop --all")]
    Drop(Which),
}

/// What to do with wishes that stand.
#[derive(Debug, Subcommand)]
pub enum Wishes {
    /// Lists them.
    #[command(after_help = "\
Examples:
  openclaw-rl wishes list
  openclaw-rl wishes list --json")]
    List {
        #[command(flatten)]
        node: NodeArgs,
        #[command(flatten)]
        format: Format,
    },
    /// Withdraws one: no teacher is shown it any more.
    #[command(after_help = "\
Examples:
  openclaw-rl wishes forget 3")]
    Forget {
        #[command(flatten)]
        node: NodeArgs,
        /// Its number, as the list has it.
        wish: u64,
    },
}

/// Which dead turns.
#[derive(Debug, Args)]
pub struct Which {
    #[command(flatten)]
    node: NodeArgs,
    /// Their ids, or how they begin.
    #[arg(required_unless_present = "all")]
    turns: Vec<String>,
    /// Every one.
    #[arg(long, conflicts_with = "turns")]
    all: bool,
}

/// For people or for programs.
#[derive(Debug, Args)]
pub struct Format {
    /// Prints JSON, whose keys stay as they are.
    #[arg(long)]
    json: bool,
}

/// Does it.
pub async fn run(verb: Verb) -> anyhow::Result<ExitCode> {
    let (node, command) = match verb {
        Verb::Status { node, watch, format } => return status(&node, watch, &format).await,
        Verb::Dead(dead) => return self::dead(dead).await,
        Verb::Versions { node, format } => {
            return print(node.connect()?.versions().await?.as_slice(), &format, lists::versions);
        }
        Verb::Wishes(Wishes::List { node, format }) => {
            return print(node.connect()?.wishes().await?.as_slice(), &format, lists::wishes);
        }
        Verb::Wishes(Wishes::Forget { node, wish }) => (node, Command::ForgetWish { wish }),
        Verb::Audit { node, format } => {
            return print(node.connect()?.audit().await?.as_slice(), &format, lists::audit);
        }
        Verb::Page { node } => return page(&node.connect()?).await,
        Verb::Stop { node, now } => return stop(&node.connect()?, now).await,
        Verb::Restart { node, name, drain } => (node, Command::Restart { name, drain }),
        Verb::Kill { node, name } => (node, Command::Kill { name }),
        Verb::Pause { node, name } => (node, Command::Pause { name }),
        Verb::Resume { node, name } => (node, Command::Resume { name }),
        Verb::Drain { node, name } => (node, Command::Drain { name }),
        Verb::Scale { node, role, count } => (node, Command::Scale { role, count }),
        Verb::Checkpoint { node } => (node, Command::Checkpoint {}),
        Verb::Rollback { node, version } => (node, Command::Rollback { version }),
    };
    operate(&node.connect()?, command).await
}

async fn operate(client: &AdminClient, command: Command) -> anyhow::Result<ExitCode> {
    let done = client.operate(command).await?;
    writeln!(io::stdout(), "{}", done.message)?;
    Ok(ExitCode::SUCCESS)
}

async fn status(node: &NodeArgs, watch: bool, format: &Format) -> anyhow::Result<ExitCode> {
    let client = node.connect()?;
    if watch {
        return watch::run(client).await;
    }
    let status = client.status().await?;
    print(&status, format, |status| table::render(status, colours()))
}

/// Prints the link to the page; the token is in its fragment, which no browser sends to anyone.
async fn page(client: &AdminClient) -> anyhow::Result<ExitCode> {
    let Some(page) = client.status().await?.page else {
        let message = "the node has no operator's port: launch it with --set nodes.NODE.admin=127.0.0.1:7300";
        return Err(ClientError::Refused(Refusal::new(RefusalKind::NotNow, message)).into());
    };
    let path = client.run_dir().join(TOKEN_FILE);
    let token = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    writeln!(io::stdout(), "{page}#token={}", token.trim())?;
    if io::stdout().is_terminal() {
        writeln!(io::stderr(), "The link is a key: whoever has it operates this node until it ends.")?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn dead(dead: Dead) -> anyhow::Result<ExitCode> {
    let (which, command): (Which, fn(Vec<String>) -> Command) = match dead {
        Dead::List { node, format } => {
            return print(node.connect()?.dead().await?.as_slice(), &format, lists::dead);
        }
        Dead::Show { node, turn, format } => {
            let client = node.connect()?;
            let all = client.dead().await?;
            let story = client.dead_turn(&lists::find(&all, &turn)?.turn).await?;
            return print(&story, &format, lists::dead_turn);
        }
        Dead::Retry(which) => (which, |turns| Command::RetryDead { turns }),
        Dead::Drop(which) => (which, |turns| Command::DropDead { turns }),
    };
    let client = which.node.connect()?;
    let all = client.dead().await?;
    let turns = if which.all {
        all.into_iter().map(|dead| dead.turn).collect()
    } else {
        let found = which.turns.iter().map(|turn| lists::find(&all, turn).map(|dead| dead.turn.clone()));
        found.collect::<Result<_, _>>()?
    };
    operate(&client, command(turns)).await
}

async fn stop(client: &AdminClient, now: bool) -> anyhow::Result<ExitCode> {
    match client.operate(Command::Stop { now }).await {
        Ok(_) => {}
        // It may end before it has answered.
        Err(ClientError::Unreachable { .. }) if now => {}
        Err(error) => return Err(error.into()),
    }
    while client.is_live() {
        tokio::time::sleep(GONE_PERIOD).await;
    }
    writeln!(io::stdout(), "stopped")?;
    Ok(ExitCode::SUCCESS)
}

fn print<T: Serialize + ?Sized>(
    answer: &T,
    format: &Format,
    for_people: impl FnOnce(&T) -> String,
) -> anyhow::Result<ExitCode> {
    let text = if format.json { serde_json::to_string_pretty(answer)? } else { for_people(answer) };
    writeln!(io::stdout(), "{text}")?;
    Ok(ExitCode::SUCCESS)
}

/// Whether someone sees colours, and wants to.
pub(crate) fn colours() -> bool {
    let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    wanted && io::stdout().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// The exit code of an error that this module knows.
pub fn exit_code(error: &anyhow::Error) -> Option<u8> {
    if target::is_no_node(error) {
        return Some(EXIT_NO_NODE);
    }
    if error.is::<target::TargetError>() {
        return Some(EXIT_USAGE);
    }
    if error.is::<lists::NoSuchTurn>() {
        return Some(EXIT_UNKNOWN);
    }
    let ClientError::Refused(refusal) = error.downcast_ref()? else { return None };
    Some(match refusal.kind {
        RefusalKind::Usage => EXIT_USAGE,
        RefusalKind::Unknown => EXIT_UNKNOWN,
        RefusalKind::NotNow | RefusalKind::NeverHere => EXIT_NOT_POSSIBLE,
        RefusalKind::Unauthorized | RefusalKind::Failed => EXIT_FAILED,
    })
}
