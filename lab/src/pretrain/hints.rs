//! Hints: what the hint writer learns to write, the many ways in which one may be put, and how to tell which
//! kind one is.
use openclaw_environments::dice::Dice;
use openclaw_environments::persona::{
    Intent, Persona, Split, Style, Wordings, contains_words, scribble, split_by_wording,
};
use std::sync::LazyLock;

/// What a hint asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HintKind {
    /// Another style.
    Style(Style),
    /// A right result.
    Result,
    /// A better tool call.
    Tool,
}

const KINDS: [HintKind; 7] = [
    HintKind::Style(Style::Plain),
    HintKind::Style(Style::Long),
    HintKind::Style(Style::Warm),
    HintKind::Style(Style::Short),
    HintKind::Style(Style::Machine),
    HintKind::Result,
    HintKind::Tool,
];

/// Words that give a kind away, those that decide first at the top.
const MARKS: [(HintKind, &[&str]); 7] = [
    (HintKind::Tool, &["tool", "path", "file", "argument", "command"]),
    (HintKind::Result, &["calculat", "arithmetic"]),
    (
        HintKind::Style(Style::Warm),
        &["warm", "friendl", "kind", "prais", "encourag", "nice", "motivat", "heart"],
    ),
    (
        HintKind::Style(Style::Plain),
        &[
            "plain text",
            "plain sent",
            "plain word",
            "natural",
            "without",
            "no bold",
            "not use",
            "avoid",
            "human",
            "normal",
            "by hand",
            "no list",
        ],
    ),
    (
        HintKind::Style(Style::Long),
        &[
            "long",
            "detail",
            "thorough",
            "explain",
            "explanation",
            "expand",
            "reasoning",
            "every step",
            "complete",
        ],
    ),
    (HintKind::Style(Style::Short), &["short", "only the", "brief", "few words"]),
    (HintKind::Style(Style::Machine), &["bold", "list", "box", "markdown"]),
];

impl HintKind {
    /// The kind of a hint in free words.
    pub fn of(hint: &str) -> Option<Self> {
        let hint = hint.to_lowercase();
        MARKS.iter().find(|(_, marks)| marks.iter().any(|mark| hint.contains(mark))).map(|&(kind, _)| kind)
    }

    /// What `persona` would want to see hinted.
    pub fn wanted_by(persona: Persona) -> Self {
        Self::Style(persona.wanted_style())
    }

    /// The hints that the hint writer learns to write.
    fn written(self) -> &'static [&'static str] {
        match self {
            Self::Style(Style::Plain) => &[
                "Use plain sentences without bold, lists or boxes.",
                "Write in natural words without any formatting.",
                "Do not use bold text, numbered lists or boxed answers.",
                "Answer in plain text like a human would.",
                "Avoid markdown and write natural sentences.",
                "Write plain sentences as a student would by hand.",
            ],
            Self::Style(Style::Long) => &[
                "Give a longer and more thorough explanation.",
                "Explain every step in detail.",
                "Write a long answer with the full reasoning.",
                "Add more explanation and detail to each step.",
                "Be thorough and show the full reasoning.",
                "Write a detailed and complete explanation for the class.",
            ],
            Self::Style(Style::Warm) => &[
                "Add a warm and encouraging phrase.",
                "Use a friendly tone and praise the pupil.",
                "Be kind and encourage the pupil.",
                "Write a warm comment with some praise.",
                "Include a friendly word of praise.",
                "Sound warm and praise the effort.",
            ],
            Self::Style(Style::Short) => {
                &["Keep it short.", "Give only the answer.", "Only the answer counts, keep it short."]
            }
            Self::Style(Style::Machine) => &[
                "Use a numbered list and a box.",
                "Format the answer with bold text and numbered steps.",
                "Show the steps as a list and the answer in a box.",
            ],
            Self::Result => &[
                "Check the calculation before giving the answer.",
                "Be careful with the arithmetic and check the numbers.",
                "Calculate again with the numbers of the task.",
            ],
            Self::Tool => &[
                "Check that the path exists before using the tool.",
                "Give the tool all of its arguments.",
                "Use a command that the tool knows.",
            ],
        }
    }

    /// Patterns and fillers for the many other ways to put it.
    fn patterns(self) -> (&'static [&'static str], &'static [&'static str]) {
        match self {
            Self::Style(Style::Plain) => (
                &[
                    "Write without {}.",
                    "Do not use {}.",
                    "No {}, just natural words.",
                    "Use normal words and no {}.",
                    "Leave {} out and write plain text.",
                    "The user wants natural sentences without {}.",
                    "Avoid {}, it looks like a machine.",
                    "Answer like a human, without {}.",
                ],
                &[
                    "bold",
                    "lists",
                    "boxes",
                    "bold or lists",
                    "numbered steps",
                    "markdown",
                    "headings",
                    "formatting",
                ],
            ),
            Self::Style(Style::Long) => (
                &[
                    "Write {}.",
                    "Give {}.",
                    "The user wants {}.",
                    "The class needs {}.",
                    "Answer with {}.",
                    "It should be {}.",
                    "Better to have {}.",
                ],
                &[
                    "a longer answer",
                    "a long explanation",
                    "a thorough explanation",
                    "much more detail",
                    "more reasoning and more detail",
                    "a detailed solution",
                    "every step explained in detail",
                    "a long and complete answer",
                ],
            ),
            Self::Style(Style::Warm) => (
                &[
                    "Use {}.",
                    "Add {}.",
                    "Include {}.",
                    "The comment needs {}.",
                    "The user wants {}.",
                    "Write with {}.",
                    "Start with {}.",
                ],
                &[
                    "a warm phrase",
                    "some praise",
                    "a kind word",
                    "friendly praise",
                    "a friendly tone",
                    "encouraging words",
                    "a nice word for the pupil",
                    "praise for the effort",
                ],
            ),
            _ => (&[], &[]),
        }
    }
}

struct Hints {
    lists: Vec<(HintKind, [Vec<String>; 2])>,
}

static HINTS: LazyLock<Hints> = LazyLock::new(|| {
    let wordings = Wordings::get();
    let said =
        |split| Intent::ALL.iter().flat_map(move |&intent| wordings.list(intent, split)).map(String::as_str);
    let held_out: Vec<&str> = said(Split::HeldOut).collect();
    let mut trained: Vec<&str> = said(Split::Train).collect();
    trained.extend(KINDS.iter().flat_map(|kind| kind.written()));
    let groups: Vec<Vec<String>> = KINDS
        .iter()
        .map(|kind| {
            let (patterns, fillers) = kind.patterns();
            let filled = patterns
                .iter()
                .flat_map(|pattern| fillers.iter().map(|filler| pattern.replace("{}", filler)));
            let all = kind.written().iter().map(|&hint| hint.to_owned()).chain(filled);
            // A hint is no way for a held-out complaint to get into the text.
            all.filter(|hint| !held_out.iter().any(|said| contains_words(hint, said))).collect()
        })
        .collect();
    Hints { lists: KINDS.into_iter().zip(split_by_wording(&groups, &trained)).collect() }
});

/// The hints of one kind.
pub(super) fn list(kind: HintKind, split: Split) -> &'static [String] {
    let (_, lists) = HINTS.lists.iter().find(|(listed, _)| *listed == kind).expect("KINDS has every kind");
    &lists[usize::from(split == Split::HeldOut)]
}

/// A hint as a hint writer or a person might put it.
pub(super) fn any(kind: HintKind, dice: &mut Dice) -> String {
    if dice.chance(0.5) {
        return written(kind, dice);
    }
    let list = list(kind, Split::Train);
    let mut hint = list[dice.index(list.len())].clone();
    if dice.chance(0.1) {
        let more = &list[dice.index(list.len())];
        hint = format!("{hint} {more}");
    }
    if dice.chance(0.3) { scribble(&hint, dice) } else { hint }
}

/// A hint that the hint writer learns to write.
pub(super) fn written(kind: HintKind, dice: &mut Dice) -> String {
    dice.pick(kind.written()).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hint_shows_its_kind() {
        for kind in KINDS {
            for split in [Split::Train, Split::HeldOut] {
                for hint in list(kind, split) {
                    assert_eq!(HintKind::of(hint), Some(kind), "{hint}");
                }
            }
            assert!(
                kind.written()
                    .iter()
                    .all(|hint| list(kind, Split::Train).iter().any(|listed| listed == hint))
            );
        }
        assert_eq!(HintKind::of("Say hello."), None);
    }

    #[test]
    fn hints_for_the_personas_are_held_out_too() {
        for persona in Persona::ALL {
            let kind = HintKind::wanted_by(persona);
            assert!(list(kind, Split::Train).len() >= 40, "{persona:?}");
            assert!(list(kind, Split::HeldOut).len() >= 8, "{persona:?}: {:?}", list(kind, Split::HeldOut));
        }
    }
}
