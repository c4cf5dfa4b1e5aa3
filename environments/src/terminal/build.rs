//! Makes the workspace of a task folder: its Dockerfile carried out in a sandbox, in which the agent never is.
use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs, io,
    path::{Component, Path, PathBuf},
};

use openclaw_sandbox::{APP, Backend, Command, Exec, HOME, Session, Snapshot, Spec, WORKSPACE};

use super::{
    carried::Shipped,
    control::Control,
    dockerfile::{Dockerfile, Instruction, Offer},
    folder::expand,
    script::Check,
    settings::Settings,
    task_set::FolderTask,
};
use crate::world::WorldError;

/// Where the folder of the Dockerfile is while a workspace is made.
const CONTEXT: &str = "/build";

/// What programs are found by, where no task says anything else.
pub(super) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// As Docker copies: of a folder what is in it, of several sources or with a `/` at its end into a folder.
const COPY: &str = r#"target=$1; shift; IFS=
case $target in */) mkdir -p -- "$target" || exit ;; esac
[ $# = 1 ] || mkdir -p -- "$target" || exit
for pattern; do
  for source in /build/$pattern; do
    if [ -d "$source" ]; then mkdir -p -- "$target" && cp -RP -- "$source/." "$target/" || exit
    elif [ -d "$target" ]; then cp -P -- "$source" "$target/" || exit
    else mkdir -p -- "$(dirname -- "$target")" && cp -P -- "$source" "$target" || exit
    fi
  done
done"#;

/// A workspace that was made.
#[derive(Clone, Debug)]
pub(super) struct Built {
    /// What is in it.
    pub(super) snapshot: Snapshot,
    /// Variables of all that runs in it.
    pub(super) env: BTreeMap<OsString, OsString>,
    /// Where commands start, relative to the workspace.
    pub(super) folder: PathBuf,
    /// For pytest, before the agent came.
    pub(super) shipped: Shipped,
}

/// The Dockerfile of a task, if this machine can stand for it; what it lacks is named.
fn dockerfile(task: &FolderTask, offer: &Offer) -> Result<Dockerfile, WorldError> {
    let refuse = |what: String| WorldError::Refused(format!("{}: {what}", task.task.id));
    let beyond_us = task.beyond_us();
    if !beyond_us.is_empty() {
        return Err(refuse(format!("needs {}", beyond_us.join(", "))));
    }
    let path = task.context().join("Dockerfile");
    let mut dockerfile = match (fs::read_to_string(&path), &task.task.environment.docker_image) {
        (Ok(text), _) => Dockerfile::parse(&text).map_err(|error| refuse(error.to_string()))?,
        (Err(error), Some(image)) if error.kind() == io::ErrorKind::NotFound => {
            Dockerfile { image: image.clone(), instructions: Vec::new(), needs: BTreeSet::new() }
        }
        (Err(error), _) => return Err(refuse(format!("{}: {error}", path.display()))),
    };
    if let Ok(Check::Pytest(run)) = &task.check {
        dockerfile.needs.extend(run.needs.iter().cloned());
    }
    dockerfile.check(offer).map_err(|lacking| refuse(lacking.to_string()))?;
    Ok(dockerfile)
}

/// Makes it.
pub(super) fn build(
    task: &FolderTask,
    offer: &Offer,
    settings: &Settings,
    backend: &dyn Backend,
    control: &Control,
) -> Result<Built, WorldError> {
    let dockerfile = dockerfile(task, offer)?;
    let environment = &task.task.environment;
    let copies = dockerfile.instructions.iter().any(|one| matches!(one, Instruction::Copy { .. }));
    let context = copies.then(|| (PathBuf::from(CONTEXT), task.context()));
    let spec = Spec {
        read_only: context.into_iter().collect(),
        limits: settings.limits(environment.memory_mb, environment.storage_mb),
        ..Spec::default()
    };
    let session = control.open(backend, &spec)?;
    let mut builder =
        Builder { task, settings, control, session, env: BTreeMap::new(), folder: PathBuf::new() };
    for instruction in &dockerfile.instructions {
        builder.carry_out(instruction)?;
    }
    if let Some(folder) = &environment.workdir {
        builder.workdir(folder)?;
    }
    // Only the workspace is kept.
    if dockerfile.instructions.iter().any(|one| matches!(one, Instruction::Shell(_) | Instruction::Exec(_))) {
        let look = r#"[ -z "$(find "$1" -mindepth 1 -print -quit)" ]"#;
        builder.run("RUN", Exec::argv(["/bin/sh", "-c", look, "sh", HOME])).map_err(|error| match error {
            WorldError::Refused(_) => builder.refused(format!("needs path:{HOME}, which is not kept")),
            other => other,
        })?;
    }
    for (name, value) in &environment.env {
        let value =
            expand(value, |_| None).map_err(|name| builder.refused(format!("needs variable:{name}")))?;
        builder.env.insert(name.clone(), value);
    }
    control.check()?;
    let shipped = Shipped::of(builder.session.as_mut(), &builder.folder)?;
    let snapshot = builder.session.snapshot()?;
    let env = builder.env.iter().map(|(name, value)| (name.into(), value.into())).collect();
    Ok(Built { snapshot, env, folder: builder.folder.clone(), shipped })
}

/// What the next instruction finds.
struct Builder<'a> {
    task: &'a FolderTask,
    settings: &'a Settings,
    control: &'a Control,
    session: Box<dyn Session>,
    env: BTreeMap<String, String>,
    folder: PathBuf,
}

impl Builder<'_> {
    fn refused(&self, what: String) -> WorldError {
        WorldError::Refused(format!("{}: {what}", self.task.task.id))
    }

    fn carry_out(&mut self, instruction: &Instruction) -> Result<(), WorldError> {
        match instruction {
            Instruction::Env(variables) => {
                // All of a line see what was before it.
                let values: Vec<String> = variables.iter().map(|(_, value)| self.expanded(value)).collect();
                let names = variables.iter().map(|(name, _)| name.clone());
                self.env.extend(names.zip(values));
                Ok(())
            }
            Instruction::Workdir(path) => self.workdir(path),
            Instruction::Copy { sources, target } => {
                let target = self.expanded(target);
                let inside = Path::new(WORKSPACE).join(self.inside(&target)?);
                let is_folder = target.ends_with('/') || target.ends_with("/.") || target == ".";
                let mut words: Vec<OsString> = ["/bin/sh", "-c", COPY, "sh"].map(OsString::from).to_vec();
                words.push(inside.into_os_string());
                if is_folder && let Some(target) = words.last_mut() {
                    target.push("/");
                }
                words.extend(sources.iter().map(|source| OsString::from(self.expanded(source))));
                self.run("COPY", Exec::argv(words))
            }
            Instruction::Shell(line) => self.run_in_folder(Command::Line(line.clone())),
            Instruction::Exec(words) => {
                self.run_in_folder(Command::Argv(words.iter().map(OsString::from).collect()))
            }
        }
    }

    fn workdir(&mut self, path: &str) -> Result<(), WorldError> {
        self.folder = self.inside(&self.expanded(path))?;
        let path = Path::new(WORKSPACE).join(&self.folder);
        self.run(
            "WORKDIR",
            Exec::argv(["/bin/mkdir".as_ref(), "-p".as_ref(), "--".as_ref(), path.as_os_str()]),
        )
    }

    fn run_in_folder(&mut self, command: Command) -> Result<(), WorldError> {
        let mut exec = Exec::line("");
        exec.command = command;
        exec.cwd = self.folder.clone();
        exec.env = self.env.iter().map(|(name, value)| (name.into(), value.into())).collect();
        self.run("RUN", exec)
    }

    fn run(&mut self, what: &str, exec: Exec) -> Result<(), WorldError> {
        self.control.check()?;
        let time = self.settings.long_time(self.task.task.environment.build_timeout_secs);
        let ran = self.session.exec(&exec.timeout(time))?;
        self.control.ended(ran.ending)?;
        if ran.success() {
            return Ok(());
        }
        let said = ran.stderr.text();
        let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("nothing was said");
        Err(self.refused(format!("{what} fails here, {:?}: {last}", ran.ending)))
    }

    /// A path of a Dockerfile, relative to the workspace: no other place can be written and is kept.
    fn inside(&self, path: &str) -> Result<PathBuf, WorldError> {
        let path = Path::new(WORKSPACE).join(&self.folder).join(path);
        let mut plain = PathBuf::new();
        for part in path.components() {
            match part {
                Component::ParentDir => drop(plain.pop()),
                Component::CurDir => {}
                part => plain.push(part),
            }
        }
        match plain.strip_prefix(WORKSPACE).or_else(|_| plain.strip_prefix(APP)) {
            Ok(inside) => Ok(inside.to_owned()),
            Err(_) => Err(self.refused(format!("needs path:{}, only {WORKSPACE} is kept", plain.display()))),
        }
    }

    /// With `$NAME` and `${NAME:-default}` replaced; a name without a value is empty, as in Docker.
    fn expanded(&self, text: &str) -> String {
        let value = |name: &str| match self.env.get(name) {
            Some(value) => value.clone(),
            None if name == "PATH" => PATH.to_owned(),
            None if name == "HOME" => HOME.to_owned(),
            None => String::new(),
        };
        let mut out = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            out.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            let inside = rest.strip_prefix('{').and_then(|inside| inside.split_once('}'));
            if let Some((inside, after)) = inside {
                let (name, default) = inside.split_once(":-").unwrap_or((inside, ""));
                let found = value(name);
                out.push_str(if found.is_empty() { default } else { &found });
                rest = after;
                continue;
            }
            let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
            match end {
                0 => out.push('$'),
                _ => out.push_str(&value(&rest[..end])),
            }
            rest = &rest[end..];
        }
        out.push_str(rest);
        out
    }
}
