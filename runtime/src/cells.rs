//! Text measured, cut and broken in a terminal's cells: a wide character takes two, a mark on another none.

use std::borrow::Cow;

use ratatui::text::Span;

/// What fills a bar, from an eighth to all of it.
const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Cells that `text` takes.
pub fn width(text: &str) -> usize {
    Span::raw(text).width()
}

fn width_of(c: char) -> usize {
    width(c.encode_utf8(&mut [0; 4]))
}

/// `text` on one line of at most `most` cells; what does not fit ends with `…`.
pub fn fit(text: &str, most: usize) -> String {
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if width(&words) <= most {
        return words;
    }
    let mut cut = String::new();
    let mut left = most.saturating_sub(1);
    for c in words.chars() {
        let Some(rest) = left.checked_sub(width_of(c)) else { break };
        left = rest;
        cut.push(c);
    }
    if most > 0 {
        cut.push('…');
    }
    cut
}

/// `text` on lines of at most `most` cells: broken between words, and within one that is too long. Its own lines stay.
pub fn wrap(text: &str, most: usize) -> Vec<String> {
    let wrapping = wrapping(most.max(2));
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let broken =
        |line: &str| textwrap::wrap(&words(line), &wrapping).into_iter().map(Cow::into_owned).collect();
    text.lines().flat_map(|line| -> Vec<String> { broken(line) }).collect()
}

/// `text` behind `indent`, and what is broken off a line behind twice that; words longer than a line stay whole.
pub fn wrap_indented(text: &str, most: usize, indent: &str) -> String {
    let twice = indent.repeat(2);
    let wrapping = wrapping(most).initial_indent(indent).subsequent_indent(&twice).break_words(false);
    text.lines().map(|line| textwrap::fill(line, &wrapping)).collect::<Vec<_>>().join("\n")
}

fn wrapping<'a>(most: usize) -> textwrap::Options<'a> {
    textwrap::Options::new(most)
        .word_separator(textwrap::WordSeparator::AsciiSpace)
        .word_splitter(textwrap::WordSplitter::NoHyphenation)
        .wrap_algorithm(textwrap::WrapAlgorithm::FirstFit)
}

/// The latest `most` of these numbers as bars, the highest as high as `top`.
pub fn bars(numbers: &[f64], top: f64, most: usize) -> String {
    let bar = |number: &f64| {
        if top <= 0.0 || *number <= 0.0 {
            // A line to stand on: nothing is a number, too.
            return LEVELS[0];
        }
        let level = (number / top * LEVELS.len() as f64).ceil() as usize;
        LEVELS[level.clamp(1, LEVELS.len()) - 1]
    };
    numbers[numbers.len().saturating_sub(most)..].iter().map(bar).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_where_its_cells_end() {
        assert_eq!(fit("out of\n memory", 20), "out of memory");
        assert_eq!(fit("out of memory", 7), "out of…");
        assert_eq!(fit("漢字漢字", 8), "漢字漢字");
        assert_eq!(fit("漢字漢字", 7), "漢字漢…");
        assert_eq!(fit("漢字漢字", 6), "漢字…");
        assert_eq!([fit("ab", 1), fit("ab", 0)], ["…", ""]);
    }

    #[test]
    fn text_is_wrapped_between_words_and_within_long_ones() {
        assert_eq!(wrap("engine ended: out of memory", 13), ["engine ended:", "out of memory"]);
        assert_eq!(wrap("a /very/long/path b", 8), ["a", "/very/lo", "ng/path", "b"]);
        assert_eq!(wrap("one\n\ntwo", 9), ["one", "", "two"]);
        assert_eq!(wrap("漢字漢", 5), ["漢字", "漢"]);
        assert!(wrap("", 5).is_empty());
    }

    #[test]
    fn indented_lines_break_between_words_and_keep_their_own_breaks() {
        let wrap = |text: &str, most| wrap_indented(text, most, "  ");
        assert_eq!(wrap("one two three", 10), "  one two\n    three");
        assert_eq!(wrap("one two three", usize::MAX), "  one two three");
        assert_eq!(wrap("  /good  x\n  /bad", 40), "    /good  x\n    /bad");
        assert_eq!(wrap("unbreakable word", 8), "  unbreakable\n    word");
        assert_eq!(wrap("漢字 漢字", 8), "  漢字\n    漢字", "a wide character takes two cells");
    }

    #[test]
    fn bars_are_as_high_as_their_numbers() {
        assert_eq!(bars(&[0.0, 1.0, 4.0, 8.0], 8.0, 9), "▁▁▄█");
        assert_eq!(bars(&[1.0, 2.0, 3.0], 3.0, 2), "▆█");
        assert_eq!(bars(&[0.0, f64::NAN], 0.0, 9), "▁▁");
    }
}
