//! `status --watch`: the table, drawn over itself every second.

use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
    time::Duration,
};

use super::{colours, table};
use crate::admin::{AdminClient, ClientError};

/// Between two looks.
const PERIOD: Duration = Duration::from_secs(1);

const OTHER_SCREEN: &str = "\x1b[?1049h\x1b[?25l";
const FIRST_SCREEN: &str = "\x1b[?25h\x1b[?1049l";
const TOP: &str = "\x1b[H";
const REST_OF_LINE: &str = "\x1b[K";
const REST_OF_SCREEN: &str = "\x1b[J";

/// Shows it until Ctrl-C. A node that went away may come back.
pub async fn run(client: AdminClient) -> anyhow::Result<ExitCode> {
    let on_terminal = io::stdout().is_terminal();
    if on_terminal {
        write!(io::stdout(), "{OTHER_SCREEN}")?;
    }
    let watched = tokio::select! {
        ended = watch(client, on_terminal) => ended,
        interrupted = tokio::signal::ctrl_c() => interrupted,
    };
    if on_terminal {
        write!(io::stdout(), "{FIRST_SCREEN}")?;
        io::stdout().flush()?;
    }
    watched?;
    Ok(ExitCode::SUCCESS)
}

async fn watch(mut client: AdminClient, on_terminal: bool) -> io::Result<()> {
    let mut due = tokio::time::interval(PERIOD);
    loop {
        due.tick().await;
        let text = match client.status().await {
            Ok(status) => table::render(&status, colours()),
            Err(error) => {
                // A node that was started anew listens at a socket of its own.
                if let Ok(again) = AdminClient::connect(client.run_dir()) {
                    client = again;
                }
                chain(&error)
            }
        };
        let mut out = io::stdout().lock();
        if on_terminal {
            let lines = text.replace('\n', &format!("{REST_OF_LINE}\n"));
            write!(out, "{TOP}{lines}{REST_OF_LINE}\n{REST_OF_SCREEN}")?;
        } else {
            writeln!(out, "{text}\n")?;
        }
        out.flush()?;
    }
}

fn chain(error: &ClientError) -> String {
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
