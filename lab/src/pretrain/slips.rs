//! Slips: words that do not belong are put into an answer, and what comes after them is as it would have been. A small
//! model that is drawn from slips now and then, and one that never saw how to go on after that repeats itself for ever.
use openclaw_environments::dice::Dice;
use openclaw_model::{Tokenizer, TrainSequence};

/// How often a slip is one token again and again, and how often at most.
const STUTTER: f64 = 0.25;
const LONGEST_STUTTER: usize = 8;

/// Puts slips into answers.
pub(super) struct Slips {
    /// Before this share of an answer's tokens.
    share: f64,
    /// Tokens of letters alone, in order: a wrong digit would be something to reckon with.
    words: Vec<u32>,
    dice: Dice,
}

impl Slips {
    pub(super) fn new(tokenizer: &Tokenizer, share: f64, seed: u64) -> Self {
        let is_word = |id: &u32| {
            let text = tokenizer.token_text(*id);
            let letters = text.strip_prefix(' ').unwrap_or(&text);
            !letters.is_empty() && letters.chars().all(|c| c.is_ascii_alphabetic())
        };
        let words = (0..tokenizer.vocab_size() as u32).filter(is_word).collect();
        Self { share, words, dice: Dice::new(seed) }
    }

    /// Slips before some of the tokens whose weight is 1, an answer's. Nothing asks for the slips themselves.
    pub(super) fn put_into(&mut self, sequence: TrainSequence) -> TrainSequence {
        if self.share == 0.0 || self.words.is_empty() {
            return sequence;
        }
        let TrainSequence { ids: before, mut rows, temperature } = sequence;
        let (mut ids, mut taken) = (Vec::with_capacity(before.len()), 0);
        for row in &mut rows {
            let position = row.position;
            ids.extend_from_slice(&before[taken..position]);
            taken = position;
            if row.weight == 1.0 && self.dice.chance(self.share) {
                self.slip(&mut ids);
            }
            row.position = ids.len();
        }
        ids.extend_from_slice(&before[taken..]);
        TrainSequence { ids, rows, temperature }
    }

    fn slip(&mut self, ids: &mut Vec<u32>) {
        // What slips in is often something that was just said.
        let said: Vec<u32> =
            ids.iter().rev().take(200).filter(|id| self.words.binary_search(id).is_ok()).copied().collect();
        let from = if said.is_empty() || self.dice.chance(0.5) { &self.words } else { &said };
        let token = from[self.dice.index(from.len())];
        let times = if self.dice.chance(STUTTER) { 2 + self.dice.index(LONGEST_STUTTER - 1) } else { 1 };
        ids.extend(std::iter::repeat_n(token, times));
    }
}

#[cfg(test)]
mod tests {
    use openclaw_model::{TrainRow, train_bpe};

    use super::*;

    #[test]
    fn what_follows_a_slip_is_what_would_have_followed_and_no_slip_is_asked_for() {
        let tokenizer = train_bpe(["some words are said here".to_owned()].into_iter(), 280, &["<|end|>"]);
        let tokenizer = tokenizer.expect("a vocabulary");
        let ids: Vec<u32> = (0..400).map(|at| 1 + at % 250).collect();
        let weight = |position| if position < 200 { 0.2 } else { 1.0 };
        let row = |position| TrainRow { position, weight: weight(position), ..TrainRow::default() };
        let rows: Vec<_> = (1..ids.len()).map(row).collect();
        let whole = TrainSequence { ids: ids.clone(), rows, temperature: 1.0 };
        let mut slips = Slips::new(&tokenizer, 0.1, 3);
        let mut put_in = 0;
        for _ in 0..20 {
            let slipped = slips.put_into(whole.clone());
            let asked: Vec<u32> = slipped.rows.iter().map(|row| slipped.ids[row.position]).collect();
            assert_eq!(asked, ids[1..]);
            assert!(slipped.rows.windows(2).all(|pair| pair[0].position < pair[1].position));
            // What is read is as it was.
            assert_eq!(slipped.ids[..200], ids[..200]);
            put_in += slipped.ids.len() - ids.len();
        }
        assert!((300..1500).contains(&put_in), "{put_in}");
        assert_eq!(Slips::new(&tokenizer, 0.0, 3).put_into(whole.clone()).ids, ids);
    }
}
