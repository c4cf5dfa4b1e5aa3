//! Calls that a client puts into words. smolagents sends a reply's calls back as Python writes a list of dictionaries.

use serde_json::Value;

/// What stands before them.
const HEADING: &str = "Calling tools:\n[";

/// A text before calls that are put into words, and the calls, each in the form of chat completions.
pub(super) fn calls_in(text: &str) -> Option<(&str, Vec<Value>)> {
    let at = text.rfind(HEADING)?;
    let list = &text[at + HEADING.len() - 1..];
    let Value::Array(calls) = serde_json::from_str(&json_of(list.trim_end())?).ok()? else { return None };
    let is_call = |call: &Value| call["function"]["name"].is_string();
    (!calls.is_empty() && calls.iter().all(is_call)).then_some((&text[..at], calls))
}

/// The JSON of what Python wrote with `repr`.
fn json_of(python: &str) -> Option<String> {
    let mut json = String::with_capacity(python.len());
    let mut rest = python;
    while let Some(first) = rest.chars().next() {
        if first == '\'' || first == '"' {
            let (text, behind) = string_of(&rest[1..], first)?;
            json.push_str(&Value::from(text).to_string());
            rest = behind;
            continue;
        }
        let words = [("True", "true"), ("False", "false"), ("None", "null")];
        if let Some((word, own)) = words.into_iter().find(|(word, _)| rest.starts_with(word)) {
            json.push_str(own);
            rest = &rest[word.len()..];
            continue;
        }
        json.push(first);
        rest = &rest[first.len_utf8()..];
    }
    Some(json)
}

/// A string up to its closing quote, and what follows that.
fn string_of(text: &str, quote: char) -> Option<(String, &str)> {
    let mut out = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        if c == quote {
            return Some((out, &text[at + c.len_utf8()..]));
        }
        if c != '\\' {
            out.push(c);
            continue;
        }
        let (_, escaped) = chars.next()?;
        let digits = match escaped {
            'x' => 2,
            'u' => 4,
            'U' => 8,
            'n' | 't' | 'r' => {
                out.push(match escaped {
                    'n' => '\n',
                    't' => '\t',
                    _ => '\r',
                });
                continue;
            }
            other => {
                out.push(other);
                continue;
            }
        };
        let code: String = chars.by_ref().take(digits).map(|(_, digit)| digit).collect();
        out.push(u32::from_str_radix(&code, 16).ok().and_then(char::from_u32)?);
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn calls_are_read_as_python_writes_them() {
        let text = "I look.\nCalling tools:\n[{'id': 'call1', 'type': 'function', 'function': {'name': 'add', \
                    'arguments': {'a': 1.5, 'b': True, 'c': None, \"it's\": 'a \\'b\\' \"c\"\\n\\xe9\\u2192'}}}]\n";
        let (before, calls) = calls_in(text).expect("calls");
        let arguments = json!({"a": 1.5, "b": true, "c": null, "it's": "a 'b' \"c\"\n\u{e9}\u{2192}"});
        let function = json!({"name": "add", "arguments": arguments});
        assert_eq!(before, "I look.\n");
        assert_eq!(calls, [json!({"id": "call1", "type": "function", "function": function})]);
    }

    #[test]
    fn other_words_are_words() {
        for text in [
            "Calling tools:",
            "Calling tools:\n[]",
            "Calling tools:\n[1, 2]",
            "Calling tools:\n[{'name': 'add'}]",
            "Calling tools:\n[{'function': {'name': 'add'}}] and more",
            "Calling tools:\n['\\x",
        ] {
            assert_eq!(calls_in(text), None, "{text}");
        }
    }
}
