//! The one shell of a session.

use std::{
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::{
    process::{Running, below},
    run::{Pipes, Sink, Stop, attend, deadline, drain, nonblocking},
};
use crate::{Ending, Interrupt, Output, SandboxError, capture::Until};

/// What runs it. Interactive, bash goes on after an interrupt; the rest of an interactive shell is switched off.
pub(super) const WORDS: [&str; 3] =
    ["sh", "-c", "command -v bash >/dev/null && exec bash --noprofile --norc --noediting -i; exec sh"];

/// The first line. Descriptors 3 and 4 are for the marks, whatever becomes of 1 and 2.
const PREPARE: &str = "if [ -n \"$BASH_VERSION\" ]; then set +H +m; set +o history; unset HISTFILE; fi\n\
                       PS1= PS2= PS4='+ '; exec 3>&1 4>&2";

/// How long a shell has to come back after its line was interrupted, and how often it is.
const GRACE: Duration = Duration::from_secs(2);
const AGAIN: Duration = Duration::from_millis(50);

/// The one shell of a session.
pub(super) struct Shell {
    running: Running,
    stdin: Option<OwnedFd>,
    stdout: OwnedFd,
    stderr: OwnedFd,
    output_bytes: usize,
}

/// What became of a line.
pub(super) struct Step {
    pub(super) ending: Ending,
    pub(super) stdout: Output,
    pub(super) stderr: Output,
    /// The shell is gone.
    pub(super) lost: bool,
}

struct Marks {
    stdout: Until,
    stderr: Until,
}

impl Sink for Marks {
    fn stdout(&mut self, bytes: &[u8]) {
        self.stdout.push(bytes);
    }

    fn stderr(&mut self, bytes: &[u8]) {
        self.stderr.push(bytes);
    }

    fn enough(&self) -> bool {
        self.stdout.line().is_some() && self.stderr.line().is_some()
    }
}

impl Shell {
    /// A shell that waits for its first line.
    pub(super) fn new(mut running: Running, output_bytes: usize) -> Result<Self, SandboxError> {
        let (stdin, stdout, stderr) = (running.stdin.take(), running.stdout.take(), running.stderr.take());
        let mut shell = Self {
            stdin: Some(nonblocking(stdin.expect("it is a pipe"))?),
            stdout: nonblocking(stdout.expect("it is a pipe"))?,
            stderr: nonblocking(stderr.expect("it is a pipe"))?,
            running,
            output_bytes,
        };
        let step = shell.say(PREPARE.to_owned(), Duration::from_secs(60), None)?;
        if step.lost {
            return Err(SandboxError::Start { why: step.stderr.text().into_owned() });
        }
        Ok(shell)
    }

    /// Runs a line, or many.
    pub(super) fn line(
        &mut self,
        line: &str,
        timeout: Duration,
        interrupt: &Interrupt,
    ) -> Result<Step, SandboxError> {
        // As one word, so that a quote left open ends with it; with no hold on the marks and the shell's own input.
        let line = format!("{{ eval {}\n}} </dev/null 3>&- 4>&-", quoted(line));
        self.say(line, timeout, Some(interrupt))
    }

    fn say(
        &mut self,
        line: String,
        timeout: Duration,
        interrupt: Option<&Interrupt>,
    ) -> Result<Step, SandboxError> {
        let deadline = deadline(timeout);
        let nonce = uuid::Uuid::new_v4().simple();
        let feed = format!("{line}\nprintf '\\n{nonce} %d\\n' \"$?\" >&3; printf '\\n{nonce}\\n' >&4\n");
        let mark = || format!("\n{nonce}").into_bytes();
        let mut marks = Marks {
            stdout: Until::new(mark(), self.output_bytes),
            stderr: Until::new(mark(), self.output_bytes),
        };
        let before = below(self.running.first());
        let mut pipes = Pipes {
            stdin: &mut self.stdin,
            stdout: &self.stdout,
            stderr: &self.stderr,
            feed: feed.as_bytes(),
            closes: false,
        };
        let stop = attend(&self.running, &mut pipes, deadline, interrupt, &mut marks)?;
        let mut back = stop == Stop::Enough;
        if let (Stop::TimedOut | Stop::Interrupted, Some(before)) = (stop, &before) {
            let patience = Instant::now() + GRACE;
            // A shell takes an interrupt for its own only if its child has died of one, so that comes first.
            let mut signals = [Signal::INT, Signal::KILL].into_iter().cycle();
            let mut stop = stop;
            while !back && stop != Stop::End && Instant::now() < patience {
                signal_new(self.running.first(), before, signals.next().unwrap_or(Signal::KILL));
                stop = attend(&self.running, &mut pipes, Instant::now() + AGAIN, None, &mut marks)?;
                back = stop == Stop::Enough;
            }
            back = back && end_new(self.running.first(), before);
        }
        let mut code = None;
        if !back {
            code = self.running.finish();
            drain(&pipes, &mut marks);
        }
        let status = marks.stdout.line().and_then(|line| std::str::from_utf8(line).ok()?.trim().parse().ok());
        let ending = match stop {
            Stop::TimedOut => Ending::TimedOut,
            Stop::Interrupted => Ending::Interrupted,
            Stop::Enough | Stop::End => status.or(code).map_or(Ending::Killed, Ending::Exited),
        };
        Ok(Step {
            ending,
            stdout: marks.stdout.finish(),
            stderr: without_noise(marks.stderr.finish()),
            lost: !back,
        })
    }
}

/// To what was not there before, and an interrupt to the shell.
fn signal_new(first: Pid, before: &[Pid], to_new: Signal) {
    let now = below(first).unwrap_or_default();
    now.iter().filter(|pid| !before.contains(pid)).for_each(|pid| signal(*pid, to_new));
    // The shell was the first of all below process 1.
    if let Some(shell) = before.first() {
        signal(*shell, Signal::INT);
    }
}

/// Kills what was not there before, until nothing is left that could have forked meanwhile.
fn end_new(first: Pid, before: &[Pid]) -> bool {
    let patience = Instant::now() + GRACE;
    loop {
        let Some(now) = below(first) else { return false };
        let new: Vec<&Pid> = now.iter().filter(|pid| !before.contains(pid)).collect();
        if new.is_empty() {
            return true;
        }
        if Instant::now() > patience {
            return false;
        }
        new.into_iter().for_each(|pid| signal(*pid, Signal::KILL));
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn signal(pid: Pid, signal: Signal) {
    // One that has ended meanwhile needs none.
    let _ = pidfd_open(pid, PidfdFlags::empty()).and_then(|fd| pidfd_send_signal(fd, signal));
}

fn quoted(line: &str) -> String {
    format!("'{}'", line.replace('\'', r"'\''"))
}

/// An interactive bash wants its terminal back from each child that died of a signal, and says that there is none.
fn without_noise(mut output: Output) -> Output {
    const NOISE: &[u8] = b"(255)] tcsetattr: Inappropriate ioctl for device";
    for part in [&mut output.head, &mut output.tail] {
        let lines: Vec<&[u8]> = part.split(|byte| *byte == b'\n').collect();
        let is_noise = |line: &&[u8]| line.starts_with(b"bash: [") && line.ends_with(NOISE);
        if lines.iter().any(is_noise) {
            let kept: Vec<&[u8]> = lines.into_iter().filter(|line| !is_noise(line)).collect();
            *part = kept.join(&b'\n');
        }
    }
    output
}
