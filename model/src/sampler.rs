//! Draws one token from a row of logits, and says how likely it was. First come the mask, the bias and the penalties, in
//! vLLM's order (`vllm/v1/sample/sampler.py`): what is not allowed, `logit_bias`, repetition, frequency, presence. Then the
//! order is the one of `transformers`: temperature, then top-k, then top-p of what is left, then min-p. Equal logits rank
//! by id, so every choice is repeatable; each request draws from its own stream, so no choice depends on who else is in
//! the batch.

use std::collections::{BTreeMap, BTreeSet};

use openclaw_kernels::cpu::{SoftmaxMass, softmax_weights};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;
use toktrie::SimpleVob;

use crate::serving::{SamplingParams, TokenLogprob};

/// A sampling parameter outside its range.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{name} is {value}, expected {expected}")]
pub struct SamplingError {
    /// Name of the parameter.
    pub name: &'static str,
    /// Its value.
    pub value: f32,
    /// What it may be.
    pub expected: &'static str,
}

/// The logits of a step hold no distribution: not a number, or infinite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the model's logits are not finite")]
pub struct NotFinite;

/// What a draw may choose among.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Allowed<'a> {
    /// These alone; without it all.
    pub only: Option<&'a SimpleVob>,
    /// But none of these, and
    pub not: &'a [u32],
    /// none of these.
    pub nor: &'a [u32],
}

/// One request's way of drawing tokens.
#[derive(Debug)]
pub struct Sampler {
    params: SamplingParams,
    top_logprobs: usize,
    rng: ChaCha12Rng,
    /// Of the ids, in the last softmax; kept to be reused.
    weights: Vec<f32>,
    shaped: Shaped,
    /// None where no parameter looks back.
    seen: Option<Seen>,
}

/// The logits of what may be drawn, penalised; kept to be reused.
#[derive(Debug, Default)]
struct Shaped {
    /// Whose they are, in order; empty where they are those of all ids.
    ids: Vec<u32>,
    logits: Vec<f32>,
}

/// The tokens that penalties look at.
#[derive(Debug, Default)]
struct Seen {
    /// Of the prompt and of the response, where they are penalised.
    anywhere: BTreeSet<u32>,
    /// How often the response has them.
    drawn: BTreeMap<u32, u32>,
}

impl Sampler {
    /// Checks the parameters. Without a seed the stream starts anywhere.
    pub fn new(params: SamplingParams, top_logprobs: usize) -> Result<Self, SamplingError> {
        let SamplingParams { temperature, top_p, min_p, .. } = params;
        let SamplingParams { repetition_penalty, frequency_penalty, presence_penalty, .. } = params;
        let finite = f32::MIN_POSITIVE..f32::INFINITY;
        let penalty = -2.0..=2.0;
        let ranges = [
            ("temperature", temperature, (0.0..f32::INFINITY).contains(&temperature), "a number from 0 up"),
            ("top_p", top_p, top_p > 0.0 && top_p <= 1.0, "a number in (0, 1]"),
            ("min_p", min_p, (0.0..1.0).contains(&min_p), "a number in [0, 1)"),
            (
                "repetition_penalty",
                repetition_penalty,
                finite.contains(&repetition_penalty),
                "a number above 0",
            ),
            ("frequency_penalty", frequency_penalty, penalty.contains(&frequency_penalty), BETWEEN_TWOS),
            ("presence_penalty", presence_penalty, penalty.contains(&presence_penalty), BETWEEN_TWOS),
        ];
        let biases = params.logit_bias.iter().map(|&(_, bias)| {
            ("logit_bias", bias, (-100.0..=100.0).contains(&bias), "a number in [-100, 100]")
        });
        for (name, value, valid, expected) in ranges.into_iter().chain(biases) {
            if !valid {
                return Err(SamplingError { name, value, expected });
            }
        }
        let rng = ChaCha12Rng::seed_from_u64(params.seed.unwrap_or_else(rand::random));
        let penalises = (repetition_penalty, frequency_penalty, presence_penalty) != (1.0, 0.0, 0.0);
        let seen = penalises.then(Seen::default);
        Ok(Self { params, top_logprobs, rng, weights: Vec::new(), shaped: Shaped::default(), seen })
    }

    /// Takes in the prompt, which the repetition penalty looks at.
    pub fn read_prompt(&mut self, ids: &[u32]) {
        if let Some(seen) = self.seen.as_mut().filter(|_| self.params.repetition_penalty != 1.0) {
            seen.anywhere.extend(ids);
        }
    }

    /// Draws from `logits`, one per id of the vocabulary.
    pub fn draw(&mut self, logits: &[f32]) -> Result<TokenLogprob, NotFinite> {
        self.draw_among(logits, Allowed::default())
    }

    /// Draws from those `logits` that are allowed; there must be one.
    pub(crate) fn draw_among(
        &mut self,
        logits: &[f32],
        allowed: Allowed<'_>,
    ) -> Result<TokenLogprob, NotFinite> {
        let untempered = softmax_weights(logits, 1.0, &mut self.weights).ok_or(NotFinite)?;
        let temperature = self.params.temperature;
        let is_tempered = !self.is_greedy() && temperature != 1.0;
        let whole = if is_tempered {
            softmax_weights(logits, temperature, &mut self.weights).ok_or(NotFinite)?
        } else {
            untempered
        };
        let divisor = if is_tempered { temperature } else { 1.0 };

        let is_shaped = self.seen.is_some() || !self.params.logit_bias.is_empty() || !allowed.is_all();
        let (id, logprob) = if is_shaped {
            self.shape(logits, allowed);
            let shaped = std::mem::take(&mut self.shaped);
            let drawn = match softmax_weights(&shaped.logits, divisor, &mut self.weights) {
                Some(mass) => self.draw_from_weights(&shaped.logits, mass),
                None => return Err(NotFinite),
            };
            let id = shaped.ids.get(drawn.0 as usize).copied().unwrap_or(drawn.0);
            self.shaped = shaped;
            (id, drawn.1)
        } else {
            self.draw_from_weights(logits, whole)
        };
        self.count(id);

        let raw = |id: u32| log_probability(logits[id as usize], 1.0, untempered);
        let policy_logprob = log_probability(logits[id as usize], divisor, whole);
        let top = ranked(logits, self.top_logprobs).into_iter().map(|id| (id, raw(id))).collect();
        Ok(TokenLogprob { id, logprob, policy_logprob, raw_logprob: raw(id), top })
    }

    /// Filters the last softmax and draws from what is left; the log-probability is of exactly that.
    fn draw_from_weights(&mut self, logits: &[f32], softmax: SoftmaxMass) -> (u32, f32) {
        let SoftmaxMass { max, mass: whole } = softmax;
        if self.is_greedy() {
            let first = logits.iter().position(|&x| x == max).expect("the largest logit is one of them");
            return (first as u32, 0.0);
        }
        let unit: f64 = self.rng.random();
        let (drawn, left) = if self.keeps_all(logits.len()) {
            (self.pick(0..logits.len() as u32, unit * whole), whole)
        } else {
            let kept = self.support(logits, max, whole);
            let left: f64 = kept.iter().map(|&id| self.weight(id)).sum();
            (self.pick(kept, unit * left), left)
        };
        let left = SoftmaxMass { max, mass: left };
        (drawn, log_probability(logits[drawn as usize], self.params.temperature, left))
    }

    /// Leaves the stream and the counts where the draw of this token leaves them: each draw takes one number, a greedy
    /// one none.
    pub fn skip_draw(&mut self, id: u32) {
        if !self.is_greedy() {
            self.rng.random::<f64>();
        }
        self.count(id);
    }

    fn count(&mut self, id: u32) {
        if let Some(seen) = &mut self.seen {
            seen.anywhere.insert(id);
            *seen.drawn.entry(id).or_default() += 1;
        }
    }

    /// A temperature so small that it is zero to a divisor is greedy too.
    fn is_greedy(&self) -> bool {
        self.params.temperature < f32::MIN_POSITIVE
    }

    /// Collects the logits of what may be drawn, and changes them as the parameters say.
    fn shape(&mut self, logits: &[f32], allowed: Allowed<'_>) {
        let Shaped { ids, logits: shaped } = &mut self.shaped;
        ids.clear();
        shaped.clear();
        let excluded = || allowed.not.iter().chain(allowed.nor);
        match allowed.only {
            Some(only) => {
                only.iter_set_entries(|id| {
                    if id < logits.len() && !excluded().any(|&excluded| excluded as usize == id) {
                        ids.push(id as u32);
                    }
                });
                shaped.extend(ids.iter().map(|&id| logits[id as usize]));
            }
            None => {
                shaped.extend_from_slice(logits);
                for &id in excluded() {
                    if let Some(logit) = shaped.get_mut(id as usize) {
                        *logit = f32::NEG_INFINITY;
                    }
                }
            }
        }
        let at = |id: u32| match allowed.only {
            Some(_) => ids.binary_search(&id).ok(),
            None => Some(id as usize).filter(|&at| at < logits.len()),
        };
        for &(id, bias) in &*self.params.logit_bias {
            at(id).into_iter().for_each(|at| shaped[at] += bias);
        }
        let SamplingParams { repetition_penalty, frequency_penalty, presence_penalty, .. } = self.params;
        let Some(seen) = &self.seen else { return };
        if repetition_penalty != 1.0 {
            for at in seen.anywhere.iter().filter_map(|&id| at(id)) {
                let factor = if shaped[at] > 0.0 { repetition_penalty.recip() } else { repetition_penalty };
                shaped[at] *= factor;
            }
        }
        for (at, count) in seen.drawn.iter().filter_map(|(&id, &count)| Some((at(id)?, count))) {
            shaped[at] -= frequency_penalty * count as f32 + presence_penalty;
        }
    }

    fn weight(&self, id: u32) -> f64 {
        f64::from(self.weights[id as usize])
    }

    /// The first id at which the running weight passes `target`.
    fn pick(&self, ids: impl IntoIterator<Item = u32>, target: f64) -> u32 {
        let mut reached = 0.0;
        let mut last = 0;
        for id in ids {
            let weight = self.weight(id);
            reached += weight;
            if weight > 0.0 {
                last = id;
                if reached > target {
                    break;
                }
            }
        }
        last // also where rounding leaves the sum below the target
    }

    fn keeps_all(&self, vocab: usize) -> bool {
        let SamplingParams { top_p, top_k, min_p, .. } = self.params;
        top_p >= 1.0 && (top_k == 0 || top_k >= vocab) && min_p <= 0.0
    }

    /// The ids that may be drawn, most likely first. Each filter keeps a prefix of the ranking, so the shortest
    /// prefix decides. Weights are relative to the most likely token's; `mass` is their sum over the vocabulary.
    fn support(&self, logits: &[f32], max: f32, mass: f64) -> Vec<u32> {
        let SamplingParams { temperature, top_p, top_k, min_p, .. } = self.params;
        let (top_p, min_p) = (f64::from(top_p), f64::from(min_p));
        let (mut ranking, mass) = if top_k > 0 {
            let ranking = ranked(logits, top_k);
            let mass = ranking.iter().map(|&id| self.weight(id)).sum();
            (ranking, mass)
        } else {
            // All tokens below this together weigh less than top-p leaves out, so that ranking a whole vocabulary,
            // which costs more than all the rest, is seldom needed. Halved against rounding.
            let floor = min_p.max((1.0 - top_p) * mass / logits.len() as f64) / 2.0;
            (ranked_from(logits, max + temperature * floor.ln() as f32), mass)
        };
        let mut reached = 0.0;
        let mut kept = 0;
        for &id in &ranking {
            let weight = self.weight(id);
            if weight < min_p {
                break; // never the first: its weight is 1
            }
            reached += weight;
            kept += 1;
            if top_p < 1.0 && reached >= top_p * mass {
                break;
            }
        }
        ranking.truncate(kept);
        ranking
    }
}

const BETWEEN_TWOS: &str = "a number in [-2, 2]";

impl Allowed<'_> {
    fn is_all(&self) -> bool {
        self.only.is_none() && self.not.is_empty() && self.nor.is_empty()
    }
}

/// Of a logit in the softmax at this temperature.
fn log_probability(logit: f32, temperature: f32, SoftmaxMass { max, mass }: SoftmaxMass) -> f32 {
    (f64::from(logit - max) / f64::from(temperature) - mass.ln()) as f32
}

/// A number that sorts by logit, largest first, then by id.
fn rank(logit: f32, id: u32) -> u64 {
    let bits = (logit + 0.0).to_bits(); // a negative zero is a zero
    let ascending = if bits >> 31 == 0 { bits | 1 << 31 } else { !bits };
    u64::from(!ascending) << 32 | u64::from(id)
}

/// The `count` largest logits' ids, largest first, equal ones by id.
fn ranked(logits: &[f32], count: usize) -> Vec<u32> {
    if count == 0 {
        return Vec::new();
    }
    let mut ranks: Vec<u64> = logits.iter().zip(0..).map(|(&logit, id)| rank(logit, id)).collect();
    if count < ranks.len() {
        ranks.select_nth_unstable(count - 1);
        ranks.truncate(count);
    }
    ids_in_order(ranks)
}

/// The ids of all logits from `floor` up, largest first, equal ones by id.
fn ranked_from(logits: &[f32], floor: f32) -> Vec<u32> {
    let kept = logits.iter().zip(0..).filter(|(logit, _)| **logit >= floor);
    ids_in_order(kept.map(|(&logit, id)| rank(logit, id)).collect())
}

fn ids_in_order(mut ranks: Vec<u64>) -> Vec<u32> {
    ranks.sort_unstable();
    ranks.into_iter().map(|rank| rank as u32).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn params(temperature: f32, top_p: f32, top_k: usize, min_p: f32) -> SamplingParams {
        SamplingParams { temperature, top_p, top_k, min_p, seed: Some(7), ..Default::default() }
    }

    fn sampler(params: SamplingParams) -> Sampler {
        Sampler::new(params, 0).unwrap()
    }

    /// Logits whose softmax is `probabilities`.
    fn logits_of(probabilities: &[f64]) -> Vec<f32> {
        probabilities.iter().map(|p| p.ln() as f32).collect()
    }

    /// Draws, counted by id, with each id's reported log-probability.
    fn draws(sampler: &mut Sampler, logits: &[f32], count: usize) -> BTreeMap<u32, (usize, f32)> {
        let mut seen = BTreeMap::new();
        for _ in 0..count {
            let token = sampler.draw(logits).unwrap();
            let entry = seen.entry(token.id).or_insert((0, token.logprob));
            entry.0 += 1;
            assert_eq!(entry.1, token.logprob, "a distribution does not change between draws");
        }
        seen
    }

    fn support(sampling: SamplingParams, probabilities: &[f64]) -> Vec<u32> {
        draws(&mut sampler(sampling), &logits_of(probabilities), 2000).into_keys().collect()
    }

    #[test]
    fn draws_follow_the_reported_distribution() {
        let mut rng = ChaCha12Rng::seed_from_u64(3);
        for case in 0..24 {
            let logits: Vec<f32> = (0..40).map(|_| rng.random_range(-2.0..2.0)).collect();
            let temperature = [0.6, 1.0, 1.7][case % 3];
            let sampling = match case / 3 % 4 {
                0 => params(temperature, 1.0, 0, 0.0),
                1 => params(temperature, 0.8, 0, 0.0),
                2 => params(temperature, 1.0, 12, 0.0),
                _ => params(temperature, 0.9, 20, 0.1),
            };
            let count = 20_000;
            let seen = draws(&mut sampler(sampling), &logits, count);
            let reported: f64 = seen.values().map(|(_, logprob)| f64::from(*logprob).exp()).sum();
            assert!((reported - 1.0).abs() < 1e-5, "case {case}: probabilities sum to {reported}");
            let chi_square: f64 = (seen.values())
                .map(|&(observed, logprob)| {
                    let expected = f64::from(logprob).exp() * count as f64;
                    (observed as f64 - expected).powi(2) / expected
                })
                .sum();
            let freedom = (seen.len() - 1) as f64;
            let bound = freedom + 4.0 * (2.0 * freedom).sqrt() + 6.0;
            assert!(chi_square < bound, "case {case}: chi-square {chi_square} over {bound}");
        }
    }

    #[test]
    fn top_k_keeps_exactly_k_and_ties_go_to_the_smaller_id() {
        assert_eq!(support(params(1.0, 1.0, 2, 0.0), &[0.2, 0.2, 0.4, 0.2]), [0, 2]);
        assert_eq!(support(params(1.0, 1.0, 9, 0.0), &[0.5, 0.5]), [0, 1], "k over the vocabulary keeps all");
    }

    #[test]
    fn top_p_keeps_the_smallest_set_that_reaches_it() {
        assert_eq!(support(params(1.0, 0.55, 0, 0.0), &[0.1, 0.5, 0.3, 0.1]), [1, 2]);
        assert_eq!(support(params(1.0, 0.45, 0, 0.0), &[0.1, 0.5, 0.3, 0.1]), [1]);
        assert_eq!(support(params(1.0, 1e-9, 0, 0.0), &[0.4, 0.6]), [1], "never empty");
    }

    #[test]
    fn top_p_is_a_share_of_what_top_k_left() {
        // Of {0.5, 0.3}, the first alone is 0.625.
        assert_eq!(support(params(1.0, 0.6, 2, 0.0), &[0.1, 0.5, 0.3, 0.1]), [1]);
        assert_eq!(support(params(1.0, 0.6, 0, 0.0), &[0.1, 0.5, 0.3, 0.1]), [1, 2]);
    }

    #[test]
    fn min_p_is_a_share_of_the_most_likely_after_temperature() {
        assert_eq!(support(params(1.0, 1.0, 0, 0.5), &[0.1, 0.5, 0.3, 0.1]), [1, 2]);
        assert_eq!(
            support(params(0.5, 1.0, 0, 0.5), &[0.1, 0.5, 0.3, 0.1]),
            [1],
            "0.09 / 0.25 is below a half"
        );
        assert_eq!(support(params(1.0, 1.0, 0, 0.99), &[0.5, 0.5]), [0, 1]);
    }

    #[test]
    fn ranks_order_by_logit_then_id() {
        let logits = [0.0, -1.5, f32::NEG_INFINITY, 2.0, -0.0, 1e-40, 2.0, -1e30];
        assert_eq!(ranked(&logits, 8), [3, 6, 5, 0, 4, 1, 7, 2]);
        assert_eq!(ranked(&logits, 2), [3, 6]);
        assert_eq!(ranked_from(&logits, 0.0), [3, 6, 5, 0, 4]);
    }

    #[test]
    fn a_wide_support_in_a_large_vocabulary_is_ranked_in_full() {
        let logits: Vec<f32> = (0..5000).map(|id| -(id as f32) * 1e-4).collect();
        let mut sampler = sampler(params(1.0, 0.9, 0, 0.0));
        let total = softmax_weights(&logits, 1.0, &mut sampler.weights).unwrap().mass;
        let kept = sampler.support(&logits, 0.0, total);
        let reached: f64 = logits[..kept.len()].iter().map(|&x| f64::from(x).exp()).sum();
        let before: f64 = logits[..kept.len() - 1].iter().map(|&x| f64::from(x).exp()).sum();
        assert_eq!(kept, (0..kept.len() as u32).collect::<Vec<_>>());
        assert!(reached >= 0.9 * total && before < 0.9 * total, "{} ids", kept.len());
    }

    #[test]
    fn greedy_takes_the_first_of_the_largest_with_certainty() {
        let token = sampler(params(0.0, 1.0, 0, 0.0)).draw(&[1.0, 3.0, 3.0, -1.0]).unwrap();
        assert_eq!((token.id, token.logprob), (1, 0.0));
        let raw = 3.0 - (1f64.exp() + 2.0 * 3f64.exp() + (-1f64).exp()).ln();
        assert!((f64::from(token.raw_logprob) - raw).abs() < 1e-6);
        assert_eq!(token.policy_logprob, token.raw_logprob, "a greedy draw is trained at temperature 1");
    }

    #[test]
    fn the_policys_log_probability_ignores_filters_and_keeps_the_temperature() {
        let logits = [0.3, 2.0, 1.1, -0.4];
        for (temperature, top_p, top_k, min_p) in [
            (1.0, 1.0, 0, 0.0),
            (0.7, 0.5, 0, 0.0),
            (1.8, 1.0, 2, 0.0),
            (2.0, 1.0, 0, 0.9),
            (1.0, 0.6, 3, 0.1),
        ] {
            let token = sampler(params(temperature, top_p, top_k, min_p)).draw(&logits).unwrap();
            let exponent = |logit: f32| f64::from(logit) / f64::from(temperature);
            let whole: f64 = logits.iter().map(|&logit| exponent(logit).exp()).sum();
            let expected = exponent(logits[token.id as usize]) - whole.ln();
            assert!((f64::from(token.policy_logprob) - expected).abs() < 1e-6, "{token:?}");
            let is_filtered = (top_p, top_k, min_p) != (1.0, 0, 0.0);
            assert_eq!(token.logprob > token.policy_logprob, is_filtered, "{token:?}");
        }
    }

    #[test]
    fn the_raw_log_probability_ignores_temperature_and_filters() {
        let probabilities = [0.1, 0.5, 0.3, 0.1];
        let mut sampler = Sampler::new(params(0.7, 0.5, 3, 0.0), 2).unwrap();
        let token = sampler.draw(&logits_of(&probabilities)).unwrap();
        assert!((token.raw_logprob - 0.5f32.ln()).abs() < 1e-6);
        assert_eq!(token.logprob, 0.0, "0.5 of the tempered distribution is one token");
        let top: Vec<u32> = token.top.iter().map(|&(id, _)| id).collect();
        assert_eq!(top, [1, 2]);
        assert!((token.top[1].1 - 0.3f32.ln()).abs() < 1e-6);
    }

    #[test]
    fn a_seed_fixes_the_draws() {
        let logits = vec![0.0; 1000];
        let ids = |seed| -> Vec<u32> {
            let mut sampler = sampler(SamplingParams { seed, ..params(1.0, 1.0, 0, 0.0) });
            (0..8).map(|_| sampler.draw(&logits).unwrap().id).collect()
        };
        assert_eq!(ids(Some(5)), ids(Some(5)));
        assert_ne!(ids(Some(5)), ids(Some(6)));
        assert_ne!(ids(None), ids(None));
    }

    #[test]
    fn logits_without_a_distribution_are_an_error() {
        for logits in [[f32::NAN, 0.0], [0.0, f32::NAN], [f32::INFINITY, 0.0], [f32::NEG_INFINITY; 2]] {
            assert_eq!(sampler(params(1.0, 1.0, 0, 0.0)).draw(&logits), Err(NotFinite), "{logits:?}");
        }
        let masked = sampler(params(1.0, 1.0, 0, 0.0)).draw(&[f32::NEG_INFINITY, 0.0]).unwrap();
        assert_eq!(masked.id, 1);
    }

    #[test]
    fn extreme_temperatures_stay_finite() {
        for temperature in [1e-30, 1e-3, 1e6] {
            let token = sampler(params(temperature, 0.9, 0, 0.0)).draw(&[-40.0, 80.0, 79.0]).unwrap();
            assert!(token.logprob.is_finite() && token.raw_logprob.is_finite(), "{token:?}");
        }
    }

    /// After the prompt 0, 1 and a response 1, 1, 2, in the logits of a greedy draw.
    fn penalised(change: impl FnOnce(&mut SamplingParams), logits: &[f32]) -> Vec<f32> {
        let mut sampling = params(1.0, 1.0, 0, 0.0);
        change(&mut sampling);
        let mut sampler = sampler(sampling);
        sampler.read_prompt(&[0, 1]);
        [1, 1, 2].into_iter().for_each(|id| sampler.skip_draw(id));
        sampler.shape(logits, Allowed::default());
        sampler.shaped.logits
    }

    #[test]
    fn penalties_are_those_of_openai_and_transformers() {
        let logits = [1.0, 2.0, -1.0, 4.0];
        assert_eq!(penalised(|p| p.presence_penalty = 0.5, &logits), [1.0, 1.5, -1.5, 4.0]);
        assert_eq!(penalised(|p| p.frequency_penalty = 0.5, &logits), [1.0, 1.0, -1.5, 4.0]);
        assert_eq!(penalised(|p| p.frequency_penalty = -1.0, &logits), [1.0, 4.0, 0.0, 4.0]);
        assert_eq!(penalised(|p| p.repetition_penalty = 2.0, &logits), [0.5, 1.0, -2.0, 4.0]);
        let bias = |p: &mut SamplingParams| p.logit_bias = [(3, -100.0), (0, 1.0)].into();
        assert_eq!(penalised(bias, &logits), [2.0, 2.0, -1.0, -96.0]);
        let all = |p: &mut SamplingParams| {
            bias(p);
            (p.repetition_penalty, p.frequency_penalty, p.presence_penalty) = (2.0, 0.25, 1.0);
        };
        assert_eq!(penalised(all, &logits), [1.0, -0.5, -3.25, -96.0], "bias, repetition, the others");
    }

    #[test]
    fn a_draw_under_a_mask_is_of_what_is_allowed_and_compares_with_the_whole() {
        let probabilities = [0.1, 0.5, 0.2, 0.2];
        let logits = logits_of(&probabilities);
        let mut only = SimpleVob::alloc(6);
        [0, 2, 5].into_iter().for_each(|id| only.allow_token(id));
        let allowed = Allowed { only: Some(&only), ..Allowed::default() };
        let mut seen = BTreeMap::new();
        let mut sampler = sampler(params(1.0, 1.0, 0, 0.0));
        for _ in 0..3000 {
            let token = sampler.draw_among(&logits, allowed).unwrap();
            let p = probabilities[token.id as usize];
            assert!((f64::from(token.logprob) - (p / 0.3).ln()).abs() < 1e-6);
            assert!((f64::from(token.policy_logprob) - p.ln()).abs() < 1e-6);
            assert_eq!(token.policy_logprob, token.raw_logprob);
            *seen.entry(token.id).or_insert(0) += 1;
        }
        assert_eq!(seen.keys().collect::<Vec<_>>(), [&0, &2]);
        assert!((seen[&2] as f64 / 3000.0 - 2.0 / 3.0).abs() < 0.04, "{seen:?}");

        let allowed = Allowed { only: Some(&only), not: &[2], ..Allowed::default() };
        let token = sampler.draw_among(&logits, allowed).unwrap();
        assert_eq!((token.id, token.logprob), (0, 0.0), "one is certain");
        let excluded = Allowed { not: &[1], nor: &[3], ..Allowed::default() };
        let mut greedy = Sampler::new(params(0.0, 1.0, 0, 0.0), 0).unwrap();
        let token = greedy.draw_among(&logits, excluded).unwrap();
        assert_eq!((token.id, token.logprob), (2, 0.0));
        assert!((token.policy_logprob - 0.2f32.ln()).abs() < 1e-6);
    }

    #[test]
    fn a_filter_keeps_what_the_penalties_left() {
        let biased = SamplingParams { logit_bias: [(1, -100.0)].into(), ..params(0.5, 0.9, 2, 0.0) };
        let mut sampler = sampler(biased);
        let logits = logits_of(&[0.1, 0.5, 0.3, 0.1]);
        let seen = draws(&mut sampler, &logits, 2000);
        // 0.09 and 0.01 of the tempered rest, of which the first alone reaches 0.9.
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [(2, (2000, 0.0))]);
    }

    #[test]
    fn parameters_out_of_range_are_named() {
        for (sampling, text) in [
            (params(-1.0, 1.0, 0, 0.0), "temperature is -1, expected a number from 0 up"),
            (params(f32::NAN, 1.0, 0, 0.0), "temperature is NaN, expected a number from 0 up"),
            (params(1.0, 0.0, 0, 0.0), "top_p is 0, expected a number in (0, 1]"),
            (params(1.0, 1.0, 0, 1.0), "min_p is 1, expected a number in [0, 1)"),
            (
                SamplingParams { repetition_penalty: 0.0, ..Default::default() },
                "repetition_penalty is 0, expected a number above 0",
            ),
            (
                SamplingParams { presence_penalty: 2.5, ..Default::default() },
                "presence_penalty is 2.5, expected a number in [-2, 2]",
            ),
            (
                SamplingParams { logit_bias: [(0, f32::NAN)].into(), ..Default::default() },
                "logit_bias is NaN, expected a number in [-100, 100]",
            ),
        ] {
            assert_eq!(Sampler::new(sampling, 0).unwrap_err().to_string(), text);
        }
    }
}
