//! `experiment agents`: what outcomes alone, integrated step rewards and hints from failures teach an agent, on tasks whose
//! kinds, wordings and names are never trained on. Each run is a process of its own, as a user's is.

use std::{
    fmt::Write,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail, ensure};
use clap::{Args, ValueEnum};
use openclaw_actors::stop::StopSignal;
use openclaw_journal::{EpisodeState, Journal};
use serde::Serialize;
use tracing::info;

use super::{launched::Launched, node::Reader};

/// A split: the file it is run from, and its environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Place {
    /// Python, in a sandbox.
    ToolCall,
    /// A shell.
    Terminal,
}

impl Place {
    const ALL: [Self; 2] = [Self::ToolCall, Self::Terminal];

    fn name(self) -> &'static str {
        match self {
            Self::ToolCall => "tool_call",
            Self::Terminal => "terminal",
        }
    }

    fn topology(self) -> &'static str {
        match self {
            Self::ToolCall => "configs/tool-call.toml",
            Self::Terminal => "configs/terminal.toml",
        }
    }

    /// Kinds of task that no text has.
    fn environment(self) -> &'static str {
        match self {
            Self::ToolCall => {
                "{ kind = \"tool_call\", families = [\"tc1\", \"tc2\", \"tc3\"], digits = [3, 4], decoy_tools = 2 }"
            }
            Self::Terminal => {
                "{ kind = \"terminal\", families = [\"te1\", \"te2\", \"te3\"], files = [3, 6] }"
            }
        }
    }
}

/// The methods that are compared.
const METHODS: [&str; 3] = ["grpo", "step_wise", "combine"];

/// The arguments of `experiment agents`.
#[derive(Clone, Debug, Args)]
pub struct AgentsArgs {
    /// Only this split; can be repeated.
    #[arg(long = "place", value_enum)]
    places: Vec<Place>,
    /// Only this method; can be repeated.
    #[arg(long = "method", value_name = "KIND")]
    methods: Vec<String>,
    /// Seeds of each, from 17.
    #[arg(long, default_value_t = 3)]
    seeds: u64,
    /// Tasks that are trained on, eight episodes each.
    #[arg(long, default_value_t = 96)]
    groups: u64,
    /// Held-out tasks, played before the first and behind the last.
    #[arg(long, default_value_t = 100)]
    held_out: u64,
    /// Where runs.json, table.md and the runs go.
    #[arg(long, value_name = "DIR", default_value = "runs/agents")]
    out: PathBuf,
    /// Puts a value over a key of every file; can be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
}

/// What came of one run.
#[derive(Clone, Debug, Serialize)]
struct Run {
    place: &'static str,
    method: String,
    seed: u64,
    /// Share of held-out tasks that were done.
    before: f64,
    after: f64,
    /// The same of the first and the last eighth of the episodes that were trained on.
    first: f64,
    last: f64,
    steps: u64,
}

/// Runs everything; the table.
pub(super) async fn command(args: AgentsArgs, read: &Reader, mut stop: StopSignal) -> anyhow::Result<String> {
    if let Some(unknown) = args.methods.iter().find(|method| !METHODS.contains(&method.as_str())) {
        bail!("--method {unknown}: not one of {}", METHODS.join(", "));
    }
    std::fs::create_dir_all(&args.out).with_context(|| format!("cannot create {}", args.out.display()))?;
    let places = if args.places.is_empty() { Place::ALL.to_vec() } else { args.places.clone() };
    let mut runs: Vec<Run> = Vec::new();
    for seed in (17..).take(args.seeds as usize) {
        for &place in &places {
            for method in METHODS {
                if !args.methods.is_empty() && !args.methods.iter().any(|wanted| wanted == method) {
                    continue;
                }
                let run = tokio::select! {
                    () = stop.wait() => bail!("stopped during {method}, {}, seed {seed}", place.name()),
                    run = one(&args, read, place, method, seed) => run?,
                };
                info!(
                    place = run.place,
                    method,
                    seed,
                    before = run.before,
                    after = run.after,
                    steps = run.steps,
                    "run ended"
                );
                runs.push(run);
                std::fs::write(args.out.join("runs.json"), serde_json::to_string_pretty(&runs)? + "\n")?;
                std::fs::write(args.out.join("table.md"), table(&runs))?;
            }
        }
    }
    Ok(table(&runs))
}

async fn one(args: &AgentsArgs, read: &Reader, place: Place, method: &str, seed: u64) -> anyhow::Result<Run> {
    let dir = args.out.join(format!("{}-{method}-{seed}", place.name()));
    ensure!(!dir.exists(), "{} is there already: name another folder by --out", dir.display());
    let agent = format!(
        "[{{ environment = \"hard\", workers = 1, concurrency = 16, group = 8, groups = {}, steps = 6, temperature = 1.0, \
         max_new_tokens = 96, held_out = {}, held_out_every = {}, wait_for_learning = true }}]",
        args.groups, args.held_out, args.groups
    );
    let mut sets = vec![
        format!("run.seed={seed}"),
        format!("run.dir={}", dir.display()),
        "nodes.local.metrics=127.0.0.1:0".to_owned(),
        "nodes.local.admin=127.0.0.1:0".to_owned(),
        "actors.gateway.listen=127.0.0.1:0".to_owned(),
        format!("environments={{ hard = {} }}", place.environment()),
        format!("method={{ kind = \"{method}\" }}"),
        format!("actors.agent={agent}"),
    ];
    if method == "combine" {
        sets.push("actors.teacher={ model = \"policy\" }".to_owned());
    }
    sets.extend(args.overrides.iter().cloned());
    let topology = Path::new(place.topology());
    Launched::start(topology, &sets).await?.wait().await?;
    let journal = read(topology, &sets)?.journal()?;
    let Counted { held_out, trained } = count(&journal).await?;
    let share =
        |of: &[(u64, bool)]| of.iter().filter(|(_, done)| *done).count() as f64 / of.len().max(1) as f64;
    // The first measurement is of the first version that was seen, the last of the last.
    let (first, last) = (held_out.iter().map(|(v, _)| *v).min(), held_out.iter().map(|(v, _)| *v).max());
    let of = |version: Option<u64>| -> Vec<(u64, bool)> {
        held_out.iter().filter(|(v, _)| Some(*v) == version).copied().collect()
    };
    let eighth = (trained.len() / 8).max(1);
    Ok(Run {
        place: place.name(),
        method: method.to_owned(),
        seed,
        before: share(&of(first)),
        after: share(&of(last)),
        first: share(&trained[..eighth.min(trained.len())]),
        last: share(&trained[trained.len().saturating_sub(eighth)..]),
        steps: journal.totals().borrow().steps,
    })
}

/// Episodes that came out, in order: the version that began each, and whether its task was done.
struct Counted {
    held_out: Vec<(u64, bool)>,
    trained: Vec<(u64, bool)>,
}

async fn count(journal: &Journal) -> anyhow::Result<Counted> {
    const PAGE: usize = 500;
    let (mut counted, mut before) = (Counted { held_out: Vec::new(), trained: Vec::new() }, u64::MAX);
    loop {
        let rows = journal.episodes(before, PAGE).await?;
        let Some(last) = rows.last() else { break };
        before = last.no;
        let versions = journal.first_versions(rows.iter().map(|row| row.no).collect()).await?;
        for (row, version) in rows.iter().zip(versions) {
            let EpisodeState::Ended(outcome) = &row.state else { continue };
            let of = if row.episode.group.is_some() { &mut counted.trained } else { &mut counted.held_out };
            of.push((version.unwrap_or(0), outcome.success == Some(true)));
        }
    }
    counted.held_out.reverse();
    counted.trained.reverse();
    Ok(counted)
}

/// A line per split and method, over the seeds.
fn table(runs: &[Run]) -> String {
    let mut text = String::from(
        "| split | method | held out before | after, each seed | after | in training, first eighth | last eighth | steps |\n|---|---|---|---|---|---|---|---|\n",
    );
    for place in Place::ALL {
        for method in METHODS {
            let of: Vec<&Run> =
                runs.iter().filter(|run| run.place == place.name() && run.method == method).collect();
            if of.is_empty() {
                continue;
            }
            let mean =
                |value: fn(&Run) -> f64| of.iter().map(|run| value(run)).sum::<f64>() / of.len() as f64;
            let each: Vec<String> = of.iter().map(|run| format!("{:.2}", run.after)).collect();
            writeln!(
                text,
                "| {} | {method} | {:.2} | {} | {:.2} | {:.2} | {:.2} | {:.0} |",
                place.name(),
                mean(|run| run.before),
                each.join(" "),
                mean(|run| run.after),
                mean(|run| run.first),
                mean(|run| run.last),
                mean(|run| run.steps as f64),
            )
            .expect("a string takes everything");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_a_line_for_each_split_and_method() {
        let run = |method: &str, after| Run {
            place: "terminal",
            method: method.to_owned(),
            seed: 17,
            before: 0.1,
            after,
            first: 0.2,
            last: 0.4,
            steps: 9,
        };
        let table = table(&[run("grpo", 0.25), run("grpo", 0.75), run("combine", 0.5)]);
        assert!(table.contains("| terminal | grpo | 0.10 | 0.25 0.75 | 0.50 | 0.20 | 0.40 | 9 |"), "{table}");
        assert_eq!(table.lines().count(), 4);
    }
}
