//! One thing on a screen, as it is told in a line.

use super::Point;

/// The most characters of a name or of a value.
const TEXT_CHARS: usize = 120;

/// Something on a screen that can be told apart.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Element {
    /// Names it for its display, as long as it is there.
    pub key: u64,
    /// `button`, `textbox`, `text`.
    pub role: String,
    /// What it is called.
    pub name: String,
    /// What is in it, where something can be.
    pub value: Option<String>,
    /// `checked`, `disabled`, `focused`, in an order that is always the same.
    pub states: Vec<String>,
    /// Where it is; none is nowhere.
    pub bounds: Bounds,
}

/// A box in pixels, from the upper left corner of the screen.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bounds {
    /// Of its left edge.
    pub x: f32,
    /// Of its upper edge.
    pub y: f32,
    /// To the right.
    pub width: f32,
    /// Downwards.
    pub height: f32,
}

impl Bounds {
    /// The part of it that is on a screen of this size, if any is.
    pub fn on(&self, width: u32, height: u32) -> Option<Self> {
        let (left, top) = (self.x.max(0.0), self.y.max(0.0));
        let right = (self.x + self.width).min(width as f32);
        let bottom = (self.y + self.height).min(height as f32);
        // What is less than a pixel cannot be hit.
        let seen = right - left >= 1.0 && bottom - top >= 1.0;
        seen.then_some(Self { x: left, y: top, width: right - left, height: bottom - top })
    }

    /// Its middle.
    pub fn middle(&self) -> Point {
        Point { x: self.x + self.width / 2.0, y: self.y + self.height / 2.0 }
    }
}

impl Element {
    /// `button "Save" disabled`.
    pub fn line(&self) -> String {
        let mut line = if self.role.is_empty() { "element".to_owned() } else { self.role.clone() };
        if !self.name.is_empty() {
            line.push_str(&format!(" \"{}\"", plain(&self.name)));
        }
        if let Some(value) = &self.value {
            line.push_str(&format!(" value=\"{}\"", plain(value)));
        }
        for state in &self.states {
            line.push(' ');
            line.push_str(state);
        }
        line
    }
}

/// In one line, and not too long.
fn plain(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let text = words.join(" ").replace('"', "\\\"");
    match text.char_indices().nth(TEXT_CHARS) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text,
    }
}
