//! The one shell of a session.

use std::{
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal};

use crate::{
    Ending, Interrupt, Output, SandboxError,
    attend::{Pipes, Sink, Stop, attend, deadline, drain, nonblocking},
    capture::Until,
    running::{Running, Streams, signal},
};

/// What runs it. Interactive, bash goes on after an interrupt; the rest of an interactive shell is switched off.
pub(crate) const WORDS: [&str; 3] =
    ["sh", "-c", "command -v bash >/dev/null && exec bash --noprofile --norc --noediting -i; exec sh"];

/// The first line. Descriptors 3 and 4 are for the marks, whatever becomes of 1 and 2.
const PREPARE: &str = "if [ -n \"$BASH_VERSION\" ]; then set +H +m; set +o history; unset HISTFILE; fi\n\
                       PS1= PS2= PS4='+ '; exec 3>&1 4>&2";

/// How long a shell first has to answer after its line was interrupted. Each time twice as long: an interrupt that reaches a
/// slow shell after it came back costs what it was just reading.
const AGAIN: Duration = Duration::from_millis(50);
/// A shell that has worked for so long after an interrupt does not listen: processor time, which a busy machine does not
/// use up.
const DEAF: Duration = Duration::from_secs(2);
/// One that neither works nor answers, on however busy a machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// The one shell of a session.
pub(crate) struct Shell<R: Running> {
    running: R,
    stdin: Option<OwnedFd>,
    stdout: OwnedFd,
    stderr: OwnedFd,
    output_bytes: usize,
}

/// What became of a line.
pub(crate) struct Step {
    pub(crate) ending: Ending,
    pub(crate) stdout: Output,
    pub(crate) stderr: Output,
    /// The shell is gone.
    pub(crate) lost: bool,
}

/// What the shell is asked to write behind a line, by a number no line can know. It is asked again after each interrupt,
/// which may have cost the last request, and is back once it answers the newest.
struct Marks {
    nonce: String,
    stdout: Until,
    stderr: Until,
    last: String,
}

impl Marks {
    fn new(output_bytes: usize) -> Self {
        let nonce = uuid::Uuid::new_v4().simple().to_string();
        let until = || Until::new(format!("\n{nonce} ").into_bytes(), output_bytes);
        Self { stdout: until(), stderr: until(), last: String::new(), nonce }
    }

    /// A line that asks for them.
    fn request(&mut self, number: u32) -> String {
        self.last = format!("end {number}");
        let Self { nonce, last, .. } = self;
        format!("\nprintf '\\n{nonce} %d {last}\\n' \"$?\" >&3; printf '\\n{nonce} {last}\\n' >&4\n")
    }
}

impl Sink for Marks {
    fn stdout(&mut self, bytes: &[u8]) {
        self.stdout.push(bytes);
    }

    fn stderr(&mut self, bytes: &[u8]) {
        self.stderr.push(bytes);
    }

    fn enough(&self) -> bool {
        let is_last = |line: &Vec<u8>| line.ends_with(self.last.as_bytes());
        self.stdout.lines().iter().any(is_last) && self.stderr.lines().iter().any(is_last)
    }
}

impl<R: Running> Shell<R> {
    /// A shell that waits for its first line.
    pub(crate) fn new(mut running: R, output_bytes: usize) -> Result<Self, SandboxError> {
        let Streams { stdin, stdout, stderr } = running.streams();
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
    pub(crate) fn line(
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
        let mut marks = Marks::new(self.output_bytes);
        let feed = line + &marks.request(0);
        let before = self.running.processes();
        let mut pipes = Pipes {
            stdin: &mut self.stdin,
            stdout: &self.stdout,
            stderr: &self.stderr,
            feed: feed.as_bytes(),
            closes: false,
        };
        let stop = attend(self.running.end(), &mut pipes, deadline, interrupt, &mut marks)?;
        let mut back = stop == Stop::Enough;
        if let (Stop::TimedOut | Stop::Interrupted, Some(before)) = (stop, &before) {
            // What of the line is not sent yet would be taken for the next.
            pipes.feed = &[];
            back = recall(&self.running, &mut pipes, &mut marks, before)? && end_new(&self.running, before);
        }
        let mut code = None;
        if !back {
            code = self.running.finish();
            drain(&pipes, &mut marks);
        }
        let status = marks.stdout.lines().first().and_then(|line| {
            let word = std::str::from_utf8(line).ok()?.split(' ').next()?;
            word.parse().ok()
        });
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

/// Interrupts the shell until it answers. False if it has ended or does not listen.
fn recall(
    running: &impl Running,
    pipes: &mut Pipes<'_>,
    marks: &mut Marks,
    before: &[Pid],
) -> Result<bool, SandboxError> {
    let Some(shell) = running.main() else { return Ok(false) };
    let (began, worked) = (Instant::now(), processor_time(shell));
    // A shell takes an interrupt for its own only if its child has died of one, so that comes first.
    let signals = [Signal::INT, Signal::KILL].into_iter().cycle();
    let mut wait = AGAIN;
    for (number, to_new) in (1..).zip(signals) {
        let now = running.processes().unwrap_or_default();
        now.iter().filter(|pid| !before.contains(pid)).for_each(|pid| signal(*pid, to_new));
        signal(shell, Signal::INT);
        let request = marks.request(number);
        let mut pipes = Pipes { stdin: pipes.stdin, feed: request.as_bytes(), ..*pipes };
        match attend(running.end(), &mut pipes, Instant::now() + wait, None, marks)? {
            Stop::Enough => return Ok(true),
            Stop::End => return Ok(false),
            Stop::TimedOut | Stop::Interrupted => {}
        }
        if processor_time(shell).saturating_sub(worked) > DEAF || began.elapsed() > PATIENCE {
            return Ok(false);
        }
        wait *= 2;
    }
    Ok(false)
}

/// Of one process, its children not counted.
fn processor_time(pid: Pid) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    // Behind the name: the state is the first, and these are the 12th and the 13th.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    let ticks: u64 = fields.filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
}

/// Kills what was not there before, until nothing is left that could have forked meanwhile.
fn end_new(running: &impl Running, before: &[Pid]) -> bool {
    let patience = Instant::now() + PATIENCE;
    loop {
        let Some(now) = running.processes() else { return false };
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
