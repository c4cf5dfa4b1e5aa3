//! The circuit breaker: withholds what a step made when a number it left behind lies outside its band.
//!
//! Most numbers come with the step. The canary costs a few short answers: a fixed set of prompts is answered
//! greedily by the version that was good last and by the candidate. How much less likely the candidate finds the
//! good version's answers tells how far it has moved; how many of its own answers are empty, looping or cut tells
//! whether it still speaks.

use std::{collections::BTreeMap, fmt};

use openclaw_model::{
    Batcher, BatcherConfig, FinishReason, GenerateEvent, GenerateRequest, SamplingParams, ScoreRequest,
    SequenceId, StepReport, Transformer,
};
use serde_json::{Map, json};

use crate::{
    engine::{Device, EngineText, PolicyWeights},
    repetition::ends_in_a_loop,
};

/// Most tokens of a canary's answer; a longer one counts as cut.
const ANSWER_TOKENS: usize = 48;
/// An answer that ends in this many tokens of one repeated phrase is looping.
const LOOP_TOKENS: usize = 24;
/// Tokens of a block of the canary's own key-value cache.
const BLOCK_TOKENS: usize = 16;

/// The bands. A value that is not at most its limit trips the breaker.
#[derive(Clone, Debug, PartialEq)]
pub struct BreakerConfig {
    /// Norm of the gradient before clipping.
    pub max_grad_norm: f64,
    /// Mean distance to the base version on the batch, nats per token; only methods with a KL term have one.
    pub max_kl: f64,
    /// Mean difference between serving's and training's log-probs of the batch before the step, either way.
    pub max_drift: f64,
    /// Mean entropy of the trained tokens in two batches running, nats: a model that comes apart spreads over everything.
    pub max_entropy: f64,
    /// Share of the canary's answers that are empty, looping or cut.
    pub max_degenerate: f64,
    /// How much less likely than before the last good version's answers may be, nats per token.
    pub max_canary_drop: f64,
    /// The canary sings at every so many steps; 0 for never.
    pub canary_every_steps: u64,
    /// What it is asked.
    pub canary_prompts: Vec<String>,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        let prompts = ["What is 12 + 7?", "Say hello.", "Name a colour.", "Thank you for your help!"];
        Self {
            max_grad_norm: 100.0,
            max_kl: 5.0,
            max_drift: 0.5,
            max_entropy: 3.0,
            max_degenerate: 0.75,
            max_canary_drop: 1.0,
            canary_every_steps: 10,
            canary_prompts: prompts.map(str::to_owned).to_vec(),
        }
    }
}

/// What the canary said of a candidate.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CanaryScore {
    /// Nats per token by which the last good version's answers are less likely than they were.
    pub drop: f64,
    /// Share of its own answers that are empty, looping or cut.
    pub degenerate: f64,
}

/// Why a version is withheld: `grad_norm 812.4 > max_grad_norm 100`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tripped {
    /// What left its band; also the label of the counter.
    pub what: &'static str,
    /// Its value.
    pub value: f64,
    /// Its limit.
    pub limit: f64,
}

impl fmt::Display for Tripped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, value, limit } = self;
        match *what {
            "not_finite" => write!(f, "not_finite: the loss or the gradient"),
            _ => write!(f, "{what} {value:.4} > max_{what} {limit}"),
        }
    }
}

impl BreakerConfig {
    /// What a step and the canary left outside its band, if anything; `entropy_before` is the batch before's.
    pub fn check(
        &self,
        report: &StepReport,
        entropy_before: f64,
        canary: Option<CanaryScore>,
    ) -> Option<Tripped> {
        if report.skipped {
            return Some(Tripped { what: "not_finite", value: report.grad_norm, limit: f64::MAX });
        }
        let of_canary = canary.map(|score| {
            [
                ("canary_drop", score.drop, self.max_canary_drop),
                ("degenerate", score.degenerate, self.max_degenerate),
            ]
        });
        let bands = [
            ("grad_norm", report.grad_norm, self.max_grad_norm),
            ("kl", report.kl, self.max_kl),
            ("drift", report.policy_kl.abs(), self.max_drift),
            ("entropy", report.entropy.min(entropy_before), self.max_entropy),
        ];
        bands
            .into_iter()
            .chain(of_canary.into_iter().flatten())
            // Also a value that is no number is outside.
            .find(|(_, value, limit)| value.is_nan() || value > limit)
            .map(|(what, value, limit)| Tripped { what, value, limit })
    }
}

/// Asks candidates the same few questions.
pub struct Canary {
    text: EngineText,
    end_ids: Vec<u32>,
    prompts: Vec<Vec<u32>>,
    every_steps: u64,
    good: Option<Vec<Answer>>,
}

/// One greedy answer.
struct Answer {
    prompt: usize,
    ids: Vec<u32>,
    logprob: f64,
    degenerate: bool,
}

/// A candidate's answers, to be handed back once it is good.
pub struct Answers(Vec<Answer>);

impl Canary {
    /// A canary that has heard nothing yet; an error names the prompt that cannot be rendered.
    pub fn new(config: &BreakerConfig, text: EngineText, end_ids: Vec<u32>) -> Result<Self, String> {
        let render = |prompt: &String| {
            let messages = [json!({"role": "user", "content": prompt})];
            text.prompt_ids(&messages, &[], &Map::new())
                .map_err(|error| format!("the canary's prompt {prompt:?} cannot be rendered: {error}"))
        };
        let prompts = config.canary_prompts.iter().map(render).collect::<Result<_, _>>()?;
        Ok(Self { text, end_ids, prompts, every_steps: config.canary_every_steps, good: None })
    }

    /// Whether it sings at this step.
    pub fn is_due(&self, step: u64) -> bool {
        self.every_steps > 0 && !self.prompts.is_empty() && step.is_multiple_of(self.every_steps)
    }

    /// Hears the good version, unless it has: what the next candidate is compared with.
    pub fn hear_good(
        &mut self,
        transformer: &Transformer<Device>,
        weights: impl FnOnce() -> Result<PolicyWeights, String>,
    ) -> Result<(), String> {
        if self.good.is_none() {
            self.good = Some(self.answers(transformer, &weights()?)?);
        }
        Ok(())
    }

    /// Forgets the good version: another one is trained from now on.
    pub fn forget(&mut self) {
        self.good = None;
    }

    /// These answers are the good version's from now on.
    pub fn accept(&mut self, Answers(answers): Answers) {
        self.good = Some(answers);
    }

    /// Hears a candidate.
    pub fn hear(
        &self,
        transformer: &Transformer<Device>,
        weights: &PolicyWeights,
    ) -> Result<(CanaryScore, Answers), String> {
        let answers = self.answers(transformer, weights)?;
        let degenerate = answers.iter().filter(|answer| answer.degenerate).count();
        let (mut drop, mut tokens) = (0.0, 0);
        for good in self.good.iter().flatten() {
            let prompt = &self.prompts[good.prompt];
            let request = ScoreRequest {
                ids: [prompt.as_slice(), &good.ids].concat(),
                start: prompt.len(),
                temperature: 1.0,
                ..ScoreRequest::default()
            };
            let scored = transformer.score(weights, &request).map_err(|error| error.to_string())?;
            drop += good.logprob - scored.logprobs.iter().map(|logprob| f64::from(*logprob)).sum::<f64>();
            tokens += good.ids.len();
        }
        let score = CanaryScore {
            drop: drop / tokens.max(1) as f64,
            degenerate: degenerate as f64 / answers.len().max(1) as f64,
        };
        Ok((score, Answers(answers)))
    }

    fn answers(
        &self,
        transformer: &Transformer<Device>,
        weights: &PolicyWeights,
    ) -> Result<Vec<Answer>, String> {
        let blocks = |prompt: &Vec<u32>| (prompt.len() + ANSWER_TOKENS).div_ceil(BLOCK_TOKENS);
        let limits = BatcherConfig {
            max_batch_tokens: 1024.max(self.prompts.len()),
            max_sequences: self.prompts.len(),
            kv_blocks: self.prompts.iter().map(blocks).sum(),
            block_size: BLOCK_TOKENS,
            max_waiting: self.prompts.len(),
            step_time: None,
        };
        let (tokenizer, end_ids) = (self.text.tokenizer.clone(), self.end_ids.clone());
        let mut batcher = Batcher::new(transformer.clone(), tokenizer, end_ids, limits, 0, weights.clone())
            .map_err(|error| error.to_string())?;
        let mut drawing: BTreeMap<SequenceId, (Answer, String)> = BTreeMap::new();
        for (prompt, prompt_ids) in self.prompts.iter().enumerate() {
            let request = GenerateRequest {
                drawn_ids: Vec::new(),
                prompt_ids: prompt_ids.clone(),
                sampling: SamplingParams { temperature: 0.0, ..SamplingParams::default() },
                max_new_tokens: ANSWER_TOKENS,
                stop: Vec::new(),
                top_logprobs: 0,
                constraint: None,
            };
            let id = batcher.submit(request).map_err(|error| error.to_string())?;
            drawing.insert(
                id,
                (Answer { prompt, ids: Vec::new(), logprob: 0.0, degenerate: false }, String::new()),
            );
        }
        while !batcher.is_idle() {
            for (id, event) in batcher.step().map_err(|error| error.to_string())? {
                let (answer, said) = drawing.get_mut(&id).expect("only what was submitted is drawn");
                match event {
                    GenerateEvent::Token { token, text, .. } => {
                        answer.ids.push(token.id);
                        answer.logprob += f64::from(token.raw_logprob);
                        said.push_str(&text);
                    }
                    GenerateEvent::Finished { reason, text, .. } => {
                        said.push_str(&text);
                        answer.degenerate = reason != FinishReason::Stop
                            || said.trim().is_empty()
                            || ends_in_a_loop(&answer.ids, LOOP_TOKENS);
                    }
                    // A distribution that cannot be drawn from is no answer.
                    GenerateEvent::Failed { .. } => answer.degenerate = true,
                }
            }
        }
        Ok(drawing.into_values().map(|(answer, _)| answer).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use openclaw_model::Weights;

    use super::*;
    use crate::tiny::Tiny;

    fn config() -> BreakerConfig {
        BreakerConfig {
            max_grad_norm: 100.0,
            max_kl: 2.0,
            max_drift: 0.5,
            max_entropy: 3.0,
            max_degenerate: 0.75,
            max_canary_drop: 1.0,
            canary_every_steps: 2,
            canary_prompts: vec!["2 + 2?".into(), "Say hello.".into()],
        }
    }

    fn report(change: impl FnOnce(&mut StepReport)) -> StepReport {
        let mut report = StepReport { grad_norm: 1.0, kl: 0.1, policy_kl: -0.01, ..StepReport::default() };
        change(&mut report);
        report
    }

    #[test]
    fn each_value_outside_its_band_is_named_with_its_limit() {
        let tripped = |report: StepReport, canary: Option<(f64, f64)>| {
            let canary = canary.map(|(drop, degenerate)| CanaryScore { drop, degenerate });
            config().check(&report, 3.5, canary).map(|tripped| tripped.to_string())
        };
        assert_eq!(tripped(report(|_| ()), Some((1.0, 0.75))), None, "a limit belongs to its band");
        assert_eq!(
            tripped(report(|report| report.grad_norm = 812.4), None).as_deref(),
            Some("grad_norm 812.4000 > max_grad_norm 100")
        );
        let named = [
            (tripped(report(|report| report.kl = 2.5), None), "kl 2.5"),
            (tripped(report(|report| report.kl = f64::NAN), None), "kl NaN"),
            (tripped(report(|report| report.policy_kl = -0.6), None), "drift 0.6"),
            (tripped(report(|report| report.entropy = 4.0), None), "entropy 3.5"),
            (tripped(report(|report| report.skipped = true), None), "not_finite"),
            (tripped(report(|_| ()), Some((1.5, 0.0))), "canary_drop 1.5"),
            (tripped(report(|_| ()), Some((0.0, 1.0))), "degenerate 1.0"),
        ];
        let alone = config().check(&report(|report| report.entropy = 4.0), 0.5, None);
        assert_eq!(alone, None, "one batch is no trend");
        for (reason, start) in named {
            assert!(reason.as_ref().is_some_and(|reason| reason.starts_with(start)), "{reason:?}: {start}");
        }
    }

    #[test]
    fn a_canary_hears_no_change_where_there_is_none_and_hears_other_weights() {
        let (tiny, other) = (Tiny::new(3), Tiny::new(4));
        let end_ids = vec![Tiny::text().tokenizer.special_id("<|im_end|>").expect("a special token")];
        let mut canary = Canary::new(&config(), Tiny::text(), end_ids).expect("prompts");
        assert_eq!([1, 2, 3, 4].map(|step| canary.is_due(step)), [false, true, false, true]);
        canary.hear_good(&tiny.transformer, || Ok(tiny.weights.clone())).expect("answers");
        let (same, answers) = canary.hear(&tiny.transformer, &tiny.weights).expect("a score");
        // Serving and scoring agree to 1e-4 per token.
        assert!(same.drop.abs() < 1e-3, "{same:?}");
        let (changed, _) = canary.hear(&tiny.transformer, &other.weights).expect("a score");
        assert!(changed.drop > 0.5, "{changed:?}");
        canary.accept(answers);

        // A model of zeros draws the first token again and again: it never ends.
        let zeros = vec![0.0; tiny.transformer.layout.len()];
        let zeros = Arc::new(Weights::from_host(&tiny.transformer, &zeros).expect("the right length"));
        let (silent, _) = canary.hear(&tiny.transformer, &zeros).expect("a score");
        assert_eq!(silent.degenerate, 1.0);
    }
}
