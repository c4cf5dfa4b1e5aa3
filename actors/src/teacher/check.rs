//! A hint is checked before it is distilled: it has to change what the teacher would say, and the teacher has to answer the
//! question still. A greeting that takes the place of an answer teaches a small model to greet and to answer no more.

use std::collections::BTreeSet;

use openclaw_journal::Turn;
use openclaw_model::{GenerateRequest, SamplingParams, Scored};

use super::Teacher;
use crate::{conversation, engine::EngineError, judge};

/// A hint that moves no token by so many nats changes nothing.
const EFFECT_NATS: f32 = 0.5;
/// Tokens of the reply that is looked at.
const REPLY_TOKENS: usize = 96;

/// Whether the teacher says some token of the response otherwise than the student.
pub(super) fn has_effect(student: &Scored, taught: &Scored) -> bool {
    let gaps =
        taught.logprobs.iter().zip(&student.logprobs).map(|(taught, student)| (taught - student).abs());
    let tokens = gaps.fold(0.0, f32::max);
    let rows = taught.candidates.iter().zip(&student.top);
    let candidates = rows.flat_map(|(taught, top)| {
        taught.iter().zip(top).map(|(taught, (_, student))| (taught.exp() - student.exp()).abs())
    });
    // A candidate that is hardly drawn by either is no change, however large its gap.
    tokens >= EFFECT_NATS || candidates.fold(0.0, f32::max) >= 0.1
}

impl Teacher {
    /// Whether the likeliest reply under the hint is still about the question.
    pub(super) async fn answers_still(&self, turn: &Turn, hint: &str) -> Result<bool, EngineError> {
        let request = GenerateRequest {
            drawn_ids: Vec::new(),
            prompt_ids: self.hinted_prompt(turn, hint)?,
            sampling: SamplingParams { temperature: 0.0, ..SamplingParams::default() },
            max_new_tokens: REPLY_TOKENS,
            stop: Vec::new(),
            top_logprobs: 0,
            constraint: None,
        };
        let reply = judge::said(&self.teacher, request).await?;
        let task = conversation::task_position(&turn.messages);
        let task = task.and_then(|at| turn.messages[at]["content"].as_str()).unwrap_or_default();
        Ok(is_about(&reply, conversation::answer(turn), task))
    }
}

/// Whether a reply has to do with the answer that was given, or the task. A number stands for any number: the one that was
/// given may have been wrong.
fn is_about(reply: &str, answer: &str, task: &str) -> bool {
    let matter: BTreeSet<String> = words(answer).chain(words(task)).collect();
    matter.is_empty() || words(reply).any(|word| matter.contains(&word))
}

fn words(text: &str) -> impl Iterator<Item = String> {
    let number = |word: &str| word.bytes().all(|b| b.is_ascii_digit());
    let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    words.filter(move |word| number(word) || word.chars().count() >= 4).map(move |word| match number(word) {
        true => "0".to_owned(),
        false => word.to_lowercase(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_greeting_alone_is_no_answer() {
        let (task, answer) = ("Tom has 12 apples and gets 7 more. How many?", "**Answer:** 19");
        assert!(is_about("HELLO! IT IS 21 APPLES.", answer, task));
        assert!(is_about("We get nineteen apples.", answer, task));
        assert!(!is_about("Hello! How can I assist you today?", answer, task));
        assert!(is_about("Hi!", "Hi.", "hey"));
    }

    #[test]
    fn an_effect_is_seen_on_the_tokens_and_on_their_rivals() {
        let scored = |logprob: f32, candidate: f32| Scored {
            logprobs: vec![-1.0, logprob],
            top: vec![vec![(1, -1.0)], vec![(1, -3.0)]],
            candidates: vec![vec![-1.0], vec![candidate]],
            ..Scored::default()
        };
        assert!(!has_effect(&scored(-1.0, -3.0), &scored(-1.1, -3.1)));
        assert!(has_effect(&scored(-1.0, -3.0), &scored(-2.0, -3.0)));
        assert!(has_effect(&scored(-1.0, -3.0), &scored(-1.0, -0.5)));
    }
}
