//! Lists of names in a row: as a list, as JSON in a text, or as a literal of Python in a text.
use serde_json::Value;

/// Most names in a list.
pub const NAMES_MAX: usize = 100_000;

/// The names of a list, however it is written; what is wrong with it otherwise.
pub fn names(value: &Value) -> Result<Vec<String>, String> {
    let names = match value {
        Value::Null => Vec::new(),
        Value::Array(items) => items.iter().map(name).collect::<Result<_, _>>()?,
        Value::String(text) => match serde_json::from_str::<Value>(text.trim()) {
            Ok(Value::Array(items)) => items.iter().map(name).collect::<Result<_, _>>()?,
            _ if text.trim().is_empty() => Vec::new(),
            _ => Literal { rest: text.trim() }.list()?,
        },
        _ => return Err("expected a list, or a list in a text".to_owned()),
    };
    if names.len() > NAMES_MAX {
        return Err(format!("has {} names, at most {NAMES_MAX} are read", names.len()));
    }
    Ok(names)
}

fn name(value: &Value) -> Result<String, String> {
    value.as_str().map(str::to_owned).ok_or_else(|| format!("{value} is no text"))
}

/// What is left of a literal of Python.
struct Literal<'a> {
    rest: &'a str,
}

impl Literal<'_> {
    /// A list or tuple of texts, and nothing behind it.
    fn list(mut self) -> Result<Vec<String>, String> {
        let close = match self.next() {
            Some('[') => ']',
            Some('(') => ')',
            _ => return Err("neither JSON nor a list of Python".to_owned()),
        };
        let mut names = Vec::new();
        loop {
            self.rest = self.rest.trim_start();
            match self.next() {
                Some(c) if c == close => break,
                Some(quote @ ('\'' | '"')) => names.push(self.text(quote)?),
                _ => return Err(format!("no text after {} names", names.len())),
            }
            self.rest = self.rest.trim_start();
            match self.next() {
                Some(',') => {}
                Some(c) if c == close => break,
                _ => return Err(format!("no comma after {} names", names.len())),
            }
        }
        if self.rest.trim().is_empty() { Ok(names) } else { Err("there is more behind the list".to_owned()) }
    }

    fn next(&mut self) -> Option<char> {
        let mut chars = self.rest.chars();
        let next = chars.next();
        self.rest = chars.as_str();
        next
    }

    /// Up to the quote that ends it.
    fn text(&mut self, quote: char) -> Result<String, String> {
        let mut text = String::new();
        loop {
            match self.next().ok_or("a text without an end")? {
                c if c == quote => return Ok(text),
                '\\' => match self.next().ok_or("a text without an end")? {
                    'n' => text.push('\n'),
                    't' => text.push('\t'),
                    'r' => text.push('\r'),
                    'x' => text.push(self.code(2)?),
                    'u' => text.push(self.code(4)?),
                    'U' => text.push(self.code(8)?),
                    c @ ('\\' | '\'' | '"') => text.push(c),
                    c => text.extend(['\\', c]),
                },
                c => text.push(c),
            }
        }
    }

    /// The character of so many hexadecimal digits.
    fn code(&mut self, digits: usize) -> Result<char, String> {
        let code = self.rest.get(..digits).ok_or("a code without its digits")?;
        self.rest = &self.rest[digits..];
        let number = u32::from_str_radix(code, 16).ok();
        number.and_then(char::from_u32).ok_or_else(|| format!("{code:?} is no character"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_list_is_read_in_each_of_its_forms() {
        let both = Ok(vec!["a::b[x, 'y']".to_owned(), "c\"\n".to_owned()]);
        assert_eq!(names(&json!(["a::b[x, 'y']", "c\"\n"])), both);
        assert_eq!(names(&json!(r#"["a::b[x, 'y']", "c\"\n"]"#)), both);
        assert_eq!(names(&json!(r#"["a::b[x, 'y']", 'c"\n']"#)), both);
        assert_eq!(names(&json!(r"('\x61::b[x, \'y\']', 'c\u0022\n',)")), both);
        for none in [json!([]), json!(""), json!("[]"), json!("()"), json!(null)] {
            assert_eq!(names(&none), Ok(Vec::new()), "{none}");
        }
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for wrong in [json!(1), json!([1]), json!("[1]"), json!("['a'"), json!("['a' 'b']"), json!("['a'] x")]
        {
            assert!(names(&wrong).is_err(), "{wrong}");
        }
        assert!(names(&json!(r"['\ud800']")).is_err() && names(&json!("['\\u1")).is_err());
    }
}
