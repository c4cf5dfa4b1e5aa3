//! Replies that say one phrase again and again.

/// The longest phrase whose repetition is looked for.
const LONGEST_PERIOD_TOKENS: usize = 64;
/// A loop says its phrase at least this often.
const REPEATS: usize = 6;

/// Whether the last `loop_tokens` or more of `ids` are one phrase again and again.
pub(crate) fn ends_in_a_loop(ids: &[u32], loop_tokens: usize) -> bool {
    (1..=LONGEST_PERIOD_TOKENS.min(ids.len() / 2)).any(|period| {
        let repeated =
            ids.iter().rev().zip(ids.iter().rev().skip(period)).take_while(|(a, b)| a == b).count();
        repeated + period >= loop_tokens.max(REPEATS * period)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOP_TOKENS: usize = 64;

    #[test]
    fn loops_are_recognised_and_lists_are_not() {
        let phrase = [7u32, 8, 9];
        let looping: Vec<u32> = (100..150).chain(phrase.into_iter().cycle().take(70)).collect();
        assert!(ends_in_a_loop(&looping, LOOP_TOKENS));
        assert!(ends_in_a_loop(&[3; 64], LOOP_TOKENS));
        assert!(!ends_in_a_loop(&[3; 20], LOOP_TOKENS), "a short run is a word or a rule of dashes");
        let list: Vec<u32> = (0..40).flat_map(|n| [5, 6, 100 + n]).collect();
        assert!(!ends_in_a_loop(&list, LOOP_TOKENS));
        assert!(!ends_in_a_loop(&[], LOOP_TOKENS));
    }
}
