//! Families of small pages, made from a seed: a button to be clicked, fields to be filled, boxes to be ticked. Each has an
//! oracle: the moves that do it, and how far any page is from the goal.
mod html;
mod kinds;
mod state;

use serde::Deserialize;

pub(super) use self::state::STATE;
use crate::draw::{Draw, Kind, Kinds, Split};

/// A family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
pub enum Family {
    /// GW-1: the named button among others is clicked.
    #[serde(rename = "gw1")]
    Buttons,
    /// GW-2: named fields are filled, and the form is sent.
    #[serde(rename = "gw2")]
    Fields,
    /// GW-3: named boxes are ticked, or one of a list is chosen, and the form is sent.
    #[serde(rename = "gw3")]
    Choices,
}

impl Family {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Buttons, Self::Fields, Self::Choices];

    /// The name in ids, settings and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Buttons => "gw1",
            Self::Fields => "gw2",
            Self::Choices => "gw3",
        }
    }

    /// Its kinds of task.
    pub fn kinds(self) -> &'static [Kind] {
        match self {
            Self::Buttons => kinds::BUTTONS,
            Self::Fields => kinds::FIELDS,
            Self::Choices => kinds::CHOICES,
        }
    }

    fn number(self) -> u64 {
        match self {
            Self::Buttons => 0,
            Self::Fields => 1,
            Self::Choices => 2,
        }
    }
}

/// How hard the tasks are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Knobs {
    /// Least and most buttons, 2 to 12.
    pub buttons: (usize, usize),
    /// Least and most fields, 1 to 6.
    pub fields: (usize, usize),
    /// Least and most boxes or things to choose from, 2 to 10.
    pub choices: (usize, usize),
    /// Which kinds are drawn.
    pub kinds: Kinds,
}

impl Default for Knobs {
    fn default() -> Self {
        Self { buttons: (3, 6), fields: (1, 3), choices: (3, 5), kinds: Kinds::Own }
    }
}

/// One task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FamilyTask {
    /// `gw1/train/7`: the same id is the same task, given the same knobs.
    pub id: String,
    /// Its family.
    pub family: Family,
    /// Name of its kind.
    pub kind: &'static str,
    /// The wording that the instruction was made of.
    pub wording: &'static str,
    /// What the agent is told.
    pub instruction: String,
    /// What it finds.
    pub html: String,
    /// What it can change, in the order of the page.
    pub controls: Vec<Control>,
    /// The buttons of the page, by their numbers.
    pub buttons: Vec<String>,
    /// Which of them are to be clicked, in this order; another click ends the task.
    pub clicks: Vec<usize>,
    /// Moves that do it, each of them a good step.
    pub plan: Vec<Move>,
}

/// Something that can be changed on a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// What it is called.
    pub label: String,
    /// What it is.
    pub what: What,
    /// How it is at first.
    pub start: String,
    /// How it is to be.
    pub goal: String,
}

/// What can be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A text.
    Field,
    /// `true` or `false`.
    Box,
    /// One of these.
    List(Vec<String>),
    /// One of these, all of them in sight.
    Radio(Vec<String>),
}

/// A move of an oracle, by the names on the page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Move {
    /// What is called so is clicked.
    Click(String),
    /// A text is put into what is called so.
    Type(String, String),
}

impl FamilyTask {
    /// Where its page is: it needs no file and no network.
    pub(super) fn url(&self) -> String {
        use base64::{Engine as _, prelude::BASE64_STANDARD};
        format!("data:text/html;charset=utf-8;base64,{}", BASE64_STANDARD.encode(&self.html))
    }
}

/// The task of a family, a split and a seed.
pub fn task(family: Family, split: Split, seed: u64, knobs: &Knobs) -> FamilyTask {
    // The families share one stream of the draws, each a third of its seeds.
    let mut draw = Draw::new(STREAM, split, seed.wrapping_mul(3).wrapping_add(family.number()));
    let (kind, wording) = draw.kind(family.kinds(), knobs.kinds);
    let made = kinds::make(&mut draw, kind.name, wording, knobs);
    let html = html::page(&mut draw, &made);
    FamilyTask {
        id: format!("{}/{split}/{seed}", family.name()),
        family,
        kind: kind.name,
        wording,
        instruction: made.instruction,
        html,
        controls: made.controls,
        buttons: made.buttons,
        clicks: made.clicks,
        plan: made.plan,
    }
}

/// Apart from those of the families for other tools.
const STREAM: u64 = 6;

#[cfg(test)]
mod tests;
