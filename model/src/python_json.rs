//! JSON exactly as Python's `json.dumps` writes it: models have learnt its spaces and its floats.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use crate::exact_json::{PythonNumber, python_number};

/// The options of `json.dumps` that chat templates use. The default is that of `tojson` in `transformers`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PythonJson {
    /// Writes characters beyond ASCII as `\uXXXX`.
    pub ensure_ascii: bool,
    /// One item per line, indented by so many spaces per level.
    pub indent: Option<usize>,
    /// What stands between items.
    pub item_separator: String,
    /// What stands between a key and its value.
    pub key_separator: String,
    /// Orders objects by key instead of keeping their order.
    pub sort_keys: bool,
}

impl Default for PythonJson {
    fn default() -> Self {
        Self {
            ensure_ascii: false,
            indent: None,
            item_separator: ", ".into(),
            key_separator: ": ".into(),
            sort_keys: false,
        }
    }
}

impl PythonJson {
    /// The JSON text of a value.
    pub fn write(&self, value: &Value) -> String {
        let mut out = String::new();
        self.write_value(value, 0, &mut out);
        out
    }

    fn write_value(&self, value: &Value, depth: usize, out: &mut String) {
        match value {
            Value::Null => out.push_str("null"),
            Value::Bool(true) => out.push_str("true"),
            Value::Bool(false) => out.push_str("false"),
            Value::Number(number) => match number.as_f64() {
                Some(float) if number.is_f64() => out.push_str(&python_float(float)),
                _ => out.push_str(&number.to_string()),
            },
            Value::String(text) => match python_number(value) {
                Some(PythonNumber::Integer(digits)) => out.push_str(digits),
                Some(PythonNumber::Float(float)) => out.push_str(&python_float(float)),
                None => self.write_string(text, out),
            },
            Value::Array(items) if items.is_empty() => out.push_str("[]"),
            Value::Array(items) => {
                out.push('[');
                for (i, item) in items.iter().enumerate() {
                    self.begin_item(i, depth + 1, out);
                    self.write_value(item, depth + 1, out);
                }
                self.begin_line(depth, out);
                out.push(']');
            }
            Value::Object(fields) if fields.is_empty() => out.push_str("{}"),
            Value::Object(fields) => self.write_object(fields, depth, out),
        }
    }

    fn write_object(&self, fields: &Map<String, Value>, depth: usize, out: &mut String) {
        let mut entries: Vec<_> = fields.iter().collect();
        if self.sort_keys {
            entries.sort_by_key(|(key, _)| key.as_str());
        }
        out.push('{');
        for (i, (key, value)) in entries.into_iter().enumerate() {
            self.begin_item(i, depth + 1, out);
            self.write_string(key, out);
            out.push_str(&self.key_separator);
            self.write_value(value, depth + 1, out);
        }
        self.begin_line(depth, out);
        out.push('}');
    }

    fn begin_item(&self, index: usize, depth: usize, out: &mut String) {
        if index > 0 {
            out.push_str(&self.item_separator);
        }
        self.begin_line(depth, out);
    }

    fn begin_line(&self, depth: usize, out: &mut String) {
        if let Some(indent) = self.indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent * depth));
        }
    }

    fn write_string(&self, text: &str, out: &mut String) {
        out.push('"');
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                c if c < ' ' || (self.ensure_ascii && c >= '\u{7f}') => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        write!(out, "\\u{unit:04x}").expect("writing to a String cannot fail");
                    }
                }
                c => out.push(c),
            }
        }
        out.push('"');
    }
}

/// A float as Python's `repr` writes it: shortest digits, an exponent below 1e-4 and from 1e16 on.
pub(crate) fn python_float(float: f64) -> String {
    if float.is_nan() {
        return "NaN".into();
    }
    if float.is_infinite() {
        return if float > 0.0 { "Infinity".into() } else { "-Infinity".into() };
    }
    let shortest = format!("{float:e}");
    let (digits, _) = shortest.split_once('e').expect("`{:e}` writes an exponent");
    let decimals = digits.split_once('.').map_or(0, |(_, decimals)| decimals.len());
    // Of two equally short and equally near, Python takes the even one and `{:e}` the larger. With a given number of
    // digits `{:e}` rounds to even too, but just above a power of two that may be another number.
    let rounded = format!("{float:.decimals$e}");
    let scientific = if rounded.parse() == Ok(float) { rounded } else { shortest };

    let (digits, exponent) = scientific.split_once('e').expect("`{:e}` writes an exponent");
    let exponent: i32 = exponent.parse().expect("`{:e}` writes an integer exponent");
    if !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", exponent.abs());
    }
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits), |digits| ("-", digits));
    let digits = digits.replace('.', "");
    if exponent < 0 {
        return format!("{sign}0.{}{digits}", "0".repeat(exponent.unsigned_abs() as usize - 1));
    }
    let whole = exponent as usize + 1;
    let (integer, fraction) = digits.split_at(whole.min(digits.len()));
    format!("{sign}{integer:0<whole$}.{}", if fraction.is_empty() { "0" } else { fraction })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt as _, SeedableRng as _};

    // Expected values: Python's json.dumps.
    #[test]
    fn floats_are_written_as_python_writes_them() {
        for (float, expected) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (100.0, "100.0"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (1.5e-5, "1.5e-05"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.2345678901234568e17, "1.2345678901234568e+17"),
            (872871805743677.0 + 0.25, "872871805743677.2"),
            (5e-324, "5e-324"),
            (2f64.powi(-44), "5.684341886080802e-14"),
            (0.5, "0.5"),
            (-0.00123, "-0.00123"),
            (-12.5, "-12.5"),
            (9007199254740994.0, "9007199254740994.0"),
            (f64::MAX, "1.7976931348623157e+308"),
        ] {
            assert_eq!(python_float(float), expected);
        }
    }

    #[test]
    fn written_floats_read_back_the_same() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(3);
        let powers_of_two = (-1074..1024).map(|exponent| 2f64.powi(exponent));
        let random = (0..100_000).map(|_| f64::from_bits(rng.random()));
        for float in powers_of_two.chain(random) {
            if float.is_finite() {
                assert_eq!(
                    python_float(float).parse::<f64>().unwrap().to_bits(),
                    float.to_bits(),
                    "{float:e}"
                );
            }
        }
    }

    #[test]
    fn options_are_those_of_json_dumps() {
        let value = serde_json::json!({"b": [1, "é\u{7f}"], "a": {}, "c": []});
        let write = |json: PythonJson| json.write(&value);
        assert_eq!(write(PythonJson::default()), "{\"b\": [1, \"é\u{7f}\"], \"a\": {}, \"c\": []}");
        let ascii = PythonJson { ensure_ascii: true, sort_keys: true, ..PythonJson::default() };
        assert_eq!(write(ascii), r#"{"a": {}, "b": [1, "\u00e9\u007f"], "c": []}"#);
        let lines = PythonJson { indent: Some(1), item_separator: ",".into(), ..PythonJson::default() };
        assert_eq!(write(lines), "{\n \"b\": [\n  1,\n  \"é\u{7f}\"\n ],\n \"a\": {},\n \"c\": []\n}");
    }
}
