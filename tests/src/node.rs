//! A launched node as a process: where it serves, what its clients see, and how it is killed.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, mpsc},
    thread::JoinHandle,
};

use crate::binary;

/// A topology file with keys put over it.
#[derive(Clone, Debug)]
pub struct Launch {
    file: String,
    run_dir: PathBuf,
    sets: Vec<String>,
    options: Vec<String>,
    variables: Vec<(String, String)>,
    limits: String,
}

/// A process that serves. Killed when dropped.
#[derive(Debug)]
pub struct Node {
    child: Child,
    /// Where clients connect: `http://host:port/v1`.
    pub url: String,
    log: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl Launch {
    /// `file` is relative to the root of the tree; everything the run writes goes to `run_dir`, and ports are free ones.
    pub fn new(file: &str, run_dir: &Path) -> Self {
        let launch = Self {
            file: file.into(),
            run_dir: run_dir.into(),
            sets: Vec::new(),
            options: Vec::new(),
            variables: Vec::new(),
            limits: String::new(),
        };
        launch
            .set(&format!("run.dir={}", run_dir.display()))
            .set("actors.gateway.listen=127.0.0.1:0")
            .set("nodes.local.metrics=127.0.0.1:0")
            .set("nodes.local.admin=127.0.0.1:0")
    }

    /// Puts a value over a key.
    pub fn set(mut self, key_value: &str) -> Self {
        self.sets.push(key_value.into());
        self
    }

    /// Adds a flag of `launch`.
    pub fn option(mut self, option: &str) -> Self {
        self.options.push(option.into());
        self
    }

    /// Sets a variable of its environment.
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.into(), value.into()));
        self
    }

    /// No file that it writes grows beyond this: to the process that is a full disk.
    pub fn with_files_up_to(self, kib: u32) -> Self {
        // A shell counts blocks of 512 bytes, and the signal would end the process.
        self.limited(&format!("trap '' XFSZ; ulimit -f {};", 2 * kib))
    }

    /// Sets limits of the process, in the words of a shell.
    pub fn limited(mut self, words: &str) -> Self {
        self.limits.push_str(words);
        self
    }

    /// Where the run writes.
    pub fn run_dir(&self) -> &Path {
        &self.run_dir
    }

    /// Starts the process and waits until it says where it serves. Panics, with its log, when it ends before.
    pub fn start(&self) -> Node {
        self.try_start().unwrap_or_else(|log| panic!("it ended before it served:\n{log}"))
    }

    /// Starts the process; its log when it ends before it serves.
    pub fn try_start(&self) -> Result<Node, String> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        // The shell becomes the node: its id is the node's.
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{} exec \"$0\" \"$@\"", self.limits)]).arg(binary());
        command.current_dir(root).env_remove("RUST_LOG").args(["launch", &self.file]).args(&self.options);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        for set in &self.sets {
            command.args(["--set", set]);
        }
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the binary can be run");
        let lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (tell, told) = mpsc::channel();
        let kept = log.clone();
        // Read to the end, so that the process never waits for a reader.
        let reader = std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if let Some(url) = gateway(&line) {
                    // The receiver is gone once it knows.
                    let _ = tell.send(url);
                }
                kept.lock().expect("nobody panics with it").push(line);
            }
        });
        match told.recv() {
            Ok(url) => Ok(Node { child, url, log, reader: Some(reader) }),
            Err(_) => {
                // Its standard error is closed: it has ended, or is about to.
                let _ = child.wait();
                Err(log.lock().expect("nobody panics with it").join("\n"))
            }
        }
    }
}

/// The address in the log line, text or JSON, that says where the gateway serves.
fn gateway(line: &str) -> Option<String> {
    let (_, told) = line.split_once("gateway").filter(|_| line.contains("serving"))?;
    let address = &told[told.find("http://")?..];
    Some(address.split(['"', ' ']).next()?.to_owned())
}

impl Node {
    /// Where it serves its metrics: `host:port`.
    pub fn metrics(&self) -> String {
        let log = self.log();
        let (_, said) = log.split_once("metrics=").expect("it says where before it serves");
        said.split_whitespace().next().expect("an address").to_owned()
    }

    /// What it has written to standard error so far.
    pub fn log(&self) -> String {
        self.log.lock().expect("nobody panics with it").join("\n")
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`, and waits for its end.
    pub fn kill(mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it ends");
    }

    /// Sends a signal by its name, such as `TERM`.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(status.expect("kill is there").success());
    }

    /// SIGTERM, and waits for its end.
    pub fn stop(mut self) -> ExitStatus {
        self.signal("TERM");
        self.child.wait().expect("it ends")
    }

    /// Waits for its end; all that it wrote to standard error.
    pub fn log_to_the_end(self) -> String {
        self.end().1
    }

    /// Waits for its end: how it ended, and all that it wrote to standard error.
    pub fn end(mut self) -> (ExitStatus, String) {
        let status = self.child.wait().expect("it ends");
        self.reader.take().expect("nobody else takes it").join().expect("the reader does not panic");
        (status, self.log())
    }

    /// Waits for its end.
    pub fn wait(mut self) -> ExitStatus {
        self.child.wait().expect("it ends")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Errors mean that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
