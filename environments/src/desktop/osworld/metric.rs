//! Rules of a verdict, by the names that tasks have for them.

use regex::Regex;
use serde_json::{Map, Value};

use super::{Got, TaskError, matching, wrong};

/// A rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// The same: `exact_match`, `compare_answer`.
    Same,
    /// The same as words: `literal_match`.
    Literal,
    /// One of those expected: `match_in_list`.
    OneOf,
    /// It has what is expected: `is_in_list`.
    Has,
    /// It has all that is to be in it, and nothing that is not: `check_include_exclude`.
    IncludeExclude,
    /// A file has all of these: `file_contains`.
    FileContains,
    /// A file has the same text as another: `compare_text_file`.
    SameText,
    /// A file has this text: `compare_config`.
    SameConfig,
    /// The share of lines that two files have in common: `diff_text_file`.
    AlikeLines,
    /// How alike two texts are: `fuzzy_match`.
    Alike,
    /// The values of an object: `check_direct_json_object`.
    JsonObject,
    /// A file is an object with these values: `check_json_settings`.
    JsonSettings,
    /// Lines of a file, by patterns: `check_list`.
    Lines,
    /// A folder has these and no others: `check_moved_jpgs`.
    Names,
    /// What is said is what is expected, or has all of it: `is_in_vm_clickboard`.
    Clipboard,
    /// Two files say the same number, or the same: `compare_result_files`.
    SameResult,
    /// A clock of UTC: `is_utc_0`.
    Utc,
}

const NAMES: [(&str, Metric); 18] = [
    ("exact_match", Metric::Same),
    ("compare_answer", Metric::Same),
    ("literal_match", Metric::Literal),
    ("match_in_list", Metric::OneOf),
    ("is_in_list", Metric::Has),
    ("check_include_exclude", Metric::IncludeExclude),
    ("file_contains", Metric::FileContains),
    ("compare_text_file", Metric::SameText),
    ("compare_config", Metric::SameConfig),
    ("diff_text_file", Metric::AlikeLines),
    ("fuzzy_match", Metric::Alike),
    ("check_direct_json_object", Metric::JsonObject),
    ("check_json_settings", Metric::JsonSettings),
    ("check_list", Metric::Lines),
    ("check_moved_jpgs", Metric::Names),
    ("is_in_vm_clickboard", Metric::Clipboard),
    ("compare_result_files", Metric::SameResult),
    ("is_utc_0", Metric::Utc),
];

impl Metric {
    /// By its name.
    pub fn named(name: &str) -> Option<Self> {
        NAMES.iter().find(|(known, _)| *known == name).map(|(_, metric)| *metric)
    }

    /// Names of those that there are.
    pub fn names() -> impl Iterator<Item = &'static str> {
        NAMES.iter().map(|(name, _)| *name)
    }

    /// Whether its rule can be used, where it stands in the task.
    pub(super) fn check(self, rules: &Value) -> Result<(), TaskError> {
        let patterns = |key: &str| {
            let all = rules.get(key).and_then(Value::as_array).into_iter().flatten();
            all.into_iter().all(|pattern| pattern.as_str().is_some_and(|pattern| Regex::new(pattern).is_ok()))
        };
        let expected = rules.get("expected");
        let fits = match self {
            Self::Lines => patterns("expect") && patterns("unexpect"),
            Self::IncludeExclude => ["include", "exclude"]
                .iter()
                .all(|key| rules.get(*key).is_none_or(|list| texts(Some(list)).is_some())),
            Self::FileContains | Self::Names => texts(expected).is_some(),
            Self::SameConfig | Self::Alike => expected.is_some_and(Value::is_string),
            Self::JsonObject | Self::JsonSettings => expected.is_some_and(Value::is_object),
            Self::OneOf => expected.is_some_and(Value::is_array),
            Self::Same | Self::Has | Self::Clipboard => expected.is_some(),
            // One side of these is no rule.
            Self::Literal | Self::SameText | Self::AlikeLines | Self::SameResult | Self::Utc => true,
        };
        fits.then_some(()).ok_or_else(|| wrong("rules", "what its metric can use"))
    }

    /// From 0 to 1. Whatever is found that cannot be read is the agent's doing: 0.
    pub fn score(self, result: &Got, expected: &Got, options: &Map<String, Value>) -> f64 {
        self.try_score(result, expected, options).unwrap_or(0.0)
    }

    fn try_score(self, result: &Got, expected: &Got, options: &Map<String, Value>) -> Option<f64> {
        let share = |is: bool| Some(f64::from(u8::from(is)));
        let rules = match expected {
            Got::Value(rules) => rules,
            Got::Nothing | Got::File(_) => &Value::Null,
        };
        let wanted = rules.get("expected");
        let on = |key: &str| options.get(key).and_then(Value::as_bool).unwrap_or(false);
        match self {
            Self::Same => share(&value(result)? == wanted?),
            Self::Literal => literal(result, expected, options).and_then(share),
            Self::OneOf => share(wanted?.as_array()?.contains(&value(result)?)),
            Self::Has => share(match (value(result)?, wanted?) {
                (Value::String(text), Value::String(part)) => text.contains(part),
                (Value::Array(items), part) => items.contains(part),
                _ => false,
            }),
            Self::IncludeExclude => {
                let text = text(result)?;
                let all = |key: &str| rules.get(key).map_or(Some(Vec::new()), |list| texts(Some(list)));
                let (include, exclude) = (all("include")?, all("exclude")?);
                share(
                    include.iter().all(|part| text.contains(part))
                        && !exclude.iter().any(|part| text.contains(part)),
                )
            }
            Self::FileContains => {
                let text = text(result)?;
                share(texts(wanted)?.iter().all(|part| text.contains(part)))
            }
            Self::SameText => {
                let plain = |got: &Got| {
                    let mut text = text(got)?;
                    if on("ignore_blanks") {
                        text = text.split_whitespace().collect::<Vec<_>>().join(" ");
                    }
                    Some(if on("ignore_case") { text.to_lowercase() } else { text })
                };
                share(plain(result)? == plain(expected)?)
            }
            Self::SameConfig => share(text(result)? == wanted?.as_str()?),
            Self::AlikeLines => {
                let (one, other) = (text(result)?, text(expected)?);
                let (one, other): (Vec<&str>, Vec<&str>) = (one.lines().collect(), other.lines().collect());
                Some(matching::line_ratio(&one, &other))
            }
            Self::Alike => Some(matching::ratio(&text(result)?, wanted?.as_str()?)),
            Self::JsonObject => json_object(result, rules).and_then(share),
            Self::JsonSettings => {
                let there: Value = serde_json::from_str(&text(result)?).ok()?;
                share(wanted?.as_object()?.iter().all(|(key, value)| there.get(key) == Some(value)))
            }
            Self::Lines => {
                let text = text(result)?;
                let found = |pattern: &str| {
                    let pattern = Regex::new(pattern).ok()?;
                    Some(text.lines().any(|line| pattern.is_match(line)))
                };
                let all = |key: &str| rules.get(key).map_or(Some(Vec::new()), |list| texts(Some(list)));
                let expect: Option<Vec<bool>> = all("expect")?.iter().map(|pattern| found(pattern)).collect();
                let unexpect: Option<Vec<bool>> =
                    all("unexpect")?.iter().map(|pattern| found(pattern)).collect();
                share(expect?.into_iter().all(|found| found) && !unexpect?.into_iter().any(|found| found))
            }
            Self::Names => {
                let mut there: Vec<String> = value(result)?
                    .get("children")?
                    .as_array()?
                    .iter()
                    .map(|child| child.get("name")?.as_str().map(str::to_owned))
                    .collect::<Option<_>>()?;
                let mut expected: Vec<String> = texts(wanted)?;
                there.sort();
                expected.sort();
                share(there == expected)
            }
            Self::Clipboard => {
                // Here what is expected comes first, in the format too.
                let (rules, said) = match (result, expected) {
                    (Got::Value(rules @ Value::Object(_)), said) => (rules, text(said)?),
                    (said, Got::Value(rules)) => (rules, text(said)?),
                    _ => return None,
                };
                share(match rules.get("expected")? {
                    Value::Array(parts) => {
                        parts.iter().all(|part| part.as_str().is_some_and(|part| said.contains(part)))
                    }
                    part => said.contains(part.as_str()?),
                })
            }
            Self::SameResult => {
                let (one, other) = (text(result)?, text(expected)?);
                let (one, other) = (one.trim(), other.trim());
                let Ok(number) = other.parse::<f64>() else { return share(one == other) };
                share(one.contains(other) || one.parse::<f64>().is_ok_and(|own| (own - number).abs() < 1e-4))
            }
            Self::Utc => share(text(result)?.split('\n').nth(3)?.ends_with("+0000)")),
        }
    }
}

/// The words of something.
fn text(got: &Got) -> Option<String> {
    match got {
        Got::Nothing => None,
        Got::Value(Value::String(text)) => Some(text.clone()),
        Got::Value(_) => None,
        Got::File(bytes) => String::from_utf8(bytes.clone()).ok(),
    }
}

fn value(got: &Got) -> Option<Value> {
    match got {
        Got::Value(value) => Some(value.clone()),
        Got::Nothing | Got::File(_) => None,
    }
}

fn texts(list: Option<&Value>) -> Option<Vec<String>> {
    list?.as_array()?.iter().map(|item| item.as_str().map(str::to_owned)).collect()
}

fn literal(result: &Got, expected: &Got, options: &Map<String, Value>) -> Option<bool> {
    let ignore_case = options.get("ignore_case").and_then(Value::as_bool).unwrap_or(false);
    let plain = |value: &Value| {
        let text = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        if ignore_case { text.to_lowercase() } else { text }
    };
    let (result, expected) = (value(result)?, value(expected)?);
    match options.get("type").and_then(Value::as_str).unwrap_or("str") {
        "list" => {
            let (one, other) = (result.as_array()?, expected.as_array()?);
            Some(one.iter().map(plain).eq(other.iter().map(plain)))
        }
        "str" => Some(plain(&result) == plain(&expected)),
        _ => None,
    }
}

/// The values that are expected, as they are or as a part of what is there.
fn json_object(result: &Got, rules: &Value) -> Option<bool> {
    let there = match value(result)? {
        Value::String(text) => serde_json::from_str(&text.trim().replace('\'', "\"")).ok()?,
        value => value,
    };
    let expected = rules.get("expected")?.as_object()?;
    if rules.get("expect_in_result").and_then(Value::as_bool) != Some(true) {
        // Its order counts only where the rule does not say otherwise; the flag is one of the keys.
        let any_order = expected.get("ignore_list_order").and_then(Value::as_bool).unwrap_or(false);
        let sorted = |value: &Value| {
            let mut items: Vec<String> = value.as_array()?.iter().map(Value::to_string).collect();
            items.sort();
            Some(items)
        };
        return expected
            .iter()
            .filter(|(key, _)| !any_order || *key != "ignore_list_order")
            .map(|(key, value)| {
                let own = there.get(key).unwrap_or(&Value::Null);
                if any_order { Some(sorted(own)? == sorted(value)?) } else { Some(own == value) }
            })
            .try_fold(true, |all, is| Some(all && is?));
    }
    let mut all = true;
    for (key, value) in expected {
        let own = there.get(key)?;
        all &= match (value, own) {
            (Value::Array(some), Value::Array(own)) => some.iter().any(|one| own.contains(one)),
            (Value::Array(some), own) => own.is_string() && some.contains(own),
            (Value::String(part), Value::String(own)) => own.contains(part),
            _ => false,
        };
    }
    Some(all)
}
