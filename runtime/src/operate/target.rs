//! Which node the operator means.

use std::{
    io,
    path::{Path, PathBuf},
};

use clap::Args;
use openclaw_journal::inspect;

use crate::{
    admin::{AdminClient, ClientError, SOCKET_FILE, is_live},
    people,
};

/// Where runs lie, unless told.
const RUNS: &str = "runs";

/// Which node.
#[derive(Clone, Debug, Args)]
pub struct NodeArgs {
    /// The folder (run.dir) of the node; the only one under runs/ that is running, unless given.
    #[arg(long, value_name = "DIR", env = "OPENCLAW_RUN")]
    pub run: Option<PathBuf>,
    /// Of a run with [people]: whose node, by the name that requests say.
    #[arg(long, value_name = "NAME")]
    pub person: Option<String>,
}

/// Which run, whether its node is running or not.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// The folder (run.dir) of the run; unless given, of the only node under runs/ that is running, or the only run there.
    #[arg(long, value_name = "DIR", env = "OPENCLAW_RUN")]
    pub run: Option<PathBuf>,
    /// Of a run with [people]: whose, by the name that requests say.
    #[arg(long, value_name = "NAME")]
    pub person: Option<String>,
}

/// No node or run is meant clearly.
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
    /// There are several runs, and none of them is running.
    #[error("no node is running, and there are several runs; choose one of: {}", choices(dirs))]
    SeveralRuns {
        /// Their folders.
        dirs: Vec<PathBuf>,
    },
    /// Nothing was ever run.
    #[error("no run lies under {}: --run DIR names one that is elsewhere", runs.display())]
    NoRun {
        /// Where it was looked.
        runs: PathBuf,
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
        Ok(AdminClient::connect(&of_person(dir, self.person.as_deref()))?)
    }

    /// Speaks to each node that may be meant.
    pub fn connect_all(&self) -> Vec<AdminClient> {
        let dirs = match &self.run {
            Some(dir) => vec![dir.clone()],
            None => running(Path::new(RUNS)).unwrap_or_default(),
        };
        let dirs = dirs.into_iter().map(|dir| of_person(dir, self.person.as_deref()));
        dirs.filter_map(|dir| AdminClient::connect(&dir).ok()).collect()
    }
}

impl RunArgs {
    /// The folder that is meant.
    pub fn dir(&self) -> Result<PathBuf, TargetError> {
        let dir = match &self.run {
            Some(dir) => dir.clone(),
            None => the_only_run(Path::new(RUNS))?,
        };
        Ok(of_person(dir, self.person.as_deref()))
    }
}

/// The run's folder, or that of one of its people.
fn of_person(dir: PathBuf, person: Option<&str>) -> PathBuf {
    match person {
        Some(name) => people::dir_of(&dir, name),
        None => dir,
    }
}

/// The run whose node is running, else the only one.
fn the_only_run(runs: &Path) -> Result<PathBuf, TargetError> {
    match the_only_one(runs) {
        Err(TargetError::None { .. }) => {}
        found => return found,
    }
    let mut dirs = folders(runs, |dir| matches!(inspect(dir), Ok(Some(_))) || people::is_house(dir))?;
    match dirs.len() {
        0 => Err(TargetError::NoRun { runs: runs.to_owned() }),
        1 => Ok(dirs.swap_remove(0)),
        _ => Err(TargetError::SeveralRuns { dirs }),
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
    // One that cannot be asked may be the one: the reason is told when it is spoken to.
    folders(runs, |dir| dir.join(SOCKET_FILE).exists() && is_live(dir).unwrap_or(true))
}

fn folders(runs: &Path, is_meant: impl Fn(&Path) -> bool) -> Result<Vec<PathBuf>, TargetError> {
    let entries = match std::fs::read_dir(runs) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(TargetError::Look { runs: runs.to_owned(), source }),
    };
    let mut dirs: Vec<PathBuf> =
        entries.flatten().map(|entry| entry.path()).filter(|dir| is_meant(dir)).collect();
    dirs.sort();
    Ok(dirs)
}

/// Whether this is the news that no node could be spoken to.
pub fn is_no_node(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(TargetError::None { .. } | TargetError::NoRun { .. }))
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

    use openclaw_journal::{Journal, JournalConfig, Retention};

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

    #[test]
    fn a_run_that_has_ended_is_meant_when_it_is_the_only_one() {
        let dir = tempfile::tempdir().unwrap();
        let runs = dir.path().join("runs");
        assert!(matches!(the_only_run(&runs), Err(TargetError::NoRun { .. })));
        let run = |name: &str| {
            let retention = Retention::default();
            let config = JournalConfig { dir: runs.join(name), retention };
            drop(Journal::open(config).unwrap());
            runs.join(name)
        };
        std::fs::create_dir_all(runs.join("not-a-run")).unwrap();
        let b = run("b");
        assert_eq!(the_only_run(&runs).unwrap(), b);
        let a = run("a");
        let told = the_only_run(&runs).unwrap_err().to_string();
        assert!(told.ends_with(&format!("--run {}, --run {}", a.display(), b.display())), "{told}");
        let _running = UnixListener::bind(b.join(SOCKET_FILE)).unwrap();
        assert_eq!(the_only_run(&runs).unwrap(), b);
    }
}
