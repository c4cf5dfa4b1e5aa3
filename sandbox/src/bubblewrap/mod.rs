//! Sessions by [bubblewrap](https://github.com/containers/bubblewrap): namespaces of an unprivileged user.
//!
//! Each session has a base, a sandbox in which no command ever runs. Its mount namespace holds the session's disk, a tmpfs of
//! limited size. Every command and the shell are sandboxes of their own, made from inside the base, so they share files and
//! nothing else, and each can be ended as a whole. All that a session mounts goes with its last process.
//!
//! The user comes first: a supervisor that is root becomes an unprivileged user before anything else, since the kernel would
//! still see root behind any user namespace.

mod keeper;
mod maker;
mod options;
mod probe;
mod process;

use std::{env, os::unix::ffi::OsStrExt, path::PathBuf, sync::OnceLock};

use self::maker::BubblewrapMaker;
use crate::{Backend, Check, SandboxError, Session, Spec, cgroup::Cgroups, owner, session::Machine};

/// Of the programs that make a sandbox, and of a command.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// `nobody`.
const NOBODY: u32 = 65534;

/// Sessions by bubblewrap.
#[derive(Debug)]
pub struct Bubblewrap {
    /// Whom commands run as, seen from the host, where the supervisor is root: an unprivileged user, or one for each
    /// slot. Inside they are user 1000.
    pub user: u32,
    /// Where sessions have their folders and snapshots their files. `user` must be able to reach it.
    pub dir: PathBuf,
    /// Whether this host can isolate, once it could.
    able: OnceLock<Cgroups>,
}

impl Default for Bubblewrap {
    /// As `nobody`, in the folder for temporary files.
    fn default() -> Self {
        Self::new(NOBODY, env::temp_dir())
    }
}

impl Bubblewrap {
    /// As `user`, in `dir`.
    pub fn new(user: u32, dir: impl Into<PathBuf>) -> Self {
        Self { user, dir: dir.into(), able: OnceLock::new() }
    }

    /// None where the supervisor is nobody special.
    fn becomes(&self) -> Option<u32> {
        rustix::process::geteuid().is_root().then_some(self.user)
    }

    fn able(&self) -> Result<&Cgroups, SandboxError> {
        if let Some(cgroups) = self.able.get() {
            return Ok(cgroups);
        }
        let missing = self.missing();
        if !missing.is_empty() {
            return Err(SandboxError::Missing { missing });
        }
        Ok(self.able.get_or_init(Cgroups::find))
    }
}

impl Backend for Bubblewrap {
    fn name(&self) -> &'static str {
        "bubblewrap"
    }

    fn probe(&self) -> Vec<Check> {
        probe::checks(self)
    }

    fn open(&self, spec: &Spec) -> Result<Box<dyn Session>, SandboxError> {
        spec.check()?;
        let cgroups = self.able()?;
        let maker = BubblewrapMaker::open(self, cgroups, spec)?;
        Ok(Box::new(Machine::open(maker, spec, &self.dir)?))
    }

    /// Folders, snapshots and control groups. Processes and mounts have gone with their supervisors.
    fn sweep(&self) -> usize {
        Cgroups::find().sweep(owner::is_orphan) + owner::sweep(&self.dir)
    }
}

/// Where a program lies.
fn find_program(name: &str) -> Option<PathBuf> {
    env::split_paths(std::ffi::OsStr::from_bytes(PATH.as_bytes()))
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
}
