//! Counting votes: each answer of the judge is one, and the majority decides.

use openclaw_journal::{Verdict, Vote};

use super::answer::Answer;
use crate::prompts;

/// The verdict of the answers that arrived.
pub(super) fn read_votes(answers: &[Option<Answer>]) -> Verdict {
    let vote = |answer: &Option<Answer>| prompts::parse_verdict(answer.as_ref()?.readable().ok()?);
    let votes: Vec<Vote> = answers.iter().map(vote).collect();
    let reward = majority(&votes);
    for (answer, vote) in answers.iter().zip(&votes) {
        let vote = if answer.is_some() { word(*vote) } else { "missing" };
        metrics::counter!("openclaw_judge_votes_total", "vote" => vote).increment(1);
    }
    let agreed = votes.iter().filter(|vote| vote.is_some() && **vote == reward).count();
    metrics::counter!("openclaw_judge_votes_agreed_total").increment(agreed as u64);
    Verdict { reward, votes, rule: None }
}

/// The majority of the readable votes: none gives `None`, a tie gives 0.
fn majority(votes: &[Option<i8>]) -> Option<i8> {
    let mut counts = [0usize; 3];
    for vote in votes.iter().flatten() {
        counts[(vote + 1) as usize] += 1;
    }
    let most = *counts.iter().max().expect("three counts");
    if most == 0 {
        return None;
    }
    let mut leaders = (0..3).filter(|&i| counts[i] == most);
    let first = leaders.next().expect("one count is the largest");
    Some(if leaders.next().is_some() { 0 } else { first as i8 - 1 })
}

/// A reward or a vote as a label.
pub(super) fn word(vote: Vote) -> &'static str {
    match vote {
        Some(1) => "good",
        Some(-1) => "bad",
        Some(_) => "neutral",
        None => "unreadable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn majority_drops_unreadable_votes_and_ties_to_zero() {
        let cases: [(&[Option<i8>], Option<i8>); 8] = [
            (&[Some(1), Some(1), Some(-1)], Some(1)),
            (&[Some(1), Some(-1)], Some(0)),
            (&[Some(1), Some(-1), Some(0)], Some(0)),
            (&[None, Some(1), None], Some(1)),
            (&[], None),
            (&[Some(0), Some(0), Some(1)], Some(0)),
            (&[Some(1), Some(1), Some(-1), Some(-1)], Some(0)),
            (&[Some(-1), Some(-1), None], Some(-1)),
        ];
        for (votes, expected) in cases {
            assert_eq!(majority(votes), expected, "{votes:?}");
        }
    }
}
