//! The containers of a session: its base, and the cells of the shell and of commands.

use std::{
    ffi::{OsStr, OsString},
    fmt::Write,
    fs::OpenOptions,
    os::{
        fd::OwnedFd,
        unix::{ffi::OsStrExt, fs::OpenOptionsExt},
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use bollard::query_parameters::InspectContainerOptions;

use super::{
    container::Container,
    daemon::{Daemon, start_error},
    exec::{Launch, Leaves, Sandbox},
    options::{self, Owner, Places},
};
use crate::{Exec, SandboxError, Spec, WORKSPACE, capture::Capture, running::Input, session::Maker};

/// Goes where a command starts, and becomes it.
const COMMAND: &str = r#"cd -- "$1" 2>/dev/null || { echo "sandbox: cannot start in $1: $(cd -- "$1" 2>&1)" >&2; exit 255; }
shift
exec "$@""#;
const REFUSAL: &[u8] = b"sandbox: cannot start in ";
/// Words that are no text come as what `printf %b` makes of others.
const DECODE: &str = r#"n=$#
while [ $n -gt 0 ]; do word=$(printf %b. "$1"); shift; set -- "$@" "${word%.}"; n=$((n - 1)); done
exec "$@""#;

/// Its fields in the order in which they go.
pub(super) struct DockerMaker {
    workspace: OwnedFd,
    tmp: OwnedFd,
    /// For commands, one after the other, as long as each leaves it as it was.
    cell: Option<Arc<Container>>,
    /// All that may still be there, the base last.
    containers: Vec<Arc<Container>>,
    base: Arc<Container>,
    daemon: Arc<Daemon>,
    owner: Owner,
    places: Places,
    /// Of cells that are gone.
    kills: u64,
}

impl DockerMaker {
    pub(super) fn open(daemon: Arc<Daemon>, owner: Owner, spec: &Spec) -> Result<Self, SandboxError> {
        // What no cell could be made of is refused before there is anything.
        let nowhere = Places { disk: String::new(), store: String::new() };
        options::cell(&owner, &nowhere, spec)?;
        let base = Arc::new(Container::base(&daemon, options::base(&owner, &spec.limits))?);
        let id = base.id.clone();
        let inspected = daemon
            .call(
                |docker| async move { docker.inspect_container(&id, None::<InspectContainerOptions>).await },
            )
            .map_err(start_error)?;
        let mounts = inspected.mounts.unwrap_or_default();
        let place = |at: &str| {
            let mount = mounts.iter().find(|mount| mount.destination.as_deref() == Some(at));
            mount
                .and_then(|mount| mount.source.clone())
                .ok_or_else(|| SandboxError::Start { why: format!("docker: {at} is not mounted") })
        };
        let places = Places { disk: place("/disk")?, store: place("/store")? };
        Ok(Self {
            // Replaced once the folders are there.
            workspace: open_dir(&base.root().join("disk"))?,
            tmp: open_dir(&base.root().join("disk"))?,
            cell: None,
            containers: Vec::new(),
            base,
            daemon,
            owner,
            places,
            kills: 0,
        })
    }

    fn new_cell(&mut self, spec: &Spec) -> Result<Arc<Container>, SandboxError> {
        if self.base.has_ended() {
            return Err(SandboxError::Closed);
        }
        let kills = &mut self.kills;
        self.containers.retain(|cell| {
            let lives = !cell.has_ended();
            *kills += if lives { 0 } else { cell.kills() };
            lives
        });
        let body = options::cell(&self.owner, &self.places, spec)?;
        let cell = Arc::new(Container::cell(&self.daemon, body)?);
        self.containers.push(Arc::clone(&cell));
        Ok(cell)
    }
}

impl Maker for DockerMaker {
    type Sandbox = Sandbox;

    fn keeps_programs(&self) -> bool {
        false
    }

    fn command(
        &mut self,
        spec: &Spec,
        exec: Option<&Exec>,
        words: Vec<OsString>,
    ) -> Result<Sandbox, SandboxError> {
        let mut cwd = PathBuf::from(WORKSPACE);
        let env = match exec {
            Some(exec) => {
                // An empty part would leave a slash at the end.
                cwd.extend(exec.cwd.components());
                options::env(exec.env.clone())?
            }
            None => Vec::new(),
        };
        let mut all: Vec<OsString> = ["/bin/sh", "-c", COMMAND, "sh"].map(OsString::from).to_vec();
        all.push(cwd.into());
        all.extend(words);
        let words = texts(all)?;
        let (container, leaves) = match exec {
            None => (self.new_cell(spec)?, Leaves::Nothing),
            Some(_) => match self.cell.take().filter(|cell| !cell.has_ended()) {
                Some(cell) => (cell, Leaves::CleanCell),
                None => (self.new_cell(spec)?, Leaves::CleanCell),
            },
        };
        if exec.is_some() {
            self.cell = Some(Arc::clone(&container));
        }
        Launch { container: &container, words, env, stdin: Input::Fed, stdout: None, leaves }.start()
    }

    fn porter(
        &mut self,
        words: Vec<OsString>,
        stdin: Input,
        stdout: Option<OwnedFd>,
    ) -> Result<Sandbox, SandboxError> {
        if self.base.has_ended() {
            return Err(SandboxError::Closed);
        }
        let words = texts(words)?;
        let leaves = Leaves::Base;
        Launch { container: &self.base, words, env: Vec::new(), stdin, stdout, leaves }.start()
    }

    fn furnished(&mut self) -> Result<(), SandboxError> {
        self.workspace = open_dir(&self.base.root().join("disk/workspace"))?;
        self.tmp = open_dir(&self.base.root().join("disk/tmp"))?;
        Ok(())
    }

    fn workspace(&self) -> &OwnedFd {
        &self.workspace
    }

    fn tmp(&self) -> &OwnedFd {
        &self.tmp
    }

    fn kills(&self) -> u64 {
        self.kills + self.containers.iter().map(|cell| cell.kills()).sum::<u64>()
    }

    fn is_refusal(code: Option<i32>, stderr: &Capture) -> bool {
        code == Some(255) && stderr.starts_with(REFUSAL)
    }

    fn close(self) -> Result<(), SandboxError> {
        let Self { workspace, tmp, cell, containers, base, .. } = self;
        drop((workspace, tmp, cell));
        let mut result = Ok(());
        for container in containers.iter().chain([&base]) {
            container.kill();
        }
        for container in containers.into_iter().chain([base]) {
            result = result.and(container.wait_removed());
        }
        result
    }
}

/// A request holds texts: what is none is decoded inside.
fn texts(words: Vec<OsString>) -> Result<Vec<String>, SandboxError> {
    if words.iter().all(|word| word.to_str().is_some()) {
        return words.iter().map(|word| options::text(word).map(str::to_owned)).collect();
    }
    let mut all: Vec<String> = ["/bin/sh", "-c", DECODE, "sh"].map(String::from).to_vec();
    for word in &words {
        if word.as_bytes().contains(&0) {
            return Err(SandboxError::path(Path::new(word), "has a zero byte"));
        }
        all.push(encoded(word));
    }
    Ok(all)
}

fn encoded(word: &OsStr) -> String {
    let mut text = String::new();
    for byte in word.as_bytes() {
        match byte {
            b'\\' => text.push_str(r"\\"),
            b' '..=b'~' => text.push(char::from(*byte)),
            // Writing to a string cannot fail.
            byte => _ = write!(text, r"\0{byte:03o}"),
        }
    }
    text
}

fn open_dir(path: &Path) -> Result<OwnedFd, SandboxError> {
    let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(path);
    Ok(opened.map_err(|source| SandboxError::io("open the disk of a session", source))?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_are_no_text_are_decoded_inside() {
        let words: [&[u8]; 4] = [b"printf", b"[%s]", b"a\n\xff\\n'\"$x \n", b"\\0101"];
        let all = texts(words.map(|word| OsStr::from_bytes(word).to_owned()).to_vec()).unwrap();
        let ran = std::process::Command::new(&all[0]).args(&all[1..]).output().unwrap();
        assert_eq!(ran.stdout, b"[a\n\xff\\n'\"$x \n][\\0101]");
    }
}
