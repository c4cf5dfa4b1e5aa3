//! Changes of one token that a Python program survives, and often its tests do not.
use super::tokens::{Is, Token, tokens};

/// Kinds of changes for training.
pub const TRAIN: [&str; 10] = [
    "comparison",
    "equality",
    "arithmetic",
    "off_by_one",
    "logic",
    "constant",
    "dropped_not",
    "augmented",
    "swapped_name",
    "text",
];
/// Kinds of changes that measure.
pub const HELD_OUT: [&str; 2] = ["sibling", "sign"];

/// Methods and functions that are taken for one another.
const SIBLINGS: [(&str, &str); 10] = [
    ("min", "max"),
    ("any", "all"),
    ("lower", "upper"),
    ("startswith", "endswith"),
    ("lstrip", "rstrip"),
    ("ljust", "rjust"),
    ("keys", "values"),
    ("append", "extend"),
    ("find", "rfind"),
    ("split", "rsplit"),
];
/// Statements in which nothing is changed.
const LEFT_ALONE: [&str; 8] = ["import", "from", "@", "class", "global", "nonlocal", "raise", "assert"];
/// Longest text that is changed.
const TEXT_MAX: usize = 24;

/// One token that is changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mutation {
    /// Which of [`TRAIN`] or [`HELD_OUT`].
    pub kind: &'static str,
    /// From 0.
    pub line: usize,
    /// In bytes of the line.
    pub at: usize,
    /// Bytes that go.
    pub length: usize,
    /// What comes in their place.
    pub to: String,
}

impl Mutation {
    /// The line with the change.
    pub fn of(&self, line: &str) -> Option<String> {
        let (before, rest) = line.split_at_checked(self.at)?;
        Some(format!("{before}{}{}", self.to, rest.get(self.length..)?))
    }
}

/// All changes of a source that can be made inside of functions.
pub fn mutations(source: &str) -> Vec<Mutation> {
    let Some(tokens) = tokens(source) else { return Vec::new() };
    let mut found = Vec::new();
    // Parameters of the functions around, the innermost last, with their indentation.
    let mut around: Vec<(usize, Vec<&str>)> = Vec::new();
    for statement in tokens.split(|token| token.is == Is::End).filter(|statement| !statement.is_empty()) {
        let first = &statement[0];
        around.retain(|(indent, _)| *indent < first.indent);
        let is_def = statement.iter().take(2).any(|token| token.text == "def");
        if is_def {
            around.push((first.indent, parameters(statement)));
        }
        let is_text = first.is == Is::Text;
        if around.is_empty() || is_def || is_text || LEFT_ALONE.contains(&first.text) {
            continue;
        }
        let names = &around[around.len() - 1].1;
        for (at, token) in statement.iter().enumerate() {
            // A text over several lines would be a change of several.
            if token.text.contains('\n') {
                continue;
            }
            let before = at.checked_sub(1).map(|before| &statement[before]);
            let after = statement.get(at + 1);
            for (kind, length, to) in changes(token, before, after, names) {
                found.push(Mutation { kind, line: token.line, at: token.at, length, to });
            }
        }
    }
    found
}

/// Names of the parameters of a `def`, without `self` and what takes all.
fn parameters<'a>(statement: &[Token<'a>]) -> Vec<&'a str> {
    let pairs = statement.windows(3).filter(|three| {
        three[1].is == Is::Name
            && three[1].depth == 1
            && matches!(three[0].text, "(" | ",")
            && matches!(three[2].text, "," | ")" | "=" | ":")
    });
    pairs.map(|three| three[1].text).filter(|name| !matches!(*name, "self" | "cls")).collect()
}

/// What can be put in place of a token: the kind, how many bytes go, and what comes.
fn changes(
    token: &Token<'_>,
    before: Option<&Token<'_>>,
    after: Option<&Token<'_>>,
    names: &[&str],
) -> Vec<(&'static str, usize, String)> {
    let text = token.text;
    let one = |kind: &'static str, to: &str| vec![(kind, text.len(), to.to_owned())];
    let (previous, next) = (before.map_or("", |token| token.text), after.map_or("", |token| token.text));
    // Whether a value ends before this, so that an operator here stands between two.
    let binary = before.is_some_and(|before| match before.is {
        Is::Name => !KEYWORDS.contains(&before.text),
        Is::Number | Is::Text => true,
        _ => matches!(before.text, ")" | "]" | "}"),
    });
    match (token.is, text) {
        (Is::Operator, "<") => one("comparison", "<="),
        (Is::Operator, ">") => one("comparison", ">="),
        (Is::Operator, "<=") => one("comparison", "<"),
        (Is::Operator, ">=") => one("comparison", ">"),
        (Is::Operator, "==") => one("equality", "!="),
        (Is::Operator, "!=") => one("equality", "=="),
        (Is::Operator, "+=") => one("augmented", "-="),
        (Is::Operator, "-=") => one("augmented", "+="),
        (Is::Operator, "*=") => one("augmented", "+="),
        (Is::Operator, "+") if binary => one("arithmetic", "-"),
        (Is::Operator, "-") if binary => one("arithmetic", "+"),
        (Is::Operator, "*") if binary => one("arithmetic", "+"),
        (Is::Operator, "//") if binary => one("arithmetic", "*"),
        (Is::Operator, "/") if binary => one("arithmetic", "*"),
        (Is::Operator, "%") if binary && before.is_none_or(|before| before.is != Is::Text) => {
            one("arithmetic", "*")
        }
        (Is::Operator, "-") => one("sign", ""),
        (Is::Name, "and") => one("logic", "or"),
        (Is::Name, "or") => one("logic", "and"),
        (Is::Name, "True") => one("constant", "False"),
        (Is::Name, "False") => one("constant", "True"),
        (Is::Name, "not") => {
            let gap = after.filter(|after| after.line == token.line).map(|after| after.at - token.at);
            gap.map(|gap| ("dropped_not", gap, String::new())).into_iter().collect()
        }
        (Is::Name, _) if next == "(" && previous != "def" => {
            let sibling = SIBLINGS.iter().find_map(|(one, other)| match text {
                text if text == *one => Some(*other),
                text if text == *other => Some(*one),
                _ => None,
            });
            sibling.map(|sibling| ("sibling", text.len(), sibling.to_owned())).into_iter().collect()
        }
        (Is::Name, _) if names.contains(&text) && previous != "." && !matches!(next, "=" | ":" | ".") => {
            let other = names.iter().find(|name| **name != text);
            other.map(|other| ("swapped_name", text.len(), (*other).to_owned())).into_iter().collect()
        }
        (Is::Number, _) if text.len() <= 4 => match text.parse::<u32>() {
            Ok(number) => one("off_by_one", &(number + 1).to_string()),
            Err(_) => Vec::new(),
        },
        (Is::Text, _) => changed_text(text).map(|to| ("text", text.len(), to)).into_iter().collect(),
        _ => Vec::new(),
    }
}

/// Words that no value is.
const KEYWORDS: [&str; 14] = [
    "return", "and", "or", "not", "in", "is", "if", "else", "elif", "while", "yield", "lambda", "print",
    "for",
];

/// A text without its last character; of one that has only one, twice that.
fn changed_text(text: &str) -> Option<String> {
    let quote = text.chars().next().filter(|quote| matches!(quote, '\'' | '"'))?;
    let inside = text.strip_prefix(quote)?.strip_suffix(quote)?;
    let plain =
        !inside.is_empty() && inside.len() <= TEXT_MAX && !inside.contains(['\\', '\'', '"', '{', '%']);
    if !plain {
        return None;
    }
    let mut chars = inside.chars();
    let last = chars.next_back()?;
    let rest = chars.as_str();
    Some(match rest.is_empty() {
        true => format!("{quote}{last}{last}{quote}"),
        false => format!("{quote}{rest}{quote}"),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const SOURCE: &str = "import a\n\n\ndef f(x, y=2):\n    \"\"\"Says < nothing.\"\"\"\n    total = -1\n    if not x and x < y or x == 3:\n        total += max(x, y) * 2\n    return 'ab' if total is not None else True\n\n\nLIMIT = 3\n";

    #[test]
    fn each_kind_is_found_where_it_is_meant() {
        let lines: Vec<&str> = SOURCE.lines().collect();
        let found = mutations(SOURCE);
        let of = |kind: &str| -> Vec<String> {
            let some = found.iter().filter(|mutation| mutation.kind == kind);
            some.map(|mutation| mutation.of(lines[mutation.line]).unwrap().trim().to_owned()).collect()
        };
        assert_eq!(of("comparison"), ["if not x and x <= y or x == 3:"]);
        assert_eq!(of("equality"), ["if not x and x < y or x != 3:"]);
        assert_eq!(
            of("dropped_not"),
            ["if x and x < y or x == 3:", "return 'ab' if total is None else True"]
        );
        assert_eq!(of("sign"), ["total = 1"]);
        assert_eq!(of("sibling"), ["total += min(x, y) * 2"]);
        assert_eq!(of("augmented"), ["total -= max(x, y) * 2"]);
        assert_eq!(of("arithmetic"), ["total += max(x, y) + 2"]);
        assert_eq!(of("constant"), ["return 'ab' if total is not None else False"]);
        assert_eq!(of("text"), ["return 'a' if total is not None else True"]);
        assert_eq!(of("logic").len(), 2);
        assert!(of("swapped_name").contains(&"total += max(y, y) * 2".to_owned()));
        assert_eq!(
            of("off_by_one"),
            ["total = -2", "if not x and x < y or x == 4:", "total += max(x, y) * 3"]
        );
        let kinds: BTreeSet<&str> = found.iter().map(|mutation| mutation.kind).collect();
        assert_eq!(kinds, TRAIN.into_iter().chain(HELD_OUT).collect());
    }

    #[test]
    fn nothing_is_changed_outside_of_functions_or_in_what_no_test_sees() {
        for source in [
            "LIMIT = 3\n",
            "def f(x=1): pass\n",
            "def f(x):\n    import a.b\n    raise ValueError('no')\n",
            "@d(1)\nclass A(1 + 2):\n    x = 1 + 2\n",
            "def f(*a, **k):\n    g(*a, **k)\n",
            "def f(:\n",
        ] {
            assert_eq!(mutations(source), [], "{source}");
        }
    }
}
