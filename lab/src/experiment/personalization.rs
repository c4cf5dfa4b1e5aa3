//! `experiment personalization`: how many sessions each method needs until every simulated user is satisfied, over
//! several seeds, through the real HTTP API; and what it cost, measured on tasks outside the loop.

mod report;

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, bail};
use clap::Args;
use openclaw_actors::{
    engine::{Place, PolicyWeights},
    loaded_model::LoadedModel,
    rollout::Progress,
    stop::StopSignal,
};
use openclaw_environments::world::{Environment, Said, Split, Task, User, WorldError, after_first_reply};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tracing::info;

use super::node::{Node, Reader};
use crate::evaluate::{Answer, Prompt, answers};

/// The arguments of `experiment personalization`.
#[derive(Clone, Debug, Args)]
pub struct PersonalizationArgs {
    /// A topology file with simulated users; can be repeated. configs/quickstart.toml and those of configs/methods,
    /// unless given.
    #[arg(long = "topology", value_name = "FILE")]
    topologies: Vec<PathBuf>,
    /// Seeds of each, from --first-seed.
    #[arg(long, default_value_t = 3)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 17)]
    first_seed: u64,
    /// Leaves out the run that does not learn.
    #[arg(long)]
    no_untrained: bool,
    /// Tasks per simulated user that replies are measured on, before and after.
    #[arg(long, default_value_t = 100)]
    tasks: usize,
    /// Where runs.json, table.md and sessions.svg go.
    #[arg(long, value_name = "DIR", default_value = "runs/personalization")]
    out: PathBuf,
    /// Puts a value over a key of every file; can be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
}

/// The methods' files, in the order of the table.
const METHODS: [&str; 5] = ["binary_rl", "opd", "combine", "hybrid", "topk_distill"];

/// Runs every method with every seed; their table.
pub(super) async fn command(
    args: PersonalizationArgs,
    read: &Reader,
    stop: StopSignal,
) -> anyhow::Result<String> {
    let methods = METHODS.iter().map(|method| format!("configs/methods/{method}.toml").into());
    let shipped = std::iter::once("configs/quickstart.toml".into()).chain(methods);
    let config = ExperimentConfig {
        topologies: if args.topologies.is_empty() { shipped.collect() } else { args.topologies },
        untrained: !args.no_untrained,
        overrides: args.overrides,
        seeds: (args.first_seed..).take(args.seeds as usize).collect(),
        tasks: args.tasks,
        out: args.out,
    };
    Ok(report::table(&run(&config, read, stop).await?))
}

/// What is compared.
#[derive(Clone, Debug)]
pub struct ExperimentConfig {
    /// One topology file per method.
    pub topologies: Vec<PathBuf>,
    /// Also run the first file with a learning rate of 0, as `untrained`.
    pub untrained: bool,
    /// Put over the keys of every file.
    pub overrides: Vec<String>,
    /// Seeds of each method.
    pub seeds: Vec<u64>,
    /// Tasks per user that correctness, length and style are measured on before and after.
    pub tasks: usize,
    /// Where results go.
    pub out: PathBuf,
}

/// One run of one method.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// The topology's `run.name`, or `untrained`.
    pub method: String,
    /// Its seed.
    pub seed: u64,
    /// Sessions allowed per user.
    pub max_sessions: usize,
    /// What came of each user.
    #[serde(alias = "personas")]
    pub users: Vec<UserResult>,
    /// Optimizer steps taken.
    pub steps: u64,
    /// Wall time.
    pub secs: f64,
}

/// What came of one user.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UserResult {
    /// Who.
    #[serde(alias = "persona")]
    pub user: String,
    /// Sessions until three first replies in a row were satisfying; none when it gave up.
    pub sessions: Option<usize>,
    /// Before training.
    pub before: Sampled,
    /// After.
    pub after: Sampled,
}

/// First replies to fresh tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sampled {
    /// Share that the user likes.
    pub satisfied: f64,
    /// Share that is correct.
    pub correct: f64,
    /// Mean length in tokens.
    pub tokens: f64,
    /// Mean entropy per response token, nats.
    pub entropy: f64,
}

/// Runs everything, writing after each run; returns the runs.
pub async fn run(config: &ExperimentConfig, read: &Reader, stop: StopSignal) -> anyhow::Result<Vec<Run>> {
    std::fs::create_dir_all(&config.out)
        .with_context(|| format!("cannot create {}", config.out.display()))?;
    let mut runs: Vec<Run> = Vec::new();
    for &seed in &config.seeds {
        let untrained = config.untrained.then(|| config.topologies.first()).flatten();
        let trained = config.topologies.iter().map(|path| (path, true));
        for (path, learns) in untrained.into_iter().map(|path| (path, false)).chain(trained) {
            if stop.is_set() {
                return Ok(runs);
            }
            let run = one(config, read, path, learns, seed, stop.clone()).await?;
            runs.push(run);
            report::write(&config.out, &runs)?;
        }
    }
    Ok(runs)
}

async fn one(
    config: &ExperimentConfig,
    read: &Reader,
    path: &Path,
    learns: bool,
    seed: u64,
    mut stop: StopSignal,
) -> anyhow::Result<Run> {
    let mut sets = config.overrides.clone();
    sets.extend([format!("run.seed={seed}"), "actors.gateway.listen=127.0.0.1:0".to_owned()]);
    if !learns {
        sets.push("optimizer.learning_rate=0.0".to_owned());
    }
    let mut plan = read(path, &sets)?;
    // Each run begins anew: none goes on where another ended.
    plan.begin_anew_in(&format!("seed-{seed}-{}", if learns { "learning" } else { "untrained" }))?;
    let facts = plan.facts();
    let method = if learns { facts.name } else { "untrained".to_owned() };
    let started = Instant::now();
    let Node { journal, versions, users, mut sessions, parts, .. } = plan.start().await?;
    let mut satisfied: Vec<(User, Option<usize>, bool)> =
        users.into_iter().map(|user| (user, None, false)).collect();
    while satisfied.iter().any(|(.., over)| !over) {
        let report = tokio::select! {
            () = stop.wait() => bail!("stopped during {method}, seed {seed}"),
            report = sessions.recv() => report.context("the rollout workers ended early")?,
        };
        let of = satisfied.iter_mut().find(|(user, ..)| user.name == report.user);
        let (_, sessions, over) = of.context("a session of nobody")?;
        match report.progress {
            Progress::Open => {}
            Progress::Satisfied { sessions: needed } => (*sessions, *over) = (Some(needed), true),
            Progress::Unsatisfied => *over = true,
        }
    }
    let secs = started.elapsed().as_secs_f64();
    let last = versions.current().weights;
    let steps = journal.totals().borrow().steps;
    parts.stop().await;

    let (tasks, temperature) = (config.tasks, facts.temperature);
    let users = tokio::task::spawn_blocking(move || -> anyhow::Result<Vec<UserResult>> {
        let model = LoadedModel::open(&facts.policy, Place::Cpu, facts.threads)?;
        satisfied
            .into_iter()
            .map(|(user, sessions, _)| {
                let sampled = |weights: &PolicyWeights| sample(&model, weights, &user, tasks, temperature);
                let (before, after) = (sampled(&model.weights)?, sampled(&last)?);
                Ok(UserResult { user: user.name.to_string(), sessions, before, after })
            })
            .collect()
    })
    .await??;
    for result in &users {
        info!(
            method,
            seed,
            user = result.user,
            sessions = result.sessions,
            steps,
            secs,
            satisfied = result.after.satisfied,
            correct_before = result.before.correct,
            correct = result.after.correct,
            "run ended"
        );
    }
    Ok(Run { method, seed, max_sessions: facts.max_sessions, users, steps, secs })
}

/// First replies to tasks that no session asks: the same ones before and after, for every method.
fn sample(
    model: &LoadedModel,
    weights: &PolicyWeights,
    user: &User,
    tasks: usize,
    temperature: f32,
) -> anyhow::Result<Sampled> {
    const SEED: u64 = 0x5eed_0f7a_5c5e_d000;
    let held_out = |number| -> Result<(Task, Vec<Value>), WorldError> {
        let task = user.environment.task(Split::HeldOut, number)?;
        let messages = task.opening.iter().map(Said::message).collect();
        Ok((task, messages))
    };
    let asked: Vec<(Task, Vec<Value>)> = (0..tasks as u64).map(held_out).collect::<Result<_, _>>()?;
    let prompts = asked.iter().zip(SEED..);
    let prompts = prompts.map(|((_, messages), seed)| Prompt { messages, tools: &[], temperature, seed });
    let replies = answers(model, weights.clone(), prompts)?;
    let mut sums = Sampled::default();
    for ((task, messages), reply) in asked.iter().zip(&replies) {
        sums.add(&*user.environment, task, reply)?;
        sums.entropy += entropy(model, weights, messages, reply, temperature)?;
    }
    let n = asked.len().max(1) as f64;
    Ok(Sampled {
        satisfied: sums.satisfied / n,
        correct: sums.correct / n,
        tokens: sums.tokens / n,
        entropy: sums.entropy / sums.tokens.max(1.0),
    })
}

impl Sampled {
    /// Counts what a user makes of a reply, who is told its words alone; all of its tokens were drawn.
    fn add(&mut self, environment: &dyn Environment, task: &Task, reply: &Answer) -> Result<(), WorldError> {
        let verdict = after_first_reply(environment, task, &reply.words())?;
        self.satisfied += f64::from(u8::from(verdict.success));
        self.correct += f64::from(u8::from(verdict.first_correct()));
        self.tokens += reply.ids.len() as f64;
        Ok(())
    }
}

/// The sum over the tokens as they were drawn, in nats: its text could be of others.
fn entropy(
    model: &LoadedModel,
    weights: &PolicyWeights,
    messages: &[Value],
    reply: &Answer,
    temperature: f32,
) -> anyhow::Result<f64> {
    let mut ids = model.text.prompt_ids(messages, &[], &serde_json::Map::new())?;
    let start = ids.len();
    ids.extend(&reply.ids);
    if ids.len() == start {
        return Ok(0.0);
    }
    let request = openclaw_model::ScoreRequest { ids, start, temperature, ..Default::default() };
    let scored = model.transformer.score(weights, &request)?;
    Ok(scored.entropy.iter().map(|nats| f64::from(*nats)).sum())
}

#[cfg(test)]
mod tests {
    use openclaw_environments::registry;
    use openclaw_model::{ParserConfig, ReplySplit};
    use serde_json::json;

    use super::*;

    #[test]
    fn a_user_is_told_the_words_of_a_reply_and_every_token_counts() {
        let settings = "personas = [\"student\"]".parse().expect("settings");
        let users = registry::make("persona", settings).expect("it needs nothing");
        let task = users.task(Split::HeldOut, 1).expect("a task");
        let text = "<think>\n**Step 1:** add.\n</think>\n\n2 + 2 = 4.".to_owned();
        let split = ReplySplit::of(&text, ParserConfig::new(&[], false));
        let reply = Answer { text, split, ids: vec![0; 9] };
        let mut sums = Sampled::default();
        sums.add(&*users, &task, &reply).expect("a verdict");
        assert_eq!((sums.satisfied, sums.tokens), (1.0, 9.0));
    }

    #[test]
    fn entropy_is_of_the_tokens_that_were_drawn() {
        let nano = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/models/nano");
        let model = LoadedModel::open(&nano, Place::Cpu, 1).expect("it is in the tree");
        let encode = |text: &str| model.text.tokenizer.encode(text).expect("ids");
        let (whole, pieces) = (encode("There"), ["T", "h", "e", "r", "e"].map(encode).concat());
        assert!(whole.len() < pieces.len(), "{whole:?} {pieces:?}");
        let messages = [json!({"role": "user", "content": "How many?"})];
        let of = |ids: &[u32]| {
            let reply = Answer { text: "There".to_owned(), ids: ids.to_vec(), ..Answer::default() };
            entropy(&model, &model.weights, &messages, &reply, 1.0).expect("it is scored")
        };
        assert!(of(&whole) > 0.0 && of(&pieces) > of(&pieces[..1]) && of(&[]) == 0.0);
        assert_ne!(of(&whole), of(&pieces));
    }
}
