//! What a sandbox costs: `cargo run --release -p openclaw-sandbox --example cost`, with the name of an image for those of
//! docker.

use std::{
    error::Error,
    path::Path,
    time::{Duration, Instant},
};

use openclaw_sandbox::{Backend, Bubblewrap, Docker, Exec, SandboxError, Spec};

const TIMES: usize = 40;

#[allow(clippy::print_stdout, reason = "it is what this program is for")]
fn main() -> Result<(), Box<dyn Error>> {
    let backend: Box<dyn Backend> = match std::env::args().nth(1) {
        Some(image) => Box::new(Docker::new(Docker::default_socket(), image)),
        None => Box::new(Bubblewrap::default()),
    };
    for check in backend.probe() {
        println!("{:24} {:5} {}", check.name, check.ok, check.detail);
    }
    let mut opened = Vec::new();
    let mut closed = Vec::new();
    for _ in 0..TIMES {
        let began = Instant::now();
        let mut session = backend.open(&Spec::default())?;
        opened.push(began.elapsed());
        let began = Instant::now();
        session.close()?;
        closed.push(began.elapsed());
    }
    println!("{:24} {}", "open", told(opened));
    println!("{:24} {}", "close", told(closed));

    let mut session = backend.open(&Spec::default())?;
    let hour = Duration::from_secs(3600);
    let file = Path::new("a");
    tell("exec true", || session.exec(&Exec::argv(["true"])).map(drop))?;
    tell("first line of a shell", || {
        session.stop_all()?;
        session.shell(":", hour).map(drop)
    })?;
    tell("line of a shell", || session.shell(":", hour).map(drop))?;
    tell("write_file", || session.write_file(file, b"text"))?;
    tell("read_file", || session.read_file(file).map(drop))?;
    tell("snapshot", || session.snapshot().map(drop))?;
    let snapshot = session.snapshot()?;
    tell("reset", || session.reset(&snapshot))?;
    Ok(())
}

#[allow(clippy::print_stdout, reason = "it is what this program is for")]
fn tell(what: &str, mut work: impl FnMut() -> Result<(), SandboxError>) -> Result<(), SandboxError> {
    let mut times = Vec::new();
    for _ in 0..TIMES {
        let began = Instant::now();
        work()?;
        times.push(began.elapsed());
    }
    println!("{what:24} {}", told(times));
    Ok(())
}

fn told(mut times: Vec<Duration>) -> String {
    times.sort();
    format!(
        "median {:>10.3?}  min {:>10.3?}  max {:>10.3?}",
        times[times.len() / 2],
        times[0],
        times[times.len() - 1]
    )
}
