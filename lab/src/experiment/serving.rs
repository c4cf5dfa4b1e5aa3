//! `experiment serving`: what a client that streams notices of training. The same two clients talk to the same
//! node twice: first nothing they do is trained on, then every rated answer is, until enough versions are out.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use clap::Args;
use futures::StreamExt;
use serde::Serialize;
use serde_json::{Value, json};

use super::node::{Plan, Reader};

/// Tokens of each streamed answer.
const STREAM_TOKENS: usize = 64;

/// The arguments of `experiment serving`.
#[derive(Clone, Debug, Args)]
pub struct ServingArgs {
    /// The topology file; its simulated users are left out, and every sample is a step.
    #[arg(value_name = "FILE", default_value = "configs/quickstart.toml")]
    topology: PathBuf,
    /// Versions to publish.
    #[arg(long, default_value_t = 20)]
    versions: u64,
    /// Puts a value over a key of the file; can be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
}

/// Runs both phases; their table.
pub(super) async fn command(args: ServingArgs, read: &Reader) -> anyhow::Result<String> {
    let mut overrides = args.overrides;
    let fixed = [
        "actors.rollout=[]",
        "actors.optimizer.batch_samples=1",
        "actors.gateway.listen=127.0.0.1:0",
        "method={ kind = \"binary_rl\" }",
    ];
    overrides.extend(fixed.map(str::to_owned));
    let mut plan = read(&args.topology, &overrides)?;
    // Not the run that the file names, and not the one measured before.
    plan.begin_anew_in("serving")?;
    Ok(table(&run(&*plan, args.versions).await?))
}

/// What a streaming client saw in one phase; times in milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Seen {
    /// `idle` or `training`.
    pub phase: &'static str,
    /// Answers streamed to their end.
    pub answers: usize,
    /// Answers that were refused, cut or broken.
    pub errors: usize,
    /// Versions published meanwhile.
    pub versions: u64,
    /// Median time to the first token.
    pub first_token_p50_ms: f64,
    /// 95th percentile of it.
    pub first_token_p95_ms: f64,
    /// Median time between chunks.
    pub between_p50_ms: f64,
    /// 95th percentile of it.
    pub between_p95_ms: f64,
    /// The longest silence within an answer.
    pub between_max_ms: f64,
}

/// Runs both phases: the first ends after `versions` rated answers, the second after as many versions.
pub async fn run(plan: &dyn Plan, versions: u64) -> anyhow::Result<[Seen; 2]> {
    ensure!(!plan.facts().has_users, "actors.rollout: simulated users would disturb the measurement");
    let node = plan.start().await?;
    let (url, published) = (node.url, node.versions);
    let client = reqwest::Client::new();
    let mut seen = Vec::new();
    for phase in ["idle", "training"] {
        let over = Arc::new(AtomicBool::new(false));
        let streaming = tokio::spawn(watch_streams(client.clone(), url.clone(), over.clone()));
        let before = published.number();
        let mut rated = 0;
        while match phase {
            "training" => published.number() < before + versions,
            _ => (rated as u64) < versions,
        } {
            rate_an_answer(&client, &url, rated, phase == "training").await?;
            rated += 1;
        }
        over.store(true, Ordering::SeqCst);
        let mut result = streaming.await?;
        (result.phase, result.versions) = (phase, published.number() - before);
        seen.push(result);
    }
    node.parts.stop().await;
    Ok(<[Seen; 2]>::try_from(seen).expect("two phases were run"))
}

async fn rate_an_answer(
    client: &reqwest::Client,
    url: &str,
    number: usize,
    trained: bool,
) -> anyhow::Result<()> {
    let body = json!({
        "model": "policy",
        "messages": [{"role": "user", "content": format!("What is {number} + 4?")}],
        "max_tokens": 32,
    });
    let request = client.post(format!("{url}/chat/completions")).json(&body);
    // Nobody will say why: the rating counts at once.
    let request = request.header("x-session-done", "1");
    let request = if trained { request } else { request.header("x-no-train", "1") };
    let answer: Value = request.send().await?.error_for_status()?.json().await?;
    let rating = if number.is_multiple_of(2) { "up" } else { "down" };
    let body = json!({"id": answer["id"], "rating": rating});
    client.post(format!("{url}/feedback")).json(&body).send().await?.error_for_status()?;
    Ok(())
}

async fn watch_streams(client: reqwest::Client, url: String, over: Arc<AtomicBool>) -> Seen {
    let mut seen = Seen::default();
    let (mut firsts, mut gaps) = (Vec::new(), Vec::new());
    while !over.load(Ordering::SeqCst) {
        match stream_answer(&client, &url, seen.answers).await {
            Ok(Streamed { first, between }) => {
                seen.answers += 1;
                firsts.push(first);
                gaps.extend(between);
            }
            Err(error) => {
                seen.errors += 1;
                tracing::warn!(%error, "a stream broke");
            }
        }
    }
    firsts.sort();
    gaps.sort();
    (seen.first_token_p50_ms, seen.first_token_p95_ms) =
        (percentile(&firsts, 0.5), percentile(&firsts, 0.95));
    (seen.between_p50_ms, seen.between_p95_ms) = (percentile(&gaps, 0.5), percentile(&gaps, 0.95));
    seen.between_max_ms = percentile(&gaps, 1.0);
    seen
}

/// When the chunks of one answer came.
pub(super) struct Streamed {
    /// From the request to the first.
    pub first: Duration,
    /// Between the following ones.
    pub between: Vec<Duration>,
}

/// Reads one answer of a side turn to its end.
pub(super) async fn stream_answer(
    client: &reqwest::Client,
    url: &str,
    number: usize,
) -> anyhow::Result<Streamed> {
    let body = json!({
        "model": "policy",
        "messages": [{"role": "user", "content": format!("Tell me about the number {number}.")}],
        "max_tokens": STREAM_TOKENS,
        "stream": true,
    });
    let started = Instant::now();
    let request = client.post(format!("{url}/chat/completions")).header("x-turn-type", "side").json(&body);
    let mut bytes = request.send().await?.error_for_status()?.bytes_stream();
    let (mut first, mut last, mut between, mut tail) = (None, started, Vec::new(), Vec::new());
    while let Some(chunk) = bytes.next().await {
        let now = Instant::now();
        match first {
            None => first = Some(now - started),
            Some(_) => between.push(now - last),
        }
        last = now;
        tail.extend_from_slice(&chunk?);
        let excess = tail.len().saturating_sub(64);
        tail.drain(..excess);
    }
    ensure!(String::from_utf8_lossy(&tail).trim_end().ends_with("data: [DONE]"), "the stream was cut");
    Ok(Streamed { first: first.context("the stream was empty")?, between })
}

/// The value below which this share of sorted times lies, in milliseconds.
pub(super) fn percentile(sorted: &[Duration], share: f64) -> f64 {
    let place = ((sorted.len().max(1) - 1) as f64 * share).round() as usize;
    sorted.get(place).map_or(0.0, |time| time.as_secs_f64() * 1e3)
}

/// Both phases side by side.
pub fn table(seen: &[Seen; 2]) -> String {
    let mut text = String::from(
        "| optimizer | answers | errors | versions | first token p50 / p95 ms | between chunks p50 / p95 / max ms |\n\
         |---|---|---|---|---|---|\n",
    );
    for s in seen {
        text.push_str(&format!(
            "| {} | {} | {} | {} | {:.1} / {:.1} | {:.1} / {:.1} / {:.1} |\n",
            s.phase,
            s.answers,
            s.errors,
            s.versions,
            s.first_token_p50_ms,
            s.first_token_p95_ms,
            s.between_p50_ms,
            s.between_p95_ms,
            s.between_max_ms
        ));
    }
    text
}
