//! What needs no desktop.

use std::collections::BTreeSet;

use super::*;
use crate::registry::make;

fn of(families: &[Family]) -> DesktopEnvironment {
    let settings = Settings { families: Some(families.to_vec()), ..Settings::default() };
    DesktopEnvironment::new(settings, Box::new(Bubblewrap::default())).expect("they are right")
}

#[test]
fn settings_that_cannot_be_used_are_named() {
    for (text, says) in [
        ("famlies = []", "famlies"),
        ("families = []", "families: is empty"),
        ("families = [\"dt1\"]\ntasks = \"/t\"", "families: not beside tasks"),
        ("tasks = \"/nowhere\"", "tasks: /nowhere cannot be read"),
        ("held_out = 1", "held_out: 1"),
        ("width = 100", "width: 100"),
        ("height = 10000", "height: 10000"),
        ("steps = 0", "steps: 0"),
        ("step_secs = 0", "step_secs: 0"),
        ("setup_secs = 0", "setup_secs: 0"),
        ("memory_mb = 1", "memory_mb: 1"),
        ("disk_mb = 1", "disk_mb: 1"),
        ("show = 'screenshot'", "show: "),
    ] {
        let table = text.parse().expect("a table");
        let told = make("desktop", table).map(|_| ()).expect_err("it is refused").to_string();
        assert!(told.contains(says), "{text}: {told}");
    }
}

#[test]
fn families_take_turns_and_a_number_is_one_task_for_ever() {
    let environment = of(&[Family::Chooser, Family::Form]);
    let task = |number| environment.task(Split::HeldOut, number).expect("a task");
    assert_eq!((task(0).id.as_ref(), task(5).id.as_ref()), ("dt4/held-out/0", "dt1/held-out/2"));
    assert_eq!(task(5), task(5));
    assert_eq!(environment.tasks(Split::Train), None);
    let names: Vec<String> = task(0).tools.into_iter().map(|tool| tool.name).collect();
    assert_eq!(names, ["click", "type", "scroll", "wait", "done", "fail"]);
    let other = Task { id: "dt1/train/0".into(), ..task(0) };
    assert!(matches!(environment.shared.play(&other), Err(WorldError::NoTask(_))));
}

#[test]
fn every_task_of_a_family_can_be_played_and_none_is_of_both_splits() {
    let anywhere = Machine { width: 1024, height: 768, has: |_| true };
    for family in Family::ALL {
        let told = |split| -> BTreeSet<String> {
            let tasks = (0..60).map(|number| families::task(family, split, number));
            tasks
                .map(|made| {
                    let task = made.read(&anywhere);
                    assert_eq!((task.missing.len(), task.check.infeasible), (0, false), "{made:?}");
                    assert_eq!(task.check.rules.len(), 1, "{made:?}");
                    task.instruction
                })
                .collect()
        };
        let (train, held_out) = (told(Split::Train), told(Split::HeldOut));
        assert!(train.is_disjoint(&held_out) && train.len() > 50, "{family:?}: {}", train.len());
    }
}
