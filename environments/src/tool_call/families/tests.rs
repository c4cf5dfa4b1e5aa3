use super::*;
use crate::draw::{name_split, number_split, stream};
use proptest::prelude::*;
use std::collections::BTreeSet;

fn any_split() -> impl Strategy<Value = Split> {
    prop_oneof![Just(Split::Train), Just(Split::HeldOut)]
}

fn any_family() -> impl Strategy<Value = Family> {
    prop::sample::select(Family::ALL.to_vec())
}

fn any_knobs() -> impl Strategy<Value = Knobs> {
    (0u32..12, 0u32..12, 0usize..50, 0usize..50, 0usize..9, 0usize..9, any::<bool>()).prop_map(
        |(low, high, few, many, distractors, decoy_tools, seen)| Knobs {
            digits: (low, high),
            items: (few, many),
            distractors,
            decoy_tools,
            kinds: if seen { Kinds::Seen } else { Kinds::Own },
        },
    )
}

/// The verdicts on a run of actions.
fn judged(task: &FamilyTask, steps: &[(Action, Ran)]) -> Vec<StepVerdict> {
    let mut progress = Progress::default();
    let mut verdicts = Vec::new();
    for (action, ran) in steps {
        let after = progress.after(task, action, ran);
        verdicts.push(task.step(&progress, action, ran, &after));
        progress = after;
    }
    verdicts
}

/// Numbers of three digits and more, and names, of an instruction and its setup.
fn drawn(task: &FamilyTask) -> (BTreeSet<i64>, BTreeSet<String>) {
    let text = format!("{} {}", task.prelude, task.instruction);
    let numbers = text
        .split(|c: char| !c.is_ascii_digit())
        .filter(|run| run.len() >= 3)
        .map(|run| run.parse().unwrap());
    let known: BTreeSet<&str> = task.wording.split(|c: char| !c.is_ascii_alphabetic()).collect();
    let names = task
        .prelude
        .split(|c: char| !c.is_ascii_alphabetic())
        .filter(|word| word.len() >= 4 && !known.contains(word))
        .filter(|word| !["print", "show", "None", "checked"].contains(word));
    (numbers.collect(), names.map(str::to_owned).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn a_seed_makes_one_task_and_its_plan_is_right(family in any_family(), split in any_split(), seed in any::<u64>(), knobs in any_knobs()) {
        let made = task(family, split, seed, &knobs);
        prop_assert_eq!(&made, &task(family, split, seed, &knobs));
        prop_assert!(!made.instruction.contains(['{', '}']), "{}", made.instruction);
        prop_assert!(made.tools.contains(&TOOL));
        let steps = match family { Family::Expression => 2, _ => 3 };
        prop_assert_eq!(made.plan.len(), steps);
        for (verdict, step) in judged(&made, &made.plan).iter().zip(&made.plan) {
            prop_assert_eq!(verdict.score, 1, "{:?} {:?} {:?}", made, step, verdict);
        }
        prop_assert!(made.correct(&made.answer));
        let longer = made.answer.clone() + "1";
        prop_assert!(!made.correct(&longer));
    }

    #[test]
    fn a_second_time_is_never_good(family in any_family(), split in any_split(), seed in any::<u64>()) {
        let made = task(family, split, seed, &Knobs::default());
        for step in made.plan.iter().filter(|(action, _)| matches!(action, Action::Call { .. })) {
            let verdicts = judged(&made, &[step.clone(), step.clone()]);
            prop_assert_eq!(verdicts[1].score, -1, "{:?}", verdicts);
        }
    }

    #[test]
    fn splits_share_no_number_and_no_name(family in any_family(), split in any_split(), seed in any::<u64>(), seen in any::<bool>()) {
        let knobs = Knobs { kinds: if seen { Kinds::Seen } else { Kinds::Own }, ..Knobs::default() };
        let made = task(family, split, seed, &knobs);
        // Dates are the one place where a second year is not drawn.
        if made.kind != "days" {
            let (numbers, names) = drawn(&made);
            for number in numbers.into_iter().filter(|_| made.kind != "number_with_spaces") {
                prop_assert_eq!(number_split(number), split, "{} in {:?}", number, made);
            }
            for name in names {
                prop_assert_eq!(name_split(&name), split, "{} in {:?}", name, made);
            }
        }
        prop_assert!(made.kind == "days" || family != Family::Repair || !made.prelude.is_empty());
    }

    #[test]
    fn no_two_streams_are_one(a in (0u64..8, any_split(), 0u64..1 << 60), b in (0u64..8, any_split(), 0u64..1 << 60)) {
        prop_assert_eq!(stream(a.0, a.1, a.2) == stream(b.0, b.1, b.2), a == b);
    }

    #[test]
    fn any_step_has_a_verdict(family in any_family(), seed in any::<u64>(), code in r"\PC{0,30}", output in r"\PC{0,30}", raises in any::<bool>()) {
        let made = task(family, Split::Train, seed, &Knobs::default());
        let ran = Ran { output, error: raises.then(|| "TypeError".into()) };
        for action in [call(code.clone()), Action::Answer(code), Action::Malformed] {
            prop_assert!([1, -1].contains(&judged(&made, &[(action, ran.clone())])[0].score));
        }
    }
}

#[test]
fn splits_share_no_wording_and_no_kind() {
    let mut train = BTreeSet::<&str>::new();
    let mut held_out = BTreeSet::<&str>::new();
    for family in Family::ALL {
        let own = family.kinds().iter().filter(|kind| kind.split() == Split::HeldOut).count();
        assert!(own >= 1 && own < family.kinds().len());
        for kind in family.kinds() {
            train.extend(kind.wordings(Split::Train));
            held_out.extend(kind.wordings(Split::HeldOut));
            assert!(!kind.wordings(Split::HeldOut).is_empty());
        }
        for seed in 0..200 {
            let of = |split| task(family, split, seed, &Knobs::default());
            let (a, b) = (of(Split::Train), of(Split::HeldOut));
            assert_ne!(a.kind, b.kind);
            assert!(family.kinds().iter().any(|kind| kind.name == b.kind && kind.split() == Split::HeldOut));
            assert_ne!(a.instruction, b.instruction);
        }
    }
    assert!(train.is_disjoint(&held_out));
}

#[test]
fn the_rule_says_what_the_table_says() {
    let score = |task: &FamilyTask, steps: &[(Action, Ran)]| judged(task, steps).last().unwrap().score;
    let expression = task(Family::Expression, Split::Train, 1, &Knobs::default());
    let typed_in = (call(format!("print({})", expression.answer)), printed(&expression.answer));
    assert_eq!(score(&expression, &[typed_in]), -1, "a value that was not computed");
    let guess = (Action::Answer(expression.answer.clone()), Ran::default());
    assert_eq!(score(&expression, &[guess]), -1, "an answer out of the head");
    let other_tool = (Action::Call { tool: "search".into(), code: "x".into() }, printed(&expression.answer));
    assert_eq!(score(&expression, &[other_tool]), -1);
    let part = &expression.goals[0];
    let first_part = (call(format!("print({})", part.from[0].join(" * "))), printed(&part.value));
    assert_eq!(score(&expression, &[first_part]), 1, "a sub-value from the task's operands");

    let two_stage = task(Family::TwoStage, Split::Train, 1, &Knobs::default());
    assert_eq!(score(&two_stage, &two_stage.plan[1..2]), -1, "the value was not yet observed");

    let repair = task(Family::Repair, Split::Train, 1, &Knobs::default());
    let twice = [repair.plan[0].clone(), repair.plan[0].clone()];
    assert_eq!(judged(&repair, &twice)[1], StepVerdict::bad("repeats a failing call unchanged"));
    assert_eq!(score(&repair, &repair.plan[1..2]), 1, "right at once is right too");
}

#[test]
fn generation_is_the_same_everywhere() {
    let instruction = |family, split| task(family, split, 7, &Knobs::default()).instruction;
    assert_eq!(instruction(Family::Expression, Split::Train), "Find the value of 7744 * 729 + 1813.");
    assert_eq!(
        instruction(Family::TwoStage, Split::HeldOut),
        "show_moba() prints dates. How many days is 2041.11.28 after the date of dafe?"
    );
    assert_eq!(
        instruction(Family::Repair, Split::Train),
        "The list disos has 5 items. Print item 5 times 29."
    );
}
