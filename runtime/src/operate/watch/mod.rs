//! `status --watch`: on a terminal a live view that does what its keys say, elsewhere the table once a second.
//!
//! `state` is what the view knows and what a key does to it, `draw` the picture of it; both are plain functions, and
//! `live` alone touches the terminal. `actors`, `load` and `pane` are parts of the picture, `cells` measures text.

mod actors;
pub mod cells;
mod draw;
mod live;
mod load;
mod pane;
mod state;
#[cfg(test)]
mod tests;

use std::{
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use tokio::time::MissedTickBehavior;

use super::{colours, table};
use crate::{
    admin::{AdminClient, ClientError, NodeStatus},
    printable::printable,
};

/// Between two looks.
const PERIOD: Duration = Duration::from_secs(1);

/// Shows it until it is told to end. A node that went away may come back.
pub async fn run(client: AdminClient) -> anyhow::Result<ExitCode> {
    let obeys = std::env::var_os("TERM").is_some_and(|term| term != "dumb");
    if io::stdin().is_terminal() && io::stdout().is_terminal() && obeys {
        live::run(client).await?;
    } else {
        tokio::select! {
            ended = print(client) => ended?,
            interrupted = tokio::signal::ctrl_c() => interrupted?,
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn print(client: AdminClient) -> io::Result<()> {
    let mut lookout = Lookout::new(client);
    let mut due = tokio::time::interval(PERIOD);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        due.tick().await;
        let text = match lookout.look().await {
            Ok(status) => table::render(&status, colours()),
            Err(why) => why,
        };
        let mut out = io::stdout().lock();
        writeln!(out, "{text}\n")?;
        out.flush()?;
    }
}

/// Looks at a node, and finds the one that is started in its place.
struct Lookout {
    client: AdminClient,
    run_dir: PathBuf,
}

impl Lookout {
    fn new(client: AdminClient) -> Self {
        let run_dir = client.run_dir().to_owned();
        Self { client, run_dir }
    }

    /// The node, or why it does not answer.
    async fn look(&mut self) -> Result<NodeStatus, String> {
        match self.client.status().await {
            Ok(status) => Ok(status),
            Err(error) => {
                // A node that was started anew listens at a socket of its own.
                match connect(&self.run_dir).await {
                    Ok(again) => self.client = again,
                    Err(gone @ ClientError::NotRunning { .. }) => return Err(chain(&gone)),
                    Err(_) => {}
                }
                Err(chain(&error))
            }
        }
    }
}

/// Connecting may wait for a node that does not come to it.
async fn connect(run_dir: &Path) -> Result<AdminClient, ClientError> {
    let dir = run_dir.to_owned();
    let connecting = tokio::task::spawn_blocking(move || AdminClient::connect(&dir));
    connecting.await.expect("connecting does not panic, and the runtime outlives it")
}

fn chain(error: &ClientError) -> String {
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
    let causes = causes.map(ToString::to_string).collect::<Vec<_>>().join(": ");
    printable(&causes).into_owned()
}
