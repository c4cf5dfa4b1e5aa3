//! What a sandbox costs: `cargo run --release -p openclaw-sandbox --example cost`.

use std::{
    error::Error,
    path::Path,
    time::{Duration, Instant},
};

use openclaw_sandbox::{Backend, Bubblewrap, Exec, Spec};

const TIMES: usize = 40;

#[allow(clippy::print_stdout, reason = "it is what this program is for")]
fn main() -> Result<(), Box<dyn Error>> {
    let backend = Bubblewrap::default();
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
    println!("{:24} {}", "exec true", told(times(|| Ok(drop(session.exec(&Exec::argv(["true"]))?)))?));
    println!(
        "{:24} {}",
        "first line of a shell",
        told(times(|| {
            session.stop_all()?;
            Ok(drop(session.shell(":", hour)?))
        })?)
    );
    println!("{:24} {}", "line of a shell", told(times(|| Ok(drop(session.shell(":", hour)?)))?));
    println!("{:24} {}", "write_file", told(times(|| Ok(session.write_file(Path::new("a"), b"text")?))?));
    println!("{:24} {}", "read_file", told(times(|| Ok(drop(session.read_file(Path::new("a"))?)))?));
    println!("{:24} {}", "snapshot", told(times(|| Ok(drop(session.snapshot()?)))?));
    let snapshot = session.snapshot()?;
    println!("{:24} {}", "reset", told(times(|| Ok(session.reset(&snapshot)?))?));
    Ok(())
}

fn times(mut work: impl FnMut() -> Result<(), Box<dyn Error>>) -> Result<Vec<Duration>, Box<dyn Error>> {
    (0..TIMES)
        .map(|_| {
            let began = Instant::now();
            work().map(|()| began.elapsed())
        })
        .collect()
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
