//! Makes the repository of a task: its files, the bug, and one commit that is the base of every patch.
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use openclaw_sandbox::{Backend, Kind, Limits, Session, Snapshot, Spec, Workspace};
use tempfile::TempDir;

use super::{
    git::{self, EXCLUDES, done, script},
    row::{Row, Start},
};
use crate::{terminal::Control, world::WorldError};

/// What tests are run by.
const PROGRAMS: [(&str, &str); 2] = [
    ("guard.py", include_str!("../terminal/verifier/guard.py")),
    ("run_tests.py", include_str!("../terminal/verifier/run_tests.py")),
];
/// Where images of published rows have the repository.
pub(super) const TESTBED: &str = "/testbed";

/// An archive is unpacked; a folder around all that is in it falls away, and so does a repository that was there.
const UNPACK: &str = r#"mkdir /tmp/in && tar --extract --no-same-owner --file="$1" --directory=/tmp/in || exit
cd /tmp/in && set -- * .[!.]*
[ $# = 2 ] && [ -d "$1" ] && [ ! -e "$2" ] && { cd -- "$1" || exit; }
rm -rf .git && cp -RP . /workspace/ && rm -rf /tmp/in"#;
const COPY: &str = r#"cd -- "$1" && cp -RP . /workspace/ && cd /workspace && rm -rf .git"#;
/// The repository of an image stays: its scripts ask for commits.
const TAKE: &str = r#"cd -- "$1" && cp -a . /workspace/"#;
const BUG: &str = r#"cd /workspace && cat > /tmp/bug && safe apply $1 /tmp/bug && rm /tmp/bug"#;
const COMMIT: &str = r#"cd /workspace || exit
[ -d .git ] || { safe init -q . && safe add -A -f && safe commit -q --allow-empty -m base; } || exit
[ -z "$(safe status --porcelain)" ] || { safe add -A && safe commit -q -m base; } || exit
safe rev-parse HEAD"#;

/// A repository that was made.
#[derive(Clone, Debug)]
pub(super) struct Built {
    /// All that the agent begins with.
    pub(super) snapshot: Snapshot,
    /// The commit that patches are made against.
    pub(super) base: String,
    /// Modules that are the repository's own.
    pub(super) modules: Vec<String>,
    /// Our own files, for `/verifier`: the repository of the base and what runs tests.
    own: Arc<TempDir>,
}

impl Built {
    /// A session that begins with these files, and has ours.
    pub(super) fn spec(&self, workspace: Workspace, limits: Limits, row: &Row) -> Spec {
        Spec {
            workspace,
            read_only: [(PathBuf::from(git::OWN), self.own.path().to_owned())].into(),
            limits,
            aliases: aliases(row),
            ..Spec::default()
        }
    }
}

/// Images look for the repository where they have it.
fn aliases(row: &Row) -> Vec<PathBuf> {
    matches!(row.start, Start::Image(_)).then(|| PathBuf::from(TESTBED)).into_iter().collect()
}

/// Makes it.
pub(super) fn build(
    row: &Row,
    files: Option<&Path>,
    limits: &Limits,
    backend: &dyn Backend,
    control: &Control,
) -> Result<Built, WorldError> {
    let broken = |error: std::io::Error| WorldError::Broken(format!("{}: {error}", row.id));
    let refused = |what: String| WorldError::Refused(format!("{}: {what}", row.id));
    let own = tempfile::tempdir().map_err(broken)?;
    fs::write(own.path().join("excludes"), EXCLUDES).map_err(broken)?;
    for (name, text) in PROGRAMS {
        fs::write(own.path().join(name), text).map_err(broken)?;
    }
    let programs = tempfile::tempdir().map_err(broken)?;
    fs::write(programs.path().join("excludes"), EXCLUDES).map_err(broken)?;
    let mut spec = Spec { limits: limits.clone(), ..Spec::default() };
    spec.read_only.insert(git::OWN.into(), programs.path().to_owned());
    // What is copied in lies in one folder, be it an archive or files.
    let holder = tempfile::tempdir().map_err(broken)?;
    let (unpack, at) = match (files, &row.start) {
        (Some(folder), _) => {
            spec.workspace = Workspace::Folder(folder.to_owned());
            (None, PathBuf::new())
        }
        (None, Start::Local(path)) if path.is_dir() => {
            spec.read_only.insert("/source".into(), path.clone());
            (Some(COPY), PathBuf::from("/source"))
        }
        (None, Start::Local(path)) => {
            let name = path.file_name().unwrap_or(path.as_os_str());
            fs::copy(path, holder.path().join(name))
                .map_err(|error| refused(format!("source: {} cannot be read: {error}", path.display())))?;
            spec.read_only.insert("/source".into(), holder.path().to_owned());
            (Some(UNPACK), git::source(name))
        }
        (None, Start::Image(_)) => (Some(TAKE), PathBuf::from(TESTBED)),
        (None, Start::Unknown) => return Err(refused("needs key:image or key:source".to_owned())),
    };
    let mut session = control.open(backend, &spec)?;
    let session = session.as_mut();
    if let Some(unpack) = unpack {
        let at = at.to_string_lossy();
        let ran = script(session, control, unpack, &[&at], [])?;
        done(ran, "the repository cannot be unpacked").map_err(|error| refused(error.to_string()))?;
    }
    if let Some((bug, options)) = row.bug() {
        let ran = script(session, control, BUG, &[options], bug)?;
        done(ran, "the bug cannot be made").map_err(|error| refused(error.to_string()))?;
    }
    let ran = script(session, control, COMMIT, &[], [])?;
    let ran = done(ran, "the base cannot be committed")?;
    let base = ran.stdout.text().trim().to_owned();
    session.copy_out(Path::new(".git"), &own.path().join("git"))?;
    // Folders without files are not copied, and git wants them.
    for folder in ["refs", "refs/heads", "objects"] {
        fs::create_dir_all(own.path().join("git").join(folder)).map_err(broken)?;
    }
    let modules = modules(session)?;
    Ok(Built { snapshot: session.snapshot()?, base, modules, own: Arc::new(own) })
}

/// What can be imported from the root of a repository, and from its `src`.
fn modules(session: &dyn Session) -> Result<Vec<String>, WorldError> {
    let mut modules = Vec::new();
    let root = session.list(Path::new(""))?;
    let src = root.entries.iter().any(|entry| entry.name == "src" && entry.kind == Kind::Folder);
    let src = if src { session.list(Path::new("src"))?.entries } else { Vec::new() };
    for entry in root.entries.into_iter().chain(src) {
        let name = entry.name.to_string_lossy();
        let module = match entry.kind {
            Kind::Folder => &*name,
            _ => name.strip_suffix(".py").unwrap_or_default(),
        };
        let is_name = module.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if is_name && module.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && module != "src" {
            modules.push(module.to_owned());
        }
    }
    Ok(modules)
}
