//! The terminal: lines as they are typed, and what is written between them. On a terminal that can, a line editor reads
//! them and lines of ours come up above the one that is being typed; elsewhere it is all plain lines.

use std::{
    io::{self, BufRead, IsTerminal, Write},
    sync::mpsc as blocking,
    time::Duration,
};

use rustix::{
    process::{Signal, getpid, kill_process},
    termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr},
};
use rustyline::{Config, DefaultEditor, ExternalPrinter, error::ReadlineError};
use tokio::{sync::mpsc, time::timeout};

use crate::{cells::wrap_indented, operate::colours, printable::printable};

const PROMPT: &str = "> ";
/// Between two tries to have the editor leave the terminal as it found it, and how many there are.
const LEAVE_PERIOD: Duration = Duration::from_millis(50);
const LEAVE_TRIES: usize = 20;
/// Before each line of ours.
const INDENT: &str = "  ";
/// A narrower terminal breaks lines itself.
const LEAST_COLUMNS: usize = 20;

/// What came of waiting for a line.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// A line.
    Line(String),
    /// It was given up with Ctrl-C.
    Cleared,
    /// There will be no more.
    End,
}

/// A terminal, or what stands in for one.
pub struct Terminal {
    heard: mpsc::Receiver<io::Result<Heard>>,
    asks: blocking::Sender<()>,
    /// A line was asked for and did not come yet.
    is_reading: bool,
    /// Shows lines above the one that is typed; none where there is no line editor.
    above: Option<blocking::Sender<String>>,
    /// A person reads and types.
    is_live: bool,
    is_coloured: bool,
    /// Characters since the last line break.
    written: usize,
}

impl Terminal {
    /// Standard input and output.
    pub fn open() -> Self {
        let is_live = io::stdin().is_terminal() && io::stdout().is_terminal();
        let (asks, asked) = blocking::channel();
        let (tell, heard) = mpsc::channel(1);
        let editor = if is_live { editor() } else { None };
        let above = editor.map(|(editor, printer)| {
            let (above, lines) = blocking::channel();
            // It waits for the editor, which may be waiting for a person.
            std::thread::spawn(move || show_above(printer, &lines));
            (editor, above)
        });
        let above = match above {
            Some((editor, above)) => {
                std::thread::spawn(move || read_edited(editor, &asked, &tell));
                Some(above)
            }
            None => {
                std::thread::spawn(move || read_plain(&asked, &tell, is_live));
                None
            }
        };
        Self { heard, asks, is_reading: false, above, is_live, is_coloured: colours(), written: 0 }
    }

    /// Whether a person reads and types.
    pub fn is_live(&self) -> bool {
        self.is_live
    }

    /// Whether lines can be shown while one is typed.
    pub fn shows_above(&self) -> bool {
        self.above.is_some()
    }

    /// The next line. Can be dropped and called again: nothing that was typed is lost.
    pub async fn hear(&mut self) -> io::Result<Heard> {
        if !self.is_reading {
            self.end_line()?;
            // An error means that the reader has ended, which the next line tells.
            let _ = self.asks.send(());
            self.is_reading = true;
        }
        let heard = self.heard.recv().await.unwrap_or(Ok(Heard::End))?;
        self.is_reading = false;
        if heard == Heard::End {
            self.leave_prompt()?;
        }
        Ok(heard)
    }

    /// Begins the prompt anew, where a signal has cleared what was typed.
    pub fn clear(&self) -> io::Result<()> {
        if self.is_reading && self.above.is_none() {
            let mut out = io::stdout();
            write!(out, "\n{PROMPT}")?;
            out.flush()?;
        }
        Ok(())
    }

    /// A prompt of ours stands where the next line is to be written; the editor's does not.
    fn leave_prompt(&self) -> io::Result<()> {
        if self.is_live && self.above.is_none() { writeln!(io::stdout()) } else { Ok(()) }
    }

    /// Leaves the prompt without a line: the editor gives the terminal back.
    pub async fn leave(&mut self) -> io::Result<()> {
        for _ in 0..LEAVE_TRIES {
            if !self.is_reading || self.above.is_none() {
                break;
            }
            // While it reads, the editor takes SIGINT for Ctrl-C.
            let _ = kill_process(getpid(), Signal::INT);
            if timeout(LEAVE_PERIOD, self.heard.recv()).await.is_ok() {
                self.is_reading = false;
            }
        }
        self.leave_prompt()
    }

    /// Adds to a reply; `faint` is what the model thinks. Text of the model may hold anything.
    pub fn piece(&mut self, text: &str, faint: bool) -> io::Result<()> {
        let text = printable(text);
        let mut out = io::stdout();
        match faint && self.is_coloured {
            true => write!(out, "{}", dimmed(&text))?,
            false => write!(out, "{text}")?,
        }
        self.written = match text.rsplit_once('\n') {
            Some((_, last)) => last.chars().count(),
            None => self.written + text.chars().count(),
        };
        out.flush()
    }

    /// Ends a reply with a mark of ours, on its last line where that has room.
    pub fn mark(&mut self, mark: &str) -> io::Result<()> {
        let room = self.columns().map(|columns| columns - self.written % columns);
        if room.is_some_and(|room| room < INDENT.len() + mark.chars().count()) {
            self.end_line()?;
        }
        self.piece(&format!("{INDENT}{mark}"), true)?;
        self.end_line()
    }

    /// Ends the line that a reply left open, if it did.
    pub fn end_line(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.written) > 0 {
            writeln!(io::stdout())?;
        }
        Ok(())
    }

    /// A line of ours about the conversation.
    pub fn note(&mut self, text: &str) -> io::Result<()> {
        let lines = wrap_indented(&printable(text), self.columns().unwrap_or(usize::MAX), INDENT);
        let lines = if self.is_coloured { dimmed(&lines) } else { lines };
        match &self.above {
            Some(above) if self.is_reading => {
                // An error means that the terminal is gone, which reading from it tells.
                let _ = above.send(lines);
                Ok(())
            }
            _ => {
                self.end_line()?;
                writeln!(io::stdout(), "{lines}")
            }
        }
    }

    /// How wide it is, where a person reads it.
    fn columns(&self) -> Option<usize> {
        let columns = tcgetwinsize(io::stdout()).ok()?.ws_col.into();
        (self.is_live && columns >= LEAST_COLUMNS).then_some(columns)
    }

    /// What is typed while a reply comes is not shown within it; the prompt shows it.
    pub fn unechoed(&self) -> Unechoed {
        let stdin = io::stdin();
        let before = self.above.is_some().then(|| tcgetattr(&stdin).ok()).flatten();
        if let Some(mut modes) = before.clone() {
            modes.local_modes.remove(LocalModes::ECHO);
            // A terminal that is gone shows nothing.
            let _ = tcsetattr(&stdin, OptionalActions::Now, &modes);
        }
        Unechoed(before)
    }
}

/// Shows what is typed again when it is dropped.
pub struct Unechoed(Option<Termios>);

impl Drop for Unechoed {
    fn drop(&mut self) {
        if let Some(modes) = &self.0 {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, modes);
        }
    }
}

/// A line editor and what shows lines above it, where the terminal can do that.
fn editor() -> Option<(DefaultEditor, Box<dyn ExternalPrinter + Send>)> {
    let config = Config::builder().auto_add_history(true).build();
    let mut editor = DefaultEditor::with_config(config).ok()?;
    let printer = editor.create_external_printer().ok()?;
    Some((editor, Box::new(printer)))
}

fn show_above(mut printer: Box<dyn ExternalPrinter + Send>, lines: &blocking::Receiver<String>) {
    for line in lines {
        if printer.print(line + "\n").is_err() {
            return;
        }
    }
}

fn read_edited(
    mut editor: DefaultEditor,
    asked: &blocking::Receiver<()>,
    tell: &mpsc::Sender<io::Result<Heard>>,
) {
    for () in asked {
        let heard = match editor.readline(PROMPT) {
            Ok(line) => Ok(Heard::Line(line)),
            Err(ReadlineError::Interrupted) => Ok(Heard::Cleared),
            Err(ReadlineError::Eof) => Ok(Heard::End),
            Err(ReadlineError::Io(error)) => Err(error),
            Err(error) => Err(io::Error::other(error)),
        };
        if tell.blocking_send(heard).is_err() {
            return;
        }
    }
}

fn read_plain(asked: &blocking::Receiver<()>, tell: &mpsc::Sender<io::Result<Heard>>, is_live: bool) {
    let mut lines = io::stdin().lock().lines();
    for () in asked {
        if is_live {
            let mut out = io::stdout();
            // An error means that the terminal is gone, which reading from it tells.
            let _ = write!(out, "{PROMPT}").and_then(|()| out.flush());
        }
        let heard = lines.next().map_or(Ok(Heard::End), |line| line.map(Heard::Line));
        if tell.blocking_send(heard).is_err() {
            return;
        }
    }
}

/// Faint, line by line: an editor that breaks a line in two must not lose it.
fn dimmed(text: &str) -> String {
    let faint = |line: &str| if line.is_empty() { String::new() } else { format!("\x1b[2m{line}\x1b[22m") };
    text.split('\n').map(faint).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_dimmed_by_itself() {
        assert_eq!(dimmed("a\nb"), "\x1b[2ma\x1b[22m\n\x1b[2mb\x1b[22m");
        assert_eq!(dimmed("\n"), "\n");
    }
}
