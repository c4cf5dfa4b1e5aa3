//! What a machine needs for these tests, and how they talk to a world.

use std::{
    fs,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use openclaw_environments::{
    registry::make,
    world::{Action, Call, CallResult, Environment, Outcome, Split, Task, Verdict, World, text_of},
};
use serde_json::{Value, json};

/// Whether code can run here; told, and asked for where `OPENCLAW_REQUIRE_ALL` is set.
pub fn has_sandbox() -> bool {
    let missing: Vec<_> =
        openclaw_sandbox::probe().into_iter().filter(|check| check.needed && !check.ok).collect();
    can("no sandbox can be made here", missing.is_empty(), &format!("{missing:?}")) && has_python()
}

/// Whether Python is here.
pub fn has_python() -> bool {
    let ran = std::process::Command::new("python3").arg("-V").output();
    can("there is no python3 here", ran.as_ref().is_ok_and(|ran| ran.status.success()), &format!("{ran:?}"))
}

fn can(what: &str, can: bool, why: &str) -> bool {
    if !can {
        assert!(std::env::var_os("OPENCLAW_REQUIRE_ALL").is_none(), "{what}: {why}");
        eprintln!("skipped, {what}: {why}");
    }
    can
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

/// Processes of this machine, those in sandboxes too, with `marker` in their arguments.
pub fn with_marker(marker: &str) -> usize {
    let line = |entry: fs::DirEntry| fs::read(entry.path().join("cmdline")).unwrap_or_default();
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    entries
        .filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok())
        .map(line)
        .fold(0, |count, line| count + usize::from(String::from_utf8_lossy(&line).contains(marker)))
}

/// Waits for a condition.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let patience = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < patience, "not in a minute: {what}");
        thread::yield_now();
    }
}
