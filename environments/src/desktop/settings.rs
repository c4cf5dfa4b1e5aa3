//! `[environments.NAME]` of kind `desktop`.
use std::{path::PathBuf, time::Duration};

use openclaw_sandbox::Limits;
use serde::Deserialize;

use super::families::Family;
use crate::{
    gui::{Actions, Options, Show},
    registry::within,
    world::WorldError,
};

/// `[environments.NAME]` of this kind.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// A folder of tasks in the format of OSWorld. Not beside `families`.
    pub tasks: Option<PathBuf>,
    /// About one of these tasks in so many is held out, 2 or more; 0 is none.
    pub held_out: u64,
    /// Families of tasks made from their numbers, in turn. All six if there are no `tasks` either.
    pub families: Option<Vec<Family>>,
    /// Of the screen, in pixels.
    pub width: u32,
    /// Of the screen, in pixels.
    pub height: u32,
    /// What an agent acts with: numbers of the list, places on the screen, or both.
    pub actions: Actions,
    /// What it is shown: the list, the screenshot, or both.
    pub show: Show,
    /// The most lines of a list.
    pub list_lines: usize,
    /// The most characters of a list.
    pub list_chars: usize,
    /// What came, went and changed is told after each step: for a judge that reads.
    pub changes: bool,
    /// The most steps of an episode.
    pub steps: u32,
    /// For a step until the screen has settled, in seconds.
    pub step_secs: u64,
    /// For the start of a desktop with all that a task wants there, and for a verdict, in seconds.
    pub setup_secs: u64,
    /// Memory of a desktop with its programs.
    pub memory_mb: u64,
    /// Files of a desktop.
    pub disk_mb: u64,
}

impl Default for Settings {
    fn default() -> Self {
        let gui = Options::default();
        Self {
            tasks: None,
            held_out: 5,
            families: None,
            width: 1024,
            height: 768,
            actions: gui.actions,
            show: gui.show,
            list_lines: gui.list_lines,
            list_chars: gui.list_chars,
            changes: gui.changes,
            steps: 15,
            step_secs: 20,
            setup_secs: 120,
            memory_mb: 1024,
            disk_mb: 256,
        }
    }
}

impl Settings {
    /// What cannot be used, by its key.
    pub(super) fn check(&self) -> Result<(), WorldError> {
        let refuse = |message: String| Err(WorldError::Settings(message));
        self.options().check()?;
        let numbers = [
            ("width", self.width.into(), 640, 4096),
            ("height", self.height.into(), 480, 4096),
            ("steps", self.steps.into(), 1, 1000),
            ("step_secs", self.step_secs, 1, 600),
            ("setup_secs", self.setup_secs, 1, 3600),
            ("memory_mb", self.memory_mb, 256, 1 << 20),
            ("disk_mb", self.disk_mb, 16, 1 << 20),
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

    pub(super) fn options(&self) -> Options {
        Options {
            width: self.width,
            height: self.height,
            actions: self.actions,
            show: self.show,
            list_lines: self.list_lines,
            list_chars: self.list_chars,
            changes: self.changes,
        }
    }

    pub(super) fn limits(&self) -> Limits {
        Limits {
            memory_bytes: self.memory_mb << 20,
            // Toolkits map more than they use.
            address_bytes: Some((self.memory_mb << 20).max(8 << 30)),
            disk_bytes: self.disk_mb << 20,
            file_bytes: self.disk_mb << 20,
            processes: 400,
            output_bytes: 256 << 10,
            ..Limits::default()
        }
    }

    pub(super) fn step_time(&self) -> Duration {
        Duration::from_secs(self.step_secs)
    }

    pub(super) fn setup_time(&self) -> Duration {
        Duration::from_secs(self.setup_secs)
    }
}
