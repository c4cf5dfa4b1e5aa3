//! Families of small tasks made from a number: a module with a few functions, tests, and one token that is wrong. They need
//! nothing but python3 and pytest.
mod shapes;

use std::collections::BTreeMap;

use serde::Deserialize;

use self::shapes::{Fault, Input, SHAPES, Shape};
use super::{
    patch,
    report::EvalType,
    row::{Check, Row, Start},
};
use crate::draw::{Draw, Kind, Kinds, Split, fill};

/// A family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
pub enum Family {
    /// SW-1: a module of ten to thirty lines with one wrong token.
    #[serde(rename = "sw1")]
    Token,
}

impl Family {
    /// All of them.
    pub const ALL: [Self; 1] = [Self::Token];

    /// The name in ids, settings and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Token => "sw1",
        }
    }

    /// Apart from those of the families of other kinds.
    fn number(self) -> u64 {
        match self {
            Self::Token => 6,
        }
    }
}

const TRAIN: &[&str] = &[
    "The tests of {m}.py fail: {t}. Mend the module.",
    "There is a fault in {m}.py: {t} should pass. Find it and mend it.",
    "{t} fails. The fault is in {m}.py; mend it.",
];
const HELD_OUT: &[&str] =
    &["Something is wrong in {m}.py, as {t} shows. Put it right.", "Repair {m}.py so that {t} passes."];

/// What is wrong; a kind without wordings of training is held out.
pub const KINDS: &[Kind] = &[
    Kind { name: "comparison", train: TRAIN, held_out: HELD_OUT },
    Kind { name: "equality", train: TRAIN, held_out: HELD_OUT },
    Kind { name: "arithmetic", train: TRAIN, held_out: HELD_OUT },
    Kind { name: "off_by_one", train: TRAIN, held_out: HELD_OUT },
    Kind { name: "logic", train: TRAIN, held_out: HELD_OUT },
    Kind { name: "constant", train: TRAIN, held_out: HELD_OUT },
    Kind { name: "dropped_not", train: TRAIN, held_out: HELD_OUT },
    Kind { name: "augmented", train: TRAIN, held_out: HELD_OUT },
    Kind { name: "swapped_name", train: &[], held_out: HELD_OUT },
    Kind { name: "sign", train: &[], held_out: HELD_OUT },
];

/// One task.
#[derive(Clone, Debug, PartialEq)]
pub struct FamilyTask {
    /// As a row of a data set would have it.
    pub row: Row,
    /// The repository at first.
    pub files: BTreeMap<String, String>,
    /// Where the fault is.
    pub module: String,
    /// Its line, from 1.
    pub line: usize,
    /// What the line should be.
    pub mended: String,
}

/// Functions of a module.
const FUNCTIONS: usize = 3;
/// Tests of a function.
const TESTS: usize = 2;

/// The task of a family, a split and a seed.
pub fn task(family: Family, split: Split, seed: u64, kinds: Kinds) -> FamilyTask {
    let mut draw = Draw::new(family.number(), split, seed);
    let (kind, wording) = draw.kind(KINDS, kinds);
    let with_fault: Vec<(&Shape, &Fault)> = SHAPES
        .iter()
        .flat_map(|shape| shape.faults.iter().map(move |fault| (shape, fault)))
        .filter(|(_, fault)| fault.kind == kind.name)
        .collect();
    let (faulty, fault) = with_fault[draw.dice.index(with_fault.len())];
    let mut others: Vec<&Shape> = SHAPES.iter().filter(|shape| !std::ptr::eq(*shape, faulty)).collect();
    draw.dice.shuffle(&mut others);
    let mut shapes: Vec<&Shape> = others.into_iter().take(FUNCTIONS - 1).chain([faulty]).collect();
    draw.dice.shuffle(&mut shapes);

    let module = draw.name();
    let (mut sound, mut broken, mut tests) = (Vec::new(), Vec::new(), Vec::new());
    let (mut names, mut fail_to_pass, mut pass_to_pass) = (Vec::new(), Vec::new(), Vec::new());
    for (at, shape) in shapes.into_iter().enumerate() {
        let name = draw.name();
        let (v, n, m) = (draw.name(), draw.name(), draw.name());
        let k = draw.dice.between(2, 8);
        let (k, more) = (k.to_string(), (k + 1).to_string());
        let values = [("f", &*name), ("v", &v), ("n", &n), ("m", &m), ("k", &k), ("k1", &more)];
        if at > 0 {
            sound.extend([String::new(), String::new()]);
            broken.extend([String::new(), String::new()]);
        }
        for (number, line) in shape.lines.iter().enumerate() {
            sound.push(fill(line, &values));
            let wrong = std::ptr::eq(shape, faulty) && number == fault.line;
            broken.push(match wrong {
                true => fill(&line.replacen(fault.from, fault.to, 1), &values),
                false => sound[sound.len() - 1].clone(),
            });
        }
        let shown = std::ptr::eq(shape, faulty).then_some(fault);
        for number in 0..TESTS {
            let k = k.parse().expect("it was a number");
            let input = loop {
                let input = Input::draw(&mut draw.dice, k);
                // The first test shows the fault.
                if number > 0 || shown.is_none_or(|fault| (fault.value)(&input) != (shape.value)(&input)) {
                    break input;
                }
            };
            let test = if number == 0 { format!("test_{name}") } else { format!("test_{name}_again") };
            let id = format!("test_{module}.py::{test}");
            let fails = shown.is_some_and(|fault| (fault.value)(&input) != (shape.value)(&input));
            if fails {
                fail_to_pass.push(id)
            } else {
                pass_to_pass.push(id)
            }
            let call = shape.call.with(&input);
            tests
                .push(format!("\n\ndef {test}():\n    assert {name}({call}) == {}\n", (shape.value)(&input)));
        }
        names.push(name);
    }
    let path = format!("{module}.py");
    let text = |lines: &[String]| lines.join("\n") + "\n";
    let line =
        sound.iter().zip(&broken).position(|(one, other)| one != other).expect("a fault changes its line");
    let header = format!("from {module} import {}\n", names.join(", "));
    let failing: Vec<&str> = fail_to_pass.iter().map(|id| patch::test_function(id)).collect();
    let problem = fill(wording, &[("m", &module), ("t", &failing.join(" and "))]);
    let files = [(path.clone(), text(&broken)), (format!("test_{module}.py"), header + &tests.concat())];
    let row = Row {
        id: format!("{}/{split}/{seed}", family.name()),
        repo: family.name().to_owned(),
        base_commit: None,
        problem,
        patch: patch::of_line(&path, &text(&broken), line, &sound[line]),
        makes_bug: false,
        test_patch: String::new(),
        fail_to_pass,
        pass_to_pass,
        eval_type: EvalType::PassAndFail,
        start: Start::Unknown,
        check: Check::Pytest(vec![format!("test_{module}.py")]),
        mutation: None,
    };
    FamilyTask { row, files: files.into(), module: path, line: line + 1, mended: sound[line].clone() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_number_is_one_task_and_its_patch_is_its_line() {
        let mut kinds = BTreeSet::new();
        for seed in 0..200 {
            for split in [Split::Train, Split::HeldOut] {
                let made = task(Family::Token, split, seed, Kinds::Own);
                assert_eq!(made, task(Family::Token, split, seed, Kinds::Own));
                let module = &made.files[&made.module];
                assert!((10..=30).contains(&module.lines().count()), "{module}");
                let (gone, added) = patch::lines(&made.row.patch);
                assert_eq!(gone, [module.lines().nth(made.line - 1).unwrap()]);
                assert_eq!(added, [made.mended.as_str()]);
                assert_ne!(gone, added);
                let total = made.row.fail_to_pass.len() + made.row.pass_to_pass.len();
                assert_eq!(total, FUNCTIONS * TESTS);
                assert!(!made.row.fail_to_pass.is_empty() && made.row.pass_to_pass.len() >= 4);
            }
            let split = if seed % 2 == 0 { Split::Train } else { Split::HeldOut };
            let mut draw = Draw::new(Family::Token.number(), split, seed);
            kinds.insert((split, draw.kind(KINDS, Kinds::Own).0.name));
        }
        assert_eq!(kinds.len(), KINDS.len(), "{kinds:?}");
        assert_ne!(
            task(Family::Token, Split::Train, 3, Kinds::Seen).row.problem,
            task(Family::Token, Split::HeldOut, 3, Kinds::Seen).row.problem
        );
    }
}
