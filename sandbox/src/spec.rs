//! What a session is made of.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
};

use crate::{SandboxError, Snapshot};

/// The folder an agent works in, and where commands start.
pub const WORKSPACE: &str = "/workspace";
/// Another name of [`WORKSPACE`], as images of tasks have it: a link.
pub const APP: &str = "/app";
/// Writable, with the folders `agent`, `verifier` and `artifacts`.
pub const LOGS: &str = "/logs";
/// `$HOME`.
pub const HOME: &str = "/home/agent";
/// Temporary files. They count as the rest of the disk does.
pub const TMP: &str = "/tmp";

/// What a session is made of.
#[derive(Clone, Debug, Default)]
pub struct Spec {
    /// Programs and libraries, read-only.
    pub root: Root,
    /// What is in [`WORKSPACE`] at first.
    pub workspace: Workspace,
    /// Folders of the host that are copied in where nobody can write, by their place inside: `/tests` at grading time.
    pub read_only: BTreeMap<PathBuf, PathBuf>,
    /// More names of [`WORKSPACE`], beside [`APP`], where programs look for their files: `/home/user`, or a folder of an image.
    pub aliases: Vec<PathBuf>,
    /// Added to `PATH`, `HOME`, `USER`, `LANG`, `TERM` and `TMPDIR`, or in their place. Nothing of the supervisor's own.
    pub env: BTreeMap<OsString, OsString>,
    /// What it may use.
    pub limits: Limits,
}

/// Programs and libraries, read-only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Root {
    /// The host's `/usr` and the few files of `/etc` that programs need. No home, no `/var`, no `/run`. Of docker, its
    /// own image.
    #[default]
    Host,
    /// An unpacked root file system. The user that commands run as must be able to read it. Docker has none.
    Folder(PathBuf),
    /// An image that the daemon has, by its name. Bubblewrap has none.
    Image(String),
}

/// What is in the workspace at first.
#[derive(Clone, Debug, Default)]
pub enum Workspace {
    /// Nothing.
    #[default]
    Empty,
    /// A copy of a folder of the host.
    Folder(PathBuf),
    /// What another session had.
    Snapshot(Snapshot),
}

/// What a session may use. One process over its limit fails by itself; the session goes on.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Memory of all processes together; 1 GiB. Files lie in memory, too: what commands write has
    /// [`Limits::disk_bytes`] on top, what is copied in is the supervisor's.
    /// Without control groups: the address space of each process.
    pub memory_bytes: u64,
    /// Without control groups: the address space of each process, where that is another number than its memory. Browsers
    /// reserve thousands of times what they use.
    pub address_bytes: Option<u64>,
    /// Processes and threads at once; 128.
    pub processes: u64,
    /// Processor time of each process; 600.
    pub cpu_secs: u64,
    /// Share of processors of the whole session, 100 is one; none is no limit, the default. Needs control groups.
    pub cpu_percent: Option<u32>,
    /// Workspace, logs, home and temporary files together; 512 MiB.
    pub disk_bytes: u64,
    /// One file; 256 MiB.
    pub file_bytes: u64,
    /// Open files of each process; 1024.
    pub open_files: u64,
    /// Kept of each of the two outputs of a command, the first and the last half; 64 KiB.
    pub output_bytes: usize,
    /// The most [`Session::read_file`](crate::Session::read_file) answers; 16 MiB.
    pub read_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: 1 << 30,
            address_bytes: None,
            processes: 128,
            cpu_secs: 600,
            cpu_percent: None,
            disk_bytes: 512 << 20,
            file_bytes: 256 << 20,
            open_files: 1024,
            output_bytes: 64 << 10,
            read_bytes: 16 << 20,
        }
    }
}

/// Places that a session makes itself.
const TAKEN: [&str; 14] = [
    "/",
    "/app",
    "/bin",
    "/dev",
    "/etc",
    "/home",
    "/lib",
    "/lib64",
    "/logs",
    "/proc",
    "/sbin",
    "/tmp",
    "/usr",
    "/workspace",
];

impl Spec {
    /// What can be said without looking at the host.
    pub(crate) fn check(&self) -> Result<(), SandboxError> {
        for at in self.read_only.keys().chain(&self.aliases) {
            let plain = at.is_absolute()
                && at.components().skip(1).all(|part| matches!(part, std::path::Component::Normal(_)));
            let free = !TAKEN.iter().any(|taken| at == Path::new(taken))
                && !at.starts_with("/proc")
                && !at.starts_with("/dev");
            if !plain || !free {
                return Err(SandboxError::path(at, "is not a place for a folder"));
            }
        }
        let zero = [
            ("memory_bytes", self.limits.memory_bytes),
            ("processes", self.limits.processes),
            ("disk_bytes", self.limits.disk_bytes),
            ("cpu_secs", self.limits.cpu_secs),
        ];
        // A tmpfs of size 0 has no limit at all.
        match zero.into_iter().find(|(_, limit)| *limit == 0) {
            Some((limit, _)) => Err(SandboxError::Limit { limit }),
            None => Ok(()),
        }
    }
}
