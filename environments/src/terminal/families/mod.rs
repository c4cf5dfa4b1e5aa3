//! Families of small tasks in a shell, made from a seed: files to be put elsewhere, text to be worked on, a name that must
//! first be read. Each has an oracle: the right commands, and a rule for any step.
mod hidden;
mod moves;
mod rule;
mod text;

use serde::Deserialize;

pub use self::rule::Progress;
use super::tree::Tree;
use crate::{
    draw::{Draw, Kind, Kinds, Split, fill},
    world::{Part, Said, StepVerdict},
};

/// A family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
pub enum Family {
    /// TE-1: files are moved, copied and renamed.
    #[serde(rename = "te1")]
    Moves,
    /// TE-2: lines are counted, sorted, replaced, taken out.
    #[serde(rename = "te2")]
    Text,
    /// TE-3: a file that has to be found says what the name is.
    #[serde(rename = "te3")]
    Hidden,
}

impl Family {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Moves, Self::Text, Self::Hidden];

    /// The name in ids, settings and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Moves => "te1",
            Self::Text => "te2",
            Self::Hidden => "te3",
        }
    }

    /// Its kinds of task.
    pub fn kinds(self) -> &'static [Kind] {
        match self {
            Self::Moves => moves::KINDS,
            Self::Text => text::KINDS,
            Self::Hidden => hidden::KINDS,
        }
    }

    /// Apart from those of the families for other tools.
    fn number(self) -> u64 {
        match self {
            Self::Moves => 3,
            Self::Text => 4,
            Self::Hidden => 5,
        }
    }
}

/// How hard the tasks are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Knobs {
    /// Least and most files at the start, 1 to 30; those that the task is about are there in any case.
    pub files: (usize, usize),
    /// Most folders in one another, 1 to 4.
    pub depth: usize,
    /// Least and most things that are to be done, 1 to 4.
    pub operations: (usize, usize),
    /// Least and most lines of a text, 3 to 200.
    pub lines: (usize, usize),
    /// Least and most folders to look in, 1 to 8.
    pub folders: (usize, usize),
    /// Which kinds are drawn.
    pub kinds: Kinds,
}

impl Default for Knobs {
    fn default() -> Self {
        Self {
            files: (3, 6),
            depth: 2,
            operations: (1, 2),
            lines: (4, 9),
            folders: (2, 3),
            kinds: Kinds::Own,
        }
    }
}

/// One task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FamilyTask {
    /// `te1/train/7`: the same id is the same task, given the same knobs.
    pub id: String,
    /// Its family.
    pub family: Family,
    /// Its split.
    pub split: Split,
    /// Name of its kind.
    pub kind: &'static str,
    /// The wording that the instruction was made of.
    pub wording: &'static str,
    /// What the agent is told.
    pub instruction: String,
    /// The workspace at first.
    pub start: Tree,
    /// The workspace when it is done.
    pub goal: Tree,
    /// Words that must be seen on the way.
    pub facts: Vec<String>,
    /// Each fact leads to the next: who has a later one needs none of those before it.
    pub in_order: bool,
    /// Commands that do it, each of them a good step.
    pub plan: Vec<String>,
}

/// What every task says first.
const ABOUT: &str = "You work in a shell, in the folder /workspace. When you are done, say so in a few words without a call. At the end the folder has what was asked for and nothing else; /tmp is for everything else.";

impl FamilyTask {
    /// What the agent is told first.
    pub fn opening(&self) -> Vec<Said> {
        let system = Said { role: "system", parts: vec![Part::Text(ABOUT.to_owned())] };
        vec![system, Said::user(self.instruction.clone())]
    }
}

/// The task of a family, a split and a seed.
pub fn task(family: Family, split: Split, seed: u64, knobs: &Knobs) -> FamilyTask {
    let mut draw = Draw::new(family.number(), split, seed);
    let (kind, wording) = draw.kind(family.kinds(), knobs.kinds);
    let mut making = Making { draw, knobs, made: Made::default() };
    match family {
        Family::Moves => moves::make(&mut making, kind.name, wording),
        Family::Text => text::make(&mut making, kind.name, wording),
        Family::Hidden => hidden::make(&mut making, kind.name, wording),
    }
    let Made { start, goal, facts, in_order, plan, sentences } = making.made;
    FamilyTask {
        id: format!("{}/{split}/{seed}", family.name()),
        family,
        split,
        kind: kind.name,
        wording,
        instruction: sentences.join(" "),
        start,
        goal,
        facts,
        in_order,
        plan,
    }
}

/// A task that grows.
struct Making<'a> {
    draw: Draw,
    knobs: &'a Knobs,
    made: Made,
}

#[derive(Default)]
struct Made {
    start: Tree,
    goal: Tree,
    facts: Vec<String>,
    in_order: bool,
    plan: Vec<String>,
    sentences: Vec<String>,
}

impl Making<'_> {
    /// From the least to the most.
    fn between(&mut self, (low, high): (usize, usize)) -> usize {
        low + self.draw.dice.index(high.saturating_sub(low) + 1)
    }

    fn say(&mut self, wording: &str, values: &[(&str, &str)]) {
        self.made.sentences.push(fill(wording, values));
    }

    /// A new name that the wording does not happen to have.
    fn fact(&mut self, wording: &str) -> String {
        loop {
            let name = self.draw.name();
            if !wording.contains(&name) {
                return name;
            }
        }
    }

    /// An ending of this split.
    fn ending(&mut self) -> &'static str {
        let endings = if self.draw.split == Split::Train { TRAIN_ENDINGS } else { HELD_OUT_ENDINGS };
        self.draw.dice.pick(endings)
    }

    /// A new name with an ending.
    fn file_name(&mut self) -> String {
        let ending = self.ending();
        format!("{}.{ending}", self.draw.name())
    }

    /// So many folders, some of them in one another; each is there at the start and at the end.
    fn folders(&mut self, count: usize) -> Vec<String> {
        let mut folders: Vec<String> = Vec::new();
        for _ in 0..count {
            let shallow: Vec<&String> =
                folders.iter().filter(|path| path.matches('/').count() + 1 < self.knobs.depth).collect();
            let around = match shallow.is_empty() || !self.draw.dice.chance(0.5) {
                true => String::new(),
                false => format!("{}/", shallow[self.draw.dice.index(shallow.len())]),
            };
            folders.push(around + &self.draw.name());
        }
        for folder in &folders {
            self.made.start.folder(folder);
            self.made.goal.folder(folder);
        }
        folders
    }

    /// Text that no other file of the task has.
    fn content(&mut self) -> String {
        format!("{} {}\n", self.draw.name(), self.draw.number(100, 999))
    }

    /// A file at the start alone; what becomes of it is the caller's.
    fn starts_with(&mut self, path: &str) -> String {
        let content = self.content();
        self.made.start.file(path, content.clone());
        content
    }

    /// A file that stays as it is.
    fn decoy(&mut self, path: &str) {
        let content = self.starts_with(path);
        self.made.goal.file(path, content);
    }

    /// Files that stay, until there are as many as were drawn.
    fn decoys(&mut self, folders: &[String], wanted: usize) {
        let files = |tree: &Tree| {
            let is_file = |path: &&str| matches!(tree.get(path), Some(super::tree::Node::File(_)));
            tree.paths().filter(is_file).count()
        };
        for _ in files(&self.made.start)..wanted {
            let folder = &folders[self.draw.dice.index(folders.len())];
            let path = format!("{folder}/{}", self.file_name());
            self.decoy(&path);
        }
    }
}

const TRAIN_ENDINGS: &[&str] = &["txt", "log", "dat", "cfg"];
const HELD_OUT_ENDINGS: &[&str] = &["md", "lst", "out"];

#[cfg(test)]
mod tests;
