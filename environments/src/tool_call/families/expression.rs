//! TC-1: an expression of three numbers.
use super::{Goal, Knobs, Made, call, printed};
use crate::draw::{Draw, Kind, fill};

pub(super) const KINDS: &[Kind] = &[
    Kind {
        name: "a*b+c",
        train: &["Compute {e}.", "What is {e}?", "Please work out {e}.", "Find the value of {e}."],
        held_out: &["How much is {e}?", "Evaluate {e} for me."],
    },
    Kind {
        name: "a*b-c",
        train: &["Calculate {e}.", "What does {e} make?", "I need the result of {e}."],
        held_out: &["Give me {e} as one number.", "Tell me what {e} comes to."],
    },
    Kind {
        name: "(a+b)*c",
        train: &["What is the value of {e}?", "Work out {e} with the tool.", "Use code to compute {e}."],
        held_out: &["Run the numbers: {e}.", "Solve {e}."],
    },
    Kind { name: "a*(b-c)", train: &[], held_out: &["Which number is {e}?", "Determine {e}."] },
    Kind { name: "a*b*c", train: &[], held_out: &["Multiply out {e}.", "State the product {e}."] },
];

pub(super) fn make(draw: &mut Draw, knobs: &Knobs) -> Made {
    let (kind, wording) = draw.kind(KINDS, knobs.kinds);
    let mut number = || {
        let digits = draw.dice.between(knobs.digits.0.into(), knobs.digits.1.into());
        draw.digits(digits as u32)
    };
    let (a, b, c) = (number(), number(), number());
    // Wide enough for three numbers of nine digits.
    let (x, y, z) = (i128::from(a), i128::from(b), i128::from(c));
    let (part, pair, rest, value) = match kind.name {
        "a*b+c" => (x * y, [a, b], c, x * y + z),
        "a*b-c" => (x * y, [a, b], c, x * y - z),
        "(a+b)*c" => (x + y, [a, b], c, (x + y) * z),
        "a*(b-c)" => (y - z, [b, c], a, x * (y - z)),
        _ => (x * y, [a, b], c, x * y * z),
    };
    let expression = kind
        .name
        .chars()
        .map(|sign| match sign {
            'a' => a.to_string(),
            'b' => b.to_string(),
            'c' => c.to_string(),
            '+' | '-' | '*' => format!(" {sign} "),
            bracket => bracket.to_string(),
        })
        .collect::<String>();
    let of = |numbers: &[i64]| numbers.iter().map(i64::to_string).collect::<Vec<_>>();
    let goals = vec![
        Goal { value: part.to_string(), from: vec![of(&pair)] },
        Goal {
            value: value.to_string(),
            from: vec![of(&[a, b, c]), vec![part.unsigned_abs().to_string(), rest.to_string()]],
        },
    ];
    let plan = vec![(call(format!("print({expression})")), printed(value))];
    Made {
        kind: kind.name,
        wording,
        instruction: fill(wording, &[("e", &expression)]),
        prelude: String::new(),
        answer: value.to_string(),
        goals,
        plan,
    }
}
