//! TC-2: a function prints what the problem is about and returns nothing, so that its value has to be read from
//! one observation and typed into the next call.
use super::{Goal, Knobs, Made, call, printed};
use crate::draw::{Draw, Kind, fill};

pub(super) const KINDS: &[Kind] = &[
    Kind {
        name: "nth",
        train: &[
            "Call {f}() to see a list. Multiply its item number {n} by {m}.",
            "{f}() prints a list. What is item {n} of it times {m}?",
            "Look at the list of {f}(). Take item {n} and multiply it by {m}.",
        ],
        held_out: &["The list of {f}() has an item {n}. How much is {m} times that?"],
    },
    Kind {
        name: "nth_from_end",
        train: &[
            "Call {f}() to see a list. Add {m} to its item number {n} from the end.",
            "{f}() prints a list. Count {n} items from its end and add {m} to that item.",
        ],
        held_out: &["In the list that {f}() shows, what is item {n} from the back plus {m}?"],
    },
    Kind {
        name: "row",
        train: &[
            "{f}() prints lines with a name and a number. Subtract {m} from the number of {k}.",
            "Call {f}() and find the number of {k}. What is it minus {m}?",
        ],
        held_out: &["Among the lines of {f}() one is for {k}. Take {m} off its number."],
    },
    Kind {
        name: "days",
        train: &[],
        held_out: &[
            "{f}() prints dates. How many days is {d} after the date of {k}?",
            "Call {f}() to see when {k} is. Count the days from then to {d}.",
        ],
    },
];

pub(super) fn make(draw: &mut Draw, knobs: &Knobs) -> Made {
    let (kind, wording) = draw.kind(KINDS, knobs.kinds);
    let (function, key) = (format!("show_{}", draw.name()), draw.name());
    let m = draw.number(12, 99);
    let items = draw.dice.between(knobs.items.0 as i64, knobs.items.1 as i64) as usize;
    let n = 1 + draw.dice.index(items);
    let stage = match kind.name {
        "nth" | "nth_from_end" => list(draw, knobs, items, n, m, kind.name == "nth"),
        "row" => row(draw, knobs, &key, m),
        _ => days(draw, knobs, &key),
    };
    let body: String = stage.lines.iter().map(|line| format!("    print({line:?})\n")).collect();
    let values = [
        ("f", function.as_str()),
        ("n", &n.to_string()),
        ("m", &m.to_string()),
        ("k", &key),
        ("d", &stage.date),
    ];
    let goals = vec![
        Goal { value: stage.value, from: vec![vec![function.clone()]] },
        Goal { value: stage.answer.to_string(), from: vec![stage.typed] },
    ];
    let plan = vec![
        (call(format!("{function}()")), printed(stage.lines.join("\n"))),
        (call(stage.code), printed(stage.answer)),
    ];
    Made {
        kind: kind.name,
        wording,
        instruction: fill(wording, &values),
        prelude: format!("def {function}():\n{body}"),
        answer: stage.answer.to_string(),
        goals,
        plan,
    }
}

/// What the first call prints and what the second has to be.
struct Stage {
    lines: Vec<String>,
    /// The token to look for.
    value: String,
    typed: Vec<String>,
    code: String,
    answer: i64,
    /// Only where the instruction needs one.
    date: String,
}

fn list(draw: &mut Draw, knobs: &Knobs, items: usize, n: usize, m: i64, from_start: bool) -> Stage {
    let mut numbers: Vec<i64> = Vec::with_capacity(items);
    while numbers.len() < items {
        let number = draw.digits(knobs.digits.1);
        // Two equal items would hide which one was meant.
        if !numbers.contains(&number) || number < 40 {
            numbers.push(number);
        }
    }
    let value = if from_start { numbers[n - 1] } else { numbers[items - n] };
    let line = numbers.iter().map(i64::to_string).collect::<Vec<_>>().join(" ");
    let (answer, sign) = if from_start { (value * m, '*') } else { (value + m, '+') };
    Stage {
        lines: beside(draw, knobs, line, |draw| format!("checked by {}", draw.name())),
        value: value.to_string(),
        typed: vec![value.to_string(), m.to_string()],
        code: format!("print({value} {sign} {m})"),
        answer,
        date: String::new(),
    }
}

fn row(draw: &mut Draw, knobs: &Knobs, key: &str, m: i64) -> Stage {
    let value = draw.digits(knobs.digits.1.max(3));
    let digits = knobs.digits.1.max(3);
    Stage {
        lines: beside(draw, knobs, format!("{key} {value}"), |draw| {
            format!("{} {}", draw.name(), draw.digits(digits))
        }),
        value: value.to_string(),
        typed: vec![value.to_string(), m.to_string()],
        code: format!("print({value} - {m})"),
        answer: value - m,
        date: String::new(),
    }
}

fn days(draw: &mut Draw, knobs: &Knobs, key: &str) -> Stage {
    let date = |draw: &mut Draw| {
        (draw.number(2001, 2060), 1 + draw.dice.index(12) as i64, 1 + draw.dice.index(28) as i64)
    };
    let written = |(y, m, d): (i64, i64, i64)| format!("{y}.{m}.{d}");
    let python = |(y, m, d): (i64, i64, i64)| format!("date({y}, {m}, {d})");
    let from = date(draw);
    let to = (from.0 + 1, 1 + draw.dice.index(12) as i64, 1 + draw.dice.index(28) as i64);
    let answer = day_number(to) - day_number(from);
    Stage {
        lines: beside(draw, knobs, format!("{key} {}", written(from)), |draw| {
            format!("{} {}", draw.name(), written(date(draw)))
        }),
        value: written(from),
        typed: [from.0, from.1, from.2].iter().map(i64::to_string).collect(),
        code: format!("from datetime import date\nprint(({} - {}).days)", python(to), python(from)),
        answer,
        date: written(to),
    }
}

/// `line` at a random place among distractors.
fn beside(draw: &mut Draw, knobs: &Knobs, line: String, other: impl Fn(&mut Draw) -> String) -> Vec<String> {
    let mut lines: Vec<String> = (0..knobs.distractors).map(|_| other(draw)).collect();
    lines.insert(draw.dice.index(lines.len() + 1), line);
    lines
}

/// Days since 0000-03-01 in the Gregorian calendar; the year begins in March, so that a leap day ends it.
fn day_number((year, month, day): (i64, i64, i64)) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1
}
