//! What of an agent's comes to the verifier: the workspace and nothing else, and of it nothing that would steer the verifier
//! itself. Programs and modules that a test asks for are the agent's work and stay.
use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
    sync::Arc,
};

use openclaw_sandbox::{APP, Ending, Exec, Session, WORKSPACE};

use super::{build::PATH, task_set::FolderTask};
use crate::world::WorldError;

/// Where a file lies for a moment between a sandbox and this process.
pub(super) const PASSED: &str = ".openclaw-verifier";

/// Settings of pytest, in the order in which it looks for them.
const CONFIGS: [&str; 5] = ["pytest.ini", ".pytest.ini", "pyproject.toml", "tox.ini", "setup.cfg"];

/// `conftest.py` of the whole workspace, and the file of settings.
const KEEP: &str = r#"cd /workspace || exit
{ find . -name conftest.py -type f -print0; [ -z "$2" ] || printf '%s\0' "$2"; } |
  tar --null --files-from=- --create --file="$1""#;

/// Puts back what was kept, where the agent may have put anything.
const PUT_BACK: &str = r#"cd /workspace || exit
find . -name conftest.py ! -type d -delete
tar --extract --overwrite --file=-
true"#;

/// A file of the agent's that is a link to what only the verifier has would be whatever was expected of it.
const UNLINK: &str = r#"cd /workspace || exit
find . -type l -exec sh -c 'for link; do
  case $(readlink -m -- "$link")/ in
    // | /proc/* | /logs/verifier/* | /tests/* | /verifier/*) rm -f -- "$link" ;;
  esac
done' sh {} +"#;

/// What pytest would read of a workspace, as the task had it before the agent came.
#[derive(Clone, Debug)]
pub(super) struct Shipped {
    packed: Arc<[u8]>,
    /// Relative to the workspace.
    pub(super) config: Option<PathBuf>,
}

impl Shipped {
    /// Of a workspace that was just made.
    pub(super) fn of(session: &mut dyn Session, folder: &Path) -> Result<Self, WorldError> {
        let places = CONFIGS.iter().flat_map(|name| [folder.join(name), PathBuf::from(name)]);
        let speaks = |path: &PathBuf| {
            session.read_file(path).is_ok_and(|text| String::from_utf8_lossy(&text).contains("pytest"))
        };
        let config = places.into_iter().find(speaks);
        let named = config.as_deref().map_or(OsStr::new(""), Path::as_os_str);
        own(session, KEEP, &[PASSED.as_ref(), named], Vec::new())?;
        let packed = session.read_file(Path::new(PASSED))?.into();
        own(session, "rm -- /workspace/\"$1\"", &[PASSED.as_ref()], Vec::new())?;
        Ok(Self { packed, config })
    }

    /// Puts it back, and takes away what the agent has beside it.
    pub(super) fn put_back(&self, session: &mut dyn Session) -> Result<(), WorldError> {
        own(session, PUT_BACK, &[], self.packed.to_vec())
    }
}

/// Runs a script of ours with the programs of the machine.
fn own(session: &mut dyn Session, script: &str, words: &[&OsStr], stdin: Vec<u8>) -> Result<(), WorldError> {
    let first = ["/bin/sh", "-c", script, "sh"].map(OsString::from).into_iter();
    let mut exec = Exec::argv(first.chain(words.iter().map(|word| (*word).to_owned()))).stdin(stdin);
    exec.env = [(OsString::from("PATH"), OsString::from(PATH))].into();
    let ran = session.exec(&exec)?;
    match ran.ending {
        Ending::Exited(0) => Ok(()),
        Ending::Interrupted => Err(WorldError::Interrupted),
        ending => Err(WorldError::Broken(format!("{ending:?}: {}", ran.stderr.text().trim()))),
    }
}

/// Takes away the links into what only the verifier has.
pub(super) fn unlink(session: &mut dyn Session) -> Result<(), WorldError> {
    own(session, UNLINK, &[], Vec::new())
}

/// Whether pytest's own files are what the agent was asked for.
pub(super) fn is_about_pytest(task: &FolderTask) -> bool {
    let words = task.task.instruction.to_lowercase();
    words.contains("pytest") || words.contains("conftest")
}

/// A list of folders as in `PATH`, cut in two: those of the machine, and those that an agent can write to.
pub(super) fn folders(value: &OsStr) -> (Vec<String>, Vec<String>) {
    let value = value.to_string_lossy();
    let all = value.split(':').filter(|part| !part.is_empty()).map(str::to_owned);
    all.partition(|part| {
        let plain = Path::new(part).is_absolute() && !part.split('/').any(|part| part == "..");
        plain && !Path::new(part).starts_with(WORKSPACE) && !Path::new(part).starts_with(APP)
    })
}

/// The variables of a verifier's own script: those of the task, so that no folder of the agent's comes before the machine's.
pub(super) fn variables(
    mut env: BTreeMap<OsString, OsString>,
    guard: &str,
    pytest_options: &str,
) -> BTreeMap<OsString, OsString> {
    let mut of = |name: &str| env.remove(OsStr::new(name)).unwrap_or_default();
    let (own_path, agents_path) = folders(&of("PATH"));
    let (own_python, agents_python) = folders(&of("PYTHONPATH"));
    let own_path = if own_path.is_empty() { vec![PATH.to_owned()] } else { own_path };
    let python = [vec![guard.to_owned()], own_python].concat();
    let options = [pytest_options.into(), of("PYTEST_ADDOPTS").to_string_lossy().into_owned()];
    let ours = [
        ("PATH", [own_path, agents_path].concat().join(":")),
        ("PYTHONPATH", python.join(":")),
        ("OPENCLAW_PYTHONPATH", agents_python.join(":")),
        ("PYTHONNOUSERSITE", "1".to_owned()),
        ("PYTHONDONTWRITEBYTECODE", "1".to_owned()),
        ("PYTEST_ADDOPTS", options.join(" ").trim().to_owned()),
    ];
    env.extend(ours.map(|(name, value)| (name.into(), value.into())));
    env
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_the_agent_come_last() {
        let env = [
            ("PATH", "/app/bin:/opt/x:.:/usr/bin:/usr/../app/bin"),
            ("PYTHONPATH", "/workspace/lib:/opt/py"),
        ];
        let env = env.map(|(name, value)| (name.into(), value.into())).into();
        let env = variables(env, "/verifier", "-c x");
        let of = |name: &str| env[OsStr::new(name)].to_str().unwrap();
        assert_eq!(of("PATH"), "/opt/x:/usr/bin:/app/bin:.:/usr/../app/bin");
        assert_eq!((of("PYTHONPATH"), of("OPENCLAW_PYTHONPATH")), ("/verifier:/opt/py", "/workspace/lib"));
        assert_eq!(of("PYTEST_ADDOPTS"), "-c x");
        let none = variables(BTreeMap::new(), "/verifier", "");
        assert_eq!(none[OsStr::new("PATH")], PATH);
    }
}
