//! Where the untrusted commands of an agent run. A [`Backend`] opens sessions; a [`Session`] is one machine for one
//! episode: a workspace, commands, one persistent shell, and limits on all it may use.
//!
//! Nothing runs outside a sandbox: where isolation is missing, [`Backend::open`] is refused and says what is missing.
//! After [`Session::close`] nothing of a session is left: no process, mount, control group or folder.
//!
//! Everything blocks. Whoever owns a session gives it a thread.

mod attend;
pub mod bubblewrap;
mod capture;
mod cgroup;
pub mod docker;
mod error;
mod files;
mod owner;
mod program;
mod ran;
mod running;
mod scripts;
mod seccomp;
mod session;
mod shell;
mod snapshot;
mod spec;

use std::{os::unix::net::UnixStream, path::Path, time::Duration};

pub use self::{
    bubblewrap::Bubblewrap,
    docker::Docker,
    error::{Advice, SandboxError},
    files::{Copied, Entry, Kind, Listing},
    program::{Program, ProgramPipes},
    ran::{Command, Ending, Exec, Output, Ran},
    snapshot::Snapshot,
    spec::{APP, HOME, LOGS, Limits, Root, Spec, TMP, WORKSPACE, Workspace},
};

/// A way to isolate.
pub trait Backend: Send + Sync {
    /// As an operator names it.
    fn name(&self) -> &'static str;

    /// What isolation needs, and whether it is there.
    fn probe(&self) -> Vec<Check>;

    /// What isolation needs and lacks here, and what to do about each.
    fn missing(&self) -> Vec<String> {
        let lacks = |check: &Check| check.needed && !check.ok;
        let checks = self.probe().into_iter().filter(lacks);
        checks.map(|check| format!("{}: {}", check.name, check.detail)).collect()
    }

    /// A session with its own processes, network, files and limits. [`SandboxError::Missing`] where the host cannot
    /// isolate.
    fn open(&self, spec: &Spec) -> Result<Box<dyn Session>, SandboxError>;

    /// Removes what supervisors that were killed have left. How many.
    fn sweep(&self) -> usize;
}

/// One machine for one episode. Paths of files are relative to the workspace. Dropping it closes it.
pub trait Session: Send {
    /// Runs a command by itself: when it has ended, or was ended, so has all that it started.
    fn exec(&mut self, exec: &Exec) -> Result<Ran, SandboxError>;

    /// Starts a program that goes on. Of `exec` neither the input nor the time counts: what it reads comes from
    /// [`Program::pipes`], and it ends by itself, with the answer, with [`Session::stop_all`] or with the session.
    fn start(&mut self, exec: &Exec) -> Result<Program, SandboxError>;

    /// Runs a line in the session's one shell, whose folder, variables and background jobs persist. After a timeout
    /// what the line started is dead and the shell goes on, or is lost, see [`Ran::shell_lost`].
    fn shell(&mut self, line: &str, timeout: Duration) -> Result<Ran, SandboxError>;

    /// Ends every process, the shell included. Before a verdict: what was left running can change nothing any more.
    fn stop_all(&mut self) -> Result<(), SandboxError>;

    /// A regular file of at most [`Limits::read_bytes`]. No link leads out of the workspace, and nothing blocks.
    fn read_file(&self, path: &Path) -> Result<Vec<u8>, SandboxError>;

    /// Makes or replaces a file, and its folders. No part of `path` may be a link.
    fn write_file(&mut self, path: &Path, bytes: &[u8]) -> Result<(), SandboxError>;

    /// The entries of a folder.
    fn list(&self, path: &Path) -> Result<Listing, SandboxError>;

    /// Copies folders and regular files to `to`, a folder of the host that is made. Whatever else there is, links
    /// too, is counted and not copied.
    fn copy_out(&self, path: &Path, to: &Path) -> Result<Copied, SandboxError>;

    /// The workspace as it is, without sockets and paths of more than 4 KiB. What its owner could not read can be read
    /// afterwards. What still runs may write meanwhile, see [`Session::stop_all`]. It outlives the session, and opens others: [`Workspace::Snapshot`].
    fn snapshot(&mut self) -> Result<Snapshot, SandboxError>;

    /// Ends every process and makes the workspace that of `snapshot` again. Logs and temporary files go.
    fn reset(&mut self, snapshot: &Snapshot) -> Result<(), SandboxError>;

    /// A stream to a socket below [`WORKSPACE`] or [`TMP`] that a program of the shell listens at. What comes over it is
    /// untrusted, and may never come.
    fn connect(&self, path: &Path) -> Result<UnixStream, SandboxError>;

    /// For another thread.
    fn interrupt_handle(&self) -> Interrupt;

    /// Ends everything and leaves nothing behind. Again, it does nothing.
    fn close(&mut self) -> Result<(), SandboxError>;
}

/// One thing that isolation needs or uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What.
    pub name: &'static str,
    /// Whether it is there.
    pub ok: bool,
    /// A version, or what to do.
    pub detail: String,
    /// Without it nothing is run. What is not needed is a second fence, or a limit that has a weaker stand-in.
    pub needed: bool,
}

/// What [`Bubblewrap`] with its defaults finds on this host.
pub fn probe() -> Vec<Check> {
    Bubblewrap::default().probe()
}

/// What [`Bubblewrap`] with its defaults lacks on this host: nothing where untrusted code can run.
pub fn missing() -> Vec<String> {
    Bubblewrap::default().missing()
}

/// Ends what a session runs, from another thread.
#[derive(Clone, Debug)]
pub struct Interrupt {
    event: std::sync::Arc<std::os::fd::OwnedFd>,
}

impl Interrupt {
    pub(crate) fn new() -> Result<Self, SandboxError> {
        use rustix::event::{EventfdFlags, eventfd};
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|errno| SandboxError::io("make an eventfd", errno))?;
        Ok(Self { event: event.into() })
    }

    /// The running command or line ends with [`Ending::Interrupted`]. If none runs, nothing happens.
    pub fn interrupt(&self) {
        // Full only after 2^64 - 1 interrupts nobody looked at.
        let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
    }

    pub(crate) fn clear(&self) {
        let _ = rustix::io::read(&self.event, &mut [0; 8]);
    }

    pub(crate) fn fd(&self) -> &std::os::fd::OwnedFd {
        &self.event
    }
}
