//! How fast it writes: `cargo test -p openclaw-actors --test journal -- --ignored --nocapture speed`.

use std::{
    io::Write,
    time::{Duration, Instant},
};

use crate::turns::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn speed() {
    for writers in [1, 16, 200] {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let journal = open(dir.path());
        let supervisor = supervise(&journal);
        let started = Instant::now();
        let tasks: Vec<_> = (0..writers)
            .map(|writer| {
                let journal = journal.clone();
                tokio::spawn(async move {
                    let mut waits = Vec::new();
                    while started.elapsed() < Duration::from_secs(5) {
                        let name = format!("{writer}-{}", waits.len());
                        let asked = Instant::now();
                        journal.record(completed(&name)).await.expect("written");
                        waits.push(asked.elapsed());
                    }
                    waits
                })
            })
            .collect();
        let mut waits = Vec::new();
        for task in tasks {
            waits.extend(task.await.expect("no panic"));
        }
        let secs = started.elapsed().as_secs_f64();
        waits.sort();
        writeln!(
            std::io::stdout(),
            "{writers} writers: {:.0} records/s, p50 {:?}, p99 {:?}",
            waits.len() as f64 / secs,
            waits[waits.len() / 2],
            waits[waits.len() * 99 / 100],
        )
        .expect("standard output takes it");
        supervisor.abort();
    }
}
