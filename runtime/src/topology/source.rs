//! From text to a TOML table and the line of each of its keys.

use std::{borrow::Cow, collections::BTreeMap};

use toml::{
    Spanned, Table,
    de::{DeTable, DeValue},
};

use super::{
    overrides::{self, Override},
    problems::{Origin, Problem, Problems, join},
};

/// Parses `text` and puts the overrides over it. Fails with every syntax error.
pub fn parse(text: &str, overrides: &[Override]) -> Result<(Table, Problems), Vec<Problem>> {
    let (spanned, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        return Err(errors.iter().map(|error| syntax_problem(text, error)).collect());
    }
    let mut too_large = Vec::new();
    spanned
        .get_ref()
        .iter()
        .for_each(|(key, value)| find_too_large(text, key.get_ref(), value, &mut too_large));
    if !too_large.is_empty() {
        too_large.sort_by_key(|problem: &Problem| problem.origin);
        return Err(too_large);
    }
    let mut table: Table = text.parse().map_err(|error| vec![syntax_problem(text, &error)])?;
    let mut origins = BTreeMap::new();
    record_table(text, "", spanned.get_ref(), &mut origins);

    let mut refused = Vec::new();
    for set in overrides {
        record_override(&set.key, &mut origins);
        if let Err(message) = overrides::apply(&mut table, set) {
            refused.push((&set.key, message));
        }
    }
    let mut problems = Problems::new(origins);
    for (key, message) in refused {
        problems.add(key, format!("cannot be set: {message}"));
    }
    Ok((table, problems))
}

fn syntax_problem(text: &str, error: &toml::de::Error) -> Problem {
    let origin = error.span().map(|span| Origin::Line(line_of(text, span.start)));
    // The message may span lines; a problem is one.
    let mut message = error.message().trim().replace('\n', ", ");
    // It does not say which.
    if let (true, Some(key)) = (message == "duplicate key", error.span().and_then(|span| text.get(span))) {
        message = format!("{key} is there twice");
    }
    Problem { key: String::new(), origin, message }
}

/// Whole numbers that no key can hold. The parser takes them, and then says that they are of no type.
fn find_too_large(text: &str, key: &str, value: &Spanned<DeValue<'_>>, found: &mut Vec<Problem>) {
    match value.get_ref() {
        DeValue::Integer(number) if i64::from_str_radix(number.as_str(), number.radix()).is_err() => {
            let origin = Some(Origin::Line(line_of(text, value.span().start)));
            let message = format!("{number} is beyond what a number of TOML can be ({})", i64::MAX);
            found.push(Problem { key: key.to_owned(), origin, message });
        }
        DeValue::Table(table) => {
            table
                .iter()
                .for_each(|(name, value)| find_too_large(text, &join(key, name.get_ref()), value, found));
        }
        DeValue::Array(array) => {
            let items = array.iter().enumerate();
            items.for_each(|(i, value)| find_too_large(text, &format!("{key}[{i}]"), value, found));
        }
        _ => {}
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.as_bytes()[..offset.min(text.len())].iter().filter(|byte| **byte == b'\n').count()
}

fn record_override(key: &str, origins: &mut BTreeMap<String, Origin>) {
    let below = |other: &str| other.strip_prefix(key).is_some_and(|rest| rest.starts_with(['.', '[']));
    origins.retain(|other, _| !below(other));
    origins.insert(key.to_owned(), Origin::Override);
}

fn record_table(text: &str, key: &str, table: &DeTable<'_>, origins: &mut BTreeMap<String, Origin>) {
    for (name, value) in table {
        let name: &Spanned<Cow<'_, str>> = name;
        let key = join(key, name.get_ref());
        origins.insert(key.clone(), Origin::Line(line_of(text, name.span().start)));
        record_value(text, &key, value, origins);
    }
}

fn record_value(text: &str, key: &str, value: &Spanned<DeValue<'_>>, origins: &mut BTreeMap<String, Origin>) {
    match value.get_ref() {
        DeValue::Table(table) => record_table(text, key, table, origins),
        DeValue::Array(array) => {
            for (i, item) in array.iter().enumerate() {
                let key = format!("{key}[{i}]");
                origins.insert(key.clone(), Origin::Line(line_of(text, item.span().start)));
                record_value(text, &key, item, origins);
            }
        }
        _ => {}
    }
}
