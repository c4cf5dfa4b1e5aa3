//! Worlds with real sandboxes, where the machine can make them.

use std::{fs, path::Path};

use openclaw_environments::{
    terminal::{Settings, Terminal},
    world::{Action, Call, Environment, Outcome, Split, Task, World, text_of},
};
use openclaw_sandbox::Bubblewrap;
use serde_json::{Map, Value};

use crate::machine::has_sandbox;

/// The image of all task folders here.
pub const IMAGE: &str = "fixture:1";

/// None, with the reason told, where no sandbox can be made.
pub fn terminal(settings: Settings) -> Option<Terminal> {
    if !has_sandbox() {
        return None;
    }
    Some(Terminal::new(settings, Box::new(Bubblewrap::default())).unwrap())
}

/// A terminal over a folder of tasks, none of them held out.
pub fn over(tasks: &Path) -> Option<Terminal> {
    let images = vec![IMAGE.to_owned()];
    terminal(Settings { tasks: Some(tasks.to_owned()), held_out: 0, images, ..Settings::default() })
}

/// The task of this name, and a world in which it has begun.
pub fn begun(terminal: &Terminal, id: &str) -> (Task, Box<dyn World>) {
    let count = terminal.tasks(Split::Train).unwrap();
    let tasks = (0..count).map(|number| terminal.task(Split::Train, number).unwrap());
    let task = tasks.into_iter().find(|task| *task.id == *id).unwrap();
    let mut world = terminal.open().unwrap();
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

/// What the first call of a step gave, and whether it failed.
pub fn gave(outcome: &Outcome) -> (String, bool) {
    let result = &outcome.observation.results[0];
    (text_of(&result.parts), result.is_error)
}

/// Files of a folder, with the folders around them.
pub fn write(folder: &Path, files: &[(&str, &str)]) {
    for (path, text) in files {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

/// A task of Harbor with this Dockerfile and this check.
pub fn harbor(tasks: &Path, name: &str, dockerfile: &str, check: &str) {
    let dockerfile = format!("FROM {IMAGE}\n{dockerfile}\n");
    let files = [
        ("task.toml", "version = \"1.0\"\n[verifier]\ntimeout_sec = 60\n"),
        ("instruction.md", "Write right into answer.txt."),
        ("environment/Dockerfile", dockerfile.as_str()),
        ("environment/start.txt", "start\n"),
        ("tests/test.sh", check),
        ("tests/expected.txt", "right\n"),
        ("solution/solve.sh", "echo right > answer.txt"),
    ];
    write(&tasks.join(name), &files);
}
