//! Choosing hints: which of those that the hint writer offers go to the teacher, and by what the teacher keeps one.

use openclaw_journal::NextStateKind;

use crate::{prompts, teacher::MOST_HINT_CHARS};

/// A hint this short tells nothing (published).
const HINT_CHARS_AT_LEAST: usize = 11;

/// Which of several hints the teacher tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HintSelection {
    /// The longest alone (published for `opd` and `combine`).
    Longest,
    /// Up to this many of the shortest distinct ones; the teacher keeps the one it overlaps with the student on
    /// (published for `hybrid`).
    Shortest(usize),
}

/// The hint that a person gave in so many words. Nobody else is asked for one then.
pub(crate) fn explicit_hint(kind: NextStateKind, text: &str) -> Option<String> {
    let is_said = kind == NextStateKind::Feedback && !text.trim().is_empty();
    is_said.then(|| prompts::middle_out(text, MOST_HINT_CHARS))
}

/// The hints among the hint writer's finished answers that go to the teacher, the most promising first.
pub(crate) fn select_hints(selection: HintSelection, answers: &[&str]) -> Vec<String> {
    let count = |outcome: &'static str, hints: usize| {
        metrics::counter!("openclaw_judge_hints_total", "outcome" => outcome).increment(hints as u64);
    };
    let mut hints: Vec<String> = answers.iter().filter_map(|answer| prompts::parse_hint(answer)).collect();
    count("none", answers.len() - hints.len());
    let offered = hints.len();
    hints.retain(|hint| hint.chars().count() >= HINT_CHARS_AT_LEAST);
    count("short", offered - hints.len());
    let usable = hints.len();
    match selection {
        HintSelection::Longest => {
            // The first of equals.
            hints.reverse();
            hints = hints.into_iter().max_by_key(|hint| hint.chars().count()).into_iter().collect();
        }
        HintSelection::Shortest(most) => {
            hints.sort_by_key(|hint| hint.chars().count());
            let mut seen = std::collections::HashSet::new();
            hints.retain(|hint| seen.insert(hint.to_lowercase()));
            hints.truncate(most);
        }
    }
    count("surplus", usable - hints.len());
    count("accepted", hints.len());
    hints
}

/// How many of the most likely ids both sides share, summed over the response.
pub(crate) fn overlap(student: &[TopIds], teacher: &[TopIds], k: usize) -> usize {
    let mut shared = 0;
    for (student, teacher) in student.iter().zip(teacher) {
        let known = |id: u32| teacher.iter().take(k).any(|(other, _)| *other == id);
        shared += student.iter().take(k).filter(|(id, _)| known(*id)).count();
    }
    shared
}

/// The most likely ids of a position, best first.
pub(crate) type TopIds = Vec<(u32, f32)>;
