//! What came, went and changed from one screen to the next: what a judge of text has to go by.

use std::collections::BTreeMap;

use super::{Element, Screen};

/// The most lines.
const LINES: usize = 12;

/// In lines with `+`, `-` and `~`; nothing where the lists are alike.
pub(super) fn difference(before: &Screen, after: &Screen) -> Vec<String> {
    let mut gone = without(before.elements(), after.elements());
    let came = without(after.elements(), before.elements());
    let mut lines = Vec::new();
    for element in came {
        match gone.iter().position(|other| other.key == element.key) {
            Some(at) => lines.push(format!("~ {} -> {}", gone.remove(at).line(), element.line())),
            None => lines.push(format!("+ {}", element.line())),
        }
    }
    lines.extend(gone.into_iter().map(|element| format!("- {}", element.line())));
    if lines.len() > LINES {
        let more = lines.len() - LINES;
        lines.truncate(LINES);
        lines.push(format!("[{more} more differences left out]"));
    }
    lines
}

/// Those of `some` whose lines `others` do not have, or not as often.
fn without<'a>(some: &'a [Element], others: &[Element]) -> Vec<&'a Element> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for other in others {
        *counts.entry(other.line()).or_default() += 1;
    }
    let is_new = |element: &&Element| match counts.get_mut(&element.line()) {
        Some(count) if *count > 0 => {
            *count -= 1;
            false
        }
        _ => true,
    };
    some.iter().filter(is_new).collect()
}
