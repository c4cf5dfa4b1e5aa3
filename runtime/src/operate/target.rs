//! Which node the operator means.

use std::{
    io,
    path::{Path, PathBuf},
};

use clap::Args;

use crate::admin::{AdminClient, ClientError, SOCKET_FILE, is_live};

/// Where runs lie, unless told.
const RUNS: &str = "runs";

/// Which node.
#[derive(Clone, Debug, Args)]
pub struct NodeArgs {
    /// The folder (run.dir) of the node; the only one under runs/ that is running, unless given.
    #[arg(long, value_name = "DIR", env = "OPENCLAW_RUN")]
    pub run: Option<PathBuf>,
}

/// No node is meant clearly.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// None is running.
    #[error(
        "no node is running under {}: `openclaw-rl launch FILE` starts one, and --run DIR names one that is elsewhere",
        runs.display()
    )]
    None {
        /// Where it was looked.
        runs: PathBuf,
    },
    /// Several are.
    #[error("several nodes are running; choose one of: {}", choices(dirs))]
    Several {
        /// Their folders.
        dirs: Vec<PathBuf>,
    },
    /// The folder of runs cannot be read.
    #[error("cannot look into {}", runs.display())]
    Look {
        /// The folder.
        runs: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

fn choices(dirs: &[PathBuf]) -> String {
    dirs.iter().map(|dir| format!("--run {}", dir.display())).collect::<Vec<_>>().join(", ")
}

impl NodeArgs {
    /// Speaks to the node that is meant.
    pub fn connect(&self) -> anyhow::Result<AdminClient> {
        let dir = match &self.run {
            Some(dir) => dir.clone(),
            None => the_only_one(Path::new(RUNS))?,
        };
        Ok(AdminClient::connect(&dir)?)
    }

    /// Speaks to each node that may be meant.
    pub fn connect_all(&self) -> Vec<AdminClient> {
        let dirs = match &self.run {
            Some(dir) => vec![dir.clone()],
            None => running(Path::new(RUNS)).unwrap_or_default(),
        };
        dirs.iter().filter_map(|dir| AdminClient::connect(dir).ok()).collect()
    }
}

fn the_only_one(runs: &Path) -> Result<PathBuf, TargetError> {
    let mut dirs = running(runs)?;
    match dirs.len() {
        0 => Err(TargetError::None { runs: runs.to_owned() }),
        1 => Ok(dirs.swap_remove(0)),
        _ => Err(TargetError::Several { dirs }),
    }
}

fn running(runs: &Path) -> Result<Vec<PathBuf>, TargetError> {
    let entries = match std::fs::read_dir(runs) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Vec::new());
        }
        Err(source) => return Err(TargetError::Look { runs: runs.to_owned(), source }),
    };
    let mut dirs: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        // One that cannot be asked may be the one: the reason is told when it is spoken to.
        .filter(|dir| dir.join(SOCKET_FILE).exists() && is_live(dir).unwrap_or(true))
        .collect();
    dirs.sort();
    Ok(dirs)
}

/// Whether this is the news that no node could be spoken to.
pub fn is_no_node(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(TargetError::None { .. }))
        || matches!(
            error.downcast_ref(),
            Some(
                ClientError::NotRunning { .. }
                    | ClientError::Unreachable { .. }
                    | ClientError::Strange { .. }
            )
        )
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn the_only_running_node_is_meant_and_several_are_listed() {
        let dir = tempfile::tempdir().unwrap();
        let runs = dir.path().join("runs");
        assert!(matches!(the_only_one(&runs), Err(TargetError::None { .. })));
        let listen = |name: &str| {
            let run = runs.join(name);
            std::fs::create_dir_all(&run).unwrap();
            UnixListener::bind(run.join(SOCKET_FILE)).unwrap()
        };
        drop(listen("dead"));
        assert!(matches!(the_only_one(&runs), Err(TargetError::None { .. })));
        let _b = listen("b");
        assert_eq!(the_only_one(&runs).unwrap(), runs.join("b"));
        let _a = listen("a");
        let told = the_only_one(&runs).unwrap_err().to_string();
        let (a, b) = (runs.join("a"), runs.join("b"));
        assert!(told.ends_with(&format!("--run {}, --run {}", a.display(), b.display())), "{told}");
    }
}
