//! Keys by the names that agents use for them, as the DevTools protocol has them.

use serde_json::{Value, json};

/// A key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key {
    /// As pages see it: `Enter`, `a`.
    key: String,
    code: String,
    number: u32,
    text: Option<String>,
    /// Its bit, of those that are held: 1 alt, 2 ctrl, 4 meta, 8 shift.
    modifier: u32,
}

/// By name, in small letters: what pages call it, its code, its number, its bit.
const NAMED: &[(&str, &str, &str, u32, u32)] = &[
    ("alt", "Alt", "AltLeft", 18, 1),
    ("ctrl", "Control", "ControlLeft", 17, 2),
    ("control", "Control", "ControlLeft", 17, 2),
    ("meta", "Meta", "MetaLeft", 91, 4),
    ("super", "Meta", "MetaLeft", 91, 4),
    ("shift", "Shift", "ShiftLeft", 16, 8),
    ("enter", "Enter", "Enter", 13, 0),
    ("return", "Enter", "Enter", 13, 0),
    ("tab", "Tab", "Tab", 9, 0),
    ("esc", "Escape", "Escape", 27, 0),
    ("escape", "Escape", "Escape", 27, 0),
    ("backspace", "Backspace", "Backspace", 8, 0),
    ("delete", "Delete", "Delete", 46, 0),
    ("home", "Home", "Home", 36, 0),
    ("end", "End", "End", 35, 0),
    ("pageup", "PageUp", "PageUp", 33, 0),
    ("page_up", "PageUp", "PageUp", 33, 0),
    ("pagedown", "PageDown", "PageDown", 34, 0),
    ("page_down", "PageDown", "PageDown", 34, 0),
    ("left", "ArrowLeft", "ArrowLeft", 37, 0),
    ("up", "ArrowUp", "ArrowUp", 38, 0),
    ("right", "ArrowRight", "ArrowRight", 39, 0),
    ("down", "ArrowDown", "ArrowDown", 40, 0),
];

impl Key {
    /// By its name; none where there is no such key.
    pub(super) fn named(name: &str) -> Option<Self> {
        let small = name.trim().to_lowercase();
        let small = small.strip_prefix("arrow").unwrap_or(&small);
        if let Some((_, key, code, number, modifier)) = NAMED.iter().find(|(named, ..)| *named == small) {
            let text = (*key == "Enter").then(|| "\r".to_owned());
            let (key, code) = ((*key).to_owned(), (*code).to_owned());
            return Some(Self { key, code, number: *number, text, modifier: *modifier });
        }
        if let Some(number) = small.strip_prefix('f').and_then(|number| number.parse::<u32>().ok()) {
            let key = format!("F{number}");
            let known = (1..=12).contains(&number);
            return known.then(|| Self {
                code: key.clone(),
                key,
                number: 111 + number,
                text: None,
                modifier: 0,
            });
        }
        if small == "space" {
            return Some(Self::of(' '));
        }
        let mut chars = name.chars();
        match (chars.next(), chars.next()) {
            (Some(char), None) => Some(Self::of(char)),
            _ => None,
        }
    }

    /// The one that types a character.
    pub(super) fn of(char: char) -> Self {
        if char == '\n' {
            return Self::named("enter").expect("it is among the named");
        }
        let upper = char.to_ascii_uppercase();
        let (code, number) = match upper {
            'A'..='Z' => (format!("Key{upper}"), upper as u32),
            '0'..='9' => (format!("Digit{upper}"), upper as u32),
            ' ' => ("Space".to_owned(), 32),
            _ => (String::new(), 0),
        };
        let text = Some(char.to_string());
        Self { key: char.to_string(), code, number, text, modifier: 0 }
    }

    /// Its bit, if it is held for the sake of others.
    pub(super) fn modifier(&self) -> u32 {
        self.modifier
    }

    /// What happens when it goes down, `held` being down.
    pub(super) fn down(&self, held: u32) -> Value {
        // With a key like ctrl held, nothing is typed.
        let text = self.text.as_ref().filter(|_| held & !8 == 0);
        let mut event = self.event(held);
        event["type"] = if text.is_some() { "keyDown" } else { "rawKeyDown" }.into();
        if let Some(text) = text {
            event["text"] = text.as_str().into();
        }
        if held == 2 && self.key.eq_ignore_ascii_case("a") {
            // Shortcuts of an editor are not the page's, and a browser without a window has none.
            event["commands"] = json!(["selectAll"]);
        }
        event
    }

    /// What happens when it goes up.
    pub(super) fn up(&self, held: u32) -> Value {
        let mut event = self.event(held);
        event["type"] = "keyUp".into();
        event
    }

    fn event(&self, held: u32) -> Value {
        json!({
            "key": self.key,
            "code": self.code,
            "windowsVirtualKeyCode": self.number,
            "modifiers": held,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_the_names_that_agents_use() {
        for (name, key) in [
            ("ctrl", "Control"),
            ("Return", "Enter"),
            ("ArrowLeft", "ArrowLeft"),
            ("Page_Down", "PageDown"),
            ("F5", "F5"),
            ("space", " "),
            ("A", "A"),
            ("\u{e4}", "\u{e4}"),
            ("f", "f"),
        ] {
            assert_eq!(Key::named(name).map(|key| key.key).as_deref(), Some(key), "{name}");
        }
        assert!(["hyper", "", "F13", "ab"].iter().all(|name| Key::named(name).is_none()));
    }

    #[test]
    fn a_key_types_unless_another_is_held() {
        let key = Key::of('a');
        assert_eq!((key.down(0)["text"].as_str(), key.down(8)["text"].as_str()), (Some("a"), Some("a")));
        assert_eq!(key.down(2)["text"], Value::Null);
        assert_eq!(key.down(2)["commands"], json!(["selectAll"]));
        assert_eq!(Key::of('\n').down(0)["text"], "\r");
    }
}
