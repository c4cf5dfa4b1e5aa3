//! A container that runs, and its first process as it is seen from here.

use std::{
    collections::HashSet,
    os::fd::OwnedFd,
    path::PathBuf,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use bollard::{
    errors::Error,
    models::ContainerCreateBody,
    query_parameters::{
        AttachContainerOptions, CreateContainerOptions, InspectContainerOptions, RemoveContainerOptions,
        StartContainerOptions, WaitContainerOptions,
    },
};
use futures::StreamExt;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::AsyncWrite;

use super::daemon::{Daemon, is_absent, said, start_error};
use crate::{
    SandboxError,
    cgroup::{Cgroups, Seen},
    owner::prefix,
    running::is_readable,
};

/// How long a container may take to be there, or its processes to be gone.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long the daemon may take to forget one that has ended, and after how long it is asked again.
const REMOVAL_PATIENCE: Duration = Duration::from_secs(300);
const ASKED_AGAIN: Duration = Duration::from_secs(2);

type Input = Pin<Box<dyn AsyncWrite + Send>>;

/// A container that runs. Dropping it ends it.
pub(super) struct Container {
    pub(super) daemon: Arc<Daemon>,
    pub(super) id: String,
    first: Pid,
    end: OwnedFd,
    group: Seen,
    /// What it consists of while no command runs in it.
    own: Vec<Pid>,
    kills: AtomicU64,
    /// The base lives as long as this is open. Nobody locks it: it is only so that threads may share the rest.
    _input: Mutex<Option<Input>>,
}

impl Container {
    /// A base, once it has said that its disk is there.
    pub(super) fn base(daemon: &Arc<Daemon>, body: ContainerCreateBody) -> Result<Self, SandboxError> {
        let id = create(daemon, body)?;
        let attach = {
            let id = id.clone();
            daemon.call(|docker| async move {
                let options = AttachContainerOptions {
                    stdin: true,
                    stdout: true,
                    stderr: true,
                    stream: true,
                    ..AttachContainerOptions::default()
                };
                let mut attached = docker.attach_container(&id, Some(options)).await?;
                docker.start_container(&id, None::<StartContainerOptions>).await?;
                let first = tokio::time::timeout(PATIENCE, attached.output.next()).await;
                let said = first.ok().flatten().transpose()?.map(|output| output.into_bytes());
                Ok((attached.input, said.unwrap_or_default()))
            })
        };
        let (input, said) = attach.map_err(|error| discard(daemon, &id, error))?;
        if &said[..] != b"\n" {
            remove(daemon, &id);
            let why = String::from_utf8_lossy(&said).trim().to_owned();
            return Err(SandboxError::Start {
                why: if why.is_empty() { "the base said nothing".into() } else { why },
            });
        }
        Self::seen(daemon, id, Some(input))
    }

    /// A cell, once its first process waits.
    pub(super) fn cell(daemon: &Arc<Daemon>, body: ContainerCreateBody) -> Result<Self, SandboxError> {
        let id = create(daemon, body)?;
        let started = {
            let id = id.clone();
            daemon.call(
                |docker| async move { docker.start_container(&id, None::<StartContainerOptions>).await },
            )
        };
        started.map_err(|error| discard(daemon, &id, error))?;
        let mut cell = Self::seen(daemon, id, None)?;
        let patience = Instant::now() + PATIENCE;
        loop {
            cell.own = cell.group.processes().unwrap_or_default();
            if cell.own.len() == 2 {
                return Ok(cell);
            }
            if is_readable(&cell.end, Duration::ZERO) || Instant::now() > patience {
                return Err(SandboxError::Start { why: "the first process of a cell has ended".into() });
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn seen(daemon: &Arc<Daemon>, id: String, input: Option<Input>) -> Result<Self, SandboxError> {
        let asked = id.clone();
        let inspected =
            daemon
                .call(|docker| async move {
                    docker.inspect_container(&asked, None::<InspectContainerOptions>).await
                })
                .map_err(|error| discard(daemon, &id, error))?;
        let pid = inspected.state.and_then(|state| Pid::from_raw(i32::try_from(state.pid?).ok()?));
        let found = pid.and_then(|pid| {
            let end = pidfd_open(pid, PidfdFlags::empty()).ok()?;
            // With its id in it, it is no other process of the same number.
            Some((pid, end, Cgroups::of_container(pid, &id)?))
        });
        let Some((first, end, group)) = found else {
            remove(daemon, &id);
            return Err(SandboxError::Start {
                why: "the processes of a container cannot be seen from here: the daemon must be of this machine".into(),
            });
        };
        Ok(Self {
            daemon: Arc::clone(daemon),
            id,
            first,
            end,
            group,
            own: Vec::new(),
            kills: AtomicU64::new(0),
            _input: Mutex::new(input),
        })
    }

    /// Its root, as its first process sees it.
    pub(super) fn root(&self) -> PathBuf {
        format!("/proc/{}/root", self.first.as_raw_nonzero()).into()
    }

    pub(super) fn has_ended(&self) -> bool {
        is_readable(&self.end, Duration::ZERO)
    }

    /// Every process in it that is not its own.
    pub(super) fn processes(&self) -> Option<Vec<Pid>> {
        let mut all = self.group.processes()?;
        all.retain(|pid| !self.own.contains(pid));
        Some(all)
    }

    /// Whether it is as it was when it was made: all of its own processes live, and no other.
    pub(super) fn is_clean(&self) -> bool {
        let by_number = |all: Vec<Pid>| all.into_iter().collect::<HashSet<_>>();
        self.group.processes().is_some_and(|now| by_number(now) == by_number(self.own.clone()))
    }

    /// How often the kernel killed for memory; what is known of it once it has ended.
    pub(super) fn kills(&self) -> u64 {
        let now = self.group.kills();
        self.kills.fetch_max(now, Ordering::Relaxed).max(now)
    }

    /// Ends every process in it, and returns when none is left.
    pub(super) fn kill(&self) {
        self.kills();
        // The kernel ends every process of the namespace with its first one, and ends that one last.
        let _ = pidfd_send_signal(&self.end, Signal::KILL);
        is_readable(&self.end, PATIENCE);
    }

    /// Returns when the daemon has forgotten it. It is asked again and again: a daemon that finds a container, removes
    /// it and only then begins to wait for that never answers (moby's `ContainerWait` before version 23).
    pub(super) fn wait_removed(&self) -> Result<(), SandboxError> {
        let failed = |why: String| Err(SandboxError::Carry { doing: "remove a container", why });
        let patience = Instant::now() + REMOVAL_PATIENCE;
        while Instant::now() < patience {
            let id = self.id.clone();
            let gone = self.daemon.call(|docker| async move {
                let options = WaitContainerOptions { condition: "removed".into() };
                let mut waiting = docker.wait_container(&id, Some(options));
                tokio::time::timeout(ASKED_AGAIN, waiting.next()).await.map(Option::transpose)
            });
            match gone {
                Ok(Err(Error::DockerContainerWaitError { .. }) | Ok(_)) => return Ok(()),
                Ok(Err(error)) if is_absent(&error) => return Ok(()),
                Ok(Err(error)) => return failed(said(&error)),
                Err(_) => {}
            }
        }
        failed(format!("it is still there after {} s", REMOVAL_PATIENCE.as_secs()))
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.kill();
    }
}

fn create(daemon: &Daemon, body: ContainerCreateBody) -> Result<String, SandboxError> {
    let image = body.image.clone().unwrap_or_default();
    let name = format!("{}{}", prefix(), uuid::Uuid::new_v4().simple());
    let options = CreateContainerOptions { name: Some(name), ..CreateContainerOptions::default() };
    let created = daemon.call(|docker| async move { docker.create_container(Some(options), body).await });
    created.map(|created| created.id).map_err(|error| match is_absent(&error) {
        true => SandboxError::Missing { missing: vec![super::absent_image(&image)] },
        false => start_error(error),
    })
}

/// One that did not start is not removed by itself.
fn discard(daemon: &Daemon, id: &str, error: Error) -> SandboxError {
    remove(daemon, id);
    start_error(error)
}

fn remove(daemon: &Daemon, id: &str) {
    let id = id.to_owned();
    let options = RemoveContainerOptions { force: true, v: true, ..RemoveContainerOptions::default() };
    // Absent, if it was faster.
    let _ = daemon.call(|docker| async move { docker.remove_container(&id, Some(options)).await });
}
