//! Our side of `sandbox/compare.py`: so many sessions at once, each opened, used and closed. Says its times as JSON.

use std::{
    env,
    error::Error,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use openclaw_sandbox::{Backend, Bubblewrap, Exec, SandboxError, Spec};
use serde_json::json;

/// Seconds of each thing that was done, by its name.
type Times = Vec<(&'static str, f64)>;

/// One session, which goes on when all others are as far.
fn play(backend: &Bubblewrap, steps: usize, all: &Barrier) -> Result<Times, SandboxError> {
    let hour = Duration::from_secs(3600);
    let mut times = Times::new();
    let mut timed = |name, work: &mut dyn FnMut() -> Result<(), SandboxError>| {
        let began = Instant::now();
        let done = work();
        times.push((name, began.elapsed().as_secs_f64()));
        done
    };
    all.wait();
    let mut opened = None;
    timed("start", &mut || {
        let session = opened.insert(backend.open(&Spec::default())?);
        session.shell("true", hour).map(drop)
    })?;
    let mut session = opened.ok_or(SandboxError::Closed)?;
    for (name, line) in [("true", "true"), ("python3 -c pass", "python3 -c pass")] {
        all.wait();
        for _ in 0..steps {
            timed(name, &mut || session.shell(line, hour).map(drop))?;
        }
    }
    // In a sandbox of its own, as the other side does it.
    all.wait();
    for _ in 0..steps {
        timed("true, by itself", &mut || session.exec(&Exec::argv(["bash", "-c", "true"])).map(drop))?;
    }
    all.wait();
    timed("end", &mut || session.close())?;
    Ok(times)
}

#[allow(clippy::print_stdout, reason = "it is what this program is for")]
fn main() -> Result<(), Box<dyn Error>> {
    let mut numbers = env::args().skip(1).map(|number| number.parse::<usize>());
    let mut number = || numbers.next().ok_or("two numbers: sessions at once, steps of each");
    let (at_once, steps) = (number()??, number()??);
    let (backend, all) = (Bubblewrap::default(), Barrier::new(at_once));
    let times: Vec<Result<Times, SandboxError>> = thread::scope(|scope| {
        let sessions: Vec<_> = (0..at_once).map(|_| scope.spawn(|| play(&backend, steps, &all))).collect();
        sessions.into_iter().map(|session| session.join().expect("it does not panic")).collect()
    });
    let mut by_name = serde_json::Map::new();
    for (name, time) in times.into_iter().collect::<Result<Vec<Times>, _>>()?.into_iter().flatten() {
        if let Some(times) = by_name.entry(name).or_insert_with(|| json!([])).as_array_mut() {
            times.push(json!(time));
        }
    }
    println!("{}", serde_json::Value::Object(by_name));
    Ok(())
}
