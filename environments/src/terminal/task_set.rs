//! A folder of task folders, split by groups: variants of one task are on one side.
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use super::{
    folder::{Form, Network, Report, TaskFolder, expand},
    runner,
    script::{self, Check, Fetches, Run},
    tree::Fnv,
};
use crate::world::{Split, WorldError};

/// How deep a verifier's files are looked for.
const DEPTH_MAX: usize = 8;

/// A task and where it lies.
#[derive(Clone, Debug, PartialEq)]
pub struct FolderTask {
    /// As it was read.
    pub task: TaskFolder,
    /// Its folder.
    pub path: PathBuf,
    /// What its verifier's script does.
    pub check: Result<Check, Fetches>,
}

/// Tasks by split, each in the order of their ids.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TaskSet {
    /// To be trained on.
    pub train: Vec<FolderTask>,
    /// Never to be trained on.
    pub held_out: Vec<FolderTask>,
}

impl TaskSet {
    /// Reads every task in `folder`. About one group in `one_in` is held out, by a hash of its name: where a group is does
    /// not change when others come and go.
    pub fn read(folder: &Path, one_in: u64) -> Result<Self, WorldError> {
        let refuse = |what: String| WorldError::Settings(format!("tasks: {what}"));
        let unread = |error: std::io::Error| refuse(format!("{} cannot be read: {error}", folder.display()));
        let mut set = Self::default();
        let mut ids = BTreeSet::new();
        for entry in fs::read_dir(folder).map_err(unread)? {
            let path = entry.map_err(unread)?.path();
            let hidden = path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'));
            if hidden || !path.is_dir() {
                continue;
            }
            let task =
                TaskFolder::read(&path).map_err(|error| refuse(format!("{}: {error}", path.display())))?;
            if !ids.insert(task.id.clone()) {
                return Err(refuse(format!("{}: another task has the name {}", path.display(), task.id)));
            }
            // A script that is not there is told when it is asked for.
            let script = fs::read(path.join(&task.verifier.script)).unwrap_or_default();
            let rewards = task.verifier.report == Report::RewardFiles;
            let check = script::read(&String::from_utf8_lossy(&script), rewards);
            let side = match split_of(&task.group, one_in) {
                Split::Train => &mut set.train,
                Split::HeldOut => &mut set.held_out,
            };
            side.push(FolderTask { task, path, check });
        }
        if ids.is_empty() {
            return Err(refuse(format!("{} has no task folders", folder.display())));
        }
        set.train.sort_by(|one, other| one.task.id.cmp(&other.task.id));
        set.held_out.sort_by(|one, other| one.task.id.cmp(&other.task.id));
        Ok(set)
    }

    /// Those of a split.
    pub fn of(&self, split: Split) -> &[FolderTask] {
        match split {
            Split::Train => &self.train,
            Split::HeldOut => &self.held_out,
        }
    }
}

/// Files in a folder and in those in it.
fn files_below(folder: &Path, depth: usize) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && depth > 0 => files.extend(files_below(&entry.path(), depth - 1)),
            Ok(kind) if kind.is_file() => files.push(entry.path()),
            _ => {}
        }
    }
    files
}

/// The split of a group.
fn split_of(group: &str, one_in: u64) -> Split {
    let mut hash = Fnv::default();
    hash.part(group.as_bytes());
    // The last bits of this hash are the poorest.
    let mixed = (hash.0 ^ (hash.0 >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    if one_in > 0 && mixed.is_multiple_of(one_in) { Split::HeldOut } else { Split::Train }
}

impl FolderTask {
    /// The folder that the Dockerfile is in and copies from.
    pub(super) fn context(&self) -> PathBuf {
        match self.task.form {
            Form::Harbor { .. } => self.path.join("environment"),
            Form::TerminalBench => self.path.clone(),
        }
    }

    /// What is run in place of its script, and where; none where the script itself is.
    pub(super) fn pytest(&self, start: &Path) -> Option<(&Run, PathBuf)> {
        match &self.check {
            Ok(Check::Pytest(run)) => Some((run, runner::inside(run, start)?)),
            _ => None,
        }
    }

    /// Whether a file of the verifier has these words.
    pub(super) fn verifier_says(&self, words: &str) -> bool {
        let script = self.path.join(&self.task.verifier.script);
        files_below(&self.path.join("tests"), DEPTH_MAX).into_iter().chain([script]).any(|file| {
            fs::read(file).is_ok_and(|bytes| bytes.windows(words.len()).any(|part| part == words.as_bytes()))
        })
    }

    /// What this runtime cannot give, by name.
    pub(super) fn beyond_us(&self) -> Vec<String> {
        let TaskFolder { environment, verifier, agent, steps, .. } = &self.task;
        let network =
            |network: &Option<Network>| matches!(network, Some(Network::Public | Network::Allowlist(_)));
        let foreign = match &verifier.report {
            Report::Foreign(name) => Some(format!("parser:{name}")),
            _ => None,
        };
        let os = environment.os.as_deref().filter(|os| !os.eq_ignore_ascii_case("linux"));
        let variable = [&environment.env, &verifier.env].into_iter().flatten();
        let variables = variable
            .filter_map(|(_, value)| expand(value, |_| None).err())
            .map(|name| format!("variable:{name}"));
        let flags = [
            (!steps.is_empty(), "steps"),
            (verifier.separate, "verifier:separate"),
            (!verifier.collect.is_empty(), "verifier:collect"),
            (network(&environment.network) || network(&agent.network), "network"),
            (environment.gpus.is_some_and(|gpus| gpus > 0), "gpus"),
            (environment.healthcheck.is_some(), "healthcheck"),
            (!environment.mcp_servers.is_empty(), "mcp_servers"),
        ];
        let flags = flags.into_iter().filter(|(is, _)| *is).map(|(_, name)| name.to_owned());
        let fetches = self.check.as_ref().err().map(Fetches::to_string);
        flags.chain(foreign).chain(fetches).chain(os.map(|os| format!("os:{os}"))).chain(variables).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(names: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            fs::create_dir(folder.path().join(name)).unwrap();
            fs::write(folder.path().join(name).join("task.yaml"), "instruction: do it").unwrap();
        }
        folder
    }

    #[test]
    fn variants_are_on_one_side_and_stay_there() {
        let names: Vec<String> =
            (0..60).flat_map(|n| ["", "__b1", "__d2"].map(|variant| format!("task_{n}{variant}"))).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let all = folder(&names);
        let set = TaskSet::read(all.path(), 5).unwrap();
        let groups = |tasks: &[FolderTask]| -> BTreeSet<String> {
            tasks.iter().map(|task| task.task.group.clone()).collect()
        };
        assert_eq!(set.train.len() + set.held_out.len(), 180);
        assert_eq!(set.held_out.len() % 3, 0);
        assert!(groups(&set.train).is_disjoint(&groups(&set.held_out)));
        assert!((4..=24).contains(&groups(&set.held_out).len()), "{}", groups(&set.held_out).len());
        let fewer = TaskSet::read(folder(&names[..90]).path(), 5).unwrap();
        assert!(groups(&fewer.held_out).is_subset(&groups(&set.held_out)));
        assert!(TaskSet::read(all.path(), 0).unwrap().held_out.is_empty());
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let problem = |path: &Path| TaskSet::read(path, 5).unwrap_err().to_string();
        assert!(problem(Path::new("/nowhere")).starts_with("tasks: /nowhere cannot be read"));
        assert!(problem(folder(&[]).path()).contains("has no task folders"));
        let broken = folder(&["a"]);
        fs::write(broken.path().join("a/task.yaml"), "instruction: [").unwrap();
        assert!(problem(broken.path()).contains("/a: task.yaml: "));
    }

    #[test]
    fn what_is_beyond_us_is_named() {
        let one = folder(&["a"]);
        fs::remove_file(one.path().join("a/task.yaml")).unwrap();
        let toml = "[environment]\nallow_internet = true\ngpus = 1\n[environment.env]\nK = \"${KEY}\"\n[verifier]\nenvironment_mode = \"separate\"";
        fs::write(one.path().join("a/task.toml"), toml).unwrap();
        fs::write(one.path().join("a/instruction.md"), "do").unwrap();
        let set = TaskSet::read(one.path(), 0).unwrap();
        assert_eq!(set.train[0].beyond_us(), ["verifier:separate", "network", "gpus", "variable:KEY"]);
    }
}
