//! The forms of what is made of a turn: opinions, a teacher's signal, a step's report.

use bincode::{Decode, Encode};
use openclaw_model::StepReport;

use super::{Body, CodecError, read, read_packed, version, write, write_packed};
use crate::signals::{Candidates, TeacherSignal, Verdict};

/// What a judge made of a turn.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Opinion {
    pub verdict: Verdict,
    pub answers: Vec<Option<String>>,
    pub hints: Vec<String>,
    pub hint_answers: Vec<Option<String>>,
}

impl Default for Opinion {
    /// That of nobody.
    fn default() -> Self {
        let verdict = Verdict { reward: None, votes: Vec::new(), rule: None };
        Self { verdict, answers: Vec::new(), hints: Vec::new(), hint_answers: Vec::new() }
    }
}

impl Opinion {
    /// With a person's word in the place of the judge's. Its votes stay.
    pub fn overruled(mut self, rating: Option<i8>, hint: Option<String>) -> Self {
        if let Some(rating) = rating {
            self.verdict = Verdict { reward: Some(rating), rule: Some(RATING.to_owned()), ..self.verdict };
        }
        if let Some(hint) = hint {
            self.hints = vec![hint];
        }
        self
    }
}

#[derive(Encode, Decode)]
struct WholeOpinionBody {
    reward: Option<i8>,
    votes: Vec<Option<i8>>,
    rule: Option<String>,
    answers: Vec<Option<String>>,
    hints: Vec<String>,
    hint_answers: Vec<Option<String>>,
}

#[derive(Encode, Decode)]
struct OpinionBody {
    reward: Option<f32>,
    source: Source,
    votes: Vec<Option<i8>>,
    answers: Vec<Option<String>>,
    hints: Vec<String>,
    hint_answers: Vec<Option<String>>,
}

/// Where a reward is from.
#[derive(Encode, Decode)]
enum Source {
    Votes,
    Rule(String),
    /// A person's rating.
    Person,
    /// Of an episode.
    Outcome,
}

/// What a verdict calls a person's rating and an episode's outcome.
const RATING: &str = "rating";
const OUTCOME: &str = "outcome";

impl Body for Opinion {
    fn encode(&self) -> Result<Vec<u8>, CodecError> {
        let Self { verdict: Verdict { reward, votes, rule }, answers, hints, hint_answers } = self.clone();
        let source = match rule {
            None => Source::Votes,
            Some(rule) if rule == RATING => Source::Person,
            Some(rule) if rule == OUTCOME => Source::Outcome,
            Some(rule) => Source::Rule(rule),
        };
        let reward = reward.map(f32::from);
        write_packed(2, OpinionBody { reward, source, votes, answers, hints, hint_answers })
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        if version(bytes)? == 1 {
            let body: WholeOpinionBody = read(1, bytes)?;
            let WholeOpinionBody { reward, votes, rule, answers, hints, hint_answers } = body;
            return Ok(Self { verdict: Verdict { reward, votes, rule }, answers, hints, hint_answers });
        }
        let OpinionBody { reward, source, votes, answers, hints, hint_answers } = read_packed(2, bytes)?;
        let known = |reward: f32| {
            let known = [-1, 0, 1].into_iter().find(|known| f32::from(*known) == reward);
            known.ok_or(CodecError::Reward { reward })
        };
        let rule = match source {
            Source::Votes => None,
            Source::Rule(rule) => Some(rule),
            Source::Person => Some(RATING.to_owned()),
            Source::Outcome => Some(OUTCOME.to_owned()),
        };
        let verdict = Verdict { reward: reward.map(known).transpose()?, votes, rule };
        Ok(Self { verdict, answers, hints, hint_answers })
    }
}

#[derive(Encode, Decode)]
struct SignalBody {
    hint: String,
    logprobs: Vec<f32>,
    old_logprobs: Vec<f32>,
    student_top: Vec<CandidatesBody>,
    teacher_top: Vec<CandidatesBody>,
}

#[derive(Encode, Decode)]
struct CandidatesBody {
    ids: Vec<u32>,
    old_logprobs: Vec<f32>,
    teacher_logprobs: Vec<f32>,
}

impl Body for TeacherSignal {
    fn encode(&self) -> Result<Vec<u8>, CodecError> {
        let kept = |top: Vec<Candidates>| {
            top.into_iter()
                .map(|Candidates { ids, old_logprobs, teacher_logprobs }| CandidatesBody {
                    ids,
                    old_logprobs,
                    teacher_logprobs,
                })
                .collect()
        };
        let Self { hint, logprobs, old_logprobs, student_top, teacher_top } = self.clone();
        let (student_top, teacher_top) = (kept(student_top), kept(teacher_top));
        write(1, SignalBody { hint, logprobs, old_logprobs, student_top, teacher_top })
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let read_back = |top: Vec<CandidatesBody>| {
            top.into_iter()
                .map(|CandidatesBody { ids, old_logprobs, teacher_logprobs }| Candidates {
                    ids,
                    old_logprobs,
                    teacher_logprobs,
                })
                .collect()
        };
        let SignalBody { hint, logprobs, old_logprobs, student_top, teacher_top } = read(1, bytes)?;
        let (student_top, teacher_top) = (read_back(student_top), read_back(teacher_top));
        Ok(Self { hint, logprobs, old_logprobs, student_top, teacher_top })
    }
}

#[derive(Encode, Decode)]
struct ReportBody {
    step: u32,
    loss: f64,
    grad_norm: f64,
    entropy: f64,
    kl: f64,
    policy_kl: f64,
    clip_fraction: f64,
    rows: u64,
    tokens: u64,
    skipped: bool,
}

/// What form 2 adds.
#[derive(Encode, Decode)]
struct RatioBody {
    policy_loss: f64,
    ratio: f64,
    max_ratio: f64,
    truncated_fraction: f64,
}

/// Not JSON: a loss that is not finite has no number there.
impl Body for StepReport {
    fn encode(&self) -> Result<Vec<u8>, CodecError> {
        let report = ReportBody {
            step: self.step,
            loss: self.loss,
            grad_norm: self.grad_norm,
            entropy: self.entropy,
            kl: self.kl,
            policy_kl: self.policy_kl,
            clip_fraction: self.clip_fraction,
            rows: self.rows as u64,
            tokens: self.tokens as u64,
            skipped: self.skipped,
        };
        let Self { policy_loss, ratio, max_ratio, truncated_fraction, .. } = *self;
        write(2, (report, RatioBody { policy_loss, ratio, max_ratio, truncated_fraction }))
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let (body, ratios): (ReportBody, Option<RatioBody>) = match version(bytes)? {
            1 => (read(1, bytes)?, None),
            _ => read(2, bytes).map(|(body, ratios): (_, RatioBody)| (body, Some(ratios)))?,
        };
        let report = Self {
            step: body.step,
            loss: body.loss,
            grad_norm: body.grad_norm,
            entropy: body.entropy,
            kl: body.kl,
            policy_kl: body.policy_kl,
            clip_fraction: body.clip_fraction,
            rows: body.rows as usize,
            tokens: body.tokens as usize,
            skipped: body.skipped,
            ..Self::default()
        };
        Ok(match ratios {
            Some(RatioBody { policy_loss, ratio, max_ratio, truncated_fraction }) => {
                Self { policy_loss, ratio, max_ratio, truncated_fraction, ..report }
            }
            None => report,
        })
    }
}
