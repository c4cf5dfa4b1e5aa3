//! As much of Python's grammar as it takes to change one token: words, numbers, texts and operators, and where each stands.

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Is {
    Name,
    Number,
    Text,
    Operator,
    /// A statement ends.
    End,
}

/// A token of one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token<'a> {
    pub(super) is: Is,
    pub(super) text: &'a str,
    /// From 0.
    pub(super) line: usize,
    /// In bytes of its line.
    pub(super) at: usize,
    /// Brackets that are open.
    pub(super) depth: usize,
    /// Bytes before the first token of its line.
    pub(super) indent: usize,
}

/// Longest first.
const OPERATORS: [&str; 24] = [
    "**=", "//=", ">>=", "<<=", "...", "**", "//", ">>", "<<", "==", "!=", "<=", ">=", "+=", "-=", "*=",
    "/=", "%=", "&=", "|=", "^=", "->", ":=", "@=",
];

/// The tokens of a source; `None` if a text or a bracket stays open. A text over several lines has the line that it begins in.
pub(super) fn tokens(source: &str) -> Option<Vec<Token<'_>>> {
    let mut found: Vec<Token<'_>> = Vec::new();
    let (mut depth, mut line, mut begin) = (0usize, 0, 0);
    let mut at = 0;
    let indent_of = |begin: usize| {
        let line = source[begin..].lines().next().unwrap_or_default();
        line.len() - line.trim_start().len()
    };
    while let Some(c) = source[at..].chars().next() {
        let rest = &source[at..];
        let length = match c {
            '\n' => {
                if depth == 0 && found.last().is_some_and(|token| token.is != Is::End) {
                    found.push(Token { is: Is::End, text: "", line, at: at - begin, depth, indent: 0 });
                }
                (line, begin, at) = (line + 1, at + 1, at + 1);
                continue;
            }
            '\\' if rest.starts_with("\\\n") => {
                (line, begin, at) = (line + 1, at + 2, at + 2);
                continue;
            }
            '#' => {
                at += rest.find('\n').unwrap_or(rest.len());
                continue;
            }
            c if c.is_whitespace() => {
                at += c.len_utf8();
                continue;
            }
            _ => 0,
        };
        debug_assert_eq!(length, 0);
        let (is, length) = match text_length(rest) {
            Some(length) => (Is::Text, length?),
            None if c.is_alphabetic() || c == '_' => {
                (Is::Name, rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len()))
            }
            None if c.is_ascii_digit() => {
                let more = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
                (Is::Number, rest.find(|c: char| !more(c)).unwrap_or(rest.len()))
            }
            None => {
                let operator = OPERATORS.iter().find(|operator| rest.starts_with(**operator));
                (Is::Operator, operator.map_or(c.len_utf8(), |operator| operator.len()))
            }
        };
        let text = &rest[..length];
        match text {
            ")" | "]" | "}" => depth = depth.checked_sub(1)?,
            _ => {}
        }
        found.push(Token { is, text, line, at: at - begin, depth, indent: indent_of(begin) });
        if matches!(text, "(" | "[" | "{") {
            depth += 1;
        }
        let lines = text.matches('\n').count();
        if lines > 0 {
            line += lines;
            begin = at + text.rfind('\n').unwrap_or(0) + 1;
        }
        at += length;
    }
    (depth == 0).then_some(found)
}

/// How long the text is that begins here; `None`: none does. Within, `None`: it has no end.
#[allow(clippy::option_option, reason = "the inner one is a fault of the source")]
fn text_length(rest: &str) -> Option<Option<usize>> {
    let prefix = rest.find(['"', '\''])?;
    let is_prefix = prefix <= 2 && rest[..prefix].chars().all(|c| "rbfuRBFU".contains(c));
    if !is_prefix {
        return None;
    }
    let body = &rest[prefix..];
    let triple = ["\"\"\"", "'''"].into_iter().find(|quote| body.starts_with(quote));
    let quote = triple.unwrap_or(&body[..1]);
    let mut at = quote.len();
    while at < body.len() {
        if body[at..].starts_with(quote) {
            return Some(Some(prefix + at + quote.len()));
        }
        let c = body[at..].chars().next()?;
        if c == '\n' && triple.is_none() {
            return Some(None);
        }
        at += c.len_utf8();
        if c == '\\' {
            at += body[at..].chars().next().map_or(0, char::len_utf8);
        }
    }
    Some(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_have_their_places() {
        let source =
            "def f(a,\n      b=1):  # no 'text\n    '''two\n    lines'''\n    return a //= -b['x\\'y']\n";
        let found = tokens(source).unwrap();
        let words: Vec<&str> = found.iter().map(|token| token.text).collect();
        assert_eq!(
            words,
            [
                "def",
                "f",
                "(",
                "a",
                ",",
                "b",
                "=",
                "1",
                ")",
                ":",
                "",
                "'''two\n    lines'''",
                "",
                "return",
                "a",
                "//=",
                "-",
                "b",
                "[",
                "'x\\'y'",
                "]",
                ""
            ]
        );
        for token in found.iter().filter(|token| token.is != Is::End) {
            let line = source.lines().nth(token.line).unwrap();
            assert!(line[token.at..].starts_with(token.text.lines().next().unwrap()), "{token:?}");
        }
        let of = |word: &str| found.iter().find(|token| token.text == word).unwrap();
        assert_eq!((of("b").depth, of("return").indent, of("return").line), (1, 4, 4));
    }

    #[test]
    fn what_stays_open_is_no_source() {
        for open in ["f(", "x = 'a\n", "'''a", "a]"] {
            assert_eq!(tokens(open), None, "{open}");
        }
    }
}
