//! A program on a terminal of its own: what is typed, and what its screen shows.

use std::{
    ffi::OsStr,
    io::{Read, Write},
    num::NonZeroU16,
    path::Path,
    process::Command,
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
};

use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};

use crate::eventually;

/// A terminal with a program on it. Killed when dropped.
pub struct Terminal {
    child: Box<dyn Child + Send + Sync>,
    master: Box<dyn MasterPty + Send>,
    keys: Box<dyn Write + Send>,
    screen: Arc<Mutex<vt100::Parser>>,
    reader: Option<JoinHandle<()>>,
}

impl Terminal {
    /// Starts `program` on a terminal of this many columns and rows.
    pub fn start(
        program: &Path,
        words: &[&str],
        variables: &[(&str, &OsStr)],
        (columns, rows): (u16, u16),
    ) -> Self {
        let pair = native_pty_system().openpty(size(columns, rows)).expect("a terminal can be opened");
        let mut command = CommandBuilder::new(program);
        command.args(words);
        command.env("TERM", "xterm-256color");
        command.env_remove("NO_COLOR");
        for (name, value) in variables {
            command.env(name, value);
        }
        let child = pair.slave.spawn_command(command).expect("the program can be run");
        let mut output = pair.master.try_clone_reader().expect("it can be read");
        let screen = Arc::new(Mutex::new(vt100::Parser::new(cells(rows), cells(columns), 0)));
        let shown = screen.clone();
        let reader = std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // A terminal that nobody writes to any more is an error on Linux.
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                shown.lock().unwrap_or_else(PoisonError::into_inner).process(&bytes[..count]);
            }
        });
        let keys = pair.master.take_writer().expect("it is taken once");
        Self { child, master: pair.master, keys, screen, reader: Some(reader) }
    }

    /// Types it.
    pub fn type_in(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).and_then(|()| self.keys.flush()).expect("somebody reads it");
    }

    /// What can be read on it now.
    pub fn text(&self) -> String {
        self.look(|screen| screen.contents())
    }

    /// What is true of its screen now.
    pub fn look<T>(&self, of: impl FnOnce(&vt100::Screen) -> T) -> T {
        of(self.screen.lock().unwrap_or_else(PoisonError::into_inner).screen())
    }

    /// Waits until its text is as `wanted`; panics with the text when it never is.
    pub async fn shows(&self, what: &str, wanted: impl Fn(&str) -> bool) {
        if eventually(async || wanted(&self.text())).await.is_err() {
            panic!("{what} is never shown:\n{}", self.text());
        }
    }

    /// Makes it this large.
    pub fn resize(&mut self, columns: u16, rows: u16) {
        self.screen.lock().unwrap_or_else(PoisonError::into_inner).set_size(cells(rows), cells(columns));
        self.master.resize(size(columns, rows)).expect("it is open");
    }

    /// How it treats what is typed and written.
    pub fn settings(&self) -> impl PartialEq + std::fmt::Debug + use<> {
        self.master.get_termios().expect("it has settings")
    }

    /// Sends the program a signal by its name, such as `TERM`.
    pub fn signal(&self, name: &str) {
        let id = self.child.process_id().expect("it runs").to_string();
        let status = Command::new("kill").args([&format!("-{name}"), &id]).status();
        assert!(status.expect("kill is there").success());
    }

    /// Waits for the program's end, and until all it wrote is on the screen; its exit code.
    pub async fn exit_code(&mut self) -> u32 {
        let mut code = None;
        let ended = eventually(async || {
            code = self.child.try_wait().expect("it is our child").map(|status| status.exit_code());
            code.is_some()
        });
        if ended.await.is_err() {
            panic!("it does not end:\n{}", self.text());
        }
        if let Some(reader) = self.reader.take() {
            // Its last words are on the screen then.
            reader.join().expect("the reader does not panic");
        }
        code.expect("it has ended")
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Errors mean that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(reader) = self.reader.take() {
            // What is on the screen matters no more.
            let _ = reader.join();
        }
    }
}

fn size(cols: u16, rows: u16) -> PtySize {
    PtySize { rows, cols, pixel_width: 0, pixel_height: 0 }
}

fn cells(count: u16) -> NonZeroU16 {
    NonZeroU16::new(count).expect("a terminal has a cell")
}
