//! A folder of tasks: which of them can be played here, and what the others lack.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

use sha2::{Digest, Sha256};

use super::{Machine, OsworldTask};
use crate::world::{Split, WorldError};

/// The longest file of a task.
const FILE_BYTES: u64 = 1 << 20;
/// The most files of a set.
const FILES: usize = 20_000;
/// How deep files are looked for: `examples/os/ID.json`.
const DEPTH: usize = 4;

/// The tasks of a folder that can be played, by split, each in the order of their ids.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TaskSet {
    /// To be trained on.
    pub train: Vec<Arc<OsworldTask>>,
    /// Never to be trained on.
    pub held_out: Vec<Arc<OsworldTask>>,
    /// What was left out, and why.
    pub summary: Summary,
}

/// What there is of a set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Files that are tasks.
    pub read: usize,
    /// Tasks that can be played.
    pub runnable: usize,
    /// Those of them that are done by saying that they cannot be.
    pub infeasible: usize,
    /// What the others lack, by their ids.
    pub refused: BTreeMap<String, BTreeSet<String>>,
}

impl TaskSet {
    /// Reads every task below `folder`. About one task in `one_in` is held out, by a hash of its id: where it is does not
    /// change when others come and go.
    pub fn read(folder: &Path, one_in: u64, machine: &Machine) -> Result<Self, WorldError> {
        let refuse = |what: String| WorldError::Settings(format!("tasks: {what}"));
        let mut files = Vec::new();
        files_below(folder, DEPTH, &mut files)
            .map_err(|error| refuse(format!("{} cannot be read: {error}", folder.display())))?;
        files.sort();
        if files.len() > FILES {
            return Err(refuse(format!("{} has more than {FILES} files", folder.display())));
        }
        let mut set = Self::default();
        let mut ids = BTreeSet::new();
        for path in files {
            let text = text_of(&path).map_err(|error| refuse(format!("{}: {error}", path.display())))?;
            // Lists of tasks lie beside the tasks.
            let is_task = serde_json::from_str::<serde_json::Value>(&text)
                .is_ok_and(|value| value.get("instruction").is_some());
            if !is_task && path.parent() == Some(folder) {
                continue;
            }
            let mut task = OsworldTask::parse(&text, machine)
                .map_err(|error| refuse(format!("{}: {error}", path.display())))?;
            // One that is in two folders is on one side.
            let split = split_of(&task.id, one_in);
            if let Some(folder) = path.parent().filter(|parent| *parent != folder).and_then(Path::file_name) {
                task.id = format!("{}/{}", folder.to_string_lossy(), task.id);
            }
            if !ids.insert(task.id.clone()) {
                return Err(refuse(format!("{}: another task has the id {}", path.display(), task.id)));
            }
            set.summary.read += 1;
            if !task.missing.is_empty() {
                set.summary.refused.insert(task.id.clone(), task.missing);
                continue;
            }
            let side = match split {
                Split::Train => &mut set.train,
                Split::HeldOut => &mut set.held_out,
            };
            side.push(Arc::new(task));
        }
        for side in [&mut set.train, &mut set.held_out] {
            side.sort_by(|one, other| one.id.cmp(&other.id));
        }
        let playable = || set.train.iter().chain(&set.held_out);
        set.summary.runnable = playable().count();
        set.summary.infeasible = playable().filter(|task| task.check.infeasible).count();
        if set.summary.runnable == 0 {
            let summary = &set.summary;
            return Err(refuse(format!(
                "{} has no task that can be played here: {summary}",
                folder.display()
            )));
        }
        Ok(set)
    }

    /// Those of a split.
    pub fn of(&self, split: Split) -> &[Arc<OsworldTask>] {
        match split {
            Split::Train => &self.train,
            Split::HeldOut => &self.held_out,
        }
    }
}

impl Summary {
    /// How many tasks lack a thing, by its name, most first.
    pub fn lacking(&self) -> Vec<(&str, usize)> {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for name in self.refused.values().flatten() {
            *counts.entry(name).or_default() += 1;
        }
        let mut counts: Vec<(&str, usize)> = counts.into_iter().collect();
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        counts
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = 100.0 * self.infeasible as f64 / self.runnable.max(1) as f64;
        write!(f, "{} read, {} runnable", self.read, self.runnable)?;
        write!(f, ", {} of them infeasible ({share:.0} %)", self.infeasible)?;
        let lacking = self.lacking();
        if !lacking.is_empty() {
            let most: Vec<String> =
                lacking.iter().take(10).map(|(name, count)| format!("{name} ({count})")).collect();
            write!(f, "; the others lack {}", most.join(", "))?;
        }
        Ok(())
    }
}

fn files_below(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        if kind.is_dir() && depth > 0 {
            files_below(&path, depth - 1, files)?;
        } else if kind.is_file() && path.extension().is_some_and(|ending| ending == "json") {
            files.push(path);
        }
    }
    Ok(())
}

fn text_of(path: &Path) -> Result<String, String> {
    let file = fs::File::open(path).map_err(|error| error.to_string())?;
    let mut text = String::new();
    file.take(FILE_BYTES + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > FILE_BYTES {
        return Err(format!("is longer than {FILE_BYTES} bytes"));
    }
    Ok(text)
}

/// The split of a task.
fn split_of(id: &str, one_in: u64) -> Split {
    let hash = Sha256::digest(id).iter().take(8).fold(0, |number: u64, byte| number << 8 | u64::from(*byte));
    if one_in > 0 && hash.is_multiple_of(one_in) { Split::HeldOut } else { Split::Train }
}
