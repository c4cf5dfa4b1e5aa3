//! A reply token by token: its text, and what student and teacher thought of it.

use openclaw_journal::{Candidates, Completion, TeacherSignal};
use openclaw_model::{IncrementalDetokenizer, Tokenizer};
use serde::Serialize;

/// Streams of the same length: one entry per token.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Tokens {
    /// Tokens of the whole reply; more than are listed where it was cut.
    pub total: usize,
    /// What each adds to the text. A token that ends within a character adds nothing; the one that completes it adds
    /// the character.
    pub text: Vec<String>,
    /// How many of those that are listed are thinking, its marks included; they come first.
    pub thinking: usize,
    /// Log-probability under the distribution it was drawn from.
    pub rollout: Vec<Option<f32>>,
    /// The teacher's view; none where no teacher was asked.
    pub teacher: Option<Taught>,
}

/// What a teacher thought of each token, in nats.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Taught {
    /// The hint that it was shown.
    pub hint: String,
    /// Log-probability under the plain prompt.
    pub student: Vec<Option<f32>>,
    /// Log-probability under the prompt with the hint. Teacher minus student is the gap.
    pub teacher: Vec<Option<f32>>,
    /// The token that the teacher would have liked best among those it was asked about, and its log-probability; none
    /// where it was asked about none.
    pub wanted: Vec<Option<(String, f32)>>,
    /// Mean of the gap over the whole reply.
    pub mean_gap: Option<f64>,
}

impl Tokens {
    /// The first `limit` tokens.
    pub fn of(
        completion: &Completion,
        signal: Option<&TeacherSignal>,
        tokenizer: &Tokenizer,
        limit: usize,
    ) -> Self {
        let ids = &completion.response_ids;
        let shown = ids.len().min(limit);
        let mut plain = IncrementalDetokenizer::new(tokenizer.clone());
        // `at` counts what stands in the reply's text, which holds few of the special tokens.
        let (mut text, mut thinking, mut at) = (Vec::with_capacity(shown), 0, 0);
        for &id in &ids[..shown] {
            thinking += usize::from(at < completion.split.answer_at);
            let added = plain.push(id);
            at += added.len();
            text.push(if tokenizer.is_special(id) { tokenizer.token_text(id) } else { added });
        }
        Self {
            total: ids.len(),
            text,
            thinking,
            rollout: stream(&completion.rollout_logprobs, shown),
            teacher: signal.map(|signal| Taught::of(signal, tokenizer, shown)),
        }
    }
}

impl Taught {
    fn of(signal: &TeacherSignal, tokenizer: &Tokenizer, shown: usize) -> Self {
        let gaps = signal
            .logprobs
            .iter()
            .zip(&signal.old_logprobs)
            .map(|(teacher, student)| f64::from(teacher - student));
        let gaps: Vec<f64> = gaps.filter(|gap| gap.is_finite()).collect();
        let best = |candidates: Option<&Candidates>| {
            let candidates = candidates?;
            let pairs = candidates.ids.iter().zip(&candidates.teacher_logprobs);
            pairs.max_by(|a, b| a.1.total_cmp(b.1)).map(|(id, logprob)| (*id, *logprob))
        };
        let wanted = |place| {
            let both = [best(signal.student_top.get(place)), best(signal.teacher_top.get(place))];
            let (id, logprob) = both.into_iter().flatten().max_by(|a, b| a.1.total_cmp(&b.1))?;
            Some((tokenizer.token_text(id), rounded(logprob)))
        };
        Self {
            hint: signal.hint.clone(),
            student: stream(&signal.old_logprobs, shown),
            teacher: stream(&signal.logprobs, shown),
            wanted: (0..shown).map(wanted).collect(),
            mean_gap: (!gaps.is_empty()).then(|| gaps.iter().sum::<f64>() / gaps.len() as f64),
        }
    }
}

/// One entry per token, whatever is there: what is missing or not finite is none.
fn stream(values: &[f32], len: usize) -> Vec<Option<f32>> {
    let value = |place| values.get(place).copied().filter(|value: &f32| value.is_finite()).map(rounded);
    (0..len).map(value).collect()
}

/// To the fourth decimal, which serving and scoring agree to.
fn rounded(value: f32) -> f32 {
    // Adding 0 makes -0 one.
    (value * 1e4).round() / 1e4 + 0.0
}
