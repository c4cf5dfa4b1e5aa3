//! How alike texts are, as the libraries that tasks were made with count it.

use std::collections::HashMap;

/// The most characters that are compared: the time goes with the product of both lengths.
const CHARS: usize = 20_000;

/// Twice the longest common subsequence of characters over both lengths: 1 is the same.
pub(super) fn ratio(one: &str, other: &str) -> f64 {
    let (one, other): (Vec<char>, Vec<char>) =
        (one.chars().take(CHARS).collect(), other.chars().take(CHARS).collect());
    if one.is_empty() && other.is_empty() {
        return 1.0;
    }
    let mut row = vec![0usize; other.len() + 1];
    for a in &one {
        let mut corner = 0;
        for (at, b) in other.iter().enumerate() {
            let above = row[at + 1];
            row[at + 1] = if a == b { corner + 1 } else { above.max(row[at]) };
            corner = above;
        }
    }
    2.0 * row[other.len()] as f64 / (one.len() + other.len()) as f64
}

/// Twice the lines in blocks that both have in the same order over both lengths, the longest block first (Ratcliff and
/// Obershelp); lines that come again and again in a long text begin no block.
pub(super) fn line_ratio(one: &[&str], other: &[&str]) -> f64 {
    if one.is_empty() && other.is_empty() {
        return 1.0;
    }
    let mut places: HashMap<&str, Vec<usize>> = HashMap::new();
    for (at, line) in other.iter().enumerate() {
        places.entry(line).or_default().push(at);
    }
    if other.len() >= 200 {
        let most = other.len() / 100 + 1;
        places.retain(|_, at| at.len() <= most);
    }
    let mut matched = 0;
    let mut left = vec![(0..one.len(), 0..other.len())];
    while let Some((a, b)) = left.pop() {
        let (at_a, at_b, length) = longest(one, other, &places, a.clone(), b.clone());
        if length > 0 {
            matched += length;
            left.push((a.start..at_a, b.start..at_b));
            left.push((at_a + length..a.end, at_b + length..b.end));
        }
    }
    2.0 * matched as f64 / (one.len() + other.len()) as f64
}

/// The first of the longest blocks: where it begins in both, and its length.
fn longest(
    one: &[&str],
    other: &[&str],
    places: &HashMap<&str, Vec<usize>>,
    a: std::ops::Range<usize>,
    b: std::ops::Range<usize>,
) -> (usize, usize, usize) {
    let (mut at_a, mut at_b, mut length) = (a.start, b.start, 0);
    let mut before: HashMap<usize, usize> = HashMap::new();
    for i in a.clone() {
        let mut now = HashMap::new();
        for &j in places.get(one[i]).into_iter().flatten().filter(|j| b.contains(j)) {
            let here = j.checked_sub(1).and_then(|j| before.get(&j)).copied().unwrap_or(0) + 1;
            now.insert(j, here);
            if here > length {
                (at_a, at_b, length) = (i + 1 - here, j + 1 - here, here);
            }
        }
        before = now;
    }
    // Lines that begin no block may still be a part of one.
    while at_a > a.start && at_b > b.start && one[at_a - 1] == other[at_b - 1] {
        (at_a, at_b, length) = (at_a - 1, at_b - 1, length + 1);
    }
    while at_a + length < a.end && at_b + length < b.end && one[at_a + length] == other[at_b + length] {
        length += 1;
    }
    (at_a, at_b, length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn likeness_is_counted_as_the_libraries_of_the_tasks_count_it() {
        // By rapidfuzz 3 (`fuzz.ratio` / 100) and by Python's difflib (`SequenceMatcher.ratio`).
        assert!((ratio("kitten", "sitting") - 8.0 / 13.0).abs() < 1e-9);
        assert_eq!((ratio("", ""), ratio("a", ""), ratio("abc", "abc")), (1.0, 0.0, 1.0));
        let lines = |text: &'static str| text.split(' ').collect::<Vec<_>>();
        assert!((line_ratio(&lines("a b c d"), &lines("b c d e")) - 0.75).abs() < 1e-9);
        assert!((line_ratio(&lines("q a b x c d"), &lines("a b y c d f")) - 8.0 / 12.0).abs() < 1e-9);
        assert_eq!(line_ratio(&[], &[]), 1.0);
        let many: Vec<&str> = vec!["same"; 300];
        // Of so many lines that are all alike none begins a block, but the start of both.
        assert!((line_ratio(&many, &many[..299]) - 598.0 / 599.0).abs() < 1e-9);
        let other: Vec<&str> = [&["x"], &many[..299]].concat();
        assert_eq!(line_ratio(&many, &other), 0.0);
    }
}
