//! The form in which a turn, what followed it, an opinion, a signal and a report are kept: a version byte and a
//! bincode body. JSON stays JSON. A change of layout is a new version here, and the old ones stay readable.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use bincode::{Decode, Encode, config};
use openclaw_model::{FinishReason, StepReport};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::record::TurnMark;
use crate::{
    signals::{Candidates, TeacherSignal, Verdict},
    turn::{Completion, NextState, NextStateKind, SessionId, Turn, TurnId, TurnKind},
};

/// The version byte of all that is written.
const VERSION: u8 = 1;
/// The largest body.
const LIMIT_BYTES: usize = 256 << 20;

/// Why a body cannot be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// It is empty.
    #[error("nothing is kept")]
    Empty,
    /// A later program wrote it.
    #[error("form {found} is kept, and this program knows them up to {VERSION}")]
    Version {
        /// The version byte.
        found: u8,
    },
    /// Larger than anything that is kept.
    #[error("{bytes} bytes, and at most {LIMIT_BYTES} are kept")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Bytes are left over.
    #[error("{bytes} bytes are left over")]
    LeftOver {
        /// How many.
        bytes: usize,
    },
    /// It cannot be written down.
    #[error(transparent)]
    Encode(#[from] bincode::error::EncodeError),
    /// It is not what its version byte says.
    #[error(transparent)]
    Decode(#[from] bincode::error::DecodeError),
    /// JSON inside of it.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

/// Something that is kept as a body.
pub(crate) trait Body: Sized {
    fn encode(&self) -> Result<Vec<u8>, CodecError>;
    fn decode(bytes: &[u8]) -> Result<Self, CodecError>;
}

fn layout() -> impl config::Config {
    config::standard().with_little_endian().with_fixed_int_encoding().with_limit::<LIMIT_BYTES>()
}

fn write(body: impl Encode) -> Result<Vec<u8>, CodecError> {
    let mut bytes = vec![VERSION];
    bincode::encode_into_std_write(body, &mut bytes, layout())?;
    match bytes.len() {
        larger if larger > LIMIT_BYTES => Err(CodecError::TooLarge { bytes: larger }),
        _ => Ok(bytes),
    }
}

fn read<T: Decode<()>>(bytes: &[u8]) -> Result<T, CodecError> {
    let (version, body) = bytes.split_first().ok_or(CodecError::Empty)?;
    if *version != VERSION {
        return Err(CodecError::Version { found: *version });
    }
    let (value, used) = bincode::decode_from_slice(body, layout())?;
    match body.len() - used {
        0 => Ok(value),
        bytes => Err(CodecError::LeftOver { bytes }),
    }
}

fn json(value: &impl Serialize) -> Result<String, CodecError> {
    Ok(serde_json::to_string(value)?)
}

fn from_json<T: DeserializeOwned>(text: &str) -> Result<Arc<T>, CodecError> {
    Ok(Arc::new(serde_json::from_str(text)?))
}

#[derive(Encode, Decode)]
struct TurnBody {
    id: String,
    session: String,
    index: u32,
    main: bool,
    trainable: bool,
    messages: String,
    tools: String,
    template_kwargs: String,
    prompt_ids: Vec<u32>,
    response_ids: Vec<u32>,
    rollout_logprobs: Vec<f32>,
    policy_version: u64,
    temperature: f32,
    finish: Finish,
    text: String,
}

#[derive(Encode, Decode)]
enum Finish {
    Stop,
    Length,
    Cancelled,
}

impl Body for Turn {
    fn encode(&self) -> Result<Vec<u8>, CodecError> {
        let completion = self.completion.clone();
        write(TurnBody {
            id: self.id.to_string(),
            session: self.session.to_string(),
            index: self.index,
            main: self.kind == TurnKind::Main,
            trainable: self.trainable,
            messages: json(&*self.messages)?,
            tools: json(&*self.tools)?,
            template_kwargs: json(&*self.template_kwargs)?,
            prompt_ids: completion.prompt_ids,
            response_ids: completion.response_ids,
            rollout_logprobs: completion.rollout_logprobs,
            policy_version: completion.policy_version,
            temperature: completion.temperature,
            finish: match completion.finish_reason {
                FinishReason::Stop => Finish::Stop,
                FinishReason::Length => Finish::Length,
                FinishReason::Cancelled => Finish::Cancelled,
            },
            text: completion.text,
        })
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let body: TurnBody = read(bytes)?;
        Ok(Self {
            id: TurnId(body.id.into()),
            session: SessionId(body.session.into()),
            index: body.index,
            kind: if body.main { TurnKind::Main } else { TurnKind::Side },
            trainable: body.trainable,
            messages: from_json(&body.messages)?,
            tools: from_json(&body.tools)?,
            template_kwargs: from_json(&body.template_kwargs)?,
            completion: Completion {
                prompt_ids: body.prompt_ids,
                response_ids: body.response_ids,
                rollout_logprobs: body.rollout_logprobs,
                policy_version: body.policy_version,
                temperature: body.temperature,
                finish_reason: match body.finish {
                    Finish::Stop => FinishReason::Stop,
                    Finish::Length => FinishReason::Length,
                    Finish::Cancelled => FinishReason::Cancelled,
                },
                text: body.text,
            },
        })
    }
}

/// What a list shows of a turn.
pub(crate) struct TurnGlance {
    pub index: u32,
    pub policy_version: u64,
    /// Names what its user said last, where that opens a conversation.
    pub asked: Option<u64>,
}

/// As much of a message as tells what was asked.
#[derive(Deserialize)]
struct Asked {
    #[serde(default)]
    role: String,
    #[serde(default)]
    content: serde_json::Value,
}

impl TurnGlance {
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let TurnBody { index, policy_version, messages, .. } = read(bytes)?;
        // Long conversations are long to read, and how they went on is not asked for.
        let asked = if index == 1 { asked(&messages) } else { None };
        Ok(Self { index, policy_version, asked })
    }
}

fn asked(messages: &str) -> Option<u64> {
    let messages: Vec<Asked> = serde_json::from_str(messages).ok()?;
    let asked = messages.iter().rev().find(|message| message.role == "user")?;
    let mut name = DefaultHasher::new();
    asked.content.as_str()?.trim().hash(&mut name);
    Some(name.finish())
}

#[derive(Encode, Decode)]
struct MarkBody {
    chain: Vec<u64>,
    named: bool,
    last: bool,
    reply: u64,
    says_anything: bool,
}

impl Body for TurnMark {
    fn encode(&self) -> Result<Vec<u8>, CodecError> {
        let Self { chain, named, last, reply, says_anything } = self.clone();
        write(MarkBody { chain: chain.to_vec(), named, last, reply, says_anything })
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let MarkBody { chain, named, last, reply, says_anything } = read(bytes)?;
        Ok(Self { chain: chain.into(), named, last, reply, says_anything })
    }
}

#[derive(Encode, Decode)]
struct NextStateBody {
    kind: Author,
    text: String,
    rating: Option<i8>,
    is_error: bool,
}

#[derive(Encode, Decode)]
enum Author {
    User,
    Tool,
    Feedback,
}

impl Body for NextState {
    fn encode(&self) -> Result<Vec<u8>, CodecError> {
        let Self { kind, text, rating, is_error } = self.clone();
        let kind = match kind {
            NextStateKind::User => Author::User,
            NextStateKind::Tool => Author::Tool,
            NextStateKind::Feedback => Author::Feedback,
        };
        write(NextStateBody { kind, text, rating, is_error })
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let NextStateBody { kind, text, rating, is_error } = read(bytes)?;
        let kind = match kind {
            Author::User => NextStateKind::User,
            Author::Tool => NextStateKind::Tool,
            Author::Feedback => NextStateKind::Feedback,
        };
        Ok(Self { kind, text, rating, is_error })
    }
}

/// What a judge made of a turn.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Opinion {
    pub verdict: Verdict,
    pub answers: Vec<Option<String>>,
    pub hints: Vec<String>,
    pub hint_answers: Vec<Option<String>>,
}

impl Opinion {
    /// With a person's word in the place of the judge's. Its votes stay.
    pub fn overruled(mut self, rating: Option<i8>, hint: Option<String>) -> Self {
        if let Some(rating) = rating {
            self.verdict = Verdict { reward: Some(rating), rule: Some("rating".to_owned()), ..self.verdict };
        }
        if let Some(hint) = hint {
            self.hints = vec![hint];
        }
        self
    }
}

/// A person's rating.
impl Body for i8 {
    fn encode(&self) -> Result<Vec<u8>, CodecError> {
        write(self)
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        read(bytes)
    }
}

/// A person's hint.
impl Body for String {
    fn encode(&self) -> Result<Vec<u8>, CodecError> {
        write(self)
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        read(bytes)
    }
}

#[derive(Encode, Decode)]
struct OpinionBody {
    reward: Option<i8>,
    votes: Vec<Option<i8>>,
    rule: Option<String>,
    answers: Vec<Option<String>>,
    hints: Vec<String>,
    hint_answers: Vec<Option<String>>,
}

impl Body for Opinion {
    fn encode(&self) -> Result<Vec<u8>, CodecError> {
        let Self { verdict: Verdict { reward, votes, rule }, answers, hints, hint_answers } = self.clone();
        write(OpinionBody { reward, votes, rule, answers, hints, hint_answers })
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let OpinionBody { reward, votes, rule, answers, hints, hint_answers } = read(bytes)?;
        Ok(Self { verdict: Verdict { reward, votes, rule }, answers, hints, hint_answers })
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
        write(SignalBody { hint, logprobs, old_logprobs, student_top, teacher_top })
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
        let SignalBody { hint, logprobs, old_logprobs, student_top, teacher_top } = read(bytes)?;
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

/// Not JSON: a loss that is not finite has no number there.
impl Body for StepReport {
    fn encode(&self) -> Result<Vec<u8>, CodecError> {
        write(ReportBody {
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
        })
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let body: ReportBody = read(bytes)?;
        Ok(Self {
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
            // The rest is for whoever watches the step.
            ..Self::default()
        })
    }
}
