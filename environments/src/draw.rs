//! What every family draws from a seed: names, numbers and wordings that one split has and the other has not.
use crate::dice::Dice;
pub use crate::world::{Split, StepVerdict};
use std::collections::BTreeSet;

/// Which kinds of task a split draws from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kinds {
    /// Its own: what is held out is of kinds that training never shows.
    #[default]
    Own,
    /// Those of training, for both splits: what is held out differs in wordings, names and numbers alone.
    Seen,
}

/// A kind of task within a family.
#[derive(Debug)]
pub struct Kind {
    /// Its name in ids and tables.
    pub name: &'static str,
    /// Wordings of training; a kind without any is held out.
    pub(crate) train: &'static [&'static str],
    /// Wordings that are held out.
    pub(crate) held_out: &'static [&'static str],
}

impl Kind {
    /// The split that the kind itself belongs to.
    pub fn split(&self) -> Split {
        if self.train.is_empty() { Split::HeldOut } else { Split::Train }
    }

    /// Its wordings in `split`, with `{..}` where names and numbers go.
    pub fn wordings(&self, split: Split) -> &'static [&'static str] {
        match split {
            Split::Train => self.train,
            Split::HeldOut => self.held_out,
        }
    }
}

/// The seed of a task's dice: no two of (family, split, seed) share one. The upper four bits of `seed` are lost.
pub fn stream(family: u64, split: Split, seed: u64) -> u64 {
    seed << 4 | (family & 7) << 1 | u64::from(split == Split::HeldOut)
}

/// The split that a number belongs to: one in seven is held out.
pub fn number_split(number: i64) -> Split {
    if number.rem_euclid(7) == 3 { Split::HeldOut } else { Split::Train }
}

/// The split that a name belongs to: about one in five is held out.
pub fn name_split(name: &str) -> Split {
    let sum: u32 = name.bytes().map(u32::from).sum();
    if sum.is_multiple_of(5) { Split::HeldOut } else { Split::Train }
}

/// Draws for one task of one split.
pub(crate) struct Draw {
    pub(crate) dice: Dice,
    pub(crate) split: Split,
    taken: BTreeSet<String>,
}

impl Draw {
    pub(crate) fn new(family: u64, split: Split, seed: u64) -> Self {
        Self { dice: Dice::new(stream(family, split, seed)), split, taken: BTreeSet::new() }
    }

    /// A kind of this split, and one of its wordings.
    pub(crate) fn kind(&mut self, kinds: &'static [Kind], from: Kinds) -> (&'static Kind, &'static str) {
        let wanted = if from == Kinds::Seen { Split::Train } else { self.split };
        let fitting: Vec<&Kind> = kinds.iter().filter(|kind| kind.split() == wanted).collect();
        let kind = fitting[self.dice.index(fitting.len())];
        (kind, self.dice.pick(kind.wordings(self.split)))
    }

    /// A number of this split from `low` to `high`, which must be at least 7 apart.
    pub(crate) fn number(&mut self, low: i64, high: i64) -> i64 {
        loop {
            let number = self.dice.between(low, high);
            if number_split(number) == self.split {
                return number;
            }
        }
    }

    /// A number of this split with so many digits, at least two.
    pub(crate) fn digits(&mut self, digits: u32) -> i64 {
        let low = 10i64.pow(digits.clamp(2, 9) - 1);
        self.number(low, low * 10 - 1)
    }

    /// A name of this split that the task does not have yet: four to six letters, to be copied and not known.
    pub(crate) fn name(&mut self) -> String {
        const CONSONANTS: &[u8] = b"bdfgklmnprstvz";
        const VOWELS: &[u8] = b"aeiou";
        // Words that a shell or Python takes for its own.
        const RESERVED: [&str; 6] = ["sed", "test", "file", "none", "time", "find"];
        loop {
            let len = 4 + self.dice.index(3);
            let name: String = (0..len)
                .map(|at| {
                    let letters = if at % 2 == 0 { CONSONANTS } else { VOWELS };
                    char::from(letters[self.dice.index(letters.len())])
                })
                .collect();
            if name_split(&name) == self.split
                && !RESERVED.contains(&name.as_str())
                && self.taken.insert(name.clone())
            {
                return name;
            }
        }
    }
}

/// `text` with every `{key}` replaced.
pub(crate) fn fill(text: &str, values: &[(&str, &str)]) -> String {
    values.iter().fold(text.to_owned(), |text, (key, value)| text.replace(&format!("{{{key}}}"), value))
}
