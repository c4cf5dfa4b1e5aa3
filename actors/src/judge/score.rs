//! A verdict by the model's own probabilities of the three: no sample is drawn, and a judge that is not sure says 0.

use futures::future::try_join_all;
use openclaw_model::{ScoreRequest, Scored};

use crate::engine::{Engine, EngineError};

/// The verdicts, in the order of [`Scores`].
const VERDICTS: [i8; 3] = [-1, 0, 1];

/// Log-probabilities of the verdicts, up to what they have in common.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scores([f32; 3]);

/// What is to be scored for [`Scores`]: one request where the three differ in one token.
pub struct Asked {
    /// To be scored in this order, by [`Scores::read`].
    pub requests: Vec<ScoreRequest>,
}

impl Asked {
    /// Of an answer to a rendered prompt; `ids` makes a text tokens.
    pub fn of<E>(prompt_ids: &[u32], ids: impl Fn(&str) -> Result<Vec<u32>, E>) -> Result<Self, E> {
        let mut said = Vec::with_capacity(3);
        for verdict in VERDICTS {
            said.push(ids(&format!("\\boxed{{{verdict}}}"))?);
        }
        let shared = (0..).take_while(|&at| {
            said[0].get(at).is_some_and(|id| said.iter().all(|other| other.get(at) == Some(id)))
        });
        let shared = shared.count();
        let first: Vec<u32> = said.iter().filter_map(|ids| ids.get(shared).copied()).collect();
        let apart = first.len() == 3 && first[0] != first[1] && first[1] != first[2] && first[0] != first[2];
        let request = |ids: &[u32], start: usize, candidates| ScoreRequest {
            ids: [prompt_ids, ids].concat(),
            start: prompt_ids.len() + start,
            temperature: 1.0,
            candidates,
            ..ScoreRequest::default()
        };
        Ok(Self {
            requests: match apart {
                true => vec![request(&said[0][..=shared], shared, vec![first])],
                false => said.iter().map(|ids| request(ids, 0, Vec::new())).collect(),
            },
        })
    }
}

impl Scores {
    /// Of the answer to `prompt`, as one user message.
    pub(super) async fn of(engine: &Engine, prompt: &str) -> Result<Self, EngineError> {
        let prompt_ids = engine.question_ids(prompt)?;
        let asked = Asked::of(&prompt_ids, |text| engine.text_ids(text))?;
        let scored = try_join_all(asked.requests.into_iter().map(|request| engine.score(request))).await?;
        Self::read(&scored).ok_or_else(|| EngineError::Ended { engine: engine.name().to_owned() })
    }

    /// What was scored; none where it was something else.
    pub fn read(scored: &[Scored]) -> Option<Self> {
        match scored {
            [one] => Some(Self(one.candidates.first()?[..].try_into().ok()?)),
            [_, _, _] => Some(Self([0, 1, 2].map(|at| scored[at].logprobs.iter().sum()))),
            _ => None,
        }
    }

    /// The likeliest, if it is by `margin` nats likelier than the next; else 0.
    pub fn verdict(&self, margin: f32) -> i8 {
        let mut order = [0, 1, 2];
        order.sort_by(|a, b| self.0[*b].total_cmp(&self.0[*a]));
        let [best, next, _] = order;
        if self.0[best] - self.0[next] < margin { 0 } else { VERDICTS[best] }
    }

    /// For a reader: the three probabilities among themselves.
    pub fn told(&self) -> String {
        let most = self.0.into_iter().fold(f32::NEG_INFINITY, f32::max);
        let weights = self.0.map(|logprob| (logprob - most).exp());
        let sum: f32 = weights.iter().sum();
        let told =
            VERDICTS.iter().zip(weights).map(|(verdict, weight)| format!("{verdict}: {:.3}", weight / sum));
        told.collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_not_sure_says_nothing() {
        let sure = Scores([-0.1, -4.0, -3.0]);
        assert_eq!((sure.verdict(0.0), sure.verdict(2.8), sure.verdict(3.0)), (-1, -1, 0));
        assert_eq!(Scores([-2.0, -3.0, -0.3]).verdict(1.0), 1);
        assert_eq!(Scores([-2.0, -0.1, -2.5]).verdict(1.0), 0);
        assert_eq!(Scores([0.0, 0.0, f32::NEG_INFINITY]).told(), "-1: 0.500, 0: 0.500, 1: 0.000");
    }
}
