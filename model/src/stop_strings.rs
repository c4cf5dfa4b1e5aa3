//! Stop strings: a text ends before the first of them, however it is cut into pieces.

/// What [`StopMatcher::push`] lets through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StopStep {
    /// Text that no stop string can claim any more.
    pub text: String,
    /// A stop string was completed; the response ends before it.
    pub stopped: bool,
}

/// Ends a text before the first stop string, wherever the text is cut into pieces.
#[derive(Debug)]
pub struct StopMatcher {
    stops: Vec<String>,
    held: String,
    stopped: bool,
}

impl StopMatcher {
    /// Empty stop strings are ignored.
    pub fn new(mut stops: Vec<String>) -> Self {
        stops.retain(|stop| !stop.is_empty());
        Self { stops, held: String::new(), stopped: false }
    }

    /// Takes more text. After a stop nothing passes.
    pub fn push(&mut self, text: &str) -> StopStep {
        if self.stopped {
            return StopStep { text: String::new(), stopped: true };
        }
        self.held.push_str(text);
        // The one that is completed first wins, so that the result does not depend on the pieces; of two completed at
        // the same place, the longer.
        let first = self
            .stops
            .iter()
            .filter_map(|stop| self.held.find(stop.as_str()).map(|start| (start + stop.len(), start)))
            .min();
        if let Some((_, start)) = first {
            self.stopped = true;
            self.held.truncate(start);
            return StopStep { text: std::mem::take(&mut self.held), stopped: true };
        }
        let kept = self.stops.iter().map(|stop| partial_match_len(&self.held, stop)).max().unwrap_or(0);
        let text = self.held.drain(..self.held.len() - kept).collect();
        StopStep { text, stopped: false }
    }

    /// The text held back for a stop string that did not come.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// Length of the longest end of `text` that begins `marker` without completing it.
pub(crate) fn partial_match_len(text: &str, marker: &str) -> usize {
    let longest = (marker.len() - 1).min(text.len());
    (1..=longest)
        .rev()
        .find(|&len| text.as_bytes()[text.len() - len..] == marker.as_bytes()[..len])
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt as _, SeedableRng as _};

    /// The text that passes and whether it stopped, with the text cut after each of these byte counts.
    fn run(stops: &[&str], pieces: &[&str]) -> (String, bool) {
        let mut matcher = StopMatcher::new(stops.iter().map(|&stop| stop.to_owned()).collect());
        let mut text = String::new();
        let mut stopped = false;
        for piece in pieces {
            let step = matcher.push(piece);
            text.push_str(&step.text);
            stopped = step.stopped;
        }
        (text + &matcher.finish(), stopped)
    }

    #[test]
    fn text_ends_before_the_stop_that_is_completed_first() {
        assert_eq!(run(&["END"], &["one EN", "D two"]), ("one ".into(), true));
        assert_eq!(run(&["abc", "b"], &["xabc"]), ("xa".into(), true));
        assert_eq!(run(&["bc", "abc"], &["xabc"]), ("x".into(), true));
        assert_eq!(run(&["aab"], &["aa", "ab!"]), ("a".into(), true));
        assert_eq!(run(&["", "zz"], &["fizz"]), ("fi".into(), true));
        assert_eq!(run(&[], &["a", "b"]), ("ab".into(), false));
    }

    #[test]
    fn only_what_may_be_a_stop_is_held_back() {
        let mut matcher = StopMatcher::new(vec!["\n\nUser:".into()]);
        assert_eq!(matcher.push("hello\n").text, "hello");
        assert_eq!(matcher.push("\nUs").text, "");
        assert_eq!(matcher.push("ed\n").text, "\n\nUsed");
        assert_eq!(matcher.finish(), "\n");
    }

    #[test]
    fn nothing_passes_after_a_stop() {
        let mut matcher = StopMatcher::new(vec!["#".into()]);
        assert_eq!(matcher.push("a#b"), StopStep { text: "a".into(), stopped: true });
        assert_eq!(matcher.push("c"), StopStep { text: String::new(), stopped: true });
        assert_eq!(matcher.finish(), "");
    }

    #[test]
    fn stops_do_not_depend_on_how_the_text_is_cut() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        let draw_text = |rng: &mut rand_chacha::ChaCha8Rng, most: usize| -> String {
            (0..rng.random_range(0..=most)).map(|_| ['a', 'b', 'é'][rng.random_range(0..3)]).collect()
        };
        for _ in 0..3000 {
            let stops: Vec<String> = (0..3).map(|_| draw_text(&mut rng, 5)).collect();
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            let text = draw_text(&mut rng, 30);
            let mut pieces = Vec::new();
            let mut rest = text.as_str();
            while !rest.is_empty() {
                let chars = rng.random_range(1..6);
                let at = rest.char_indices().nth(chars).map_or(rest.len(), |(at, _)| at);
                pieces.push(&rest[..at]);
                rest = &rest[at..];
            }
            assert_eq!(run(&stops, &pieces), run(&stops, &[&text]), "{stops:?} {pieces:?}");
        }
    }
}
