//! Sessions by the engine of containers that [Docker](https://docs.docker.com/engine/) is, on this machine.
//!
//! Each session has a base, a container in which no command ever runs. It holds the session's disk, a tmpfs of limited size,
//! and the programs that carry files. The shell has a cell, a container of its own that shares the disk, and so have the
//! commands: theirs is used again as long as each command leaves nothing behind in it, and is ended with all that is in it
//! otherwise. What is in a cell is seen from here, by its control group, and not asked of anyone inside.
//!
//! The base ends when its connection does, and each cell ends with the base: a supervisor that is killed takes its
//! containers along, and the daemon removes them.
//!
//! Beside bubblewrap: limits of memory, processes and processors hold for the shell and for a command each, not for both
//! together; the root is an image, see [`Root::Image`]; words and variables that are not UTF-8 can only be arguments.

mod container;
mod daemon;
mod exec;
mod maker;
mod options;
mod probe;

use std::{
    env,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use bollard::query_parameters::{ListContainersOptions, RemoveContainerOptions};

use self::{daemon::Daemon, maker::DockerMaker, options::Owner};
use crate::{Backend, Check, Root, SandboxError, Session, Spec, owner, session::Machine};

/// Says whose a container is.
const LABEL: &str = "openclaw-sandbox.supervisor";

/// Whom commands run as where the supervisor is root.
const USER: u32 = 1000;

/// Sessions by docker.
#[derive(Debug)]
pub struct Docker {
    /// Of the daemon.
    pub socket: PathBuf,
    /// The root of sessions that ask for no other. It needs `sh`, `tar`, `find`, `chmod`, `mkfifo` and the like.
    pub image: String,
    /// Where snapshots have their files.
    pub dir: PathBuf,
    /// Whether it can isolate, once it could.
    able: Mutex<Option<Arc<Daemon>>>,
}

impl Docker {
    /// By the daemon at `socket`, in `image`.
    pub fn new(socket: impl Into<PathBuf>, image: impl Into<String>) -> Self {
        let (socket, image) = (socket.into(), image.into());
        Self { socket, image, dir: env::temp_dir(), able: Mutex::new(None) }
    }

    /// As the programs of docker choose it: by `DOCKER_HOST`, or in its usual place.
    pub fn default_socket() -> PathBuf {
        let host = env::var("DOCKER_HOST").unwrap_or_default();
        match host.strip_prefix("unix://") {
            Some(path) => path.into(),
            None if host.is_empty() => "/var/run/docker.sock".into(),
            None => host.into(),
        }
    }

    fn able(&self) -> Result<Arc<Daemon>, SandboxError> {
        let mut able = self.able.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(daemon) = &*able {
            return Ok(Arc::clone(daemon));
        }
        let missing = self.missing();
        if !missing.is_empty() {
            return Err(SandboxError::Missing { missing });
        }
        let connected = Daemon::connect(&self.socket).map_err(|why| SandboxError::Start { why })?;
        Ok(Arc::clone(able.insert(Arc::new(connected))))
    }

    /// The kernel shows a process to its own user, and all to root.
    fn user() -> u32 {
        let own = rustix::process::geteuid();
        if own.is_root() { USER } else { own.as_raw() }
    }
}

impl Backend for Docker {
    fn name(&self) -> &'static str {
        "docker"
    }

    fn probe(&self) -> Vec<Check> {
        probe::checks(self)
    }

    fn open(&self, spec: &Spec) -> Result<Box<dyn Session>, SandboxError> {
        spec.check()?;
        let image = match &spec.root {
            Root::Host => self.image.clone(),
            Root::Image(image) => image.clone(),
            Root::Folder(folder) => {
                return Err(SandboxError::path(folder, "is a folder; the root of docker is an image"));
            }
        };
        let daemon = self.able()?;
        if image != self.image {
            let check = probe::image(&daemon, &image);
            if !check.ok {
                return Err(SandboxError::Missing { missing: vec![check.detail] });
            }
        }
        let owner = Owner { image, user: Self::user(), label: own_label() };
        let maker = DockerMaker::open(daemon, owner, spec)?;
        Ok(Box::new(Machine::open(maker, spec, &self.dir)?))
    }

    /// Containers that did not go by themselves, with their disks, and snapshots.
    fn sweep(&self) -> usize {
        let snapshots = owner::sweep(&self.dir);
        let Ok(daemon) = Daemon::connect(&self.socket) else { return snapshots };
        let removed = daemon.call(|docker| async move {
            let filters = Some([("label".to_owned(), vec![LABEL.to_owned()])].into());
            let options = ListContainersOptions { all: true, filters, ..ListContainersOptions::default() };
            let mut removed = 0;
            for container in docker.list_containers(Some(options)).await.unwrap_or_default() {
                let label = container.labels.as_ref().and_then(|labels| labels.get(LABEL));
                let (Some(id), true) = (container.id, label.is_some_and(|label| is_orphan(label))) else {
                    continue;
                };
                let options =
                    RemoveContainerOptions { force: true, v: true, ..RemoveContainerOptions::default() };
                removed += usize::from(docker.remove_container(&id, Some(options)).await.is_ok());
            }
            removed
        });
        removed + snapshots
    }
}

/// The number of a process may be another's later, but not with the same start.
fn own_label() -> String {
    let own = std::process::id();
    format!("{own}-{}", started(own).unwrap_or_default())
}

fn is_orphan(label: &str) -> bool {
    let parts = label.split_once('-').and_then(|(pid, start)| Some((pid.parse().ok()?, start)));
    parts.is_some_and(|(pid, start)| started(pid).as_deref() != Some(start))
}

/// When a process has started, if it lives.
fn started(pid: u32) -> Option<String> {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?;
    // Behind the name, which may hold anything.
    stat.rsplit(')').next()?.split_whitespace().nth(19).map(str::to_owned)
}

fn absent_image(image: &str) -> String {
    format!("image {image} is not there: docker pull {image}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_tells_whether_its_supervisor_lives() {
        assert!(!is_orphan(&own_label()));
        let own = std::process::id();
        assert!(is_orphan(&format!("{own}-1")), "another process of the same number");
        assert!(is_orphan("4194305-1"), "no process has such a number");
        assert!(!is_orphan("something else"));
    }
}
