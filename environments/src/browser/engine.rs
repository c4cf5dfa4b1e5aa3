//! The browsers of an environment: each runs in a sandbox of its own and has room for a few episodes.

use std::{
    ffi::OsString,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use openclaw_sandbox::{Backend, Bubblewrap, Exec, Limits, Program, Session, Spec};
use serde_json::json;

use super::devtools::{CallError, Client, Line};
use crate::{sandboxed::isolates, stop::Stop, world::WorldError};

/// Where Debian and its like have the browser itself; the program in the path is a script around it.
const PLACES: [&str; 2] = ["/usr/lib/chromium/chromium", "/usr/bin/chromium"];
/// How long a browser may take to start.
const START: Duration = Duration::from_secs(60);
/// What a browser reads its calls from and writes its answers to, in place of a port.
const PIPED: &str = "exec 3<&0 4>&1 </dev/null >/dev/null; exec \"$@\"";

/// Options that make a browser quiet, and the same each time.
const OPTIONS: &[&str] = &[
    "--headless=new",
    "--remote-debugging-pipe",
    "--user-data-dir=/tmp/profile",
    // The sandbox around it is the sandbox.
    "--no-sandbox",
    "--disable-gpu",
    "--disable-breakpad",
    "--disable-background-networking",
    "--disable-background-timer-throttling",
    "--disable-backgrounding-occluded-windows",
    "--disable-renderer-backgrounding",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-smooth-scrolling",
    "--disable-sync",
    // The last two would have processes that nobody looks at.
    "--disable-features=Translate,MediaRouter,OptimizationHints,PreloadTopChromeWebUI,SpareRendererForSitePerProcess",
    "--no-startup-window",
    "--force-color-profile=srgb",
    "--font-render-hinting=none",
    "--hide-scrollbars",
    "--metrics-recording-only",
    "--mute-audio",
    "--no-default-browser-check",
    "--no-first-run",
    "--password-store=basic",
    "--lang=en-US",
];

/// What a browser may use.
#[derive(Clone, Debug)]
pub(super) struct EngineOptions {
    /// The program; none is where it usually is.
    pub(super) program: Option<PathBuf>,
    /// Of all of its processes.
    pub(super) memory_mb: u64,
    /// Episodes in it at a time.
    pub(super) contexts: usize,
    /// A folder of the host that is `/pages` for it.
    pub(super) pages: Option<PathBuf>,
}

/// Where browsers come from.
pub(super) struct Engine {
    options: EngineOptions,
    backend: Bubblewrap,
    browsers: Mutex<Vec<Arc<Browser>>>,
}

/// A browser. It ends with whoever has it last.
pub(super) struct Browser {
    client: Arc<Client>,
    retired: AtomicBool,
    _machine: Mutex<Machine>,
}

/// What a browser runs in, for as long as it lives.
struct Machine {
    /// Ends before its session.
    _program: Program,
    _session: Box<dyn Session>,
}

impl Engine {
    pub(super) fn new(options: EngineOptions) -> Self {
        Self { options, backend: Bubblewrap::default(), browsers: Mutex::default() }
    }

    /// Clears what others have left, and tells what is missing.
    pub(super) fn ready(&self) -> Result<(), WorldError> {
        self.backend.sweep();
        self.isolates()
    }

    /// Nothing is run where it cannot be isolated, or is not there.
    pub(super) fn isolates(&self) -> Result<(), WorldError> {
        isolates(&self.backend)?;
        self.program().map(drop)
    }

    fn program(&self) -> Result<PathBuf, WorldError> {
        if let Some(program) = &self.options.program {
            return Ok(program.clone());
        }
        let place = PLACES.iter().map(PathBuf::from).find(|place| place.exists());
        place.ok_or_else(|| WorldError::Refused("no browser: install chromium, or set browser".to_owned()))
    }

    /// One with room for another episode.
    pub(super) fn browser(&self, stop: &Arc<Stop>) -> Result<Arc<Browser>, WorldError> {
        let mut browsers = self.lock();
        browsers.retain(|browser| !browser.is_retired());
        // Beside this list, each episode in it has one.
        let lodgers = |browser: &Arc<Browser>| Arc::strong_count(browser) - 1;
        let room = browsers.iter().find(|browser| lodgers(browser) < self.options.contexts).cloned();
        if let Some(browser) = room {
            return Ok(browser);
        }
        let browser = Arc::new(self.start(stop)?);
        browsers.push(browser.clone());
        Ok(browser)
    }

    /// Ends browsers that nobody is in, all but one.
    pub(super) fn tidy(&self) {
        let mut browsers = self.lock();
        let mut kept = false;
        browsers.retain(|browser| {
            let keeps = !browser.is_retired() && (Arc::strong_count(browser) > 1 || !kept);
            kept |= keeps;
            keeps
        });
    }

    fn start(&self, stop: &Arc<Stop>) -> Result<Browser, WorldError> {
        let program = self.program()?;
        let limits = Limits {
            memory_bytes: self.options.memory_mb << 20,
            address_bytes: Some(1 << 46),
            processes: 4096,
            // It lives as long as its environment does.
            cpu_secs: 30 * 24 * 3600,
            disk_bytes: 512 << 20,
            open_files: 4096,
            ..Limits::default()
        };
        let read_only = self.options.pages.iter().map(|pages| (PathBuf::from("/pages"), pages.clone()));
        let spec = Spec { limits, read_only: read_only.collect(), ..Spec::default() };
        let mut session = self.backend.open(&spec)?;
        let mut words: Vec<OsString> = ["sh", "-c", PIPED, "sh"].map(OsString::from).to_vec();
        words.push(program.into_os_string());
        words.extend(OPTIONS.iter().map(OsString::from));
        let mut program = session.start(&Exec::argv(words))?;
        let pipes = program.pipes().expect("a program that was just started has its pipes");
        let client = Client::new(pipes).map_err(|error| WorldError::Broken(error.to_string()))?;
        let machine = Machine { _program: program, _session: session };
        let browser = Browser { client, retired: AtomicBool::new(false), _machine: Mutex::new(machine) };
        let mut line = browser.line(stop, Instant::now() + START);
        match line.call("Browser.getVersion", json!({})) {
            Ok(_) => Ok(browser),
            Err(CallError::World(WorldError::Interrupted)) => Err(WorldError::Interrupted),
            Err(error) => {
                let why = WorldError::from(error);
                let errors = browser.client.errors();
                Err(WorldError::Broken(format!("no browser could be started: {why}: {errors}")))
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Browser>>> {
        self.browsers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Browser {
    /// To talk to it.
    pub(super) fn line(&self, stop: &Arc<Stop>, deadline: Instant) -> Line {
        Line::new(self.client.clone(), stop.clone(), deadline)
    }

    /// Nobody comes into it any more.
    pub(super) fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }

    fn is_retired(&self) -> bool {
        self.client.is_gone() || self.retired.load(Ordering::Relaxed)
    }
}
