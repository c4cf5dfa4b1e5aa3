//! The base of a session, its disk, and the sandboxes that share it.

use std::{
    ffi::OsString,
    fs,
    io::Read,
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt},
    path::Path,
    process::Stdio,
    time::Duration,
};

use tempfile::TempDir;

use super::{
    Bubblewrap,
    keeper::{Keeper, Rlimit},
    options::{self, Places},
    process::{Launch, Sandbox},
};
use crate::{
    Exec, Limits, SandboxError, Spec,
    capture::Capture,
    cgroup::{Cgroups, Group},
    owner::prefix,
    running::{Input, Running as _, is_readable},
    seccomp,
    session::Maker,
};

/// Says that its mounts are made, and waits for the end of its input.
const BASE_WORDS: [&str; 3] = ["sh", "-c", "echo; exec cat"];

/// Its fields in the order in which they go.
pub(super) struct BubblewrapMaker {
    workspace: OwnedFd,
    tmp: OwnedFd,
    base: Sandbox,
    group: Group,
    keeper: Keeper,
    folder: TempDir,
    bwrap: OsString,
    user: Option<u32>,
    seccomp: Vec<u8>,
    limits: Limits,
    rlimits: Vec<Rlimit>,
    places: Places,
    /// Nothing untrusted has run.
    furnishing: bool,
}

impl BubblewrapMaker {
    pub(super) fn open(backend: &Bubblewrap, cgroups: &Cgroups, spec: &Spec) -> Result<Self, SandboxError> {
        let made = |source| SandboxError::io("make the folder of a session", source);
        let folder = tempfile::Builder::new().prefix(&prefix()).tempdir_in(&backend.dir).map_err(made)?;
        let places = Places::make(folder.path()).map_err(made)?;
        let name = folder.path().file_name().expect("it was given a name").to_string_lossy().into_owned();
        let group = cgroups.make(&name, &spec.limits)?;
        let keeper = Keeper::new().map_err(|source| SandboxError::io("start a thread", source))?;
        let bwrap = super::find_program("bwrap").unwrap_or_else(|| "bwrap".into()).into_os_string();
        let seccomp = seccomp::program();
        let mut base = Launch {
            keeper: &keeper,
            bwrap: &bwrap,
            inside: None,
            options: options::base(&places, spec),
            words: BASE_WORDS.map(OsString::from).to_vec(),
            seccomp: &seccomp,
            group: None,
            rlimits: &[],
            user: backend.becomes(),
            stdin: Stdio::piped(),
            stdout: Stdio::piped(),
        }
        .start()?;
        ready(&mut base)?;
        Ok(Self {
            // Replaced once the folders are there.
            workspace: open_dir(&disk(&base, &places))?,
            tmp: open_dir(&disk(&base, &places))?,
            base,
            rlimits: rlimits(&spec.limits, group.memory),
            limits: spec.limits.clone(),
            group,
            keeper,
            folder,
            bwrap,
            user: backend.becomes(),
            seccomp,
            places,
            furnishing: true,
        })
    }

    fn launch(
        &self,
        options: Vec<OsString>,
        words: Vec<OsString>,
        group: Option<&Group>,
        rlimits: &[Rlimit],
        stdin: Stdio,
        stdout: Stdio,
    ) -> Result<Sandbox, SandboxError> {
        if is_readable(self.base.end(), Duration::ZERO) {
            return Err(SandboxError::Closed);
        }
        Launch {
            keeper: &self.keeper,
            bwrap: &self.bwrap,
            inside: Some(self.base.first()),
            options,
            words,
            seccomp: &self.seccomp,
            group,
            rlimits,
            user: self.user,
            stdin,
            stdout,
        }
        .start()
    }
}

impl Maker for BubblewrapMaker {
    type Sandbox = Sandbox;

    fn command(
        &mut self,
        spec: &Spec,
        exec: Option<&Exec>,
        words: Vec<OsString>,
    ) -> Result<Sandbox, SandboxError> {
        let options = options::command(&self.places, spec, exec)?;
        self.launch(options, words, Some(&self.group), &self.rlimits, Stdio::piped(), Stdio::piped())
    }

    fn porter(
        &mut self,
        words: Vec<OsString>,
        stdin: Input,
        stdout: Option<OwnedFd>,
    ) -> Result<Sandbox, SandboxError> {
        // Whatever the session's own processes hold, files can be carried: these have limits of their own.
        let rlimits = [
            ("-c", 0),
            ("-f", self.limits.disk_bytes.saturating_mul(2).div_ceil(1024) + (64 << 10)),
            ("-v", 2 << 20),
        ];
        let stdin = match stdin {
            Input::Nothing => Stdio::null(),
            Input::Fed => Stdio::piped(),
            Input::From(file) => file.into(),
        };
        let options = options::porter(&self.places, self.furnishing);
        self.launch(options, words, None, &rlimits, stdin, stdout.map_or_else(Stdio::null, Stdio::from))
    }

    fn furnished(&mut self) -> Result<(), SandboxError> {
        self.furnishing = false;
        self.workspace = open_dir(&disk(&self.base, &self.places).join("workspace"))?;
        self.tmp = open_dir(&disk(&self.base, &self.places).join("tmp"))?;
        Ok(())
    }

    fn workspace(&self) -> &OwnedFd {
        &self.workspace
    }

    fn tmp(&self) -> &OwnedFd {
        &self.tmp
    }

    fn kills(&self) -> u64 {
        self.group.kills()
    }

    fn is_refusal(code: Option<i32>, stderr: &Capture) -> bool {
        code.is_none() && stderr.starts_with(b"bwrap: ")
    }

    fn close(self) -> Result<(), SandboxError> {
        let Self { workspace, tmp, base, mut group, keeper, folder, .. } = self;
        drop((workspace, tmp, base, keeper));
        let removed = group.remove();
        folder.close().map_err(|source| SandboxError::io("remove the folder of a session", source))?;
        removed.map_err(|source| SandboxError::io("remove a control group", source))
    }
}

/// The disk, which only the base has mounted.
fn disk(base: &Sandbox, places: &Places) -> std::path::PathBuf {
    let root = format!("/proc/{}/root", base.first().as_raw_nonzero());
    Path::new(&root).join(places.disk.strip_prefix("/").unwrap_or(&places.disk))
}

/// Waits until the base has its mounts.
fn ready(base: &mut Sandbox) -> Result<(), SandboxError> {
    let mut stdout = base.stdout.take().expect("it is a pipe");
    if is_readable(&stdout, Duration::from_secs(60)) && stdout.read(&mut [0]).is_ok_and(|length| length == 1)
    {
        return Ok(());
    }
    let mut stderr = base.stderr.take().expect("it is a pipe");
    base.finish();
    let mut why = String::new();
    let _ = stderr.read_to_string(&mut why);
    Err(SandboxError::Start { why: why.trim().into() })
}

fn open_dir(path: &Path) -> Result<OwnedFd, SandboxError> {
    let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
    let opened = fs::OpenOptions::new().read(true).custom_flags(flags).open(path);
    Ok(opened.map_err(|source| SandboxError::io("open the disk of a session", source))?.into())
}

fn rlimits(limits: &Limits, group_has_memory: bool) -> Vec<Rlimit> {
    let mut all = vec![
        ("-c", 0),
        ("-f", limits.file_bytes.div_ceil(1024)),
        ("-l", 64),
        ("-n", limits.open_files),
        ("-q", 64 << 10),
        ("-t", limits.cpu_secs),
        // Counted in the user namespace of the base: all of the session together.
        ("-u", limits.processes),
    ];
    if !group_has_memory {
        all.push(("-v", limits.address_bytes.unwrap_or(limits.memory_bytes).div_ceil(1024)));
    }
    all
}
