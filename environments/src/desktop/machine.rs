//! One desktop: an X server, a window manager, a bus and what runs on them, all in one sandbox that nothing outlives.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use openclaw_sandbox::{Backend, Ending, Exec, Ran, SandboxError, Session, Spec, Workspace};

use super::{bus::Bus, settings::Settings, x11::X11};
use crate::{stop::Stop, world::WorldError};

/// The home folder inside; it is the workspace of the session.
pub(super) const HOME: &str = "/home/user";
/// Where the X server listens.
const X_SOCKET: &str = "/tmp/.X11-unix/X1";
/// Where the bus listens.
const BUS_SOCKET: &str = "/tmp/desktop/bus";
/// Is there if a program has crashed.
const CRASHED: &str = "/tmp/desktop/crashed";
/// Is there when the window manager has started, in the home folder.
const MANAGED: &str = ".config/desktop/managed";
/// How often something is looked for that is to come.
const AGAIN: Duration = Duration::from_millis(5);
/// The longest name of a file that a task may speak of.
const PATH_BYTES: usize = 4096;

/// What every home has at first.
const FILES: [(&str, &str); 9] = [
    (".config/openbox/rc.xml", include_str!("home/openbox.xml")),
    (".config/desktop/fonts.conf", include_str!("home/fonts.conf")),
    (".config/desktop/bus.conf", include_str!("home/bus.conf")),
    (".config/gtk-3.0/settings.ini", include_str!("home/gtk3.ini")),
    (".gtkrc-2.0", include_str!("home/gtk2.rc")),
    (".config/libfm/libfm.conf", include_str!("home/libfm.conf")),
    (".config/pcmanfm/default/pcmanfm.conf", include_str!("home/pcmanfm.conf")),
    (".config/lxterminal/lxterminal.conf", include_str!("home/lxterminal.conf")),
    (".bashrc", include_str!("home/bashrc")),
];
const FOLDERS: [&str; 4] = ["Desktop", "Documents", "Downloads", "Pictures"];

/// The programs of a desktop itself, and the packages that have them.
const PROGRAMS: [(&str, &str); 4] = [
    ("Xvfb", "xvfb"),
    ("openbox", "openbox"),
    ("dbus-daemon", "dbus"),
    ("at-spi2-registryd", "at-spi2-core"),
];
const FOLDERS_OF_PROGRAMS: [&str; 5] =
    ["/usr/local/bin", "/usr/bin", "/bin", "/usr/libexec", "/usr/lib/at-spi2-core"];

/// A desktop that runs. Dropping it ends it.
pub(super) struct Desktop {
    pub(super) x11: X11,
    pub(super) bus: Bus,
    session: Box<dyn Session>,
    stop: Arc<Stop>,
    deadline: Instant,
    step_time: Duration,
    /// Its programs have been ended.
    stopped: bool,
}

/// Whether this machine has a program.
pub(super) fn has(program: &str) -> bool {
    path_of(program).is_some()
}

fn path_of(program: &str) -> Option<PathBuf> {
    let plain = !program.is_empty() && !program.contains('/');
    FOLDERS_OF_PROGRAMS
        .iter()
        .map(|folder| Path::new(folder).join(program))
        .find(|path| plain && path.is_file())
}

/// What a desktop needs and this machine lacks.
pub(super) fn lacking() -> Vec<String> {
    let missing = PROGRAMS.iter().filter(|(program, _)| !has(program));
    let mut lacking: Vec<String> =
        missing.map(|(program, package)| format!("{program}: install {package}")).collect();
    if !Path::new("/usr/share/fonts/truetype/dejavu").is_dir() {
        lacking.push("fonts: install fonts-dejavu-core".to_owned());
    }
    lacking
}

impl Desktop {
    /// With nothing on it but its window manager.
    pub(super) fn start(
        backend: &dyn Backend,
        settings: &Settings,
        stop: &Arc<Stop>,
    ) -> Result<Self, WorldError> {
        let deadline = Instant::now() + settings.setup_time();
        let home = home().map_err(|error| WorldError::Broken(format!("a home folder: {error}")))?;
        let spec = Spec {
            workspace: Workspace::Folder(home.path().to_owned()),
            aliases: vec![HOME.into()],
            env: env(),
            limits: settings.limits(),
            ..Spec::default()
        };
        checked(stop)?;
        let mut session = backend.open(&spec)?;
        stop.session(Some(session.interrupt_handle()));
        checked(stop)?;
        let size = format!("{}x{}x24", settings.width, settings.height);
        let bus = format!("dbus-daemon --config-file={HOME}/.config/desktop/bus.conf --nofork --nopidfile");
        let x = format!("Xvfb :1 -screen 0 {size} -nolisten tcp -ac -noreset -extension GLX");
        let begin = format!(
            "cd {HOME} && mkdir -m 700 -p /tmp/desktop /tmp/run /tmp/fontconfig && mkdir -m 1777 -p /tmp/.X11-unix\n{}\n{}",
            daemon(&bus, "bus"),
            daemon(&x, "x")
        );
        line(session.as_mut(), stop, &begin, deadline)?;
        let stream = waited(stop, deadline, "the x server", || connected(session.as_ref(), X_SOCKET))?;
        let x11 = X11::connect(stream, stop.clone(), deadline)?;
        let stream = waited(stop, deadline, "the bus", || connected(session.as_ref(), BUS_SOCKET))?;
        let bus = Bus::connect(stream, stop.clone(), deadline)?;
        let registry = path_of("at-spi2-registryd").unwrap_or_else(|| "at-spi2-registryd".into());
        let manager = format!("openbox --startup 'touch {HOME}/{MANAGED}'");
        let more = format!(
            "{}\n{}",
            daemon(&registry.display().to_string(), "registry"),
            daemon(&manager, "openbox")
        );
        line(session.as_mut(), stop, &more, deadline)?;
        // It is there before it has taken the keys that it knows.
        waited(stop, deadline, "the window manager", || match session.read_file(Path::new(MANAGED)) {
            Ok(_) => Ok(x11.is_managed()?.then_some(())),
            Err(SandboxError::Path { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        })?;
        waited(stop, deadline, "the registry of accessibility", || Ok(bus.is_ready()?.then_some(())))?;
        let (stop, step_time) = (stop.clone(), settings.step_time());
        Ok(Self { x11, bus, session, stop, deadline, step_time, stopped: false })
    }

    /// What is asked from now on has to be answered until then.
    pub(super) fn until(&mut self, deadline: Instant) {
        self.deadline = deadline;
        self.x11.until(deadline);
        self.bus.until(deadline);
    }

    /// A step begins.
    pub(super) fn begin_step(&mut self) -> Instant {
        let deadline = Instant::now() + self.step_time;
        self.until(deadline);
        deadline
    }

    /// A program starts and goes on.
    pub(super) fn launch(&mut self, command: &str) -> Result<(), WorldError> {
        // Codes of programs that ended by a fault of their own: a signal that nobody sends to end one.
        let command = format!(
            "{{ ( cd {HOME}; exec {command} ); case $? in 13[2-6]|139) echo x >> {CRASHED} ;; esac; }} >/dev/null 2>&1 &"
        );
        line(self.session.as_mut(), &self.stop, &command, self.deadline).map(drop)
    }

    /// Whether a program that was launched has crashed.
    pub(super) fn has_crashed(&mut self) -> Result<bool, WorldError> {
        Ok(self.file(CRASHED)?.is_some())
    }

    /// A command runs to its end, or to the end of the time.
    pub(super) fn run(&mut self, command: &str) -> Result<Ran, WorldError> {
        let command = format!("( cd {HOME}; {command}\n)");
        line(self.session.as_mut(), &self.stop, &command, self.deadline)
    }

    /// Waits for something that is to come.
    pub(super) fn wait<T>(
        &self,
        what: &str,
        look: impl FnMut() -> Result<Option<T>, WorldError>,
    ) -> Result<T, WorldError> {
        waited(&self.stop, self.deadline, what, look)
    }

    /// Nothing is done for so long.
    pub(super) fn pause(&self, pause: Duration) -> Result<(), WorldError> {
        let end = (Instant::now() + pause).min(self.deadline);
        while Instant::now() < end {
            checked(&self.stop)?;
            thread::sleep(end.saturating_duration_since(Instant::now()).min(Duration::from_millis(20)));
        }
        checked(&self.stop)
    }

    /// Ends every program: what is looked at from now on stays as it is.
    pub(super) fn freeze(&mut self) -> Result<(), WorldError> {
        self.stopped = true;
        Ok(self.session.stop_all()?)
    }

    /// Whether its programs have been ended.
    pub(super) fn is_frozen(&self) -> bool {
        self.stopped
    }

    /// Copies the home folder to `to`.
    pub(super) fn keep(&self, to: &Path) -> Result<(), WorldError> {
        self.session.copy_out(Path::new(""), to)?;
        Ok(())
    }

    /// A file by its path inside; none where there is none, or nothing that can be read.
    pub(super) fn file(&mut self, path: &str) -> Result<Option<Vec<u8>>, WorldError> {
        if path.len() > PATH_BYTES || path.contains('\0') {
            return Ok(None);
        }
        if let Some(path) = at_home(path) {
            return match self.session.read_file(&path) {
                Ok(bytes) => Ok(Some(bytes)),
                Err(SandboxError::Path { .. } | SandboxError::TooLarge { .. }) => Ok(None),
                Err(error) => Err(error.into()),
            };
        }
        let mut exec = Exec::argv(["cat", "--", path]);
        exec.timeout = self.left();
        let ran = self.session.exec(&exec)?;
        ended(&self.stop, ran.ending)?;
        Ok((ran.success() && ran.stdout.dropped_bytes == 0).then_some(ran.stdout.head))
    }

    /// The names in a folder and whether each is a folder; none where there is no such folder.
    pub(super) fn folder(&mut self, path: &str) -> Result<Option<Vec<(String, bool)>>, WorldError> {
        let Some(path) = at_home(path) else { return Ok(None) };
        match self.session.list(&path) {
            Ok(listing) => {
                let name = |entry: openclaw_sandbox::Entry| {
                    (entry.name.to_string_lossy().into_owned(), entry.kind == openclaw_sandbox::Kind::Folder)
                };
                Ok(Some(listing.entries.into_iter().map(name).collect()))
            }
            Err(SandboxError::Path { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }
}

/// A path inside, relative to the home folder, if it is there.
fn at_home(path: &str) -> Option<PathBuf> {
    let path = path.strip_prefix("~/").unwrap_or(path);
    let path = Path::new(path);
    match path.strip_prefix(HOME) {
        Ok(inside) => Some(inside.to_owned()),
        Err(_) => path.is_relative().then(|| path.to_owned()),
    }
}

/// The line for a program that runs as long as its desktop. What it says is its own, and not part of what a command says later.
fn daemon(command: &str, log: &str) -> String {
    format!("{command} </dev/null >/tmp/desktop/{log}.log 2>&1 &")
}

/// A home folder as every desktop has it at first.
fn home() -> io::Result<tempfile::TempDir> {
    let home = tempfile::tempdir()?;
    for folder in FOLDERS {
        fs::create_dir(home.path().join(folder))?;
    }
    for (path, text) in FILES {
        let path = home.path().join(path);
        fs::create_dir_all(path.parent().unwrap_or(home.path()))?;
        fs::write(path, text)?;
    }
    Ok(home)
}

fn env() -> BTreeMap<OsString, OsString> {
    let bus = format!("unix:path={BUS_SOCKET}");
    let fonts = format!("{HOME}/.config/desktop/fonts.conf");
    let variables = [
        ("HOME", HOME),
        ("USER", "user"),
        ("DISPLAY", ":1"),
        ("TZ", "UTC"),
        ("SHELL", "/bin/bash"),
        ("DBUS_SESSION_BUS_ADDRESS", &bus),
        ("AT_SPI_BUS_ADDRESS", &bus),
        ("FONTCONFIG_FILE", &fonts),
        ("XDG_RUNTIME_DIR", "/tmp/run"),
        ("GSETTINGS_BACKEND", "keyfile"),
        // Of programs with GTK 2; those with GTK 3 need no module.
        ("GTK_MODULES", "gail:atk-bridge"),
        ("GTK_OVERLAY_SCROLLING", "0"),
        // What a verdict runs takes no modules of the agent's.
        ("PYTHONNOUSERSITE", "1"),
        ("PYTHONSAFEPATH", "1"),
    ];
    variables.map(|(name, value)| (name.into(), value.into())).into()
}

fn connected(
    session: &dyn Session,
    path: &str,
) -> Result<Option<std::os::unix::net::UnixStream>, WorldError> {
    match session.connect(Path::new(path)) {
        Ok(stream) => Ok(Some(stream)),
        // Not yet.
        Err(SandboxError::Path { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Waits for something that is to come; what does not come in time breaks the world.
fn waited<T>(
    stop: &Stop,
    deadline: Instant,
    what: &str,
    mut look: impl FnMut() -> Result<Option<T>, WorldError>,
) -> Result<T, WorldError> {
    loop {
        checked(stop)?;
        let found = look();
        // At the end of the time nothing that it looks with answers any more.
        let late = Instant::now() >= deadline && !matches!(found, Ok(Some(_)));
        if late && !stop.is_wanted() {
            return Err(WorldError::Broken(format!("{what} does not come")));
        }
        if let Some(found) = found? {
            return Ok(found);
        }
        thread::sleep(AGAIN);
    }
}

/// Runs a line in the shell of a session.
fn line(session: &mut dyn Session, stop: &Stop, line: &str, deadline: Instant) -> Result<Ran, WorldError> {
    checked(stop)?;
    let ran = session.shell(line, deadline.saturating_duration_since(Instant::now()))?;
    ended(stop, ran.ending)?;
    if ran.shell_lost {
        return Err(WorldError::Broken("the desktop has ended".to_owned()));
    }
    Ok(ran)
}

fn ended(stop: &Stop, ending: Ending) -> Result<(), WorldError> {
    match ending {
        Ending::Interrupted => Err(WorldError::Interrupted),
        Ending::NotStarted => Err(WorldError::Broken("a command could not be started".to_owned())),
        Ending::Exited(_) | Ending::TimedOut | Ending::Killed => checked(stop),
    }
}

fn checked(stop: &Stop) -> Result<(), WorldError> {
    if stop.is_wanted() { Err(WorldError::Interrupted) } else { Ok(()) }
}
