use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::{
    draw::{name_split, number_split},
    terminal::tree::Node,
};

fn any_split() -> impl Strategy<Value = Split> {
    prop_oneof![Just(Split::Train), Just(Split::HeldOut)]
}

fn any_family() -> impl Strategy<Value = Family> {
    prop::sample::select(Family::ALL.to_vec())
}

fn any_knobs() -> impl Strategy<Value = Knobs> {
    (1usize..10, 0usize..9, 1usize..4, 1usize..4, 3usize..40, 1usize..7, any::<bool>()).prop_map(
        |(few, more, depth, operations, lines, folders, seen)| Knobs {
            files: (few, few + more),
            depth,
            operations: (1, operations),
            lines: (3, lines),
            folders: (1, folders),
            kinds: if seen { Kinds::Seen } else { Kinds::Own },
        },
    )
}

/// Names and numbers of a task's files and facts.
fn drawn(task: &FamilyTask) -> BTreeSet<String> {
    let mut text = task.facts.join(" ");
    for path in task.start.paths().chain(task.goal.paths()) {
        text.push_str(&format!(" {path}"));
    }
    for tree in [&task.start, &task.goal] {
        for path in tree.paths() {
            if let Some(Node::File(bytes)) = tree.get(path) {
                text.push_str(&format!(" {}", String::from_utf8_lossy(bytes)));
            }
        }
    }
    let known = ["hint", "clue", "name", "called"];
    let words = text.split(|c: char| !c.is_ascii_alphanumeric());
    let drawn =
        words.filter(|word| word.len() >= 4 || word.len() == 3 && word.bytes().all(|b| b.is_ascii_digit()));
    drawn.filter(|word| !known.contains(word)).map(str::to_owned).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn a_seed_makes_one_task_that_has_something_to_do(family in any_family(), split in any_split(), seed in any::<u64>(), knobs in any_knobs()) {
        let made = task(family, split, seed, &knobs);
        prop_assert_eq!(&made, &task(family, split, seed, &knobs));
        prop_assert!(!made.instruction.contains(['{', '}']), "{}", made.instruction);
        prop_assert!(made.distance(&made.start) > 0);
        prop_assert_eq!(made.distance(&made.goal), 0);
        prop_assert!(made.plan.len() > made.facts.len(), "{:?}", made);
        let told: BTreeSet<&str> = made.instruction.split(|c: char| !c.is_ascii_alphanumeric()).collect();
        prop_assert!(made.facts.iter().all(|fact| !told.contains(fact.as_str())), "{:?}", made);
        prop_assert_eq!(made.rate(&made.start).0, 0);
        let (done, all) = made.rate(&made.goal);
        prop_assert_eq!(done, all);
    }

    #[test]
    fn the_goal_is_good_once_and_each_fact_is_good_once(family in any_family(), split in any_split(), seed in any::<u64>()) {
        let made = task(family, split, seed, &Knobs::default());
        let mut progress = made.begin();
        for fact in &made.facts {
            for score in [1, -1] {
                let after = made.after(&progress, &made.start, &format!("total 1\n{fact}.x\n"));
                prop_assert_eq!(made.step(&progress, &after).score, score);
                progress = after;
            }
        }
        for score in [1, -1] {
            let after = made.after(&progress, &made.goal, "");
            prop_assert_eq!(made.step(&progress, &after).score, score);
            progress = after;
        }
        // Back and there again, which is no gain.
        let back = made.after(&progress, &made.start, "");
        let again = made.after(&back, &made.goal, "");
        prop_assert_eq!((made.step(&progress, &back).score, made.step(&back, &again).score), (-1, -1));
        prop_assert_eq!((made.finish(&made.goal).score, made.finish(&made.start).score), (1, -1));
    }

    #[test]
    fn a_loss_is_never_good(family in any_family(), split in any_split(), seed in any::<u64>(), at in any::<usize>()) {
        let made = task(family, split, seed, &Knobs::default());
        let paths: Vec<&str> = made.start.paths().filter(|path| matches!(made.start.get(path), Some(Node::File(_)))).collect();
        let mut tree = made.start.clone();
        tree.remove(paths[at % paths.len()]);
        let begin = made.begin();
        prop_assert_eq!(made.step(&begin, &made.after(&begin, &tree, "")).score, -1);
        prop_assert!(made.rate(&tree).0 == 0);
    }

    #[test]
    fn splits_share_no_number_and_no_name(family in any_family(), split in any_split(), seed in any::<u64>(), seen in any::<bool>()) {
        let knobs = Knobs { kinds: if seen { Kinds::Seen } else { Kinds::Own }, ..Knobs::default() };
        for word in drawn(&task(family, split, seed, &knobs)) {
            match word.parse::<i64>() {
                Ok(number) => prop_assert_eq!(number_split(number), split, "{}", number),
                Err(_) => prop_assert_eq!(name_split(&word), split, "{}", word),
            }
        }
    }
}

#[test]
fn splits_share_no_wording_no_kind_and_no_ending() {
    let (mut train, mut held_out) = (BTreeSet::<&str>::new(), BTreeSet::<&str>::new());
    for family in Family::ALL {
        let own = family.kinds().iter().filter(|kind| kind.split() == Split::HeldOut).count();
        assert!(own == 2 && own < family.kinds().len());
        for kind in family.kinds() {
            train.extend(kind.wordings(Split::Train));
            held_out.extend(kind.wordings(Split::HeldOut));
            assert!(!kind.wordings(Split::HeldOut).is_empty());
        }
        for seed in 0..200 {
            let of = |split| task(family, split, seed, &Knobs::default());
            let (a, b) = (of(Split::Train), of(Split::HeldOut));
            assert_ne!(a.kind, b.kind);
            assert_ne!(a.instruction, b.instruction);
        }
    }
    assert!(train.is_disjoint(&held_out));
    assert!(TRAIN_ENDINGS.iter().all(|ending| !HELD_OUT_ENDINGS.contains(ending)));
}

#[test]
fn facts_of_one_chain_and_of_several() {
    let find = |family, kind: &str| {
        let all = (0..500).map(|seed| task(family, Split::Train, seed, &Knobs::default()));
        all.into_iter().find(|task| task.kind == kind && task.facts.len() == 2).unwrap()
    };
    let scores = |task: &FamilyTask| {
        let mut progress = task.begin();
        [1, 0].map(|fact: usize| {
            let after = task.after(&progress, &task.start, &task.facts[fact]);
            let score = task.step(&progress, &after).score;
            progress = after;
            score
        })
    };
    assert_eq!(scores(&find(Family::Moves, "only_file")), [1, 1], "each is needed");
    assert_eq!(scores(&find(Family::Hidden, "rename_to")), [1, -1], "who has the name needs no note");
}

#[test]
fn generation_is_the_same_everywhere() {
    let made = |family, split| task(family, split, 7, &Knobs::default());
    assert_eq!(made(Family::Moves, Split::Train).instruction, "Rename kele/kekero.cfg to fika.dat.");
    assert_eq!(
        made(Family::Text, Split::HeldOut).instruction,
        "Turn dozan/buvusi.md upside down: its lines from last to first, into gare.md."
    );
    assert_eq!(
        made(Family::Hidden, Split::Train).plan,
        ["ls gamab rika", "cat rika/lepo.hint", "cp gotut.dat deras"]
    );
}
