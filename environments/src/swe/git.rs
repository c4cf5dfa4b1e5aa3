//! Git as we call it: by programs of the machine, with nothing that a repository or a home says of it.
use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    path::PathBuf,
    time::Duration,
};

use openclaw_sandbox::{Ending, Exec, Ran, Session};

use super::patch::is_inside;
use crate::{terminal::Control, world::WorldError};

/// Where our own files are in a sandbox, for nobody to write to.
pub(super) const OWN: &str = "/verifier";
/// What programs are found by.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// For one command of ours.
const TIME: Duration = Duration::from_secs(600);
/// What running programs leaves behind is no part of a patch, whatever the repository ignores.
pub(super) const EXCLUDES: &str =
    "__pycache__/\n*.pyc\n.pytest_cache/\n.hypothesis/\n*.egg-info/\n*.rej\n*.orig\n";

/// A function of the shell: git without hooks, filters of a home, programs for differences and monitors.
const SAFE: &str = r#"safe() {
  git -c core.hooksPath=/dev/null -c core.fsmonitor=false -c core.excludesFile=/verifier/excludes \
    -c core.attributesFile=/dev/null -c core.quotePath=false -c core.autocrlf=false -c core.pager=cat \
    -c diff.external= -c diff.noprefix=false -c diff.mnemonicPrefix=false -c apply.whitespace=nowarn \
    -c gc.auto=0 -c maintenance.auto=false -c commit.gpgSign=false -c safe.directory='*' "$@"
}
"#;

/// The repository before the agent came, and an index of its own beside what the workspace has now.
const BESIDE: &str = r#"own=$(mktemp -d) && trap 'rm -rf -- "$own"' EXIT && mkdir "$own/objects" || exit
export GIT_DIR=/verifier/git GIT_WORK_TREE=/workspace GIT_INDEX_FILE=$own/index
export GIT_OBJECT_DIRECTORY=$own/objects GIT_ALTERNATE_OBJECT_DIRECTORIES=/verifier/git/objects
cd /workspace || exit
safe read-tree "$1" && safe add -A || exit
"#;

/// The tree that the workspace is, and the paths that differ from the base.
const CHANGES: &str = r#"safe write-tree && safe diff --cached --name-only -z --no-renames "$1""#;

/// What differs, of the paths that are read.
const DIFF: &str = r#"xargs -0 -r git --literal-pathspecs -c core.quotePath=false -c core.attributesFile=/dev/null \
  -c diff.external= -c diff.noprefix=false -c diff.mnemonicPrefix=false \
  diff --cached --binary --no-renames --no-ext-diff --no-textconv --no-color "$1" --"#;

/// From the strictest way of applying to the most lenient. What a failed one has left is taken away, and what was there before it stays.
const APPLY: &str = r#"cd /workspace && patch=$(mktemp) && cat > "$patch" || exit
safe add -A && before=$(safe write-tree) && safe reset -q || exit
again() {
  safe read-tree --reset "$before" && safe checkout-index -q -f -a && safe clean -fdq && safe reset -q
}
for how in "" --3way --reject; do
  safe apply $how "$patch" && exit 0
  again || exit
done
[ "$1" = yes ] || exit 3
patch --batch --forward --fuzz=5 -p1 -i "$patch" && exit 0
again || exit
exit 3"#;

/// Runs a script of ours, with `words` as its arguments.
pub(super) fn script(
    session: &mut dyn Session,
    control: &Control,
    text: &str,
    words: &[&str],
    stdin: impl Into<Vec<u8>>,
) -> Result<Ran, WorldError> {
    let text = format!("{SAFE}{text}");
    let first = ["/bin/sh", "-c", &text, "sh"].map(OsString::from).into_iter();
    let mut exec = Exec::argv(first.chain(words.iter().map(OsString::from))).stdin(stdin).timeout(TIME);
    exec.env = env();
    control.check()?;
    let ran = session.exec(&exec)?;
    control.ended(ran.ending)?;
    Ok(ran)
}

/// What git does not take from a home, and the same commit for the same files.
fn env() -> BTreeMap<OsString, OsString> {
    let date = "2000-01-01T00:00:00Z";
    let all = [
        ("PATH", PATH),
        ("LC_ALL", "C"),
        ("HOME", "/nonexistent"),
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_ATTR_NOSYSTEM", "1"),
        ("GIT_TERMINAL_PROMPT", "0"),
        ("GIT_AUTHOR_NAME", "base"),
        ("GIT_AUTHOR_EMAIL", "base@localhost"),
        ("GIT_AUTHOR_DATE", date),
        ("GIT_COMMITTER_NAME", "base"),
        ("GIT_COMMITTER_EMAIL", "base@localhost"),
        ("GIT_COMMITTER_DATE", date),
    ];
    all.map(|(name, value)| (name.into(), value.into())).into()
}

/// A script that should have gone well.
pub(super) fn done(ran: Ran, what: &str) -> Result<Ran, WorldError> {
    if ran.success() {
        return Ok(ran);
    }
    let said = ran.stderr.text();
    let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("nothing was said");
    Err(WorldError::Broken(format!("{what}: {:?}: {last}", ran.ending)))
}

/// What a workspace has that its base has not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// Names all that is in it, in hexadecimal digits.
    pub(super) tree: String,
    /// Paths that differ.
    pub(super) paths: Vec<String>,
}

/// Looks at a workspace.
pub(super) fn changes(
    session: &mut dyn Session,
    control: &Control,
    base: &str,
) -> Result<Changes, WorldError> {
    let ran = script(session, control, &format!("{BESIDE}{CHANGES}"), &[base], [])?;
    let ran = done(ran, "what has changed cannot be told")?;
    let text = ran.stdout.text();
    let (tree, paths) = text.split_once('\n').unwrap_or((&text, ""));
    let paths = paths.split('\0').filter(|path| !path.is_empty()).map(str::to_owned).collect();
    Ok(Changes { tree: tree.to_owned(), paths })
}

/// The difference of these paths to the base; `None` where it is too long to be kept.
pub(super) fn diff(
    session: &mut dyn Session,
    control: &Control,
    base: &str,
    paths: &[&str],
) -> Result<Option<Vec<u8>>, WorldError> {
    if paths.is_empty() {
        return Ok(Some(Vec::new()));
    }
    let ran = script(session, control, &format!("{BESIDE}{DIFF}"), &[base], paths.join("\0"))?;
    let ran = done(ran, "the difference cannot be told")?;
    Ok((ran.stdout.dropped_bytes == 0).then_some(ran.stdout.head))
}

/// Applies a patch in one way or another; whether it could be.
pub(super) fn apply(session: &mut dyn Session, control: &Control, patch: &[u8]) -> Result<bool, WorldError> {
    // Git looks itself where paths lead, and `patch` does not.
    let inside = super::patch::paths(&String::from_utf8_lossy(patch)).iter().all(|path| is_inside(path));
    let ran = script(session, control, APPLY, &[if inside { "yes" } else { "no" }], patch)?;
    match ran.ending {
        Ending::Exited(3) => Ok(false),
        _ => done(ran, "a patch cannot be tried").map(|_| true),
    }
}

/// Where files of a row are while its workspace is made.
pub(super) fn source(name: &OsStr) -> PathBuf {
    PathBuf::from("/source").join(name)
}
