//! A hint is checked before it is distilled: it has to change what the teacher would say, and the teacher has to answer the
//! question still. A greeting that takes the place of an answer teaches a small model to greet and to answer no more.

use std::collections::BTreeSet;

use openclaw_journal::Turn;
use openclaw_model::{GenerateRequest, SamplingParams, ScoreRequest, Scored};
use serde_json::{Value, json};

use tracing::{debug, warn};

use super::{Teacher, hinted_messages};
use crate::{conversation, engine::EngineError, judge, prompts};

/// A hint that moves no token by so many nats changes nothing.
const EFFECT_NATS: f32 = 0.5;
/// A rival whose probability moves by so much is a change, too.
const EFFECT_SHARE: f32 = 0.1;
/// Tokens of the reply that is looked at.
const REPLY_TOKENS: usize = 96;
/// A reply that is likelier by so many nats because of what was asked answers it. Measured on a 0.5B: one word, capitals and short
/// sentences gain 7 to 59 over an empty question, "Hello! How can I assist you today?" loses 1 to 2.
const ANSWER_NATS: f32 = 3.0;
/// What stands for a question that asks nothing.
const NO_QUESTION: &str = "...";

/// Whether the hint changes what the teacher says of some token of the response, or of its rivals.
fn has_effect(unhinted: &Scored, hinted: &Scored) -> bool {
    let pairs = hinted.logprobs.iter().zip(&unhinted.logprobs);
    let tokens = pairs.map(|(hinted, unhinted)| (hinted - unhinted).abs()).fold(0.0, f32::max);
    let rivals = hinted.candidates.iter().flatten().zip(unhinted.candidates.iter().flatten());
    // By probabilities: one that is hardly said either way is no change, however large its gap.
    let rivals = rivals.map(|(hinted, unhinted)| (hinted.exp() - unhinted.exp()).abs()).fold(0.0, f32::max);
    tokens >= EFFECT_NATS || rivals >= EFFECT_SHARE
}

impl Teacher {
    /// From the first hint on that passes; `unhinted` is what the teacher says without one. What cannot be checked passes.
    pub(super) async fn checked<'a>(
        &self,
        turn: &Turn,
        unhinted: &Scored,
        tried: Vec<(usize, &'a String, Scored)>,
    ) -> Vec<(usize, &'a String, Scored)> {
        let mut tried = tried.into_iter();
        while let Some((overlap, hint, scored)) = tried.next() {
            let fault = match has_effect(unhinted, &scored) {
                false => Some("no_effect"),
                true => match self.answers_still(turn, hint).await {
                    Ok(answers) => (!answers).then_some("no_answer"),
                    Err(error) => {
                        warn!(turn = %turn.id, %error, "a hint is not checked");
                        None
                    }
                },
            };
            let Some(reason) = fault else {
                return std::iter::once((overlap, hint, scored)).chain(tried).collect();
            };
            debug!(turn = %turn.id, reason, "a hint is not distilled");
            metrics::counter!("openclaw_teacher_hints_dropped_total", "reason" => reason).increment(1);
        }
        Vec::new()
    }

    /// Whether the likeliest reply under the hint is still about the question: it has a word of it, or would be less likely without
    /// it. No more of it is generated than tells.
    async fn answers_still(&self, turn: &Turn, hint: &str) -> Result<bool, EngineError> {
        let task = conversation::task_position(&turn.messages);
        let task = task.and_then(|at| turn.messages[at]["content"].as_str()).unwrap_or_default();
        let matter: BTreeSet<String> = words(conversation::answer(turn)).chain(words(task)).collect();
        if matter.is_empty() {
            return Ok(true);
        }
        // The last word may go on.
        let whole = |text: &str| text.rfind(|c: char| !c.is_alphanumeric()).unwrap_or(0);
        let is_enough = |reply: &str| {
            let reply = prompts::behind_thought(reply);
            words(&reply[..whole(reply)]).any(|word| matter.contains(&word))
        };
        let reply = self.hinted_reply(turn, hint, is_enough).await?;
        let is_about = is_about(prompts::behind_thought(&reply), &matter);
        Ok(is_about || self.gain(turn, hint, &reply).await? >= ANSWER_NATS)
    }

    /// The likeliest reply under the hint, up to where it says enough.
    pub(super) async fn hinted_reply(
        &self,
        turn: &Turn,
        hint: &str,
        is_enough: impl FnMut(&str) -> bool,
    ) -> Result<String, EngineError> {
        let request = GenerateRequest {
            drawn_ids: Vec::new(),
            prompt_ids: self.hinted_prompt(turn, hint)?,
            sampling: SamplingParams { temperature: 0.0, ..SamplingParams::default() },
            max_new_tokens: REPLY_TOKENS,
            stop: Vec::new(),
            top_logprobs: 0,
            constraint: None,
        };
        judge::said_until(&self.teacher, request, is_enough).await
    }

    /// By how much a reply under the hint is likelier because of the conversation, nats.
    pub(super) async fn gain(&self, turn: &Turn, hint: &str, reply: &str) -> Result<f32, EngineError> {
        let rules = turn.messages.iter().filter(|message| message["role"] == "system").cloned();
        let nothing = json!({"role": "user", "content": NO_QUESTION});
        let unasked = hinted_messages(&rules.chain([nothing]).collect::<Vec<Value>>(), hint);
        let unasked = self.teacher.prompt_ids(&unasked, &turn.tools, &turn.template_kwargs)?;
        let asked = self.likelihood(&self.hinted_prompt(turn, hint)?, reply).await?;
        Ok(asked - self.likelihood(&unasked, reply).await?)
    }

    /// Log-prob of a reply, nats.
    async fn likelihood(&self, prompt_ids: &[u32], reply: &str) -> Result<f32, EngineError> {
        let reply = self.teacher.text().tokenizer.encode(reply);
        let reply = reply.map_err(|error| EngineError::Refused {
            engine: self.teacher.name().to_owned(),
            reason: error.to_string(),
        })?;
        let request = ScoreRequest {
            ids: [prompt_ids, &reply].concat(),
            start: prompt_ids.len(),
            temperature: 1.0,
            ..ScoreRequest::default()
        };
        Ok(self.teacher.score(request).await?.logprobs.iter().sum())
    }
}

/// Whether a reply has to do with the matter: the words of the answer that was given, and of the task. A number stands for
/// any number: the one that was given may have been wrong. Of a reply without a word that could tell, nothing is said
/// against it.
fn is_about(reply: &str, matter: &BTreeSet<String>) -> bool {
    let mut said = words(reply).peekable();
    said.peek().is_none() || said.any(|word| matter.contains(&word))
}

fn words(text: &str) -> impl Iterator<Item = String> {
    /// Of any reply.
    const PASSED_OVER: [&str; 16] = [
        "this", "that", "your", "with", "have", "what", "from", "there", "here", "will", "today", "about",
        "they", "when", "some", "more",
    ];
    let number = |word: &str| word.bytes().all(|b| b.is_ascii_digit());
    let words =
        text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_lowercase);
    let words = words.filter(move |word| {
        number(word) || word.chars().count() >= 4 && !PASSED_OVER.contains(&word.as_str())
    });
    words.map(move |word| if number(&word) { "0".to_owned() } else { word })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_greeting_alone_is_no_answer() {
        let matter = |text: &str| words(text).collect();
        let sum = matter("Tom has 12 apples and gets 7 more. How many? **Answer:** 19");
        assert!(is_about("HELLO! IT IS 21 APPLES.", &sum));
        assert!(is_about("We get nineteen apples.", &sum));
        assert!(!is_about("Hello! How can I assist you today?", &sum));
        assert!(is_about("Yes.", &matter("Is it Paris? **Yes**, it is Paris.")));
    }

    #[test]
    fn an_effect_is_seen_on_the_tokens_and_on_their_rivals() {
        let scored = |logprob: f32, candidate: f32| Scored {
            logprobs: vec![-1.0, logprob],
            candidates: vec![vec![-1.0], vec![candidate]],
            ..Scored::default()
        };
        assert!(!has_effect(&scored(-1.0, -3.0), &scored(-1.1, -3.1)));
        assert!(has_effect(&scored(-1.0, -3.0), &scored(-2.0, -3.0)));
        assert!(has_effect(&scored(-1.0, -3.0), &scored(-1.0, -0.5)));
    }
}
