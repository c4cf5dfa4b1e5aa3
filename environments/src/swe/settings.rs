//! `[environments.NAME]` of kind `swe`.
use std::{path::PathBuf, time::Duration};

use openclaw_sandbox::Limits;
use serde::Deserialize;

use super::families::Family;
use crate::{draw::Kinds, registry::within, sandboxed::Sandbox, world::WorldError};

/// `[environments.NAME]` of this kind.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Tasks to train on: a file of JSONL, in the form of SWE-bench and its kin, or of `tasks make-swe`. Not beside `families`.
    pub rows: Option<PathBuf>,
    /// Tasks that measure. Needs `rows`.
    pub held_out_rows: Option<PathBuf>,
    /// Families of tasks made from their numbers. All of them if there are no `rows` either.
    pub families: Option<Vec<Family>>,
    /// Held-out tasks of families are of the kinds that training shows, too; otherwise of kinds of their own.
    pub seen_kinds: bool,
    /// How the model says what it does: by calls of tools, or in one block of bash a reply.
    pub agent: Talk,
    /// What it can do: run commands, or run the tests, read, replace a line and submit.
    pub tools: Tools,
    /// A step that changed files is judged by the tests, of rows whose tests are run by pytest of this machine.
    pub step_tests: bool,
    /// What isolates: `bubblewrap`, or `docker`, where a row's image is used, or `image`.
    pub sandbox: Sandbox,
    /// Of docker: the programs that there are, for rows without an image of their own.
    pub image: Option<String>,
    /// Of docker: where its daemon listens, unless it is where its own programs look for it.
    pub socket: Option<PathBuf>,
    /// The most steps of an episode.
    pub steps: u32,
    /// For a command, and for the tests that judge a step.
    pub step_secs: u64,
    /// The most that the tests of a verdict take.
    pub verifier_secs: u64,
    /// Of what a command writes, so many characters are shown: the first and the last half.
    pub output_chars: usize,
    /// Longest patch that is judged; a longer one resolves nothing.
    pub patch_bytes: usize,
    /// Memory of a world.
    pub memory_mb: u64,
    /// Files of a world; those of a row's image come on top.
    pub disk_mb: u64,
}

/// How a model says what it does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Talk {
    /// By calls of tools.
    #[default]
    BashTool,
    /// In exactly one fenced block of bash in each reply.
    BashBlock,
}

impl Talk {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::BashTool, Self::BashBlock];

    /// As settings name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::BashTool => "bash-tool",
            Self::BashBlock => "bash-block",
        }
    }
}

/// What an agent can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tools {
    /// Run commands, each in a shell of its own.
    #[default]
    Bash,
    /// Run the tests, read a file, replace a line, submit: for small models.
    Edit,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            rows: None,
            held_out_rows: None,
            families: None,
            seen_kinds: false,
            agent: Talk::default(),
            tools: Tools::default(),
            step_tests: true,
            sandbox: Sandbox::default(),
            image: None,
            socket: None,
            steps: 20,
            step_secs: 180,
            verifier_secs: 1800,
            output_chars: 10_000,
            patch_bytes: 1 << 20,
            memory_mb: 2048,
            disk_mb: 512,
        }
    }
}

impl Settings {
    /// What cannot be used, by its key.
    pub(super) fn check(&self) -> Result<(), WorldError> {
        let refuse = |message: String| Err(WorldError::Settings(message));
        let day = 86_400;
        let numbers = [
            ("steps", self.steps.into(), 1, 1000),
            ("step_secs", self.step_secs, 1, day),
            ("verifier_secs", self.verifier_secs, 1, day),
            ("output_chars", self.output_chars as u64, 64, 1 << 20),
            ("patch_bytes", self.patch_bytes as u64, 64, 8 << 20),
            ("memory_mb", self.memory_mb, 64, 1 << 20),
            ("disk_mb", self.disk_mb, 16, 1 << 20),
        ];
        within(numbers)?;
        if self.agent == Talk::BashBlock && self.tools == Tools::Edit {
            return refuse("agent: \"bash-block\" needs tools = \"bash\"".to_owned());
        }
        if self.held_out_rows.is_some() && self.rows.is_none() {
            return refuse("held_out_rows: needs rows".to_owned());
        }
        match &self.families {
            Some(_) if self.rows.is_some() => refuse("families: not beside rows".to_owned()),
            Some(families) if families.is_empty() => refuse("families: is empty".to_owned()),
            _ => Ok(()),
        }
    }

    pub(super) fn kinds(&self) -> Kinds {
        if self.seen_kinds { Kinds::Seen } else { Kinds::Own }
    }

    /// Of a session. What a command writes is kept in bytes, and shown in characters.
    pub(super) fn limits(&self) -> Limits {
        let disk_bytes = self.disk_mb << 20;
        Limits {
            memory_bytes: self.memory_mb << 20,
            disk_bytes,
            file_bytes: disk_bytes,
            output_bytes: (self.output_chars * 4).max(64 << 10),
            ..Limits::default()
        }
    }

    pub(super) fn step_time(&self) -> Duration {
        Duration::from_secs(self.step_secs)
    }

    pub(super) fn verifier_time(&self) -> Duration {
        Duration::from_secs(self.verifier_secs)
    }
}
