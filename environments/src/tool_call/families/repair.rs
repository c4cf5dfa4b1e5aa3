//! TC-3: the code that the problem suggests raises; the error says what to change.
use super::{Goal, Knobs, Made, Ran, call, printed};
use crate::draw::{Draw, Kind, fill};

pub(super) const KINDS: &[Kind] = &[
    Kind {
        name: "text_plus_number",
        train: &["The variable {v} holds an amount. Print {v} + {m}.", "Add {m} to the amount in {v}."],
        held_out: &["How much is the amount in {v} and {m} more?"],
    },
    Kind {
        name: "index_off_by_one",
        train: &[
            "The list {v} has {n} items. Print item {n} times {m}.",
            "Multiply item {n} of the {n} in the list {v} by {m}.",
        ],
        held_out: &["{v} is a list of {n} items. What is the last, number {n}, times {m}?"],
    },
    Kind {
        name: "key_in_other_case",
        train: &[
            "Look up {K} in the dict {v} and add {m}.",
            "The dict {v} has a value for {K}. Print it plus {m}.",
        ],
        held_out: &["What does {v} hold for {K}, with {m} added?"],
    },
    Kind {
        name: "missing_values",
        train: &["Sum the list {v} and add {m}.", "Print the total of the list {v} plus {m}."],
        held_out: &["What do all numbers of {v} and {m} make together?"],
    },
    Kind {
        name: "number_with_spaces",
        train: &[],
        held_out: &[
            "Turn the text in {v} into a number and add {m}.",
            "{v} is a number written as text. Print it plus {m}.",
        ],
    },
    Kind {
        name: "no_such_attribute",
        train: &[],
        held_out: &[
            "The list {v} has a length, {v}.length. Print it times {m}.",
            "How long is the list {v}, times {m}? Its length is {v}.length.",
        ],
    },
];

pub(super) fn make(draw: &mut Draw, knobs: &Knobs) -> Made {
    let (kind, wording) = draw.kind(KINDS, knobs.kinds);
    let (variable, key) = (draw.name(), draw.name());
    let (value, m) = (draw.digits(knobs.digits.1.max(4)), draw.number(12, 99));
    let items = draw.dice.between(knobs.items.0 as i64, knobs.items.1 as i64) as usize;
    let mut numbers: Vec<i64> = (0..items).map(|_| draw.digits(knobs.digits.0)).collect();
    let v = &variable;
    let shown = |numbers: &[i64]| numbers.iter().map(i64::to_string).collect::<Vec<_>>().join(", ");
    let (prelude, obvious, error, repaired, answer) = match kind.name {
        "text_plus_number" => (
            format!("{v} = \"{value}\""),
            format!("print({v} + {m})"),
            "TypeError",
            format!("print(int({v}) + {m})"),
            value + m,
        ),
        "index_off_by_one" => (
            format!("{v} = [{}]", shown(&numbers)),
            format!("print({v}[{items}] * {m})"),
            "IndexError",
            format!("print({v}[{}] * {m})", items - 1),
            numbers[items - 1] * m,
        ),
        "key_in_other_case" => (
            format!("{v} = {{\"{key}\": {value}}}"),
            format!("print({v}[\"{}\"] + {m})", capital(&key)),
            "KeyError",
            format!("print({v}[\"{key}\"] + {m})"),
            value + m,
        ),
        "missing_values" => {
            let sum: i64 = numbers.iter().sum();
            let at = draw.dice.index(items);
            let mut written: Vec<String> = numbers.drain(..).map(|number| number.to_string()).collect();
            written.insert(at, "None".into());
            (
                format!("{v} = [{}]", written.join(", ")),
                format!("print(sum({v}) + {m})"),
                "TypeError",
                format!("print(sum(x for x in {v} if x) + {m})"),
                sum + m,
            )
        }
        "number_with_spaces" => {
            let text = value.to_string();
            let (thousands, rest) = text.split_at(text.len() - 3);
            (
                format!("{v} = \"{thousands} {rest}\""),
                format!("print(int({v}) + {m})"),
                "ValueError",
                format!("print(int({v}.replace(\" \", \"\")) + {m})"),
                value + m,
            )
        }
        _ => (
            format!("{v} = [{}]", shown(&numbers)),
            format!("print({v}.length * {m})"),
            "AttributeError",
            format!("print(len({v}) * {m})"),
            items as i64 * m,
        ),
    };
    let values = [("v", v.as_str()), ("m", &m.to_string()), ("n", &items.to_string()), ("K", &capital(&key))];
    let failed = Ran { output: String::new(), error: Some(error.into()) };
    Made {
        kind: kind.name,
        wording,
        instruction: fill(wording, &values),
        prelude: prelude + "\n",
        answer: answer.to_string(),
        goals: vec![Goal { value: answer.to_string(), from: vec![vec![variable.clone(), m.to_string()]] }],
        plan: vec![(call(obvious), failed), (call(repaired), printed(answer))],
    }
}

fn capital(name: &str) -> String {
    let (first, rest) = name.split_at(1);
    first.to_uppercase() + rest
}
