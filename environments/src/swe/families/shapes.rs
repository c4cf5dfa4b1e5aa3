//! Functions that modules are made of, and what can be wrong with each.
use std::fmt;

use crate::dice::Dice;

/// A function. In its lines, `{f}` is its name, `{v}`, `{n}` and `{m}` are parameters, and `{k}` is a number.
#[derive(Debug)]
pub(super) struct Shape {
    pub(super) lines: &'static [&'static str],
    pub(super) call: Call,
    pub(super) value: fn(&Input) -> Value,
    pub(super) faults: &'static [Fault],
}

/// One token that is wrong.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) kind: &'static str,
    /// From 0.
    pub(super) line: usize,
    pub(super) from: &'static str,
    pub(super) to: &'static str,
    /// What the function gives with it.
    pub(super) value: fn(&Input) -> Value,
}

/// What a function is called with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    List,
    ListNumber,
    Numbers,
}

/// Arguments, and the number within.
#[derive(Clone, Debug)]
pub(super) struct Input {
    v: Vec<i64>,
    n: i64,
    m: i64,
    k: i64,
}

/// What a function gives, as Python writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Number(i64),
    Bool(bool),
    List(Vec<i64>),
}

impl Input {
    /// Lists of three to six numbers, in which `n` often is.
    pub(super) fn draw(dice: &mut Dice, k: i64) -> Self {
        let v: Vec<i64> = (0..3 + dice.index(4)).map(|_| dice.between(1, 12)).collect();
        let n = if dice.chance(0.6) { v[dice.index(v.len())] } else { dice.between(1, 12) };
        let m = if dice.chance(0.2) { n } else { dice.between(1, 12) };
        Self { v, n, m, k }
    }
}

impl Call {
    pub(super) fn with(self, input: &Input) -> String {
        match self {
            Self::List => list(&input.v),
            Self::ListNumber => format!("{}, {}", list(&input.v), input.n),
            Self::Numbers => format!("{}, {}", input.n, input.m),
        }
    }
}

fn list(numbers: &[i64]) -> String {
    let numbers: Vec<String> = numbers.iter().map(i64::to_string).collect();
    format!("[{}]", numbers.join(", "))
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Bool(true) => f.write_str("True"),
            Self::Bool(false) => f.write_str("False"),
            Self::List(numbers) => f.write_str(&list(numbers)),
        }
    }
}

fn sum(i: &Input, from: i64, sign: i64, keeps: fn(i64, i64) -> bool) -> Value {
    Value::Number(i.v.iter().filter(|item| keeps(**item, i.n)).fold(from, |sum, item| sum + sign * item))
}

fn count(i: &Input, by: i64, keeps: fn(i64, i64) -> bool) -> Value {
    Value::Number(by * i.v.iter().filter(|item| keeps(**item, i.n)).count() as i64)
}

fn kept(i: &Input, keeps: fn(i64) -> bool) -> Value {
    Value::List(i.v.iter().copied().filter(|item| keeps(*item)).collect())
}

fn mapped(i: &Input, f: fn(i64, &Input) -> i64) -> Value {
    Value::List(i.v.iter().map(|item| f(*item, i)).collect())
}

pub(super) const SHAPES: &[Shape] = &[
    Shape {
        lines: &[
            "def {f}({v}, {n}):",
            "    total = 0",
            "    for item in {v}:",
            "        if item > {n}:",
            "            total += item",
            "    return total",
        ],
        call: Call::ListNumber,
        value: |i| sum(i, 0, 1, |item, n| item > n),
        faults: &[
            Fault {
                kind: "comparison",
                line: 3,
                from: ">",
                to: ">=",
                value: |i| sum(i, 0, 1, |item, n| item >= n),
            },
            Fault {
                kind: "augmented",
                line: 4,
                from: "+=",
                to: "-=",
                value: |i| sum(i, 0, -1, |item, n| item > n),
            },
            Fault {
                kind: "off_by_one",
                line: 1,
                from: "0",
                to: "1",
                value: |i| sum(i, 1, 1, |item, n| item > n),
            },
            Fault { kind: "swapped_name", line: 5, from: "total", to: "{n}", value: |i| Value::Number(i.n) },
        ],
    },
    Shape {
        lines: &[
            "def {f}({v}, {n}):",
            "    count = 0",
            "    for item in {v}:",
            "        if item != {n}:",
            "            count += 1",
            "    return count",
        ],
        call: Call::ListNumber,
        value: |i| count(i, 1, |item, n| item != n),
        faults: &[
            Fault {
                kind: "equality",
                line: 3,
                from: "!=",
                to: "==",
                value: |i| count(i, 1, |item, n| item == n),
            },
            Fault {
                kind: "off_by_one",
                line: 4,
                from: "1",
                to: "2",
                value: |i| count(i, 2, |item, n| item != n),
            },
            Fault {
                kind: "augmented",
                line: 4,
                from: "+=",
                to: "-=",
                value: |i| count(i, -1, |item, n| item != n),
            },
        ],
    },
    Shape {
        lines: &["def {f}({n}, {m}):", "    if {n} > {m}:", "        return {n}", "    return {m}"],
        call: Call::Numbers,
        value: |i| Value::Number(i.n.max(i.m)),
        faults: &[
            Fault { kind: "comparison", line: 1, from: ">", to: "<", value: |i| Value::Number(i.n.min(i.m)) },
            Fault { kind: "swapped_name", line: 2, from: "{n}", to: "{m}", value: |i| Value::Number(i.m) },
        ],
    },
    Shape {
        lines: &[
            "def {f}({n}, {m}):",
            "    gap = {n} - {m}",
            "    if gap < 0:",
            "        gap = -gap",
            "    return gap + {k}",
        ],
        call: Call::Numbers,
        value: |i| Value::Number((i.n - i.m).abs() + i.k),
        faults: &[
            Fault {
                kind: "arithmetic",
                line: 1,
                from: "-",
                to: "+",
                value: |i| Value::Number(i.n + i.m + i.k),
            },
            Fault {
                kind: "sign",
                line: 3,
                from: "-gap",
                to: "gap",
                value: |i| Value::Number(i.n - i.m + i.k),
            },
            Fault {
                kind: "off_by_one",
                line: 4,
                from: "{k}",
                to: "{k1}",
                value: |i| Value::Number((i.n - i.m).abs() + i.k + 1),
            },
            Fault {
                kind: "comparison",
                line: 2,
                from: "<",
                to: ">",
                value: |i| Value::Number(i.k - (i.n - i.m).abs()),
            },
        ],
    },
    Shape {
        lines: &["def {f}({n}, {m}):", "    low = {k}", "    return {n} > low and {m} > low"],
        call: Call::Numbers,
        value: |i| Value::Bool(i.n > i.k && i.m > i.k),
        faults: &[
            Fault {
                kind: "logic",
                line: 2,
                from: "and",
                to: "or",
                value: |i| Value::Bool(i.n > i.k || i.m > i.k),
            },
            Fault {
                kind: "comparison",
                line: 2,
                from: ">",
                to: "<",
                value: |i| Value::Bool(i.n < i.k && i.m > i.k),
            },
        ],
    },
    Shape {
        lines: &[
            "def {f}({v}):",
            "    found = []",
            "    for item in {v}:",
            "        if item % 2 == 0:",
            "            found.append(item)",
            "    return found",
        ],
        call: Call::List,
        value: |i| kept(i, |item| item % 2 == 0),
        faults: &[
            Fault {
                kind: "equality",
                line: 3,
                from: "==",
                to: "!=",
                value: |i| kept(i, |item| item % 2 != 0),
            },
            Fault {
                kind: "off_by_one",
                line: 3,
                from: "2",
                to: "3",
                value: |i| kept(i, |item| item % 3 == 0),
            },
            Fault {
                kind: "arithmetic",
                line: 3,
                from: "%",
                to: "//",
                value: |i| kept(i, |item| item / 2 == 0),
            },
        ],
    },
    Shape {
        lines: &[
            "def {f}({v}, {n}):",
            "    for item in {v}:",
            "        if not item < {n}:",
            "            return True",
            "    return False",
        ],
        call: Call::ListNumber,
        value: |i| Value::Bool(i.v.iter().any(|item| *item >= i.n)),
        faults: &[
            Fault { kind: "constant", line: 4, from: "False", to: "True", value: |_| Value::Bool(true) },
            Fault { kind: "constant", line: 3, from: "True", to: "False", value: |_| Value::Bool(false) },
            Fault {
                kind: "dropped_not",
                line: 2,
                from: "not ",
                to: "",
                value: |i| Value::Bool(i.v.iter().any(|item| *item < i.n)),
            },
        ],
    },
    Shape {
        lines: &["def {f}({v}):", "    if not {v}:", "        return {k}", "    return {v}[-1] * 2"],
        call: Call::List,
        value: |i| Value::Number(i.v[i.v.len() - 1] * 2),
        faults: &[
            Fault { kind: "sign", line: 3, from: "-1", to: "1", value: |i| Value::Number(i.v[1] * 2) },
            Fault {
                kind: "arithmetic",
                line: 3,
                from: "*",
                to: "+",
                value: |i| Value::Number(i.v[i.v.len() - 1] + 2),
            },
            Fault { kind: "dropped_not", line: 1, from: "not ", to: "", value: |i| Value::Number(i.k) },
        ],
    },
    Shape {
        lines: &["def {f}({v}, {n}):", "    extra = {k}", "    return [item * {n} + extra for item in {v}]"],
        call: Call::ListNumber,
        value: |i| mapped(i, |item, i| item * i.n + i.k),
        faults: &[
            Fault {
                kind: "arithmetic",
                line: 2,
                from: "*",
                to: "+",
                value: |i| mapped(i, |item, i| item + i.n + i.k),
            },
            Fault {
                kind: "swapped_name",
                line: 2,
                from: "+ extra",
                to: "+ {n}",
                value: |i| mapped(i, |item, i| item * i.n + i.n),
            },
        ],
    },
    Shape {
        lines: &["def {f}({n}, {m}):", "    return {n} == {m} or {n} == {k}"],
        call: Call::Numbers,
        value: |i| Value::Bool(i.n == i.m || i.n == i.k),
        faults: &[
            Fault {
                kind: "logic",
                line: 1,
                from: "or",
                to: "and",
                value: |i| Value::Bool(i.n == i.m && i.n == i.k),
            },
            Fault {
                kind: "equality",
                line: 1,
                from: "==",
                to: "!=",
                value: |i| Value::Bool(i.n != i.m || i.n == i.k),
            },
        ],
    },
];
