use openclaw_sandbox::{Check, SandboxError, Session};

use super::*;
use crate::registry::make;

/// A machine that cannot isolate.
struct Bare;

impl Backend for Bare {
    fn name(&self) -> &'static str {
        "bare"
    }

    fn probe(&self) -> Vec<Check> {
        let check = |name, ok, needed| Check { name, ok, detail: "install it".to_owned(), needed };
        vec![check("bubblewrap", false, true), check("tar", true, true), check("landlock", false, false)]
    }

    fn open(&self, _: &openclaw_sandbox::Spec) -> Result<Box<dyn Session>, SandboxError> {
        panic!("nothing is opened here")
    }

    fn sweep(&self) -> usize {
        0
    }
}

#[test]
fn nothing_is_opened_where_nothing_isolates() {
    let terminal = Terminal::new(Settings::default(), Box::new(Bare)).unwrap();
    let Err(error) = terminal.open() else { panic!("it opens") };
    assert_eq!(
        error,
        WorldError::Refused("untrusted commands are refused here: bubblewrap: install it".to_owned())
    );
}

#[test]
fn settings_that_cannot_be_used_are_named() {
    let problem = |text: &str| {
        let table = text.parse().unwrap();
        make("terminal", table).map(|_| ()).unwrap_err().to_string()
    };
    for (text, says) in [
        ("famlies = []", "famlies"),
        ("families = []", "families: is empty"),
        ("families = [\"te9\"]", "te9"),
        ("families = [\"te1\"]\ntasks = \"/t\"", "families: not beside tasks"),
        ("tasks = \"/nowhere\"", "tasks: /nowhere cannot be read"),
        ("held_out = 1", "held_out: 1"),
        ("files = [4, 2]", "files: [4, 2]"),
        ("lines = [1, 2]", "lines: [1, 2]"),
        ("depth = 0", "depth: 0"),
        ("steps = 0", "steps: 0"),
        ("step_secs = 0", "step_secs: 0"),
        ("verifier_secs = 0", "verifier_secs: 0"),
        ("output_bytes = 1", "output_bytes: 1"),
        ("memory_mb = 1", "memory_mb: 1"),
        ("disk_mb = 0", "disk_mb: 0"),
    ] {
        assert!(problem(text).contains(says), "{text}: {}", problem(text));
    }
}

#[test]
fn families_take_turns_and_numbers_are_for_ever() {
    let settings = Settings { families: Some(vec![Family::Hidden, Family::Moves]), ..Settings::default() };
    let terminal = Terminal::new(settings, Box::new(Bare)).unwrap();
    let task = |number| terminal.task(Split::HeldOut, number).unwrap();
    assert_eq!(task(0).id.as_ref(), "te3/held-out/0");
    assert_eq!(task(5).id.as_ref(), "te1/held-out/2");
    assert_eq!(task(5), task(5));
    assert_eq!(terminal.tasks(Split::Train), None);
    let names: Vec<String> = task(0).tools.into_iter().map(|tool| tool.name).collect();
    assert_eq!(names, ["bash", "read_file", "write_file"]);
    let other = Task { id: "te1/train/0".into(), ..task(0) };
    assert!(matches!(terminal.shared.play(&other), Err(WorldError::NoTask(_))));
}
