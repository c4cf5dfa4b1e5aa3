//! What is counted in a reply to tell whether it keeps a rule.

pub(super) fn has(said: &str, any: &[&str]) -> bool {
    let said = said.to_lowercase();
    any.iter().any(|mark| said.contains(mark))
}

pub(super) fn words(said: &str) -> usize {
    said.split_whitespace().filter(|word| word.contains(char::is_alphanumeric)).count()
}

pub(super) fn sentences(said: &str) -> usize {
    let ends = |at: usize, c: char| {
        matches!(c, '.' | '!' | '?') && said[at + 1..].chars().next().is_none_or(char::is_whitespace)
    };
    let ended = said.char_indices().filter(|&(at, c)| ends(at, c)).count();
    ended + usize::from(!said.trim_end_matches(['"', ')', '*', ' ']).ends_with(['.', '!', '?']))
}
