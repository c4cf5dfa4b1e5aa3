//! `experiment agents`: what outcomes alone, integrated step rewards and hints from failures teach an agent, on tasks whose
//! kinds, wordings and names are held out.

mod report;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use openclaw_actors::stop::StopSignal;
use openclaw_journal::{EpisodeState, Journal};
use serde::Serialize;
use tracing::info;

use super::node::{Node, Reader};

/// Between two looks at how far the episodes are.
const LOOK_PERIOD: Duration = Duration::from_secs(1);

/// A split: the file it is run from, and its environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Place {
    /// Python, in a sandbox.
    ToolCall,
    /// A shell.
    Terminal,
    /// Pages in a browser.
    Browser,
    /// A desktop with its programs.
    Desktop,
    /// Modules with one wrong token.
    Swe,
}

impl Place {
    const ALL: [Self; 5] = [Self::ToolCall, Self::Terminal, Self::Browser, Self::Desktop, Self::Swe];

    fn name(self) -> &'static str {
        match self {
            Self::ToolCall => "tool_call",
            Self::Terminal => "terminal",
            Self::Browser => "browser",
            Self::Desktop => "desktop",
            Self::Swe => "swe",
        }
    }

    fn topology(self) -> &'static str {
        match self {
            Self::ToolCall => "configs/tool-call.toml",
            Self::Terminal => "configs/terminal.toml",
            Self::Browser => "configs/browser.toml",
            Self::Desktop => "configs/desktop.toml",
            Self::Swe => "configs/swe.toml",
        }
    }

    /// Its held-out tasks are of kinds that neither the embedded model's text nor training shows.
    fn environment(self) -> &'static str {
        match self {
            Self::ToolCall => {
                "{ kind = \"tool_call\", families = [\"tc1\", \"tc2\", \"tc3\"], digits = [3, 4], decoy_tools = 2 }"
            }
            Self::Terminal => {
                "{ kind = \"terminal\", families = [\"te1\", \"te2\", \"te3\"], files = [3, 6] }"
            }
            Self::Browser => {
                "{ kind = \"browser\", families = [\"gw1\", \"gw2\", \"gw3\"], actions = \"basic\", contexts = 16 }"
            }
            Self::Desktop => "{ kind = \"desktop\", actions = \"basic\" }",
            Self::Swe => "{ kind = \"swe\", families = [\"sw1\"], tools = \"edit\" }",
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
                report::write(&args.out, &runs)?;
            }
        }
    }
    Ok(report::table(&runs))
}

async fn one(args: &AgentsArgs, read: &Reader, place: Place, method: &str, seed: u64) -> anyhow::Result<Run> {
    let agent = format!(
        "[{{ environment = \"hard\", workers = 1, concurrency = 16, group = 8, groups = {}, steps = 6, temperature = 1.0, \
         max_new_tokens = 96, held_out = {}, held_out_every = {}, wait_for_learning = true }}]",
        args.groups, args.held_out, args.groups
    );
    let mut sets = vec![
        format!("run.seed={seed}"),
        format!("run.dir={}", args.out.display()),
        "actors.gateway.listen=127.0.0.1:0".to_owned(),
        format!("environments={{ hard = {} }}", place.environment()),
        format!("method={{ kind = \"{method}\" }}"),
        format!("actors.agent={agent}"),
    ];
    if method == "combine" {
        sets.push("actors.teacher={ model = \"policy\" }".to_owned());
    }
    sets.extend(args.overrides.iter().cloned());
    let mut plan = read(Path::new(place.topology()), &sets)?;
    plan.begin_anew_in(&format!("{}-{method}-{seed}", place.name()))?;
    let Node { journal, parts, .. } = plan.start().await?;
    let mut counted = Counted::default();
    while counted.rounds[1].len() < args.held_out as usize {
        tokio::time::sleep(LOOK_PERIOD).await;
        counted = count(&journal).await?;
    }
    let steps = journal.totals().borrow().steps;
    parts.stop().await;
    let share = |of: &[bool]| of.iter().filter(|done| **done).count() as f64 / of.len().max(1) as f64;
    let trained = counted.trained;
    let eighth = (trained.len() / 8).max(1).min(trained.len());
    Ok(Run {
        place: place.name(),
        method: method.to_owned(),
        seed,
        before: share(&counted.rounds[0]),
        after: share(&counted.rounds[1]),
        first: share(&trained[..eighth]),
        last: share(&trained[trained.len() - eighth..]),
        steps,
    })
}

/// Whether the task was done, of each episode that is over; an abandoned one did not do it.
#[derive(Default)]
struct Counted {
    /// Held out: before the first group, and behind the last.
    rounds: [Vec<bool>; 2],
    /// In order.
    trained: Vec<bool>,
}

async fn count(journal: &Journal) -> anyhow::Result<Counted> {
    const PAGE: usize = 500;
    let (mut counted, mut before) = (Counted::default(), u64::MAX);
    loop {
        let rows = journal.episodes(before, PAGE).await?;
        let Some(last) = rows.last() else { break };
        before = last.no;
        for row in &rows {
            let done = match &row.state {
                EpisodeState::Open => continue,
                EpisodeState::Ended(outcome) => outcome.success == Some(true),
                EpisodeState::Abandoned(_) => false,
            };
            match round_of(&row.episode.id.0) {
                None => counted.trained.push(done),
                Some(round) => counted.rounds[round.min(1)].push(done),
            }
        }
    }
    counted.trained.reverse();
    Ok(counted)
}

/// `NAME-SEED-held-out-ROUND-TASK`, as the runtime names its own agents' episodes that measure.
fn round_of(episode: &str) -> Option<usize> {
    let (_, measured) = episode.split_once("-held-out-")?;
    measured.split('-').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn episodes_that_measure_are_told_by_their_names() {
        assert_eq!(round_of("hard-17-held-out-1-93"), Some(1));
        assert_eq!(round_of("hard-17-train-3-2"), None);
    }
}
