//! `export`: writes what a run's journal holds in the forms that other tools read. It reads beside a running node, and
//! changes nothing.
//!
//! `sessions` says which replies are meant and puts turns together to conversations; `atif`, `messages` and `tensorboard`
//! are the forms, `calls` what they share; `output` is where they go, `when` how moments are written.

mod atif;
mod calls;
mod event_file;
mod messages;
mod model;
mod output;
mod sessions;
mod tensorboard;
#[cfg(test)]
mod tests;
mod when;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use openclaw_journal::{JournalReader, SessionId, TurnId};

use self::{
    messages::MessagesArgs,
    sessions::{Counts, Picks},
    when::When,
};
use crate::{
    exit::{EXIT_UNKNOWN, EXIT_USAGE},
    operate::RunArgs,
    printable::printable,
};

/// Examples for `--help`.
pub const EXAMPLES: &str = "\
Reads beside a running node, or a run that has ended; changes nothing there.

Examples:
  openclaw-rl export atif --out trajectories
  openclaw-rl export messages --out chats.jsonl --min-reward 1
  openclaw-rl export tensorboard --out curves
  openclaw-rl export model --out learnt";

/// What to write.
#[derive(Debug, Subcommand)]
pub enum Export {
    /// Writes trajectories: one ATIF file per conversation, with token ids, log-probs, rewards and what became of each turn.
    #[command(after_help = "\
Each file is a trajectory of the Agent Trajectory Interchange Format (ATIF-v1.7, Harbor's RFC 0001), named by its session. \
A request whose history is not the conversation so far (asked again, edited, compacted) begins a further file, SESSION~2.json, \
with the same session_id; what it repeats is marked is_copied_context. `extra` of a step has the reward, the votes, the \
hints, what followed, and the turn's fate. A turn that came with X-No-Train is there with trainable: false, weight: 0. \
Weight is 0, too, where the filters do not ask for a reply.

Examples:
  openclaw-rl export atif --out trajectories
  openclaw-rl export atif --out today --since 24h --kind all
  openclaw-rl export atif --run runs/opd --out one --session agent-7")]
    Atif {
        #[command(flatten)]
        run: RunArgs,
        /// The folder to write.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        #[command(flatten)]
        picks: Picks,
        #[command(flatten)]
        force: Force,
    },
    /// Writes conversations as OpenAI's messages, one JSON object per line, for fine-tuning.
    #[command(after_help = messages::HELP)]
    Messages {
        #[command(flatten)]
        run: RunArgs,
        #[command(flatten)]
        args: MessagesArgs,
        #[command(flatten)]
        picks: Picks,
        #[command(flatten)]
        force: Force,
    },
    /// Writes a version of the policy for other tools to serve.
    #[command(after_help = model::HELP)]
    Model {
        #[command(flatten)]
        run: RunArgs,
        #[command(flatten)]
        args: model::ModelArgs,
        #[command(flatten)]
        force: Force,
    },
    /// Writes the curves of training as TensorBoard's event files, by step and with the times of the steps.
    #[command(after_help = tensorboard::HELP)]
    Tensorboard {
        #[command(flatten)]
        run: RunArgs,
        /// The folder to write.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// Only steps since then: 2026-11-23T08:30:00Z, or 45s, 30m, 2h or 7d back from now.
        #[arg(long, value_name = "WHEN")]
        since: Option<When>,
        /// Only steps until then.
        #[arg(long, value_name = "WHEN")]
        until: Option<When>,
        #[command(flatten)]
        force: Force,
    },
}

/// Whether something may be replaced.
#[derive(Clone, Copy, Debug, Args)]
pub struct Force {
    /// Replaces what is there: the file, or files of the same name in the folder.
    #[arg(long)]
    force: bool,
}

/// Why nothing was exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// There is something already.
    #[error("{} exists: choose another --out, or --force", path.display())]
    Exists {
        /// Where.
        path: PathBuf,
    },
    /// A file cannot take its place.
    #[error("{} is a folder: --out names a file", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
    },
    /// Nothing can be written under that.
    #[error("--out {} names no file or folder", path.display())]
    NoName {
        /// What was given.
        path: PathBuf,
    },
    /// The folder that it would lie in is not there.
    #[error("cannot write {}: there is no folder {}", path.display(), above.display())]
    NowhereToPut {
        /// What was to be written.
        path: PathBuf,
        /// The folder that is missing.
        above: PathBuf,
    },
    /// Nothing was ever recorded there.
    #[error("no run has written a journal to {}", dir.display())]
    NoJournal {
        /// Where.
        dir: PathBuf,
    },
    /// No turn of it is kept.
    #[error("the journal has no session {session:?}")]
    UnknownSession {
        /// Its name.
        session: String,
    },
}

/// The exit code of an error that this module knows.
pub fn exit_code(error: &anyhow::Error) -> Option<u8> {
    Some(match error.downcast_ref()? {
        ExportError::Exists { .. }
        | ExportError::Folder { .. }
        | ExportError::NoName { .. }
        | ExportError::NowhereToPut { .. }
        | ExportError::NoJournal { .. } => EXIT_USAGE,
        ExportError::UnknownSession { .. } => EXIT_UNKNOWN,
    })
}

/// What was done, told on standard error.
pub struct Progress {
    bar: ProgressBar,
    counts: Counts,
}

impl Progress {
    fn new() -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{wide_bar} {pos} of {len} sessions");
        bar.set_style(style.expect("the template is well formed"));
        Self { bar, counts: Counts::default() }
    }

    fn unreadable(&mut self, turn: &TurnId, why: &str) {
        self.counts.unreadable += 1;
        self.tell(&format!("turn {turn} cannot be read: {why}"));
    }

    /// On a line of its own.
    fn tell(&self, line: &str) {
        let line = printable(line);
        self.bar.suspend(|| eprintln!("openclaw-rl: {line}"));
    }

    fn finish(&self, line: &str) {
        self.bar.finish_and_clear();
        eprintln!("{}", printable(line));
    }
}

/// Writes it.
pub fn run(export: Export) -> anyhow::Result<()> {
    let mut progress = Progress::new();
    match export {
        Export::Atif { run, out, picks, force } => {
            let dir = run.dir()?;
            atif::export(&open(&dir)?, &dir, &picks, &out, force.force, &mut progress)?;
            progress.finish(&format!("{} to {}", progress.counts.summary(picks.kind), out.display()));
        }
        Export::Messages { run, args, picks, force } => {
            let reader = open(&run.dir()?)?;
            messages::export(&reader, &args, &picks, force.force, &mut progress)?;
            progress.finish(&progress.counts.summary(picks.kind));
        }
        Export::Model { run, args, force } => {
            let told = model::export(&run.dir()?, &args, force)?;
            progress.finish(&format!("{told}, to {}", args.out().display()));
        }
        Export::Tensorboard { run, out, since, until, force } => {
            let reader = open(&run.dir()?)?;
            let span = tensorboard::Span { since, until };
            let told = tensorboard::export(&reader, span, &out, force.force, &mut progress)?;
            progress.finish(&format!("{told} to {}", out.display()));
        }
    }
    Ok(())
}

/// Writes the trajectory of one session into a folder, over what it held of that name.
pub fn trajectory(
    reader: &JournalReader,
    run_dir: &Path,
    session: &SessionId,
    to: &Path,
) -> anyhow::Result<()> {
    let picks = Picks { sessions: vec![session.to_string()], ..Picks::default() };
    let mut progress = Progress { bar: ProgressBar::hidden(), counts: Counts::default() };
    atif::export(reader, run_dir, &picks, to, true, &mut progress)
}

fn open(dir: &Path) -> anyhow::Result<JournalReader> {
    JournalReader::open(dir)?.ok_or_else(|| ExportError::NoJournal { dir: dir.to_owned() }.into())
}
