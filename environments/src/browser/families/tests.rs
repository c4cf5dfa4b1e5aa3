//! Tasks by their oracles, without a browser.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::*;
use crate::world::WorldError;

fn all(number: u64) -> impl Iterator<Item = FamilyTask> {
    let splits = [Split::Train, Split::HeldOut];
    Family::ALL
        .into_iter()
        .flat_map(move |family| splits.map(|split| task(family, split, number, &Knobs::default())))
}

fn state(task: &FamilyTask, clicked: &[usize], values: &[String]) -> Value {
    let values: Map<String, Value> =
        values.iter().enumerate().map(|(at, value)| (at.to_string(), json!(value))).collect();
    let (progress, over) =
        task.stands(&json!({"clicked": clicked, "values": values})).expect("it can be read");
    json!([progress, over])
}

#[test]
fn a_number_is_one_task_for_ever_and_no_task_is_of_both_splits() {
    let mut pages = BTreeSet::new();
    for number in 0..100 {
        for task in all(number) {
            let split = if task.id.contains("train") { Split::Train } else { Split::HeldOut };
            assert_eq!(task, super::task(task.family, split, number, &Knobs::default()));
            assert!(pages.insert(task.html.clone()), "{} is there already", task.id);
        }
    }
}

#[test]
fn wordings_and_names_are_of_one_split() {
    let mut words: [BTreeSet<String>; 2] = Default::default();
    for number in 0..300 {
        for task in all(number) {
            let at = usize::from(task.id.contains("held-out"));
            words[at].insert(task.wording.to_owned());
            words[at].extend(task.buttons.iter().cloned());
            words[at].extend(
                task.controls.iter().flat_map(|control| [control.label.clone(), control.goal.clone()]),
            );
            assert!(!task.instruction.contains('{'), "{}", task.instruction);
        }
    }
    let common: Vec<&String> = words[0].intersection(&words[1]).collect();
    assert_eq!(common, [] as [&str; 0]);
}

#[test]
fn what_is_right_is_near_and_what_is_wrong_is_not() {
    for task in (0..50).flat_map(all) {
        let (start, goal): (Vec<String>, Vec<String>) =
            task.controls.iter().map(|control| (control.start.clone(), control.goal.clone())).unzip();
        assert_eq!(state(&task, &[], &start), json!([0.0, false]), "{task:?}");
        assert_eq!(state(&task, &task.clicks, &goal), json!([1.0, true]), "{task:?}");
        let wrong = (0..task.buttons.len()).find(|number| task.clicks.first() != Some(number));
        if let Some(wrong) = wrong {
            let stands = state(&task, &[wrong], &goal);
            assert!(stands[0].as_f64() < Some(1.0) && stands[1] == true, "{task:?}: {stands}");
        }
        if !task.controls.is_empty() {
            assert_eq!(
                state(&task, &task.clicks, &start),
                json!([0.0, true]),
                "sent, and nothing done: {task:?}"
            );
        }
        let steps = task.plan.len();
        assert!((1..=10).contains(&steps), "{task:?}");
    }
}

#[test]
fn a_page_that_was_changed_tells_nothing() {
    let task = task(Family::Fields, Split::Train, 0, &Knobs::default());
    for state in [json!(null), json!({"clicked": ["x"], "values": {}}), json!({"clicked": [], "values": {}})]
    {
        assert!(matches!(task.verdict(&state), Err(WorldError::Invalid(_))), "{state}");
    }
}
