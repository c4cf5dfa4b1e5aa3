//! `[environments.NAME]` of kind `terminal`.
use std::{path::PathBuf, time::Duration};

use openclaw_sandbox::Limits;
use serde::Deserialize;

use super::families::{Family, Knobs};
use crate::{draw::Kinds, registry::within, sandboxed::Sandbox, world::WorldError};

/// `[environments.NAME]` of this kind.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// A folder of task folders, in the form of Harbor or of Terminal-Bench. Not beside `families`.
    pub tasks: Option<PathBuf>,
    /// Of the groups of these tasks, about one in so many is held out, 2 or more; 0 is none.
    pub held_out: u64,
    /// Images that the programs of this machine may stand for, beside those of its own distribution.
    pub images: Vec<String>,
    /// Families of tasks made from their numbers, in turn. All three if there are no `tasks` either.
    pub families: Option<Vec<Family>>,
    /// Least and most files of a family's task, 1 to 30.
    pub files: (usize, usize),
    /// Most folders in one another, 1 to 4.
    pub depth: usize,
    /// Least and most things to do in a task of `te1`, 1 to 4.
    pub operations: (usize, usize),
    /// Least and most lines of a text in `te2`, 3 to 200.
    pub lines: (usize, usize),
    /// Least and most folders to look in in `te3`, 1 to 8.
    pub folders: (usize, usize),
    /// Held-out tasks of families are of the kinds that training shows, too; otherwise of kinds of their own.
    pub seen_kinds: bool,
    /// What isolates: `bubblewrap`, or `docker` with an `image`.
    pub sandbox: Sandbox,
    /// Of docker: the programs that there are.
    pub image: Option<String>,
    /// Of docker: where its daemon listens, unless it is where its own programs look for it.
    pub socket: Option<PathBuf>,
    /// The most steps of an episode.
    pub steps: u32,
    /// For a step, all of its commands together.
    pub step_secs: u64,
    /// The most that a verifier and the making of a workspace take, whatever the task says.
    pub verifier_secs: u64,
    /// Of what a command writes, so much is shown: the first and the last half.
    pub output_bytes: usize,
    /// Memory of a world; a task may ask for less.
    pub memory_mb: u64,
    /// Files of a world; a task may ask for less.
    pub disk_mb: u64,
}

impl Default for Settings {
    fn default() -> Self {
        let knobs = Knobs::default();
        Self {
            tasks: None,
            held_out: 5,
            images: Vec::new(),
            families: None,
            files: knobs.files,
            depth: knobs.depth,
            operations: knobs.operations,
            lines: knobs.lines,
            folders: knobs.folders,
            seen_kinds: false,
            sandbox: Sandbox::default(),
            image: None,
            socket: None,
            steps: 12,
            step_secs: 30,
            verifier_secs: 600,
            output_bytes: 4096,
            memory_mb: 1024,
            disk_mb: 512,
        }
    }
}

impl Settings {
    /// What cannot be used, by its key.
    pub(super) fn check(&self) -> Result<(), WorldError> {
        let refuse = |message: String| Err(WorldError::Settings(message));
        let ranges = [
            ("files", self.files, 1, 30),
            ("operations", self.operations, 1, 4),
            ("lines", self.lines, 3, 200),
            ("folders", self.folders, 1, 8),
        ];
        for (key, (low, high), least, most) in ranges {
            if low < least || high > most || low > high {
                return refuse(format!(
                    "{key}: [{low}, {high}] is not from {least} to {most}, the lesser first"
                ));
            }
        }
        let day = 86_400;
        let numbers = [
            ("depth", self.depth as u64, 1, 4),
            ("steps", self.steps.into(), 1, 1000),
            ("step_secs", self.step_secs, 1, day),
            ("verifier_secs", self.verifier_secs, 1, day),
            ("output_bytes", self.output_bytes as u64, 64, 1 << 20),
            ("memory_mb", self.memory_mb, 16, 1 << 20),
            ("disk_mb", self.disk_mb, 1, 1 << 20),
        ];
        within(numbers)?;
        if self.held_out == 1 {
            return refuse("held_out: 1 leaves nothing to train on".to_owned());
        }
        match &self.families {
            Some(_) if self.tasks.is_some() => refuse("families: not beside tasks".to_owned()),
            Some(families) if families.is_empty() => refuse("families: is empty".to_owned()),
            _ => Ok(()),
        }
    }

    pub(super) fn knobs(&self) -> Knobs {
        Knobs {
            files: self.files,
            depth: self.depth,
            operations: self.operations,
            lines: self.lines,
            folders: self.folders,
            kinds: if self.seen_kinds { Kinds::Seen } else { Kinds::Own },
        }
    }

    /// Of a session; a task may ask for less memory and disk, in MiB.
    pub(super) fn limits(&self, memory_mb: Option<u64>, disk_mb: Option<u64>) -> Limits {
        let least = |own: u64, asked: Option<u64>| {
            asked.filter(|asked| *asked > 0).map_or(own, |asked| own.min(asked)) << 20
        };
        let disk_bytes = least(self.disk_mb, disk_mb);
        Limits {
            memory_bytes: least(self.memory_mb, memory_mb),
            disk_bytes,
            file_bytes: disk_bytes,
            output_bytes: self.output_bytes,
            ..Limits::default()
        }
    }

    pub(super) fn step_time(&self) -> Duration {
        Duration::from_secs(self.step_secs)
    }

    /// What a task asks for, in seconds, within the limit.
    pub(super) fn long_time(&self, asked: Option<f64>) -> Duration {
        let limit = Duration::from_secs(self.verifier_secs);
        asked.and_then(|secs| Duration::try_from_secs_f64(secs).ok()).map_or(limit, |asked| asked.min(limit))
    }
}
