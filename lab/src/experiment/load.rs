//! `experiment load`: opens many sessions and reads the node's memory before and after; then reads many streams at
//! once.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use clap::Args;
use futures::{StreamExt, stream};
use serde_json::{Value, json};

use super::{
    launched::Launched,
    serving::{Streamed, percentile, stream_answer},
};

/// Requests that open sessions at the same time.
const OPENERS: usize = 32;

/// The arguments of `experiment load`.
#[derive(Clone, Debug, Args)]
pub struct LoadArgs {
    /// The topology file; its simulated users are left out.
    #[arg(value_name = "FILE", default_value = "configs/quickstart.toml")]
    topology: PathBuf,
    /// Sessions to open, each with one turn that waits for its next state.
    #[arg(long, default_value_t = 10_000)]
    sessions: usize,
    /// Answers to stream at once.
    #[arg(long, default_value_t = 200)]
    streams: usize,
    /// Where the node's run goes; must not exist yet.
    #[arg(long, value_name = "DIR", default_value = "runs/load")]
    out: PathBuf,
    /// Puts a value over a key of the file; can be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
}

/// Runs both parts; their tables.
pub(super) async fn command(args: LoadArgs) -> anyhow::Result<String> {
    ensure!(!args.out.exists(), "{} exists already; name another folder with --out", args.out.display());
    let mut sets = vec![
        format!("run.dir={}", args.out.display()),
        "actors.rollout=[]".to_owned(),
        "actors.gateway.listen=127.0.0.1:0".to_owned(),
        "nodes.local.metrics=127.0.0.1:0".to_owned(),
        "nodes.local.admin=127.0.0.1:0".to_owned(),
        format!("actors.gateway.max_in_flight={}", args.streams.max(OPENERS)),
        format!("actors.sessions.max_sessions={}", args.sessions + args.streams),
    ];
    sets.extend(args.overrides.iter().cloned());
    let node = Launched::start(&args.topology, &sets).await?;
    let client = reqwest::Client::new();

    // The first answers fill caches that every node has, however many sessions are open.
    open_sessions(&client, &node.url, "warm", OPENERS * 4).await?;
    let before = node.resident_bytes()?;
    let (took, waits) = open_sessions(&client, &node.url, "session", args.sessions).await?;
    let after = node.resident_bytes()?;
    let grown = after.saturating_sub(before) as f64;
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let mut text = format!(
        "| open sessions | memory before MiB | after MiB | per session KiB | opened per second | answer p50 / p99 ms |\n\
         |---|---|---|---|---|---|\n\
         | {} | {:.0} | {:.0} | {:.1} | {:.0} | {:.1} / {:.1} |\n\n",
        args.sessions,
        mib(before),
        mib(after),
        grown / args.sessions.max(1) as f64 / 1024.0,
        args.sessions as f64 / took.as_secs_f64(),
        percentile(&waits, 0.5),
        percentile(&waits, 0.99),
    );

    text.push_str(
        "| streams at once | errors | tokens per second | first token p50 / p99 ms | between chunks p50 / p99 / max ms | memory MiB |\n\
         |---|---|---|---|---|---|\n",
    );
    for streams in [1, args.streams] {
        let started = Instant::now();
        let all = (0..streams).map(|number| stream_answer(&client, &node.url, number));
        let outcomes = futures::future::join_all(all).await;
        let secs = started.elapsed().as_secs_f64();
        let errors = outcomes.iter().filter(|outcome| outcome.is_err()).count();
        let streamed: Vec<Streamed> = outcomes.into_iter().flatten().collect();
        let mut firsts: Vec<Duration> = streamed.iter().map(|s| s.first).collect();
        let mut gaps: Vec<Duration> = streamed.iter().flat_map(|s| s.between.iter().copied()).collect();
        firsts.sort();
        gaps.sort();
        text.push_str(&format!(
            "| {streams} | {errors} | {:.0} | {:.1} / {:.1} | {:.1} / {:.1} / {:.1} | {:.0} |\n",
            (gaps.len() + firsts.len()) as f64 / secs,
            percentile(&firsts, 0.5),
            percentile(&firsts, 0.99),
            percentile(&gaps, 0.5),
            percentile(&gaps, 0.99),
            percentile(&gaps, 1.0),
            mib(node.resident_bytes()?),
        ));
    }
    node.kill().await?;
    Ok(text)
}

/// One short turn in each of `count` sessions; the time all of them took, and each one's, sorted.
async fn open_sessions(
    client: &reqwest::Client,
    url: &str,
    name: &str,
    count: usize,
) -> anyhow::Result<(Duration, Vec<Duration>)> {
    let started = Instant::now();
    let opened = stream::iter(0..count).map(|number| async move {
        let body = json!({
            "model": "policy",
            "messages": [{"role": "user", "content": format!("Please solve my homework: {number} + 7 = ?")}],
            "max_tokens": 2,
        });
        let asked = Instant::now();
        let request = client.post(format!("{url}/chat/completions")).json(&body);
        let response = request.header("x-session-id", format!("{name}-{number}")).send().await?;
        response.error_for_status()?.json::<Value>().await.context("an answer that is not JSON")?;
        anyhow::Ok(asked.elapsed())
    });
    let outcomes: Vec<anyhow::Result<Duration>> = opened.buffer_unordered(OPENERS).collect().await;
    let mut waits = outcomes.into_iter().collect::<anyhow::Result<Vec<Duration>>>()?;
    waits.sort();
    Ok((started.elapsed(), waits))
}
