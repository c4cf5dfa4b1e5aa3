//! What a machine needs for these tests, and how they talk to a world.

use std::sync::Arc;

use openclaw_environments::{
    registry::make,
    world::{Action, Call, CallResult, Environment, Outcome, Split, Task, Verdict, World, text_of},
};
use serde_json::{Value, json};

use crate::machine::{self, can};

/// Whether code can run here.
pub fn has_sandbox() -> bool {
    machine::has_sandbox() && has_python()
}

/// Whether Python is here.
pub fn has_python() -> bool {
    let ran = std::process::Command::new("python3").arg("-V").output();
    can("there is no python3 here", ran.as_ref().is_ok_and(|ran| ran.status.success()), &format!("{ran:?}"))
}

/// An environment with these settings.
pub fn environment(settings: &str) -> Arc<dyn Environment> {
    make("tool_call", settings.parse().expect("a table")).expect(settings)
}

/// A world, and the task that it begins.
pub fn begin(environment: &dyn Environment, split: Split, number: u64) -> (Box<dyn World>, Task) {
    let task = environment.task(split, number).expect("a task");
    let mut world = environment.open().expect("it opens");
    world.reset(&task).expect("it begins");
    (world, task)
}

/// A world of a task that the code has nothing to do with.
pub fn bench(settings: &str) -> Box<dyn World> {
    begin(&*environment(&format!("families = [\"tc1\"]\n{settings}")), Split::Train, 0).0
}

/// A call.
pub fn call(name: &str, arguments: Value) -> Action {
    let arguments = arguments.as_object().expect("an object").clone();
    Action::Calls(vec![Call { id: "c".into(), name: name.into(), arguments }])
}

/// A call of the code tool.
pub fn code(code: &str) -> Action {
    call("code_interpreter", json!({"code": code}))
}

/// What came of the only call of a step.
pub fn result(outcome: &Outcome) -> &CallResult {
    assert_eq!(outcome.observation.results.len(), 1);
    &outcome.observation.results[0]
}

/// What code shows, and whether it failed.
pub fn run(world: &mut dyn World, text: &str) -> (String, bool) {
    let outcome = world.step(&code(text)).expect("a step");
    (text_of(&result(&outcome).parts), result(&outcome).is_error)
}

/// Says an answer, and hears what it is worth.
pub fn answer(world: &mut dyn World, text: &str) -> Verdict {
    assert!(world.step(&Action::Text(text.into())).expect("a step").done);
    world.evaluate().expect("a verdict")
}
