//! Repositories with real sandboxes, where the machine can make them and has pytest and git.

use std::process::Command;

use openclaw_environments::{
    swe::{Settings, Swe},
    world::{Action, Call, Environment, Outcome, Split, Task, Verdict, World, text_of},
};
use serde_json::{Map, Value};

use crate::machine::{can, has_sandbox};

/// None, with the reason told, where something is missing.
pub fn swe(settings: Settings) -> Option<Swe> {
    is_able().then(|| Swe::new(settings).unwrap())
}

/// Whether the machine has what tests of repositories need.
pub fn is_able() -> bool {
    let has = |words: &[&str]| {
        Command::new(words[0]).args(&words[1..]).output().is_ok_and(|output| output.status.success())
    };
    has_sandbox()
        && can("no git here", has(&["/usr/bin/git", "--version"]), "apt: git")
        && can(
            "no pytest here",
            has(&["/usr/bin/python3", "-m", "pytest", "--version"]),
            "apt: python3-pytest",
        )
}

/// A task and a world in which it has begun.
pub fn begun(swe: &Swe, split: Split, number: u64) -> (Task, Box<dyn World>) {
    let task = swe.task(split, number).unwrap();
    let mut world = swe.open().unwrap();
    world.reset(&task).unwrap();
    (task, world)
}

/// A call of a tool.
pub fn call(name: &str, arguments: &[(&str, &str)]) -> Action {
    let argument = |(name, value): &(&str, &str)| ((*name).to_owned(), Value::from(*value));
    let arguments: Map<String, Value> = arguments.iter().map(argument).collect();
    Action::Calls(vec![Call { id: "c".into(), name: name.into(), arguments }])
}

/// A command.
pub fn bash(command: &str) -> Action {
    call("bash", &[("command", command)])
}

/// A command that applies a patch.
pub fn applies(patch: &str) -> Action {
    bash(&format!("git apply - <<'END_OF_PATCH'\n{patch}END_OF_PATCH"))
}

/// What the first call of a step gave, and what the rule said.
pub fn gave(outcome: &Outcome) -> (String, Option<i8>) {
    let text = outcome.observation.results.first().map(|result| text_of(&result.parts));
    (text.unwrap_or_default(), outcome.rule.map(|rule| rule.score))
}

/// Whether it was done, and how many tests of each kind passed.
pub fn counted(verdict: &Verdict) -> (bool, f32, Option<f64>, Option<f64>) {
    let number = |name: &str| verdict.numbers.get(name).copied();
    (verdict.success, verdict.reward, number("f2p_passed"), number("p2p_passed"))
}
