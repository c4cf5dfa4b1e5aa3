//! `experiment tastes`: one person with one wish about style, who talks to a node of their own through the real HTTP API.
//! Which wishes are learnt, taught in which way, and what that costs in right answers.

use std::{
    fmt::Write,
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use clap::{Args, ValueEnum};
use openclaw_actors::{
    chat_client::{ChatClient, ChatReply, ChatRequest},
    engine::{Place, PolicyWeights},
    loaded_model::LoadedModel,
    prompts,
    stop::StopSignal,
};
use openclaw_environments::{dice::Dice, persona::Split};
use openclaw_journal::Journal;
use reqwest::header::{HeaderMap, HeaderValue};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::timeout;
use tracing::info;

use super::node::{Node, Reader};
use crate::{
    evaluate::{Prompt, answers},
    pretrain::{
        content::Content,
        rules::{self, Wanted},
        wishes,
    },
};

/// What is wished, and what it names. The last five are rules that no model of ours was trained to keep.
const TASTES: [(&str, &str); 10] = [
    ("greeting", ""),
    ("thanks_end", ""),
    ("capitals", ""),
    ("call_me", "Mirela"),
    ("at_most_words", "6"),
    ("lower_case", ""),
    ("emoji_end", ""),
    ("hedge", ""),
    ("quotes", ""),
    ("exclaim", ""),
];

/// How a wish is made known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Way {
    /// By the next message of the conversation; thanks follow a reply that keeps it.
    Talk,
    /// By `/bad WORDS` and `/good`.
    Bad,
    /// By a thumb down and the next message; by a thumb up.
    Thumbs,
}

impl Way {
    const ALL: [Self; 3] = [Self::Talk, Self::Bad, Self::Thumbs];

    fn name(self) -> &'static str {
        match self {
            Self::Talk => "talk",
            Self::Bad => "bad",
            Self::Thumbs => "thumbs",
        }
    }
}

/// What the person asks about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum About {
    /// Word problems: the world of the embedded model.
    Sums,
    /// Questions of knowledge, for a model that has some. What is right is told by word problems all the same.
    Facts,
}

impl About {
    fn content(self, split: Split, dice: &mut Dice) -> Content {
        match self {
            Self::Sums => Content::sum(dice),
            Self::Facts => Content::fact(split, dice),
        }
    }
}

/// Between two looks at the version that is served.
const ANNOUNCED_PERIOD: Duration = Duration::from_millis(10);
/// Longest wait for what a session taught.
const PATIENCE: Duration = Duration::from_secs(120);

/// The arguments of `experiment tastes`.
#[derive(Clone, Debug, Args)]
pub struct TastesArgs {
    /// The topology file of a person's own agent.
    #[arg(value_name = "FILE", default_value = "configs/personal-agent.toml")]
    topology: PathBuf,
    /// Only this wish, by its rule and what it names, such as `thanks_end` or `at_most_words=12`; can be repeated. Default: ten.
    #[arg(long = "taste", value_name = "RULE[=WORD]")]
    tastes: Vec<String>,
    /// Only this way of making it known; can be repeated.
    #[arg(long = "way", value_enum)]
    ways: Vec<Way>,
    /// What is asked, in sessions and of replies that are to keep the wish.
    #[arg(long, value_enum, default_value = "sums")]
    about: About,
    /// What the person says every time, of one `--taste`. Default: each time the wish in other words.
    #[arg(long, value_name = "WORDS")]
    words: Option<String>,
    /// Sessions of each.
    #[arg(long, default_value_t = 15)]
    sessions: usize,
    /// Seeds of each, from 1.
    #[arg(long, default_value_t = 3)]
    seeds: u64,
    /// Questions, and word problems, that first replies are measured on, before and after.
    #[arg(long, default_value_t = 40)]
    tasks: usize,
    /// Where runs.json and table.md go.
    #[arg(long, value_name = "DIR", default_value = "runs/tastes")]
    out: PathBuf,
    /// Puts a value over a key of the file; can be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
}

/// What came of one wish.
#[derive(Clone, Debug, Serialize)]
struct Run {
    taste: String,
    /// Whether replies by its rule were trained on before.
    trained: bool,
    way: &'static str,
    seed: u64,
    before: Measured,
    /// The untaught model that is told the wish with each question: what its teacher has to teach.
    told: Measured,
    after: Measured,
    steps: u64,
}

/// Shares of first replies to tasks that no session asked.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Measured {
    /// Drawn as in use that keep the rule.
    kept: f64,
    /// The likeliest ones that do.
    kept_greedy: f64,
    /// Drawn as in use that are right.
    right: f64,
    /// The likeliest ones that are.
    right_greedy: f64,
}

/// Runs every wish in every way with every seed; their table.
pub(super) async fn command(args: TastesArgs, read: &Reader, mut stop: StopSignal) -> anyhow::Result<String> {
    let tastes = tastes(&args.tastes)?;
    ensure!(
        args.words.is_none() || tastes.len() == 1,
        "--words: they say one wish, so name it with one --taste"
    );
    std::fs::create_dir_all(&args.out).with_context(|| format!("cannot create {}", args.out.display()))?;
    let ways = if args.ways.is_empty() { Way::ALL.to_vec() } else { args.ways.clone() };
    let mut runs = Vec::new();
    // What is said before anything is taught is the same for all.
    let first = Arc::default();
    for seed in 1..=args.seeds {
        for wanted in &tastes {
            for &way in &ways {
                let taste = called(wanted);
                let run = tokio::select! {
                    () = stop.wait() => bail!("stopped during {taste}, {}, seed {seed}", way.name()),
                    run = one(&args, read, wanted, (way, seed), &first) => run?,
                };
                info!(taste, way = run.way, seed, steps = run.steps, before = ?run.before, after = ?run.after, "taught");
                runs.push(run);
                let table = table(&runs);
                std::fs::write(args.out.join("runs.json"), serde_json::to_string_pretty(&runs)? + "\n")?;
                std::fs::write(args.out.join("table.md"), &table)?;
            }
        }
    }
    Ok(table(&runs))
}

/// The wishes that were asked for, or ten.
fn tastes(asked: &[String]) -> anyhow::Result<Vec<Wanted>> {
    let known: Vec<&str> = wishes::measured().collect();
    let wanted = |(name, named): (&str, &str)| {
        let rule = rules::named(name).filter(|rule| known.contains(&rule.name));
        let rule = rule.with_context(|| format!("--taste {name}: not one of {}", known.join(", ")))?;
        let given = TASTES.iter().find(|(known, _)| *known == name).map_or("", |(_, named)| named);
        let named = if named.is_empty() { given } else { named }.to_owned();
        ensure!(
            !named.is_empty() || !wishes::names_something(name),
            "--taste {name}: say what it names, as in {name}=WORD"
        );
        Ok(Wanted { rule, named })
    };
    if asked.is_empty() {
        return TASTES.into_iter().map(wanted).collect();
    }
    asked.iter().map(|taste| wanted(taste.split_once('=').unwrap_or((taste, "")))).collect()
}

/// A wish, in a table and in a folder's name.
fn called(wanted: &Wanted) -> String {
    match &*wanted.named {
        "" => wanted.rule.name.to_owned(),
        named => format!("{}-{named}", wanted.rule.name),
    }
}

async fn one(
    args: &TastesArgs,
    read: &Reader,
    wanted: &Wanted,
    (way, seed): (Way, u64),
    first: &Arc<OnceLock<Said>>,
) -> anyhow::Result<Run> {
    let (rule, taste, wanted) = (wanted.rule, called(wanted), wanted.clone());
    let mut sets = args.overrides.clone();
    // A person takes minutes; what was said is learnt from before they ask again.
    sets.extend(
        [
            "actors.gateway.listen=127.0.0.1:0",
            "actors.rollout=[]",
            "actors.optimizer.max_wait_secs=1",
            "actors.sessions.settle_secs=1",
        ]
        .map(str::to_owned),
    );
    sets.push(format!("run.seed={seed}"));
    let mut plan = read(&args.topology, &sets)?;
    let facts = plan.facts();
    ensure!(!facts.has_users, "actors.rollout: simulated users would teach something else");
    plan.begin_anew_in(&format!("taste-{taste}-{}-{seed}", way.name()))?;
    let Node { url, journal, versions, parts, .. } = plan.start().await?;
    let announced = || versions.number();
    let mut person = Person {
        client: ChatClient::new(&url, &facts.served_model, None)?,
        http: reqwest::Client::new(),
        url,
        way,
    };
    let mut dice = Dice::new(seed << 8 | way as u64);
    for session in 0..args.sessions {
        let content = args.about.content(Split::Train, &mut dice);
        let wish = match &args.words {
            Some(words) => words.clone(),
            None => wishes::naming(rule.name, &wanted.named, &mut dice),
        };
        person.session(&format!("{taste}-{seed}-{session}"), &content, &wanted, &wish, &mut dice).await?;
        learnt(&journal, &announced).await?;
    }
    let wish = match args.words {
        Some(ref words) => words.clone(),
        None => wishes::naming(rule.name, &wanted.named, &mut dice),
    };
    let (last, steps) = (versions.current().weights, journal.totals().borrow().steps);
    parts.stop().await;
    let (tasks, about, first) = (args.tasks, args.about, first.clone());
    let (before, told, after) = tokio::task::spawn_blocking(move || -> anyhow::Result<_> {
        let model =
            LoadedModel::open_as(&facts.policy, Place::Cpu, facts.threads, |stored| stored.dtype, None)?;
        let said = |weights: &PolicyWeights, told: Option<&str>| {
            Said::by(&model, weights, (about, tasks), facts.temperature, told)
        };
        if first.get().is_none() {
            first.set(said(&model.weights, None)?).ok();
        }
        let before = first.get().expect("it was said").measured(&wanted);
        let told = said(&model.weights, Some(&wish))?.measured(&wanted);
        Ok((before, told, said(&last, None)?.measured(&wanted)))
    })
    .await??;
    Ok(Run { taste, trained: rule.trained, way: way.name(), seed, before, told, after, steps })
}

/// Waits until nothing that was said waits to be learnt from.
async fn learnt(journal: &Journal, announced: &dyn Fn() -> u64) -> anyhow::Result<()> {
    let mut backlog = journal.backlog();
    let learnt = async {
        backlog
            .wait_for(|left| {
                left.to_judge + left.to_teach + left.held + left.ready + left.provisional + left.leased == 0
            })
            .await?;
        // A step is recorded before its version is announced.
        while announced() < journal.last_version_number().await? {
            tokio::time::sleep(ANNOUNCED_PERIOD).await;
        }
        anyhow::Ok(())
    };
    timeout(PATIENCE, learnt).await.context("what was said is not learnt from")?
}

/// Who has the wish.
struct Person {
    client: ChatClient,
    http: reqwest::Client,
    url: String,
    way: Way,
}

impl Person {
    /// One question, and what is made of its answer.
    async fn session(
        &mut self,
        id: &str,
        content: &Content,
        wanted: &Wanted,
        wish: &str,
        dice: &mut Dice,
    ) -> anyhow::Result<()> {
        let mut messages = vec![json!({"role": "user", "content": content.message})];
        let first = self.ask(id, &messages).await?;
        let is_kept = wanted.is_kept(content, &first.content);
        let thanks =
            dice.pick(&["Thanks, that is how I like it.", "Perfect, thank you.", "Great, just right."]);
        let mut say = |reply: &ChatReply, said: &str| {
            messages.push(json!({"role": "assistant", "content": reply.content}));
            messages.push(json!({"role": "user", "content": said}));
            messages.clone()
        };
        match (self.way, is_kept) {
            (Way::Talk, true) => drop(self.ask(id, &say(&first, thanks)).await?),
            (Way::Talk, false) => {
                let second = self.ask(id, &say(&first, wish)).await?;
                if wanted.is_kept(content, &second.content) {
                    self.ask(id, &say(&second, thanks)).await?;
                }
            }
            (_, true) => self.rate(&first, json!({"rating": 1})).await?,
            (Way::Bad, false) => self.rate(&first, json!({"rating": -1, "text": wish})).await?,
            (Way::Thumbs, false) => {
                self.rate(&first, json!({"rating": -1})).await?;
                self.ask(id, &say(&first, wish)).await?;
            }
        }
        Ok(())
    }

    async fn ask(&self, id: &str, messages: &[Value]) -> anyhow::Result<ChatReply> {
        let mut headers = HeaderMap::new();
        headers.insert("x-session-id", HeaderValue::from_str(id)?);
        headers.insert("x-turn-type", HeaderValue::from_static("main"));
        let request = ChatRequest { messages: messages.to_vec(), headers, ..ChatRequest::default() };
        Ok(self.client.ask_until_answered(&request).await?)
    }

    async fn rate(&self, reply: &ChatReply, mut rating: Value) -> anyhow::Result<()> {
        rating["id"] = json!(reply.id);
        let answer = self.http.post(format!("{}/feedback", self.url)).json(&rating).send().await?;
        ensure!(answer.status().is_success(), "a rating was refused: {}", answer.text().await?);
        Ok(())
    }
}

/// First replies to what no session asks: the same questions before and after, and for every wish.
struct Said {
    /// What is to keep the wish.
    asked: Replies,
    /// What is to be right, where that is something else.
    sums: Option<Replies>,
}

/// To each question a reply that is drawn as in use, and the likeliest.
struct Replies(Vec<(Content, [String; 2])>);

impl Replies {
    fn share(&self, which: usize, good: impl Fn(&Content, &str) -> bool) -> f64 {
        let count = self.0.iter().filter(|(content, said)| good(content, &said[which])).count();
        count as f64 / self.0.len().max(1) as f64
    }
}

impl Said {
    fn by(
        model: &LoadedModel,
        weights: &PolicyWeights,
        (about, tasks): (About, usize),
        temperature: f32,
        told: Option<&str>,
    ) -> anyhow::Result<Self> {
        const SEED: u64 = 0x5eed_7a57_e500_0000;
        let replies = |about: About, dice: &mut Dice| -> anyhow::Result<Replies> {
            let contents: Vec<Content> = (0..tasks).map(|_| about.content(Split::HeldOut, dice)).collect();
            let said = |temperature: f32| -> anyhow::Result<Vec<String>> {
                let message = |content: &Content| match told {
                    Some(wish) => prompts::with_hint(&content.message, wish),
                    None => content.message.clone(),
                };
                let messages: Vec<[Value; 1]> = contents
                    .iter()
                    .map(|content| [json!({"role": "user", "content": message(content)})])
                    .collect();
                let prompts = messages.iter().zip(SEED..);
                let prompts =
                    prompts.map(|(messages, seed)| Prompt { messages, tools: &[], temperature, seed });
                Ok(answers(model, weights.clone(), prompts)?.iter().map(|reply| reply.words()).collect())
            };
            let both =
                said(temperature)?.into_iter().zip(said(0.0)?).map(|(drawn, likeliest)| [drawn, likeliest]);
            Ok(Replies(contents.clone().into_iter().zip(both).collect()))
        };
        let mut dice = Dice::new(SEED);
        let sums = replies(About::Sums, &mut dice)?;
        Ok(match about {
            About::Sums => Self { asked: sums, sums: None },
            About::Facts => Self { asked: replies(About::Facts, &mut dice)?, sums: Some(sums) },
        })
    }

    fn measured(&self, wanted: &Wanted) -> Measured {
        let sums = self.sums.as_ref().unwrap_or(&self.asked);
        let [kept, kept_greedy] =
            [0, 1].map(|which| self.asked.share(which, |content, said| wanted.is_kept(content, said)));
        let [right, right_greedy] =
            [0, 1].map(|which| sums.share(which, |content, said| content.is_in(said)));
        Measured { kept, kept_greedy, right, right_greedy }
    }
}

/// A line per wish and way, over the seeds.
fn table(runs: &[Run]) -> String {
    let mut text = String::from(
        "| wish | rule | taught by | kept before | told | after | greedy before | told | after | right before | told | after | greedy right before | told | after | steps |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    let mean = |of: &[&Run], value: &dyn Fn(&Run) -> f64| {
        of.iter().map(|run| value(run)).sum::<f64>() / of.len().max(1) as f64
    };
    let mut line = |name: &str, rule: &str, way: &str, of: &[&Run]| {
        write!(text, "| {name} | {rule} | {way} |").expect("a string takes everything");
        let columns: [fn(&Measured) -> f64; 4] =
            [|m| m.kept, |m| m.kept_greedy, |m| m.right, |m| m.right_greedy];
        for column in columns {
            for when in [|run: &Run| run.before, |run: &Run| run.told, |run: &Run| run.after] {
                let mean = mean(of, &|run| column(&when(run)));
                write!(text, " {mean:.2} |").expect("a string takes everything");
            }
        }
        writeln!(text, " {:.0} |", mean(of, &|run| run.steps as f64)).expect("a string takes everything");
    };
    let mut told: Vec<(&str, &str)> = Vec::new();
    for run in runs {
        let what = (run.taste.as_str(), run.way);
        if told.contains(&what) {
            continue;
        }
        let of: Vec<&Run> = runs.iter().filter(|other| (other.taste.as_str(), other.way) == what).collect();
        line(&run.taste, if run.trained { "trained" } else { "unseen" }, run.way, &of);
        told.push(what);
    }
    for way in Way::ALL {
        let of: Vec<&Run> = runs.iter().filter(|run| run.way == way.name()).collect();
        if !of.is_empty() {
            line("all", "", way.name(), &of);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_wishes_are_of_rules_that_are_trained_on_and_five_are_not() {
        let rules: Vec<_> = TASTES.iter().map(|(name, _)| rules::named(name).expect("a rule")).collect();
        assert_eq!(rules.iter().filter(|rule| rule.trained).count(), 5);
        let mut dice = Dice::new(1);
        for (taste, named) in TASTES {
            let said = wishes::naming(taste, named, &mut dice);
            assert!(!said.is_empty() && !said.contains('{'), "{said}");
        }
    }

    #[test]
    fn a_table_has_a_line_for_each_wish_and_way() {
        let run = |way: Way, kept| Run {
            taste: "capitals".to_owned(),
            trained: true,
            way: way.name(),
            seed: 1,
            before: Measured::default(),
            told: Measured { kept: 0.25, ..Measured::default() },
            after: Measured { kept, ..Measured::default() },
            steps: 4,
        };
        let table = table(&[run(Way::Bad, 0.5), run(Way::Bad, 1.0), run(Way::Talk, 0.0)]);
        assert!(table.contains("| capitals | trained | bad | 0.00 | 0.25 | 0.75 |"), "{table}");
        assert_eq!(table.lines().count(), 2 + 2 + 2);
    }
}
