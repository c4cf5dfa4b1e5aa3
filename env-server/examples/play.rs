//! Plays episodes in an environment by its settings alone, here one of another machine:
//!
//!   OPENCLAW_ENV_TOKEN=... cargo run -p openclaw-env-server --example play -- 'kind = "remote"
//!   url = "http://127.0.0.1:18080"' 0..4 'bash: ls' 'Done.'
//!
//! Each step is `TOOL: VALUE`, a call with a value for the tool's first parameter, or else something to say.

use std::{
    error::Error,
    io::{Write, stdout},
};

use openclaw_environments::{
    registry,
    world::{Action, Call, Split, Task},
};
use serde_json::{Map, json};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [settings, numbers, steps @ ..] = arguments.as_slice() else {
        return Err("usage: play SETTINGS FROM..TO STEP ..".into());
    };
    let mut settings: registry::Table = settings.parse()?;
    let kind = settings.remove("kind").and_then(|kind| kind.as_str().map(str::to_owned));
    let environment = registry::make(&kind.ok_or("SETTINGS have no kind")?, settings)?;
    environment.ready()?;
    let (from, to) = numbers.split_once("..").ok_or("FROM..TO has no ..")?;
    for number in from.parse::<u64>()?..to.parse()? {
        let task = environment.task(Split::Train, number)?;
        let mut world = environment.open()?;
        world.reset(&task)?;
        for step in steps {
            let outcome = world.step(&action(&task, step))?;
            writeln!(stdout(), "{number}: {:?}", outcome.observation)?;
        }
        writeln!(stdout(), "{number}: {:?}", world.evaluate()?)?;
    }
    Ok(())
}

fn action(task: &Task, step: &str) -> Action {
    let called = step.split_once(": ").and_then(|(name, value)| {
        let tool = task.tools.iter().find(|tool| tool.name == name)?;
        let parameter = tool.parameters["properties"].as_object()?.keys().next()?;
        let arguments = Map::from_iter([(parameter.clone(), json!(value))]);
        Some(Call { id: "call".to_owned(), name: name.to_owned(), arguments })
    });
    called.map_or_else(|| Action::Text(step.to_owned()), |call| Action::Calls(vec![call]))
}
