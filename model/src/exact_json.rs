//! JSON whose numbers stay as they were written: 100000000000000000000, 12345678901234567890.5, 1.10, 1e400.
//!
//! [`serde_json::Value`] holds what fits into 64 bits. A number that it would change is kept in it as a string: a mark,
//! a noncharacter that no text has a use for, and what was written. (`serde_json`'s own `arbitrary_precision` would do
//! this for the whole process, and `safetensors` and `tokenizers` then read no file any more.) A journal holds values
//! in this form; whoever writes JSON for others does it by [`as_written`] and [`all_as_written`].

use std::borrow::Cow;

use serde::{Serialize, Serializer};
use serde_json::{Number, Value, value::RawValue};

/// Before a number that is kept as it was written.
const MARK: char = '\u{10FFFE}';
/// Where a request holds what its client, or the model, wrote for a model to read.
const KEPT: [&str; 4] = ["tools", "arguments", "input", "chat_template_kwargs"];
/// A whole number of so many digits is in any case as it was written.
const PLAIN_DIGITS: usize = 18;

/// Reads JSON with its numbers as they are written.
pub fn read(json: &str) -> Result<Value, serde_json::Error> {
    match marked(json) {
        Cow::Borrowed(json) => serde_json::from_str(json),
        // An error is told of the text that was given.
        Cow::Owned(marked) => serde_json::from_str(&marked).or_else(|_| serde_json::from_str(json)),
    }
}

/// Reads a request, or a conversation to learn from: numbers stay as they are written in what is shown to a model, and
/// any other is a number.
pub fn read_request(json: &str) -> Result<Value, serde_json::Error> {
    let mut value = read(json)?;
    make_plain_but_kept(&mut value);
    Ok(value)
}

/// What was written, where `value` is a number that is kept so.
pub fn literal(value: &Value) -> Option<&str> {
    value.as_str()?.strip_prefix(MARK).filter(|literal| is_number(literal))
}

/// `value` with plain numbers. One beyond the largest stays as it was written.
pub fn plain(mut value: Value) -> Value {
    make_plain(&mut value);
    value
}

fn make_plain(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(make_plain),
        Value::Object(fields) => fields.values_mut().for_each(make_plain),
        _ => {
            if let Some(number) = literal(value).and_then(|literal| literal.parse::<Number>().ok()) {
                *value = number.into();
            }
        }
    }
}

fn make_plain_but_kept(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(make_plain_but_kept),
        Value::Object(fields) => {
            let is_kept = |(key, value): &(&String, &mut Value)| {
                KEPT.contains(&key.as_str()) && (value.is_object() || value.is_array())
            };
            fields
                .iter_mut()
                .filter(|field| !is_kept(field))
                .for_each(|(_, value)| make_plain_but_kept(value));
        }
        other => make_plain(other),
    }
}

/// A number as Python's `json.loads` reads it: whole ones exactly, others as floats, of which some are infinite.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum PythonNumber<'a> {
    Integer(&'a str),
    Float(f64),
}

/// What Python reads of `value`'s literal, where it is kept as one.
pub(crate) fn python_number(value: &Value) -> Option<PythonNumber<'_>> {
    Some(match literal(value)? {
        "-0" => PythonNumber::Integer("0"),
        whole if !whole.contains(['.', 'e', 'E']) => PythonNumber::Integer(whole),
        float => PythonNumber::Float(float.parse().expect("JSON's numbers are Rust's, too")),
    })
}

/// The value of a literal.
pub(crate) fn number(literal: &str) -> Value {
    Value::String(format!("{MARK}{literal}"))
}

/// For `serialize_with`: numbers as they were written. What is written must be JSON.
pub fn as_written<S: Serializer>(value: &Value, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Value::Array(items) => serializer.collect_seq(items.iter().map(AsWritten)),
        Value::Object(fields) => {
            serializer.collect_map(fields.iter().map(|(key, value)| (key, AsWritten(value))))
        }
        other => match literal(other) {
            Some(literal) => {
                RawValue::from_string(literal.to_owned()).expect("a number is JSON").serialize(serializer)
            }
            None => other.serialize(serializer),
        },
    }
}

/// For `serialize_with`: each of the values by [`as_written`].
pub fn all_as_written<S: Serializer>(values: &impl AsRef<[Value]>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(values.as_ref().iter().map(AsWritten))
}

/// The JSON of a value, its numbers as they were written.
pub fn to_json(value: &Value) -> String {
    serde_json::to_string(&AsWritten(value)).expect("a value's keys are strings")
}

struct AsWritten<'a>(&'a Value);

impl Serialize for AsWritten<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        as_written(self.0, serializer)
    }
}

/// `json` with a marked string in place of each number that [`Value`] would change.
fn marked(json: &str) -> Cow<'_, str> {
    let bytes = json.as_bytes();
    let mut out: Option<String> = None;
    let (mut at, mut copied) = (0, 0);
    while at < bytes.len() {
        match bytes[at] {
            b'"' => at = behind_string(bytes, at),
            b'-' | b'0'..=b'9' => {
                let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
                let end =
                    bytes[at..].iter().position(|byte| !is_part(byte)).map_or(bytes.len(), |len| at + len);
                let token = &json[at..end];
                // As a key it is no JSON, and stays none.
                let is_key = bytes[end..].trim_ascii_start().starts_with(b":");
                if is_number(token) && !is_plain(token) && !is_key {
                    let out = out.get_or_insert_default();
                    out.push_str(&json[copied..at]);
                    out.extend(['"', MARK]);
                    out.push_str(token);
                    out.push('"');
                    copied = end;
                }
                at = end;
            }
            _ => at += 1,
        }
    }
    match out {
        Some(out) => Cow::Owned(out + &json[copied..]),
        None => Cow::Borrowed(json),
    }
}

/// The place behind the string that begins at `start`.
fn behind_string(json: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < json.len() {
        match json[at] {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    json.len()
}

fn is_plain(number: &str) -> bool {
    let is_short = number.len() <= PLAIN_DIGITS && number.bytes().all(|byte| byte.is_ascii_digit());
    is_short || number.parse::<Number>().is_ok_and(|parsed| parsed.to_string() == number)
}

/// Whether this is a number of JSON's grammar.
fn is_number(text: &str) -> bool {
    fn digits(text: &str) -> Option<&str> {
        let rest = text.trim_start_matches(|c: char| c.is_ascii_digit());
        (rest.len() < text.len()).then_some(rest)
    }
    let parse = || {
        let text = text.strip_prefix('-').unwrap_or(text);
        let mut rest = match text.strip_prefix('0') {
            Some(rest) => rest,
            None => digits(text)?,
        };
        if let Some(fraction) = rest.strip_prefix('.') {
            rest = digits(fraction)?;
        }
        if let Some(exponent) = rest.strip_prefix(['e', 'E']) {
            rest = digits(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))?;
        }
        Some(rest.is_empty())
    };
    parse().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NUMBERS: &str = "[100000000000000000000,12345678901234567890,-9223372036854775809,1.10,-0,1e3,1E+3,1e400,\
        -1e-400,0.1000000000000000055511151231257827,18446744073709551616,12345678901234567890.5,0,-1,2.5,1e21]";

    #[test]
    fn numbers_are_written_as_they_were_read() {
        let object = format!("{{\"a\\\"1.10\":{NUMBERS},\"b\":\"1.10 \\\\\"}}");
        for text in [NUMBERS, &object, "1.10", "\"1.10\""] {
            let value = read(text).unwrap();
            assert_eq!(to_json(&value), text);
            let kept: Value = serde_json::from_str(&value.to_string()).unwrap();
            assert_eq!(to_json(&kept), text, "through a journal");
        }
    }

    #[test]
    fn what_fits_is_what_serde_json_makes_of_it() {
        let text =
            r#"{"a": [0, 1, -7, 2.5, 18446744073709551615, -9223372036854775808], "b": "-0", "c": null}"#;
        assert_eq!(read(text).unwrap(), serde_json::from_str::<Value>(text).unwrap());
        assert_eq!(
            plain(read("[1.10, -0, 1e3, 100000000000000000000]").unwrap()),
            json!([1.1, -0.0, 1e3, 1e20])
        );
    }

    #[test]
    fn a_request_keeps_what_is_shown_to_a_model_and_nothing_else() {
        let text = r#"{"temperature": 1.10, "tools": [{"function": {"name": "f", "parameters": {"maximum": 1.10}}}],
            "messages": [{"weight": 1.00, "tool_calls": [{"function": {"arguments": {"x": [1.10]}}}]},
                {"tool_calls": [{"function": {"arguments": 1.10}}]}]}"#;
        let value = read_request(text).unwrap();
        assert_eq!((&value["temperature"], &value["messages"][0]["weight"]), (&json!(1.1), &json!(1.0)));
        assert_eq!(literal(&value["tools"][0]["function"]["parameters"]["maximum"]), Some("1.10"));
        let arguments =
            |message: usize| &value["messages"][message]["tool_calls"][0]["function"]["arguments"];
        assert_eq!((literal(&arguments(0)["x"][0]), arguments(1)), (Some("1.10"), &json!(1.1)));
    }

    #[test]
    fn what_is_no_json_is_refused_where_it_is_wrong() {
        for broken in
            ["01", "1.", "-", "1e", "+1", ".5", "1.10.2", "[1.10", "{1.10: 2}", "1.10 x", "\"1.10", "\"\\"]
        {
            let expected = serde_json::from_str::<Value>(broken).unwrap_err().to_string();
            assert_eq!(read(broken).unwrap_err().to_string(), expected, "{broken}");
        }
        // A client's own mark is a number, or a text.
        assert_eq!(literal(&json!("\u{10FFFE}1.10, <|im_end|>")), None);
    }
}
