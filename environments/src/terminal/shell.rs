//! As much of the shell's grammar as it takes to see which commands a line has.

/// A command of a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Piece<'a> {
    pub(super) text: &'a str,
    /// ` && ` or ` ; `: what stands before it.
    pub(super) joined_by: &'static str,
}

/// Words that begin or end a block; what is between them cannot be cut.
const BLOCKS: [&str; 8] = ["if", "for", "while", "until", "case", "do", "then", "function"];

/// `line` cut at `&&` and `;` outside quotes and groups; `None` if a quote stays open. A line with a block is one
/// piece.
pub(super) fn pieces(line: &str) -> Option<Vec<Piece<'_>>> {
    let (mut found, mut start, mut joined_by) = (Vec::new(), 0, " && ");
    let (mut quote, mut depth) = (None, 0usize);
    let mut chars = line.char_indices();
    while let Some((at, c)) = chars.next() {
        match (quote, c) {
            (Some('\''), '\'') | (Some('"'), '"') => quote = None,
            (Some('\''), _) => {}
            (_, '\\') => {
                chars.next();
            }
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '(' | '{') => depth += 1,
            (None, ')' | '}') => depth = depth.saturating_sub(1),
            (None, '&') if depth == 0 && line[at..].starts_with("&&") => {
                found.push(Piece { text: line[start..at].trim(), joined_by });
                chars.next();
                (start, joined_by) = (at + 2, " && ");
            }
            (None, ';') if depth == 0 => {
                found.push(Piece { text: line[start..at].trim(), joined_by });
                (start, joined_by) = (at + 1, " ; ");
            }
            _ => {}
        }
    }
    if quote.is_some() {
        return None;
    }
    found.push(Piece { text: line[start..].trim(), joined_by });
    found.retain(|piece| !piece.text.is_empty());
    let block = |piece: &Piece<'_>| BLOCKS.contains(&piece.text.split_whitespace().next().unwrap_or(""));
    if found.iter().any(block) {
        return Some(vec![Piece { text: line.trim(), joined_by: " && " }]);
    }
    Some(found)
}

/// The words of a command without their quotes; `None` if a quote stays open. Variables are kept as written.
pub(super) fn words(command: &str) -> Option<Vec<String>> {
    let (mut found, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut chars = command.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some('\''), '\'') | (Some('"'), '"') => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => word.get_or_insert_default().push(chars.next()?),
            (None, c) if c.is_whitespace() => found.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    found.extend(word);
    quote.is_none().then_some(found)
}

/// Whether a command has a pipe, a group, a redirection or a substitution outside quotes. Between double quotes
/// a substitution still is one.
pub(super) fn has_operators(command: &str) -> bool {
    let mut quote = None;
    let mut chars = command.chars().peekable();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some('\''), '\'') | (Some('"'), '"') => quote = None,
            (Some('\''), _) => {}
            (_, '\\') => {
                chars.next();
            }
            (_, '`') => return true,
            (_, '$') if chars.peek() == Some(&'(') => return true,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '|' | '&' | ';' | '<' | '>' | '(' | ')') => return true,
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_outside_quotes_and_groups() {
        let texts =
            |line| pieces(line).map(|found| found.into_iter().map(|piece| piece.text).collect::<Vec<_>>());
        assert_eq!(texts("a && b; c").unwrap(), ["a", "b", "c"]);
        assert_eq!(
            texts("echo 'a && b' && (c; d) && \"e;f\"").unwrap(),
            ["echo 'a && b'", "(c; d)", "\"e;f\""]
        );
        assert_eq!(texts("for i in 1 2; do echo $i; done").unwrap(), ["for i in 1 2; do echo $i; done"]);
        assert_eq!(texts("a \\; b").unwrap(), ["a \\; b"]);
        assert_eq!(texts("echo 'a"), None);
    }

    #[test]
    fn operators_count_outside_quotes() {
        assert!(has_operators("a > b") && has_operators("\"$(a)\"") && has_operators("a `b`"));
        assert!(!has_operators("a 'b > c' \"d;e\" f\\>g '$(h)'"));
    }

    #[test]
    fn words_lose_their_quotes() {
        assert_eq!(words(r#"a 'b c' "d\"e" f\ g '' "#).unwrap(), ["a", "b c", "d\"e", "f g", ""]);
        assert_eq!(words("a \"b"), None);
        assert_eq!(words("a \\"), None);
    }
}
