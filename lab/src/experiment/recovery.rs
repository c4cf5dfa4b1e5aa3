//! `experiment recovery`: ends each part of a node under load as a crash would, measures how long until it has done
//! work again, and counts what was lost.

use std::{
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use clap::Args;
use openclaw_journal::{Journal, TurnId};

use super::{
    launched::Launched,
    node::{Node, Reader},
    serving::percentile,
    users::{Talk, start_users},
};

/// Users that talk all the time.
const USERS: usize = 4;
/// A part that has done no work after this long is lost.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often it is looked whether work was done.
const LOOK_PERIOD: Duration = Duration::from_millis(1);

/// The arguments of `experiment recovery`.
#[derive(Clone, Debug, Args)]
pub struct RecoveryArgs {
    /// The topology file; its simulated users are left out, and the weights stay as they are.
    #[arg(value_name = "FILE", default_value = "configs/quickstart.toml")]
    topology: PathBuf,
    /// How often each part is killed.
    #[arg(long, default_value_t = 10)]
    kills: usize,
    /// Where the nodes' runs go; must not exist yet.
    #[arg(long, value_name = "DIR", default_value = "runs/recovery")]
    out: PathBuf,
    /// Puts a value over a key of the file; can be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
}

/// What is counted of a part's work.
type Work = fn(&Node, &Talk) -> u64;

/// Each part, and the count that its work makes grow.
const PARTS: [(&str, Work); 9] = [
    ("judge.0", |node, _| verdicts(node)),
    ("teacher.0", |node, _| node.journal.totals().borrow().taught),
    ("optimizer", |node, _| node.journal.totals().borrow().steps),
    ("publisher", |node, _| node.versions.number()),
    ("policy.0", |_, talk| talk.answers.load(Ordering::SeqCst)),
    ("sessions", |node, _| node.journal.totals().borrow().next_states),
    ("dispatcher", |node, _| verdicts(node)),
    ("journal", |node, _| node.journal.totals().borrow().turns),
    ("gateway", |_, talk| talk.answers.load(Ordering::SeqCst)),
];

fn verdicts(node: &Node) -> u64 {
    let totals = *node.journal.totals().borrow();
    totals.approved + totals.rejected + totals.neutral
}

/// One line of the table.
struct Recovered {
    part: String,
    took: Vec<Duration>,
    cut: u64,
}

/// Kills everything in turn; the table.
pub(super) async fn command(args: RecoveryArgs, read: &Reader) -> anyhow::Result<String> {
    ensure!(!args.out.exists(), "{} exists already; name another folder with --out", args.out.display());
    let mut lines = parts(&args, read).await?;
    let (process, last) = process(&args, read).await?;
    lines.push(process);
    let mut text = String::from(
        "| part | kills | lost | answers cut | kill to first work ms, median | max |\n|---|---|---|---|---|---|\n",
    );
    for Recovered { part, mut took, cut } in lines {
        took.sort();
        text.push_str(&format!(
            "| {part} | {} | nothing | {cut} | {:.0} | {:.0} |\n",
            took.len(),
            percentile(&took, 0.5),
            percentile(&took, 1.0)
        ));
    }
    text.push_str(&last);
    Ok(text)
}

fn overrides(args: &RecoveryArgs, run: &str) -> Vec<String> {
    let mut sets = vec![
        format!("run.dir={}", args.out.join(run).display()),
        "actors.rollout=[]".to_owned(),
        "actors.gateway.listen=127.0.0.1:0".to_owned(),
        "nodes.local.metrics=127.0.0.1:0".to_owned(),
        "nodes.local.admin=127.0.0.1:0".to_owned(),
        // Users who are never satisfied complain for ever, so that no part is without work.
        "optimizer.learning_rate=0.0".to_owned(),
        "actors.optimizer.batch_samples=2".to_owned(),
        "actors.optimizer.max_wait_secs=1".to_owned(),
    ];
    sets.extend(args.overrides.iter().cloned());
    sets
}

/// Fails when an answer that a user saw to its end is not in the journal; says how much there is.
async fn check_nothing_lost(journal: &Journal, ids: &[String]) -> anyhow::Result<String> {
    for id in ids {
        let known = journal.turn(&TurnId(id.as_str().into())).await?;
        ensure!(known.is_some(), "the answer {id} was seen by a user and is lost");
    }
    let totals = *journal.totals().borrow();
    Ok(format!(
        "\n{} answers were seen to their end, each is in the journal; {} steps learnt from {} samples, each once.\n",
        ids.len(),
        totals.steps,
        totals.trained
    ))
}

/// Each actor, within one process.
async fn parts(args: &RecoveryArgs, read: &Reader) -> anyhow::Result<Vec<Recovered>> {
    let plan = read(&args.topology, &overrides(args, "parts"))?;
    let node = plan.start().await?;
    let talk = Arc::new(Talk::default());
    let mut users = start_users(USERS, &node.url, &plan.facts().served_model, &talk)?;

    let mut lines = Vec::new();
    for (part, work) in PARTS {
        let cut = talk.cut.load(Ordering::SeqCst);
        let mut took = Vec::new();
        for _ in 0..args.kills {
            let done = work(&node, &talk);
            wait_for(part, || work(&node, &talk) > done).await?;
            let killed = Instant::now();
            tokio::time::timeout(PATIENCE, node.parts.crash(part))
                .await
                .with_context(|| format!("{part} did not come back"))??;
            let done = work(&node, &talk);
            wait_for(part, || work(&node, &talk) > done).await?;
            took.push(killed.elapsed());
            // The next kill is no crash loop.
            node.parts.restart(part).await?;
        }
        lines.push(Recovered { part: part.to_owned(), took, cut: talk.cut.load(Ordering::SeqCst) - cut });
    }
    users.shutdown().await;
    let ids = talk.take_ids();
    check_nothing_lost(&node.journal, &ids).await?;
    node.parts.stop().await;
    Ok(lines)
}

/// The whole process: from `kill -9` to the first complete answer of the next one.
async fn process(args: &RecoveryArgs, read: &Reader) -> anyhow::Result<(Recovered, String)> {
    let sets = overrides(args, "process");
    let plan = read(&args.topology, &sets)?;
    let served_model = plan.facts().served_model;
    let talk = Arc::new(Talk::default());
    let mut took = Vec::new();
    let mut node = Launched::start(&args.topology, &sets).await?;
    for _ in 0..args.kills {
        let mut users = start_users(USERS, &node.url, &served_model, &talk)?;
        let answers = talk.answers.load(Ordering::SeqCst);
        wait_for("the node", || talk.answers.load(Ordering::SeqCst) >= answers + USERS as u64 * 2).await?;
        let killed = Instant::now();
        node.kill().await?;
        users.shutdown().await;
        node = Launched::start(&args.topology, &sets).await?;
        let mut users = start_users(USERS, &node.url, &served_model, &talk)?;
        let answers = talk.answers.load(Ordering::SeqCst);
        wait_for("the node", || talk.answers.load(Ordering::SeqCst) > answers).await?;
        took.push(killed.elapsed());
        users.shutdown().await;
    }
    node.kill().await?;
    let ids = talk.take_ids();
    let last = check_nothing_lost(&plan.journal()?, &ids).await?;
    let cut = talk.cut.load(Ordering::SeqCst);
    Ok((Recovered { part: "whole process".to_owned(), took, cut }, last))
}

async fn wait_for(part: &str, mut holds: impl FnMut() -> bool) -> anyhow::Result<()> {
    let waited = Instant::now();
    while !holds() {
        ensure!(waited.elapsed() < PATIENCE, "{part} did no work for {PATIENCE:?}");
        tokio::time::sleep(LOOK_PERIOD).await;
    }
    Ok(())
}
