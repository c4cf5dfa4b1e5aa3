//! A command, and what became of it.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    path::PathBuf,
    time::Duration,
};

/// A command.
#[derive(Clone, Debug)]
pub struct Exec {
    /// What runs.
    pub command: Command,
    /// What it reads; then its input ends.
    pub stdin: Vec<u8>,
    /// How long it may take.
    pub timeout: Duration,
    /// Added to the session's.
    pub env: BTreeMap<OsString, OsString>,
    /// Where it starts, relative to the workspace.
    pub cwd: PathBuf,
}

/// What runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// A program and its arguments.
    Argv(Vec<OsString>),
    /// A line, or a whole script, for `sh -c`.
    Line(String),
}

impl Exec {
    /// A program and its arguments, with a minute.
    pub fn argv<S: AsRef<OsStr>>(argv: impl IntoIterator<Item = S>) -> Self {
        Self::new(Command::Argv(argv.into_iter().map(|part| part.as_ref().to_owned()).collect()))
    }

    /// A line for `sh -c`, with a minute.
    pub fn line(line: impl Into<String>) -> Self {
        Self::new(Command::Line(line.into()))
    }

    fn new(command: Command) -> Self {
        let timeout = Duration::from_secs(60);
        Self { command, stdin: Vec::new(), timeout, env: BTreeMap::new(), cwd: PathBuf::new() }
    }

    /// With what it reads.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// With another time.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    pub(crate) fn words(&self) -> Vec<OsString> {
        match &self.command {
            Command::Argv(argv) => argv.clone(),
            Command::Line(line) => vec!["sh".into(), "-c".into(), line.into()],
        }
    }
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// By itself, with a code as a shell tells it: 128 + n after signal n, 127 if there is no such program.
    Exited(i32),
    /// Ended when its time was over.
    TimedOut,
    /// Ended by [`Interrupt::interrupt`](crate::Interrupt::interrupt).
    Interrupted,
    /// It never ran: there is no such folder to start in, say. The error output says why.
    NotStarted,
    /// Its whole sandbox was killed from outside, as by the kernel when memory was used up.
    Killed,
}

/// What became of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// How it ended.
    pub ending: Ending,
    /// What it wrote.
    pub stdout: Output,
    /// Its errors.
    pub stderr: Output,
    /// From the start to the end of all that it started.
    pub duration: Duration,
    /// The kernel killed something of this session meanwhile, for its memory.
    pub out_of_memory: bool,
    /// The shell has ended: its folder, variables and jobs are gone, and the next line has a new one.
    pub shell_lost: bool,
}

impl Ran {
    /// None, unless it ended by itself.
    pub fn exit_code(&self) -> Option<i32> {
        match self.ending {
            Ending::Exited(code) => Some(code),
            _ => None,
        }
    }

    /// It ended by itself, with 0.
    pub fn success(&self) -> bool {
        self.ending == Ending::Exited(0)
    }
}

/// What a command wrote: the first and the last part if it is too long.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// Its start; all of it if nothing was dropped.
    pub head: Vec<u8>,
    /// What came between.
    pub dropped_bytes: u64,
    /// Its end, if some was dropped.
    pub tail: Vec<u8>,
}

impl Output {
    /// For a reader; what was dropped is said in a line.
    pub fn text(&self) -> Cow<'_, str> {
        let head = String::from_utf8_lossy(&self.head);
        if self.dropped_bytes == 0 {
            return head;
        }
        let tail = String::from_utf8_lossy(&self.tail);
        format!("{head}\n[{} bytes left out]\n{tail}", self.dropped_bytes).into()
    }
}
