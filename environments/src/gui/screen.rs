//! A screen as an agent knows it: the numbered list of what is on it.

use sha2::{Digest, Sha256};

use super::{Element, Options, Picture};

/// What is on a screen, by numbers from 1 that hold until the next look.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Screen {
    elements: Vec<Element>,
    /// So many more did not fit into the list.
    pub left_out: usize,
    /// As it looks.
    pub picture: Option<Picture>,
    size: (u32, u32),
    /// Places are told, too.
    places: bool,
}

impl Screen {
    /// Of those of `elements` that can be seen, as many as fit.
    pub fn new(elements: Vec<Element>, picture: Option<Picture>, options: &Options) -> Self {
        let size = (options.width, options.height);
        let places = options.actions.places();
        let mut screen = Self { picture, size, places, ..Self::default() };
        let mut chars = 0;
        for mut element in elements {
            let Some(bounds) = element.bounds.on(size.0, size.1) else { continue };
            element.bounds = bounds;
            if screen.left_out == 0 {
                let length = screen.line(screen.elements.len() + 1, &element).chars().count() + 1;
                if screen.elements.len() < options.list_lines && chars + length <= options.list_chars {
                    chars += length;
                    screen.elements.push(element);
                    continue;
                }
            }
            screen.left_out += 1;
        }
        screen
    }

    /// By its number.
    pub fn element(&self, number: u64) -> Option<&Element> {
        let at = usize::try_from(number).ok()?.checked_sub(1)?;
        self.elements.get(at)
    }

    /// By the name that its display has for it.
    pub fn by_key(&self, key: u64) -> Option<&Element> {
        self.elements.iter().find(|element| element.key == key)
    }

    /// All of them, the one with number 1 first.
    pub fn elements(&self) -> &[Element] {
        &self.elements
    }

    /// The list, a line for each, and what does not fit into it.
    pub fn list(&self) -> String {
        let numbered = self.elements.iter().zip(1..);
        let mut lines: Vec<String> = numbered.map(|(element, number)| self.line(number, element)).collect();
        if lines.is_empty() {
            lines.push("[nothing can be told apart on the screen]".to_owned());
        }
        if self.left_out > 0 {
            lines.push(format!("[{} more left out]", self.left_out));
        }
        lines.join("\n")
    }

    fn line(&self, number: usize, element: &Element) -> String {
        if !self.places {
            return format!("[{number}] {}", element.line());
        }
        let middle = element.bounds.middle();
        let of = |at: f32, size: u32| (at / size as f32 * 1000.0).clamp(0.0, 999.0) as u32;
        format!(
            "[{number}] {} at {},{}",
            element.line(),
            of(middle.x, self.size.0),
            of(middle.y, self.size.1)
        )
    }

    /// Whether it is another one than `before`, by the list or by the picture.
    pub fn differs(&self, before: &Self) -> bool {
        let looks = |screen: &Self| screen.picture.as_ref().map(|picture| picture.image.sha256.clone());
        self.list() != before.list() || looks(self) != looks(before)
    }

    /// Names what is on it, on every machine the same.
    pub fn state(&self) -> u64 {
        let hash = Sha256::digest(self.list());
        hash.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
    }
}
