//! `[environments]` and `[[actors.agent]]`: what agents act in, and who lets them.

use std::{fmt, sync::Arc};

use openclaw_environments::{
    registry,
    world::{Environment as World, Split, WorldError},
};
use serde::Serialize;
use toml::{Table, Value};

use super::{
    problems::{Problems, did_you_mean, join, nearest},
    read::{FromToml, expected, section, words},
    sections::Topology,
};

/// `[environments.NAME]`: a kind, and the settings of that kind.
#[derive(Clone, Serialize)]
pub struct Environment {
    /// Its kind, as the registry of environments has it.
    pub kind: String,
    /// What that kind wants to know.
    #[serde(flatten)]
    pub settings: Table,
    /// Made when it was read: some read large files.
    #[serde(skip)]
    made: Result<Arc<dyn World>, WorldError>,
}

impl PartialEq for Environment {
    fn eq(&self, other: &Self) -> bool {
        (&self.kind, &self.settings) == (&other.kind, &other.settings)
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment").field("kind", &self.kind).field("settings", &self.settings).finish()
    }
}

impl Environment {
    /// What agents act in.
    pub fn make(&self) -> Result<Arc<dyn World>, WorldError> {
        self.made.clone()
    }
}

/// The key of a kind's own that cannot be used, where one is named, and why: in the words of the other keys of a topology.
fn fault(settings: &Table, told: &str) -> (Option<String>, String) {
    let is_key = |name: &str| settings.contains_key(name.split(['.', '[']).next().unwrap_or_default());
    let quoted = |text: &str| text.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    if let Some(missing) =
        told.strip_prefix("missing field ").map(quoted).and_then(|names| names.first().cloned())
    {
        return (Some(missing), "missing".to_owned());
    }
    let Some((key, message)) = told.split_once(": ").filter(|(key, _)| is_key(key)) else {
        return (None, told.to_owned());
    };
    let message = if message.starts_with("unknown field ") {
        let names = quoted(message);
        let (name, known) = names.split_first().map_or(("", &[][..]), |(name, known)| (name, known));
        format!("unknown key{}", did_you_mean(name, known))
    } else if let Some((found, expected)) =
        message.strip_prefix("invalid type: ").and_then(|rest| rest.split_once(", expected "))
    {
        format!("expected {expected}, found {found}")
    } else {
        message.to_owned()
    };
    (Some(key.to_owned()), message)
}

impl FromToml for Environment {
    fn from_toml(value: &Value, key: &str, problems: &mut Problems) -> Self {
        let Some(table) = value.as_table() else {
            problems.add(key, "expected a table");
            return Self::placeholder();
        };
        let mut settings = table.clone();
        let kind = match settings.remove("kind") {
            Some(Value::String(kind)) => kind,
            Some(found) => {
                problems.add(&join(key, "kind"), expected("a string", &found));
                return Self::placeholder();
            }
            None => {
                match settings.keys().find(|name| nearest(name, ["kind"]).is_some()) {
                    Some(near) => problems.add(&join(key, near), "unknown key (did you mean \"kind\"?)"),
                    None => problems.add(&join(key, "kind"), "missing"),
                }
                return Self::placeholder();
            }
        };
        let made = registry::make(&kind, settings.clone());
        if let Err(error) = &made {
            let (name, message) = fault(&settings, &error.to_string());
            let key = name.map_or_else(|| key.to_owned(), |name| join(key, &name));
            problems.add(&key, message);
        }
        Self { kind, settings, made }
    }

    fn placeholder() -> Self {
        let made = Err(WorldError::Settings("kind: missing".to_owned()));
        Self { kind: String::new(), settings: Table::new(), made }
    }
}

words! {
    /// Who says how good a step was.
    pub enum StepJudge {
        /// The environment's rule, where it has one; else the judge.
        Rule = "rule",
        /// The judge.
        Model = "model",
    }
}

section! {
    /// `[[actors.agent]]`: workers that let the policy act in an environment.
    pub struct Agent {
        /// What it acts in: a name under `[environments]`.
        environment: String,
        /// Workers.
        workers: usize = 1,
        /// Episodes of a worker at a time.
        concurrency: usize = 8,
        /// Episodes of each task, which are compared with one another.
        group: usize = 8,
        /// Tasks; without it, it goes on for ever.
        groups: Option<usize> = None,
        /// Most steps of an episode; the environment's own limit, unless given.
        steps: Option<usize> = None,
        /// An episode that takes longer is evaluated as it is.
        episode_secs: u64 = 900,
        /// Sampling temperature.
        temperature: f64 = 1.0,
        /// Most tokens of a step.
        max_new_tokens: usize = 512,
        /// Who says how good a step was.
        step_judge: StepJudge = StepJudge::Rule,
        /// Held-out tasks that are played, and not trained on, before the first group and then between groups.
        held_out: usize = 0,
        /// Groups between two such measurements.
        held_out_every: usize = 16,
        /// Episodes of which files, outcome and trajectory are kept in `episodes/` of `run.dir`: the latest.
        artefacts: usize = 16,
        /// A group begins only when what came before has been judged and learnt from.
        wait_for_learning: bool = true,
        /// Decides which tasks are drawn; `run.seed`, unless given.
        seed: Option<u64> = None,
    }
}

fn named<'t>(
    topology: &'t Topology,
    name: &str,
    key: &str,
    problems: &mut Problems,
) -> Option<&'t Environment> {
    let known = topology.environments.get(name);
    if known.is_none() && !problems.is_unread("environments") {
        let names: Vec<&str> = topology.environments.keys().map(String::as_str).collect();
        let nearest = did_you_mean(name, &names);
        problems.add(key, format!("\"{name}\" is not under [environments]{nearest}"));
    }
    known
}

/// Adds why nobody can talk as the users of an environment, if so; `key` is the group's.
pub fn check_users(topology: &Topology, name: &str, key: &str, problems: &mut Problems) {
    let key = format!("{key}.environment");
    let known = named(topology, name, &key, problems);
    let Some(made) = known.and_then(|known| known.make().ok()) else { return };
    if made.tasks(Split::Train) == Some(0) {
        problems.add(&key, "it has no tasks to train on");
    } else if made.task(Split::Train, 0).is_ok_and(|task| !task.tools.is_empty()) {
        problems.add(&key, "its tasks have tools, which users have not: act in it by [[actors.agent]]");
    }
}

/// Adds what is impossible.
pub fn check(topology: &Topology, problems: &mut Problems) {
    for name in topology.environments.keys() {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c);
        if name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
            let message = "a name has up to 64 small letters, digits, - and _";
            problems.add(&format!("environments.{name}"), message);
        }
    }
    let mut taken = Vec::new();
    for (i, agent) in topology.actors.agent.iter().enumerate() {
        let key = |name: &str| format!("actors.agent[{i}].{name}");
        let known = named(topology, &agent.environment, &key("environment"), problems);
        let seed = agent.seed.unwrap_or(topology.run.seed);
        if taken.contains(&(&agent.environment, seed)) {
            let message =
                "another has the same environment and the same seed: they would play the same episodes";
            problems.add(&key("seed"), message);
        }
        taken.push((&agent.environment, seed));
        let most_groups = 1 << 30;
        for (name, value, most) in [
            ("workers", agent.workers, 1024),
            ("concurrency", agent.concurrency, 1024),
            ("group", agent.group, 4096),
            ("groups", agent.groups.unwrap_or(1), most_groups),
            ("steps", agent.steps.unwrap_or(1), 10_000),
            ("max_new_tokens", agent.max_new_tokens, 1 << 20),
            ("held_out_every", agent.held_out_every, most_groups),
        ] {
            if !(1..=most).contains(&value) {
                problems.add(&key(name), format!("{value} is not from 1 to {most}"));
            }
        }
        if agent.held_out > 1 << 20 {
            problems.add(&key("held_out"), format!("{} is not from 0 to {}", agent.held_out, 1 << 20));
        }
        if agent.artefacts > 100_000 {
            problems.add(&key("artefacts"), format!("{} is not from 0 to 100000", agent.artefacts));
        }
        if !(1..=7 * 24 * 3600).contains(&agent.episode_secs) {
            problems.add(&key("episode_secs"), format!("{} is not from 1 to 604800", agent.episode_secs));
        }
        if !(0.0..=10.0).contains(&agent.temperature) {
            problems.add(&key("temperature"), format!("{} is not from 0 to 10", agent.temperature));
        }
        let lacks = |split| {
            let made = known.and_then(|known| known.make().ok());
            made.is_some_and(|made| made.tasks(split) == Some(0))
        };
        if agent.held_out > 0 && lacks(Split::HeldOut) {
            problems.add(&key("held_out"), "the environment has no held-out tasks");
        }
        if lacks(Split::Train) {
            problems.add(&key("environment"), "it has no tasks to train on");
        }
    }
}
