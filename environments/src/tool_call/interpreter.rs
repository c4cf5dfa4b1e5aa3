//! The code tool: each call is a Python process of its own in the sandbox of its world. Files stay from call to call.

use std::{path::Path, time::Duration};

use openclaw_sandbox::{Backend, Ending, Exec, Interrupt, Limits, Ran, Session, Spec};

use super::{families, settings::Settings};
use crate::{shown::shown, world::WorldError};

/// What Python runs: it reads the code from its input, which has no limit of length.
const SCRIPT: &str = include_str!("interpreter.py");
/// Stands before the class of an exception, in the error output.
const MARK: char = '\u{1e}';
/// Kept of each output at least, so that no traceback is cut.
const KEPT_BYTES: usize = 8192;
/// What is said where there is nothing to show.
const NOTHING: &str = "[nothing was printed]";

/// A session with Python.
pub(super) struct Interpreter {
    session: Box<dyn Session>,
    output_bytes: usize,
}

/// What a call gave.
pub(super) struct Called {
    /// What the agent is shown.
    pub(super) text: String,
    /// It failed.
    pub(super) is_error: bool,
    /// What a rule reads.
    pub(super) ran: families::Ran,
}

impl Interpreter {
    /// Its workspace.
    pub(super) fn copy_out(&self, to: &Path) -> Result<(), WorldError> {
        self.session.copy_out(Path::new(""), to)?;
        Ok(())
    }

    /// A new session.
    pub(super) fn open(backend: &dyn Backend, settings: &Settings) -> Result<Self, WorldError> {
        let limits = Limits {
            memory_bytes: settings.memory_mb << 20,
            processes: 64,
            disk_bytes: 64 << 20,
            file_bytes: 64 << 20,
            output_bytes: settings.output_bytes.max(KEPT_BYTES),
            ..Limits::default()
        };
        let session = backend.open(&Spec { limits, ..Spec::default() })?;
        Ok(Self { session, output_bytes: settings.output_bytes })
    }

    /// Refused where `python` does not run.
    pub(super) fn needs(&mut self, python: &str) -> Result<(), WorldError> {
        let ran = self.session.exec(&Exec::argv([python, "-I", "-c", ""]))?;
        match ran.ending {
            Ending::Exited(0) => Ok(()),
            Ending::Exited(_) => {
                let said = shown(&ran.stderr, 400);
                Err(WorldError::Refused(format!("{python} does not run in a sandbox: {}", said.trim())))
            }
            Ending::Interrupted => Err(WorldError::Interrupted),
            ending => Err(WorldError::Broken(format!("{python} ended with {ending:?}"))),
        }
    }

    /// Runs code after what a problem has ready.
    pub(super) fn run(&mut self, prelude: &str, code: &str, time: Duration) -> Result<Called, WorldError> {
        let exec =
            Exec::argv(["python3", "-I", "-c", SCRIPT]).stdin(format!("{prelude}\0{code}")).timeout(time);
        let ran = self.session.exec(&exec)?;
        let (error, why) = match ran.ending {
            Ending::Interrupted => return Err(WorldError::Interrupted),
            Ending::NotStarted => return Err(WorldError::Broken(shown(&ran.stderr, 400))),
            Ending::Exited(0) => (None, String::new()),
            Ending::TimedOut => (Some("TimeoutError".to_owned()), "Ended: it took too long.".to_owned()),
            Ending::Exited(_) | Ending::Killed => {
                let (class, why) = raised(&ran);
                (Some(class), why)
            }
        };
        let output = shown(&ran.stdout, self.output_bytes);
        let text = match (output.trim_end(), why.as_str()) {
            ("", "") => NOTHING.to_owned(),
            ("", why) => why.to_owned(),
            (output, "") => output.to_owned(),
            (output, why) => format!("{output}\n{why}"),
        };
        Ok(Called { text, is_error: error.is_some(), ran: families::Ran { output, error } })
    }

    /// For another thread.
    pub(super) fn interrupt(&self) -> Interrupt {
        self.session.interrupt_handle()
    }
}

/// The class of the exception that ended a process, and what is told of it.
fn raised(ran: &Ran) -> (String, String) {
    let stderr = shown(&ran.stderr, usize::MAX);
    let marked = stderr.rsplit_once(MARK).and_then(|(_, told)| told.split_once('\n'));
    let (class, why) = match marked {
        Some((class, why)) => (class, why.to_owned()),
        None if ran.out_of_memory || ran.ending == Ending::Killed => {
            ("MemoryError", "Ended: it used too much memory.".to_owned())
        }
        None => {
            let code = ran.exit_code().unwrap_or_default();
            ("SystemExit", format!("Ended with code {code}. {}", shown(&ran.stderr, 1200).trim()))
        }
    };
    (class.to_owned(), why.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use openclaw_sandbox::Output;

    use super::*;

    fn ended(ending: Ending, stderr: &str, out_of_memory: bool) -> Ran {
        Ran {
            ending,
            stdout: Output::default(),
            stderr: Output { head: stderr.into(), ..Output::default() },
            duration: Duration::ZERO,
            out_of_memory,
            shell_lost: false,
        }
    }

    #[test]
    fn the_class_of_an_exception_is_read() {
        let read = |ran| raised(&ran);
        let stderr = "a warning\n\n\u{1e}KeyError\nTraceback ..\nKeyError: 'a'\n";
        let (class, why) = read(ended(Ending::Exited(1), stderr, false));
        assert_eq!((class.as_str(), why.as_str()), ("KeyError", "Traceback ..\nKeyError: 'a'"));
        assert_eq!(read(ended(Ending::Killed, "", false)).0, "MemoryError");
        assert_eq!(read(ended(Ending::Exited(137), "", true)).0, "MemoryError");
        let (class, why) = read(ended(Ending::Exited(3), "sorry\n", false));
        assert_eq!((class.as_str(), why.as_str()), ("SystemExit", "Ended with code 3. sorry"));
    }

    #[test]
    fn where_python_is_missing_nothing_runs() {
        let backend = openclaw_sandbox::Bubblewrap::default();
        let missing = backend.missing();
        if !missing.is_empty() {
            assert!(std::env::var_os("OPENCLAW_REQUIRE_ALL").is_none(), "{missing:?}");
            eprintln!("skipped, no sandbox can be made here: {missing:?}");
            return;
        }
        let mut interpreter = Interpreter::open(&backend, &Settings::default()).expect("it opens");
        let refused = interpreter.needs("python-that-is-not-there").expect_err("it is refused");
        assert!(matches!(&refused, WorldError::Refused(why) if why.contains("not-there")), "{refused:?}");
    }
}
