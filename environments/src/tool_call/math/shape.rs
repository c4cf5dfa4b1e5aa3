//! What an answer is: a number, a choice, a collection or text. A text can be read in more than one way
//! (`1,234` is a number or two); two answers are the same if one reading of each is.
use super::clean::{clean, whole_group};
use super::expression::evaluate;
use super::unit;
use super::value::Value;
use num_rational::BigRational;

/// Most elements of one collection.
const ELEMENTS_MAX: usize = 64;

/// Deepest nesting of collections.
const DEPTH_MAX: usize = 6;

/// All readings of one text.
#[derive(Debug)]
pub(super) struct Answer(Vec<Reading>);

#[derive(Debug)]
enum Reading {
    Number {
        value: Value,
        unit: Option<String>,
    },
    Choice(char),
    /// Brackets and elements in order.
    Tuple(char, char, Vec<Answer>),
    /// In any order, repeated elements count once.
    Set(Vec<Answer>),
    /// In any order, with repetitions.
    List(Vec<Answer>),
    Named(String, Box<Answer>),
    Text(String),
}

/// Reads a clean text.
pub(super) fn read(text: &str) -> Answer {
    read_at(text, 0)
}

impl Answer {
    pub(super) fn same(&self, other: &Self) -> bool {
        self.0.iter().any(|left| other.0.iter().any(|right| left.same(right)))
    }
}

impl Reading {
    fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Number { value, unit }, Self::Number { value: other, unit: other_unit }) => {
                let units_agree = unit.is_none() || other_unit.is_none() || unit == other_unit;
                units_agree && value.same(other)
            }
            (Self::Choice(left), Self::Choice(right)) => left == right,
            (Self::Tuple(open, close, left), Self::Tuple(other_open, other_close, right)) => {
                (open, close) == (other_open, other_close)
                    && left.len() == right.len()
                    && left.iter().zip(right).all(|(left, right)| left.same(right))
            }
            (Self::Set(left), Self::Set(right)) => {
                let within =
                    |few: &[Answer], many: &[Answer]| few.iter().all(|a| many.iter().any(|b| a.same(b)));
                within(left, right) && within(right, left)
            }
            (Self::List(left), Self::List(right)) => same_in_any_order(left, right),
            (Self::Set(set), Self::List(list)) | (Self::List(list), Self::Set(set)) => {
                same_in_any_order(set, list)
            }
            (Self::Named(left, value), Self::Named(right, other)) => left == right && value.same(other),
            (Self::Named(_, value), other) | (other, Self::Named(_, value)) => {
                value.0.iter().any(|reading| reading.same(other))
            }
            (Self::Text(left), Self::Text(right)) => left == right,
            _ => false,
        }
    }
}

fn same_in_any_order(left: &[Answer], right: &[Answer]) -> bool {
    let mut free: Vec<&Answer> = right.iter().collect();
    left.len() == right.len()
        && left.iter().all(|element| match free.iter().position(|other| element.same(other)) {
            Some(at) => {
                free.swap_remove(at);
                true
            }
            None => false,
        })
}

fn read_at(text: &str, depth: usize) -> Answer {
    let text = text.trim();
    let plain = Reading::Text(spelling(text));
    if depth == DEPTH_MAX {
        return Answer(vec![plain]);
    }
    if let Some(letter) = choice(text) {
        return Answer(vec![Reading::Choice(letter), plain]);
    }
    let mut readings = numbers(text);
    readings.extend(collection(text, depth));
    if let Some((name, value)) = equation(text) {
        readings.push(Reading::Named(name, Box::new(read_at(value, depth + 1))));
    }
    readings.push(plain);
    Answer(readings)
}

fn numbers(text: &str) -> Vec<Reading> {
    if is_date(text) {
        return Vec::new();
    }
    let bare = |value| Reading::Number { value, unit: None };
    if let Some(value) = number(text) {
        return vec![bare(value)];
    }
    let Some((core, unit)) = unit::split(text) else { return Vec::new() };
    let Some(value) = number(core) else { return Vec::new() };
    if unit != "%" {
        return vec![Reading::Number { value, unit: Some(unit) }];
    }
    let hundred = Value::Exact(BigRational::from_integer(100.into()));
    let share = value.clone().div(hundred);
    // The share has a unit of its own, so that 0.5% and 50% share no reading.
    let share = share.map(|value| Reading::Number { value, unit: Some("share".into()) });
    std::iter::once(Reading::Number { value, unit: Some(unit) }).chain(share).collect()
}

/// A number without a unit: grouped digits, a mixed number or an expression.
fn number(text: &str) -> Option<Value> {
    if let Some(digits) = grouped(text) {
        return evaluate(&digits);
    }
    mixed(text).or_else(|| evaluate(text))
}

/// `2031-04-17` is no subtraction.
fn is_date(text: &str) -> bool {
    let bytes = text.as_bytes();
    let shape = |at: usize| if at == 4 || at == 7 { bytes[at] == b'-' } else { bytes[at].is_ascii_digit() };
    bytes.len() == 10 && (0..10).all(shape)
}

/// `1,234,567.8` or `1 234 567` without its separators.
fn grouped(text: &str) -> Option<String> {
    let unsigned = text.trim_start_matches(['-', '+']);
    let whole = unsigned.split('.').next()?;
    let separator = [',', ' '].into_iter().find(|separator| whole.contains(*separator))?;
    let mut groups = whole.split(separator);
    let first = groups.next()?;
    let digits = |group: &str| group.bytes().all(|b| b.is_ascii_digit());
    let whole_groups = groups.all(|group| group.len() == 3 && digits(group));
    let fits = (1..=3).contains(&first.len()) && digits(first) && whole_groups;
    fits.then(|| text.replace(separator, ""))
}

/// `3 1/2`, in plain text.
fn mixed(text: &str) -> Option<Value> {
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest.trim_start()),
        None => (false, text),
    };
    let (whole, fraction) = unsigned.split_once(' ')?;
    let (numer, denom) = fraction.split_once('/')?;
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if ![whole, numer, denom].into_iter().all(digits) {
        return None;
    }
    let value = evaluate(whole)?.add(evaluate(fraction)?)?;
    Some(if negative { value.neg() } else { value })
}

fn collection(text: &str, depth: usize) -> Option<Reading> {
    let elements = |parts: Vec<&str>| -> Vec<Answer> {
        parts.iter().flat_map(|part| both_signs(part)).map(|part| read_at(&clean(&part), depth + 1)).collect()
    };
    let unions = split_top(text, &[" \\cup "]);
    if unions.len() > 1 {
        return Some(Reading::Set(elements(within_limit(unions)?)));
    }
    let parts = within_limit(split_top(text, &[",", ";", " and ", " or ", "\\text{ and }", "\\text{ or }"]))?;
    if parts.len() > 1 {
        return Some(Reading::List(elements(parts)));
    }
    if let Some(inside) = text.strip_prefix("\\{").and_then(|rest| rest.strip_suffix("\\}")) {
        return Some(Reading::Set(elements(within_limit(split_top(inside, &[",", ";"]))?)));
    }
    if let Some(inside) = whole_group(text) {
        let parts = within_limit(split_top(inside, &[",", ";"]))?;
        return (parts.len() > 1).then(|| Reading::Set(elements(parts)));
    }
    let (open, close) = (text.chars().next()?, text.chars().last()?);
    if text.len() > 2 && matches!(open, '(' | '[') && matches!(close, ')' | ']') {
        let parts = within_limit(split_top(&text[1..text.len() - 1], &[",", ";"]))?;
        return (parts.len() > 1).then(|| Reading::Tuple(open, close, elements(parts)));
    }
    match both_signs(text) {
        two if two.len() == 2 => {
            Some(Reading::List(two.iter().map(|part| read_at(part, depth + 1)).collect()))
        }
        _ => None,
    }
}

fn within_limit(parts: Vec<&str>) -> Option<Vec<&str>> {
    (parts.len() <= ELEMENTS_MAX).then_some(parts)
}

/// `\pm 2` as `+2` and `-2`; any other text as itself.
fn both_signs(text: &str) -> Vec<String> {
    if text.matches("\\pm").count() == 1 && !text.contains("\\pmod") && split_top(text, &[","]).len() == 1 {
        let sign = |sign: &str| text.replace("\\pm", sign).trim().trim_start_matches('+').trim().to_owned();
        return vec![sign("+"), sign("-")];
    }
    vec![text.to_owned()]
}

/// `text` cut at every one of `separators` outside brackets.
fn split_top<'a>(text: &'a str, separators: &[&str]) -> Vec<&'a str> {
    let (mut parts, mut start, mut depth, mut at) = (Vec::new(), 0, 0i32, 0);
    while at < text.len() {
        let rest = &text[at..];
        if depth <= 0
            && let Some(separator) = separators.iter().find(|separator| rest.starts_with(**separator))
        {
            parts.push(&text[start..at]);
            at += separator.len();
            start = at;
            continue;
        }
        let c = rest.chars().next().expect("at is below the length and on a boundary");
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            _ => {}
        }
        at += c.len_utf8();
    }
    parts.push(&text[start..]);
    parts
}

/// The name and the value of `x = 5`, `f(x) = 5` or `x \in [0, 1]`.
fn equation(text: &str) -> Option<(String, &str)> {
    let (name, value) = text.split_once("\\in ").or_else(|| text.split_once('='))?;
    let name: String = name.split_whitespace().collect();
    let shown = name.strip_prefix('\\').unwrap_or(&name);
    let letters = shown.chars().take_while(char::is_ascii_alphabetic).count();
    let rest = &shown[letters..];
    let rest_fits = rest.is_empty() || rest == "'" || rest.starts_with('_') || rest == "(x)" || rest == "(n)";
    let fits = (1..=12).contains(&letters) && rest_fits && name.len() <= 24;
    (fits && !value.trim().is_empty() && !value.contains('=')).then_some((name, value))
}

/// A letter alone, in brackets, or before a bracket or a full stop.
fn choice(text: &str) -> Option<char> {
    let inside = text.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')).unwrap_or(text);
    let inside = inside.strip_suffix(')').unwrap_or(inside);
    let inside = clean(inside);
    let mut chars = inside.chars();
    match (chars.next(), chars.next()) {
        (Some(letter), None) if letter.is_ascii_uppercase() => Some(letter),
        _ => None,
    }
}

/// Text to compare: without fonts, without spaces but between digits; words without case.
fn spelling(text: &str) -> String {
    let words = text.chars().filter(|c| c.is_alphabetic()).count();
    let mut squeezed = String::with_capacity(text.len());
    for part in text.replace("\\text", "").split_whitespace() {
        if squeezed.ends_with(|c: char| c.is_ascii_digit()) && part.starts_with(|c: char| c.is_ascii_digit())
        {
            squeezed.push(' ');
        }
        squeezed.push_str(part);
    }
    let text = squeezed;
    let only_words = words >= 3 && text.chars().all(char::is_alphabetic);
    if only_words { text.to_lowercase() } else { text }
}
