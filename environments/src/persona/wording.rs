//! The wordings of the personas and how they are split: what is held out never occurs in the text that the
//! embedded model is trained on, so that it shows whether the model understands or remembers.
use super::complaints::{self, Phrases};
use super::{Style, reactions};
use crate::dice::Dice;
use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

pub use crate::world::Split;

/// What a persona wants to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Intent {
    /// The reply should have been in this style.
    Complaint(Style),
    /// The reply is not good, without a word about how it should be.
    GenericComplaint,
    /// The result is wrong.
    WrongResult,
    /// The reply is good.
    Thanks,
    /// Nothing about the reply.
    Neutral,
    /// A new question follows.
    NextQuestion,
}

impl Intent {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Complaint(Style::Plain),
        Self::Complaint(Style::Long),
        Self::Complaint(Style::Warm),
        Self::Complaint(Style::Short),
        Self::Complaint(Style::Machine),
        Self::GenericComplaint,
        Self::WrongResult,
        Self::Thanks,
        Self::Neutral,
        Self::NextQuestion,
    ];

    fn phrases(self) -> &'static Phrases {
        match self {
            Self::Complaint(Style::Plain) => &complaints::PLAIN,
            Self::Complaint(Style::Long) => &complaints::LONG,
            Self::Complaint(Style::Warm) => &complaints::WARM,
            Self::Complaint(Style::Short) => &complaints::SHORT,
            Self::Complaint(Style::Machine) => &complaints::MACHINE,
            Self::GenericComplaint => &complaints::GENERIC,
            Self::WrongResult => &complaints::WRONG,
            Self::Thanks => &reactions::THANKS,
            Self::Neutral => &reactions::NEUTRAL,
            Self::NextQuestion => &reactions::NEXT_QUESTION,
        }
    }

    fn is_complaint(self) -> bool {
        matches!(self, Self::Complaint(_) | Self::GenericComplaint | Self::WrongResult)
    }
}

/// Every wording of every intent, split.
#[derive(Debug)]
pub struct Wordings {
    lists: HashMap<(Intent, Split), Vec<String>>,
}

impl Wordings {
    /// The wordings of this build.
    pub fn get() -> &'static Self {
        static WORDINGS: LazyLock<Wordings> = LazyLock::new(Wordings::build);
        &WORDINGS
    }

    fn build() -> Self {
        let groups: Vec<Vec<String>> = Intent::ALL.iter().map(|intent| expand(intent.phrases())).collect();
        // Replies say these themselves.
        let verdicts = ["the answer is correct", "the answer is wrong", "this is correct", "this is wrong"];
        let around = [complaints::BEFORE, complaints::AFTER, &verdicts[..]].concat();
        let mut lists = HashMap::new();
        for (intent, [train, held_out]) in Intent::ALL.into_iter().zip(split_by_wording(&groups, &around)) {
            lists.insert((intent, Split::Train), train);
            lists.insert((intent, Split::HeldOut), held_out);
        }
        Self { lists }
    }

    /// The wordings of one intent in one split.
    pub fn list(&self, intent: Intent, split: Split) -> &[String] {
        &self.lists[&(intent, split)]
    }

    /// A random wording; a complaint often has a few words before and after it.
    pub fn say(&self, intent: Intent, split: Split, dice: &mut Dice) -> String {
        let list = self.list(intent, split);
        let mut text = list[dice.index(list.len())].clone();
        if intent.is_complaint() {
            let before = dice.pick(complaints::BEFORE);
            if before.ends_with(", ") || before.ends_with("but ") {
                text = lower_first(&text);
            }
            text = format!("{before}{text}{}", dice.pick(complaints::AFTER));
        }
        text
    }
}

fn expand(phrases: &Phrases) -> Vec<String> {
    let mut all: Vec<String> = phrases.whole.iter().map(|&phrase| phrase.to_owned()).collect();
    for (patterns, fillers) in phrases.patterns {
        for pattern in *patterns {
            all.extend(fillers.iter().map(|filler| upper_first(&pattern.replace("{}", filler), pattern)));
        }
    }
    let mut seen = HashSet::new();
    all.retain(|wording| seen.insert(core(wording)));
    all
}

/// Splits each group into what may be trained on and what is held out (about a quarter, chosen by its letters).
///
/// A wording is held out only where training still shows each of its words (the embedded model has read no
/// other text, so that a word it never saw tells it nothing), and where it is no part of one that is trained or
/// of `always_trained`.
pub fn split_by_wording(groups: &[Vec<String>], always_trained: &[&str]) -> Vec<[Vec<String>; 2]> {
    let chosen =
        |wording: &str| core(wording).contains(' ') && letters_hash(&core(wording)).is_multiple_of(4);
    let mut trained: Vec<String> = always_trained.iter().map(|wording| core(wording)).collect();
    let mut candidates: Vec<String> = Vec::new();
    for wording in groups.iter().flatten() {
        if chosen(wording) { candidates.push(core(wording)) } else { trained.push(core(wording)) }
    }
    let words: HashSet<String> = trained.iter().flat_map(|wording| words_of(wording)).collect();
    let held_out: HashSet<String> = candidates
        .into_iter()
        .filter(|wording| words_of(wording).all(|word| words.contains(&word)))
        .filter(|wording| !trained.iter().any(|train| contains_words(train, wording)))
        .collect();
    groups
        .iter()
        .map(|group| {
            let (held, train) = group.iter().cloned().partition(|wording| held_out.contains(&core(wording)));
            [train, held]
        })
        .collect()
}

fn words_of(text: &str) -> impl Iterator<Item = String> {
    text.split(|c: char| !c.is_alphanumeric() && c != '\'').filter(|word| !word.is_empty()).map(str::to_owned)
}

/// A wording without capitals and closing punctuation.
fn core(wording: &str) -> String {
    wording.to_lowercase().trim_end_matches(['.', '!', '?', ':', ' ']).to_owned()
}

/// Whether the words of `wording` stand in `text`, capitals and closing punctuation aside.
pub fn contains_words(text: &str, wording: &str) -> bool {
    let (text, wording) = (text.to_lowercase(), core(wording));
    text.match_indices(&wording).any(|(at, found)| {
        let outside = |c: char| !c.is_alphanumeric();
        text[..at].chars().next_back().is_none_or(outside)
            && text[at + found.len()..].chars().next().is_none_or(outside)
    })
}

/// FNV-1a: stable across platforms and releases.
fn letters_hash(text: &str) -> u64 {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash >> 17
}

fn upper_first(text: &str, pattern: &str) -> String {
    let mut chars = text.chars();
    match chars.next() {
        // A pattern that starts small is meant to.
        Some(first) if !pattern.starts_with(char::is_lowercase) => {
            first.to_uppercase().chain(chars).collect()
        }
        _ => text.to_owned(),
    }
}

fn lower_first(text: &str) -> String {
    if text.starts_with("I ") || text.starts_with("AI") {
        return text.to_owned();
    }
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

/// Writes `text` as people type: sometimes small letters, no full stop, a typo, or more marks than needed.
pub fn scribble(text: &str, dice: &mut Dice) -> String {
    let mut text = text.to_owned();
    if dice.chance(0.2) {
        text = text.to_lowercase();
    } else if dice.chance(0.03) {
        text = text.to_uppercase();
    }
    if dice.chance(0.2) {
        text.truncate(text.trim_end_matches('.').len());
    } else if dice.chance(0.08) {
        let bare = text.trim_end_matches('.').len();
        text.truncate(bare);
        text.push_str(dice.pick(&["!", "!!", " :)", "..."]));
    }
    if dice.chance(0.07) {
        text = mistype(&text, dice);
    }
    text
}

/// Swaps, drops or doubles one letter inside a word.
fn mistype(text: &str, dice: &mut Dice) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    let inner: Vec<usize> = (1..chars.len().saturating_sub(2))
        .filter(|&at| chars[at - 1..at + 2].iter().all(|c| c.is_ascii_lowercase()))
        .collect();
    if inner.is_empty() {
        return text.to_owned();
    }
    let at = inner[dice.index(inner.len())];
    match dice.index(3) {
        0 => chars.swap(at, at + 1),
        1 => {
            chars.remove(at);
        }
        _ => chars.insert(at, chars[at]),
    }
    chars.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_intent_has_many_wordings_in_both_splits() {
        let wordings = Wordings::get();
        for intent in Intent::ALL {
            let train = wordings.list(intent, Split::Train).len();
            let held_out = wordings.list(intent, Split::HeldOut).len();
            let (least_train, least_held_out) = match intent {
                Intent::Complaint(Style::Plain | Style::Long | Style::Warm) => (150, 40),
                Intent::Thanks | Intent::Neutral => (150, 40),
                Intent::GenericComplaint => (50, 10),
                _ => (8, 0),
            };
            assert!(train >= least_train && held_out >= least_held_out, "{intent:?}: {train} + {held_out}");
        }
    }

    #[test]
    fn no_held_out_wording_is_part_of_a_trained_one() {
        let wordings = Wordings::get();
        let trained: Vec<&String> =
            Intent::ALL.iter().flat_map(|&intent| wordings.list(intent, Split::Train)).collect();
        for intent in Intent::ALL {
            for held_out in wordings.list(intent, Split::HeldOut) {
                assert!(!trained.iter().any(|train| contains_words(train, held_out)), "{held_out}");
            }
        }
    }

    #[test]
    fn parts_of_words_are_not_words() {
        assert!(contains_words("Well, NOT bad at all!", "Not bad at all."));
        assert!(!contains_words("It is not badly done", "Not bad."));
    }

    #[test]
    fn the_same_seed_says_the_same() {
        let say = |seed| {
            let mut dice = Dice::new(seed);
            let text = Wordings::get().say(Intent::Thanks, Split::HeldOut, &mut dice);
            scribble(&text, &mut dice)
        };
        assert_eq!(say(3), say(3));
        assert!((0..50).map(say).collect::<HashSet<_>>().len() > 20);
    }
}
