//! A verdict by the model's own probabilities of the three: no sample is drawn, and a judge that is not sure says 0.

use futures::future::try_join_all;
use openclaw_model::ScoreRequest;
use serde_json::{Map, json};

use crate::engine::{Engine, EngineError};

/// The verdicts, in the order of [`Scores`].
const VERDICTS: [i8; 3] = [-1, 0, 1];

/// Log-probabilities of the verdicts, up to what they have in common.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Scores([f32; 3]);

impl Scores {
    /// Of the answer to `prompt`, as one user message: in one pass where the three differ in one token.
    pub async fn of(engine: &Engine, prompt: &str) -> Result<Self, EngineError> {
        let message = json!({"role": "user", "content": prompt});
        let prompt_ids = engine.prompt_ids(&[message], &[], &Map::new())?;
        let mut said = Vec::with_capacity(3);
        for verdict in VERDICTS {
            said.push(engine.text_ids(&format!("\\boxed{{{verdict}}}"))?);
        }
        let shared = (0..).take_while(|&at| {
            said[0].get(at).is_some_and(|id| said.iter().all(|other| other.get(at) == Some(id)))
        });
        let shared = shared.count();
        let first: Vec<u32> = said.iter().filter_map(|ids| ids.get(shared).copied()).collect();
        let apart = first.len() == 3 && first[0] != first[1] && first[1] != first[2] && first[0] != first[2];
        let request = |ids: &[u32], start: usize, candidates| ScoreRequest {
            ids: [&prompt_ids, ids].concat(),
            start: prompt_ids.len() + start,
            temperature: 1.0,
            top_k: 0,
            candidates,
        };
        if apart {
            let scored = engine.score(request(&said[0][..=shared], shared, vec![first])).await?;
            let of = scored.candidates.first().and_then(|of| <[f32; 3]>::try_from(&of[..]).ok());
            return of.map(Self).ok_or_else(|| EngineError::Ended { engine: engine.name().to_owned() });
        }
        let scored = try_join_all(said.iter().map(|ids| engine.score(request(ids, 0, Vec::new())))).await?;
        let mut of = [0.0; 3];
        for (sum, scored) in of.iter_mut().zip(scored) {
            *sum = scored.logprobs.iter().sum();
        }
        Ok(Self(of))
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
