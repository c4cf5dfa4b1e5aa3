//! `experiment soak`: a node under load and under kills for a long time. What it holds must not grow.

use std::{
    fmt::Write,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use clap::Args;
use serde_json::Value;

use super::{
    launched::Launched,
    node::Reader,
    users::{Talk, start_users},
};

/// Lines of the table.
const SAMPLES: u32 = 30;
/// What is held at the end may be this much more than allowed, for what comes and goes.
const SLACK_BYTES: f64 = 32.0 * 1024.0 * 1024.0;
/// Likewise, for what is counted.
const SLACK_COUNT: f64 = 4.0;
/// Parts that are killed in turn, one at each sample.
const PARTS: [&str; 7] =
    ["judge.0", "policy.0", "optimizer", "sessions", "teacher.0", "journal", "publisher"];

/// The arguments of `experiment soak`.
#[derive(Clone, Debug, Args)]
pub struct SoakArgs {
    /// The topology file; its simulated users are left out.
    #[arg(value_name = "FILE", default_value = "configs/quickstart.toml")]
    topology: PathBuf,
    /// How long.
    #[arg(long, default_value_t = 30.0)]
    minutes: f64,
    /// Users that talk all the time.
    #[arg(long, default_value_t = 8)]
    users: usize,
    /// How many times what was held in the second third of the time may be held in the last. A run too short for
    /// the allocator to settle needs more.
    #[arg(long, default_value_t = 1.15)]
    growth: f64,
    /// Kills nothing.
    #[arg(long)]
    no_kills: bool,
    /// Where the node's run goes; must not exist yet.
    #[arg(long, value_name = "DIR", default_value = "runs/soak")]
    out: PathBuf,
    /// Puts a value over a key of the file; can be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
}

/// What the node holds at one time.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    resident_bytes: u64,
    files: u64,
    threads: u64,
    journal_bytes: u64,
    versions: u64,
}

/// Runs for the time given; the table, or an error that names what grew.
pub(super) async fn command(args: SoakArgs, read: &Reader) -> anyhow::Result<String> {
    ensure!(!args.out.exists(), "{} exists already; name another folder with --out", args.out.display());
    let mut sets = vec![
        format!("run.dir={}", args.out.display()),
        "actors.rollout=[]".to_owned(),
        "actors.gateway.listen=127.0.0.1:0".to_owned(),
        "nodes.local.metrics=127.0.0.1:0".to_owned(),
        "nodes.local.admin=127.0.0.1:0".to_owned(),
        // Limits that are reached within the time.
        "actors.sessions.idle_timeout_secs=20".to_owned(),
        "actors.optimizer.keep_versions=3".to_owned(),
        "actors.optimizer.max_wait_secs=5".to_owned(),
        "journal.max_mib=16".to_owned(),
    ];
    sets.extend(args.overrides.iter().cloned());
    let facts = read(&args.topology, &sets)?.facts();
    let node = Launched::start(&args.topology, &sets).await?;
    let talk = Arc::new(Talk::default());
    let mut users = start_users(args.users, &node.url, &facts.served_model, &talk)?;

    let mut text = String::from(
        "| minute | answers | cut | version | killed | memory MiB | files | threads | journal MiB | version folders |\n\
         |---|---|---|---|---|---|---|---|---|---|\n",
    );
    let started = Instant::now();
    let period = Duration::from_secs_f64(args.minutes * 60.0) / SAMPLES;
    let mut all = Vec::new();
    for sample in 1..=SAMPLES {
        tokio::time::sleep_until((started + period * sample).into()).await;
        talk.take_ids();
        let part = (!args.no_kills).then(|| PARTS[sample as usize % PARTS.len()]);
        if let Some(part) = part {
            node.operate(&args.out, &["kill", part]).await?;
        }
        let held = Held::of(&node, &args.out)?;
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let status = node.operate(&args.out, &["status", "--json"]).await?;
        let version = serde_json::from_str::<Value>(&status)?["version"].clone();
        writeln!(
            text,
            "| {:.1} | {} | {} | {version} | {} | {:.0} | {} | {} | {:.1} | {} |",
            started.elapsed().as_secs_f64() / 60.0,
            talk.answers.load(Ordering::SeqCst),
            talk.cut.load(Ordering::SeqCst),
            part.unwrap_or("-"),
            mib(held.resident_bytes),
            held.files,
            held.threads,
            mib(held.journal_bytes),
            held.versions,
        )?;
        all.push(held);
    }
    users.shutdown().await;
    node.kill().await?;
    let answers = talk.answers.load(Ordering::SeqCst);
    ensure!(answers > 0, "no user was answered\n{text}");
    if let Some(grown) = grown(&all, args.growth) {
        bail!("{grown} grew without bound\n{text}");
    }
    Ok(text)
}

impl Held {
    fn of(node: &Launched, run_dir: &Path) -> anyhow::Result<Self> {
        let entries = |path: PathBuf| -> anyhow::Result<u64> {
            let listed =
                std::fs::read_dir(&path).with_context(|| format!("cannot list {}", path.display()))?;
            Ok(listed.count() as u64)
        };
        let size = |name: &str| std::fs::metadata(run_dir.join(name)).map_or(0, |file| file.len());
        let proc = node.proc()?;
        let versions = run_dir.join("versions");
        Ok(Self {
            resident_bytes: node.resident_bytes()?,
            files: entries(proc.join("fd"))?,
            threads: entries(proc.join("task"))?,
            journal_bytes: size("journal.db") + size("journal.db-wal"),
            versions: if versions.exists() { entries(versions)? } else { 0 },
        })
    }
}

/// What is more in the last third than in the one before it, if anything.
fn grown(all: &[Held], growth: f64) -> Option<&'static str> {
    let third = all.len() / 3;
    let (middle, last) = (&all[third..2 * third], &all[2 * third..]);
    let mean = |held: &[Held], of: fn(&Held) -> u64| {
        held.iter().map(|held| of(held) as f64).sum::<f64>() / held.len().max(1) as f64
    };
    let grew = |of: fn(&Held) -> u64, slack: f64| mean(last, of) > mean(middle, of) * growth + slack;
    if grew(|held| held.resident_bytes, SLACK_BYTES) {
        return Some("memory");
    }
    if grew(|held| held.journal_bytes, SLACK_BYTES) {
        return Some("the journal");
    }
    if grew(|held| held.files, SLACK_COUNT) {
        return Some("the number of open files");
    }
    if grew(|held| held.threads, SLACK_COUNT) {
        return Some("the number of threads");
    }
    grew(|held| held.versions, SLACK_COUNT).then_some("the number of version folders")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_named_and_noise_is_not() {
        let steady = |n: u64| Held {
            resident_bytes: (300 + n % 3) << 20,
            files: 40 + n % 2,
            threads: 20,
            journal_bytes: 1 << 20,
            versions: 3,
        };
        let all: Vec<Held> = (0..30).map(steady).collect();
        assert_eq!(grown(&all, 1.15), None);
        let leaking = |n: u64| Held { resident_bytes: (300 + 20 * n) << 20, ..steady(n) };
        assert_eq!(grown(&(0..30).map(leaking).collect::<Vec<_>>(), 1.15), Some("memory"));
        let leaking = |n: u64| Held { files: 40 + 3 * n, ..steady(n) };
        assert_eq!(grown(&(0..30).map(leaking).collect::<Vec<_>>(), 1.15), Some("the number of open files"));
    }
}
