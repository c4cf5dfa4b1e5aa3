//! What environments with a screen share: what an agent is shown, what it can do, and the rule for a step. A kind has a
//! [`Display`], which looks and acts; a [`Stage`] makes an agent's steps of it.
mod act;
mod computer;
mod difference;
mod element;
mod rule;
mod screen;
mod shot;
mod stage;

use serde::Deserialize;

pub use self::{
    act::{Act, Button, Point},
    element::{Bounds, Element},
    screen::Screen,
    shot::Picture,
    stage::{Ended, Stage},
};
use crate::world::WorldError;

/// A screen with its pointer and its keyboard.
pub trait Display {
    /// What is on it now, once it has settled.
    fn look(&mut self) -> Result<Look, WorldError>;

    /// Does one thing. What cannot be done, because the agent asked for it wrongly, is said to it.
    fn act(&mut self, act: &Act) -> Result<Did, WorldError>;
}

/// What is on a screen.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Look {
    /// What can be told apart on it, in reading order. Hidden ones and those outside the screen may be among them.
    pub elements: Vec<Element>,
    /// The screen as a PNG.
    pub png: Option<Vec<u8>>,
    /// How near the goal is, from 0 to 1, where that is known.
    pub progress: Option<f64>,
    /// The task has ended by itself.
    pub over: bool,
}

/// What became of an act.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Did {
    /// It was done.
    Done,
    /// It was done, and this came of it that the screen does not show.
    Told(String),
    /// It was not, and this is why.
    Refused(String),
}

/// What an agent acts with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Actions {
    /// Numbers of the list: `click`, `type`, `scroll`, `wait`, `done`, `fail`.
    #[default]
    Elements,
    /// Numbers of the list, and of these tools `click` and `type` alone, as the embedded model was taught them: it says that it is done.
    Basic,
    /// One tool `computer_use` with places on the screen, from 0 to 999 in both directions.
    Coordinates,
    /// All of them.
    Both,
}

impl Actions {
    /// By numbers of the list.
    fn numbers(self) -> bool {
        self != Self::Coordinates
    }

    /// By all tools that take such numbers.
    fn all_of_them(self) -> bool {
        matches!(self, Self::Elements | Self::Both)
    }

    /// By places on the screen.
    fn places(self) -> bool {
        matches!(self, Self::Coordinates | Self::Both)
    }
}

/// What an agent is shown of a screen. Screenshots are kept in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Show {
    /// The numbered list: for a model of text.
    #[default]
    List,
    /// The screenshot.
    Screenshot,
    /// Both.
    Both,
}

impl Show {
    fn list(self) -> bool {
        self != Self::Screenshot
    }

    fn screenshot(self) -> bool {
        self != Self::List
    }
}

/// How a stage shows and acts. The keys of a kind's settings have these names.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// In pixels, 100 to 4096.
    pub width: u32,
    /// In pixels, 100 to 4096.
    pub height: u32,
    /// What an agent acts with.
    pub actions: Actions,
    /// What it is shown.
    pub show: Show,
    /// The most lines of a list, 1 to 1000.
    pub list_lines: usize,
    /// The most characters of a list, 100 to 100,000.
    pub list_chars: usize,
    /// A step is told with what it did, what came, went and changed, and the list: for a judge that reads. Else a call gives
    /// the list alone, as the embedded model knows it.
    pub changes: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            width: 800,
            height: 600,
            actions: Actions::Elements,
            show: Show::List,
            list_lines: 100,
            list_chars: 6000,
            changes: false,
        }
    }
}

impl Options {
    /// Names the key of what cannot be used.
    pub fn check(&self) -> Result<(), WorldError> {
        let within = |key: &str, value: usize, low: usize, high: usize| {
            let fits = (low..=high).contains(&value);
            let refused = || WorldError::Settings(format!("{key}: {value} is not from {low} to {high}"));
            fits.then_some(()).ok_or_else(refused)
        };
        within("width", self.width as usize, 100, 4096)?;
        within("height", self.height as usize, 100, 4096)?;
        within("list_lines", self.list_lines, 1, 1000)?;
        within("list_chars", self.list_chars, 100, 100_000)?;
        if self.show == Show::Screenshot && self.actions != Actions::Coordinates {
            let why = "show: \"screenshot\" has no numbers to act with; it needs actions = \"coordinates\"";
            return Err(WorldError::Settings(why.to_owned()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
