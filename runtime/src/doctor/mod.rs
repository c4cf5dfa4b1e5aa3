//! `doctor`: a checklist of the machine, and of what a topology will need of it.

mod gpu;
mod machine;
mod models;
mod needs;
mod openclaw;

use std::{
    fmt,
    fs::{self, File},
    io::{self, IsTerminal, Write},
    net::{SocketAddr, TcpListener},
    path::Path,
    process::ExitCode,
};

use openclaw_journal::Inspection;
use openclaw_kernels::Cpu;
use ratatui::crossterm::terminal;

pub(crate) use self::machine::{available_memory, existing, free_disk};
pub(crate) use self::models::described;
use self::needs::Needs;
pub use self::needs::{CannotFit, must_fit};
use crate::{
    admin,
    cells::wrap,
    exit::EXIT_FAILED,
    measures::size,
    topology::{Override, Topology, TopologyError},
};

/// Shown below `doctor --help`.
pub const EXAMPLES: &str = "\
Every line begins with ok, warn (something will be missed) or FAIL (launch would not work). One FAIL makes it end with 1.

Examples:
  openclaw-rl doctor
  openclaw-rl doctor configs/quickstart.toml";

/// Cells of a mark.
const MARK_CELLS: usize = 4;
/// In fewer cells a sentence is no longer read.
const FEWEST_CELLS: usize = 30;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    Ok,
    Warn,
    Fail,
}

/// One line of the checklist.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    mark: Mark,
    what: String,
    told: String,
}

impl Line {
    fn new(mark: Mark, what: impl Into<String>, told: impl Into<String>) -> Self {
        Self { mark, what: what.into(), told: told.into() }
    }

    fn ok(what: impl Into<String>, told: impl Into<String>) -> Self {
        Self::new(Mark::Ok, what, told)
    }

    fn fail(what: impl Into<String>, error: impl fmt::Display) -> Self {
        Self::new(Mark::Fail, what, error.to_string())
    }
}

/// Looks, and prints the checklist.
pub fn run(file: Option<&Path>, overrides: &[Override]) -> anyhow::Result<ExitCode> {
    let mut lines = machine_lines();
    if let Some(file) = file {
        match Topology::load_and_look(file, overrides) {
            Ok((topology, problems)) => {
                lines.push(Line::ok("topology", format!("{} can be read", file.display())));
                lines.extend(problems.into_iter().map(|problem| Line::fail(problem.key, problem.message)));
                lines.extend(models::lines(&topology));
                lines.extend(topology_lines(&topology));
                lines.extend(openclaw::lines(Some(&topology)));
            }
            Err(TopologyError::Invalid { problems, .. }) => {
                lines.extend(problems.iter().map(|problem| Line::fail("topology", problem)));
            }
            Err(error) => return Err(error.into()),
        }
    } else {
        lines.extend(openclaw::lines(None));
    }
    let mut out = io::stdout().lock();
    let width = lines.iter().map(|line| line.what.len()).max().unwrap_or_default();
    let columns =
        out.is_terminal().then(|| terminal::size().ok()).flatten().map(|(columns, _)| columns.into());
    for line in &lines {
        for (i, told) in told(&line.told, width, columns).iter().enumerate() {
            match i {
                0 => writeln!(out, "{}  {:<width$}  {told}", mark(line.mark), line.what)?,
                _ => writeln!(out, "{:MARK_CELLS$}  {:width$}  {told}", "", "")?,
            }
        }
    }
    let failed = lines.iter().any(|line| line.mark == Mark::Fail);
    Ok(if failed { ExitCode::from(EXIT_FAILED) } else { ExitCode::SUCCESS })
}

/// What is told beside a name, broken where a terminal of `columns` ends.
fn told(told: &str, width: usize, columns: Option<usize>) -> Vec<String> {
    let left = columns.map(|columns| columns.saturating_sub(MARK_CELLS + 2 + width + 2));
    match left.filter(|left| *left >= FEWEST_CELLS) {
        Some(left) => wrap(told, left),
        None => vec![told.to_owned()],
    }
}

fn mark(mark: Mark) -> String {
    let (word, colour) = match mark {
        Mark::Ok => ("ok  ", "32"),
        Mark::Warn => ("warn", "33"),
        Mark::Fail => ("FAIL", "1;31"),
    };
    let plain = !io::stdout().is_terminal() || std::env::var_os("NO_COLOR").is_some_and(|no| !no.is_empty());
    if plain { word.to_owned() } else { format!("\x1b[{colour}m{word}\x1b[0m") }
}

fn machine_lines() -> Vec<Line> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let cpu = match Cpu::new("doctor", 1) {
        Ok(device) if device.instructions() == "portable" => {
            Line::new(Mark::Warn, "cpu", format!("{cores} cores without AVX2: everything will be slow"))
        }
        Ok(device) => Line::ok("cpu", format!("{cores} cores, {}", device.instructions())),
        Err(error) => Line::fail("cpu", error),
    };
    let memory = match machine::available_memory() {
        Some(bytes) => Line::ok("memory", format!("{} available", size(bytes))),
        None => Line::new(Mark::Warn, "memory", "this system does not say how much is available"),
    };
    let sandbox = match machine::sandbox() {
        Ok(()) => Line::ok("sandbox", "bubblewrap makes namespaces"),
        Err(why) => {
            Line::new(Mark::Warn, "sandbox", format!("{why}; environments that run code would need docker"))
        }
    };
    let gpu = gpu::lines();
    [cpu, memory].into_iter().chain(gpu).chain([sandbox]).collect()
}

fn topology_lines(topology: &Topology) -> Vec<Line> {
    let mut lines = Vec::new();
    let dir = &topology.run.dir;
    let running = admin::is_live(dir).unwrap_or(false);
    if running {
        let told = format!("a node is running in {}: its ports are taken by it", dir.display());
        lines.push(Line::new(Mark::Warn, "node", told));
    } else {
        let gateway = ("actors.gateway.listen".to_owned(), topology.actors.gateway.listen);
        let of_node = topology.nodes.iter().flat_map(|(name, node)| {
            let metrics = (format!("nodes.{name}.metrics"), node.metrics);
            [Some(metrics), node.admin.map(|admin| (format!("nodes.{name}.admin"), admin))]
        });
        lines
            .extend([gateway].into_iter().chain(of_node.flatten()).map(|(key, address)| port(&key, address)));
    }
    lines.extend(topology.environments.iter().map(|(name, environment)| {
        let what = format!("environments.{name}");
        match environment.make().and_then(|made| made.ready()) {
            Ok(()) => Line::ok(what, format!("{} is ready", environment.kind)),
            Err(error) => Line::fail(what, error),
        }
    }));
    lines.push(writable(dir));
    lines.push(journal(dir, running));
    let needs = Needs::of(topology);
    let free = machine::free_disk(&machine::existing(dir));
    lines.push(match free {
        Ok(free) => match needs.check_disk(topology, free) {
            Ok(()) => disk(free, needs.disk_bytes(), (topology.journal.max_mib as u64) << 20),
            Err(error) => Line::fail("disk", error),
        },
        Err(error) => Line::new(Mark::Warn, "disk", format!("cannot be measured: {error}")),
    });
    // A node that runs has taken its memory already.
    if let Some(available) = machine::available_memory().filter(|_| !running) {
        lines.push(match needs.check_memory(topology, available) {
            Ok(()) => Line::ok("fits", format!("{} of memory", size(needs.memory_bytes()))),
            Err(error) => Line::fail("fits", error),
        });
    }
    lines.extend(
        needs.memory.iter().map(|need| Line::ok("needs", format!("{} for {}", size(need.bytes), need.what))),
    );
    lines
}

/// Versions fit; the journal may grow to its limit.
fn disk(free: u64, versions: u64, journal: u64) -> Line {
    let told = format!(
        "{} free; versions will take {}, and the journal up to {} (journal.max_mib)",
        size(free),
        size(versions),
        size(journal)
    );
    let fits = versions.saturating_add(journal) <= free;
    Line::new(if fits { Mark::Ok } else { Mark::Warn }, "disk", told)
}

fn port(key: &str, address: SocketAddr) -> Line {
    if address.port() == 0 {
        return Line::ok(key, format!("any free port of {}", address.ip()));
    }
    match TcpListener::bind(address) {
        Ok(_) => Line::ok(key, format!("{address} is free")),
        Err(error) => Line::fail(key, format!("cannot listen on {address}: {error}")),
    }
}

/// Whether a file can be made where the run writes, or where its folder would be made.
fn writable(dir: &Path) -> Line {
    let place = machine::existing(dir);
    let probe = place.join(format!(".openclaw-doctor-{}", std::process::id()));
    match File::create_new(&probe).and_then(|_| fs::remove_file(&probe)) {
        Ok(()) => Line::ok("run.dir", format!("{} can be written", dir.display())),
        Err(error) => Line::fail("run.dir", format!("{} cannot be written: {error}", place.display())),
    }
}

fn journal(dir: &Path, running: bool) -> Line {
    match openclaw_journal::inspect(dir) {
        Ok(None) => Line::ok("journal", "none yet: a run begins"),
        // The node that runs here was told of already.
        Ok(Some(Inspection { in_use: true, .. })) if !running => {
            Line::fail("journal", format!("another process writes to the journal in {}", dir.display()))
        }
        Ok(Some(Inspection { schema, bytes, .. })) => {
            Line::ok("journal", format!("{}, schema {schema}: the run goes on", size(bytes)))
        }
        Err(error) => Line::fail("journal", error.line()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_stands_beside_its_name_on_a_terminal_and_is_one_line_elsewhere() {
        let what = "one two three four five six seven eight nine";
        assert_eq!(told(what, 10, None), [what]);
        assert_eq!(told(what, 10, Some(48)), ["one two three four five six", "seven eight nine"]);
        assert_eq!(told(what, 10, Some(40)), [what], "too narrow to break");
    }

    #[test]
    fn a_taken_port_fails_and_names_its_key() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let line = port("actors.gateway.listen", address);
        assert_eq!((line.mark, line.what.as_str()), (Mark::Fail, "actors.gateway.listen"));
        assert!(line.told.contains(&address.to_string()), "{}", line.told);
        assert_eq!(port("k", "127.0.0.1:0".parse().unwrap()).mark, Mark::Ok);
    }

    #[test]
    fn a_folder_that_would_be_made_is_tried_where_it_would_be() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(writable(&dir.path().join("runs/new")).mark, Mark::Ok);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        assert_eq!(writable(&file.join("run")).mark, Mark::Fail);
    }
}
