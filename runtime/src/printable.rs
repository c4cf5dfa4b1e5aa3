//! Text that others wrote, made safe to show: a terminal obeys control characters, and direction marks put words
//! where they do not stand.

use std::borrow::Cow;

/// `text` with every character that a terminal would obey made visible as `�`. Lines stay lines; a tab is a blank.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(is_obeyed) {
        return Cow::Borrowed(text);
    }
    let shown = |c: char| match c {
        '\t' => ' ',
        c if is_obeyed(c) => char::REPLACEMENT_CHARACTER,
        c => c,
    };
    // What Windows ends its lines with is no control of the terminal's.
    text.replace("\r\n", "\n").chars().map(shown).collect::<String>().into()
}

fn is_obeyed(c: char) -> bool {
    let turns_direction =
        matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c != '\n' && c.is_control() || turns_direction
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_is_left_and_words_stay() {
        assert_eq!(printable("out of memory\n  at 漢字, é"), "out of memory\n  at 漢字, é");
        assert_eq!(printable("a\tb\r\nc"), "a b\nc");
        assert_eq!(printable("\x1b[2Jx\x07\u{9b}31m\u{202e}y\r"), "�[2Jx��31m�y�");
    }
}
