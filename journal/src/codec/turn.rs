//! The forms of a turn. In form 1 it is one body. In form 2 it is a head, which is of this turn alone, and a content,
//! which has most in common with the turn before and is kept as what is new in it (`contents`).
//!
//! A head has room for what no turn has yet: the episode that it belongs to, spans of tokens of which only the sampled
//! ones are trained, and images named by their content.

use std::hash::{DefaultHasher, Hash, Hasher};

use bincode::{Decode, Encode};
use openclaw_model::{FinishReason, ParserConfig, ReplySplit};
use serde::Deserialize;
use serde_json::Value;

use super::{CodecError, from_json, json, read, version, write};
use crate::{
    record::TurnMark,
    turn::{Completion, SessionId, Turn, TurnId, TurnKind},
};

/// A turn's body as it is found.
pub(crate) enum TurnBody {
    /// All of it.
    Whole(Box<Turn>),
    /// Its content is kept elsewhere.
    Head(Box<TurnHead>),
}

impl TurnBody {
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        match version(bytes)? {
            1 => Ok(Self::Whole(Box::new(read::<WholeBody>(1, bytes)?.into_turn()?))),
            _ => Ok(Self::Head(Box::new(TurnHead(read(2, bytes)?)))),
        }
    }
}

/// A turn but for what was said in it.
pub(crate) struct TurnHead(HeadBody);

#[derive(Encode, Decode)]
struct HeadBody {
    id: String,
    session: String,
    index: u32,
    main: bool,
    trainable: bool,
    policy_version: u64,
    temperature: f32,
    finish: Finish,
    rollout_logprobs: Vec<f32>,
    policy_logprobs: PolicyLogprobs,
    starts_in_thinking: bool,
    answer_at: u64,
    calls: Vec<(u64, u64)>,
    episode: Option<EpisodeBody>,
    spans: Vec<SpanBody>,
    images: Vec<String>,
}

#[derive(Encode, Decode)]
enum Finish {
    Stop,
    Length,
    Cancelled,
}

#[derive(Encode, Decode)]
enum PolicyLogprobs {
    Unknown,
    /// Those that it was drawn with.
    Same,
    Own(Vec<f32>),
}

#[derive(Encode, Decode)]
struct EpisodeBody {
    id: String,
    environment: String,
    task: String,
    group: String,
    outcome: Option<f32>,
}

/// Of the tokens of prompt and reply together.
#[derive(Encode, Decode)]
struct SpanBody {
    start: u32,
    tokens: u32,
    sampled: bool,
}

/// What was said in a turn: what its head has not.
type ContentBody = (Texts, Vec<u64>, Vec<u32>, Vec<u32>, String);
/// Tools, template variables and messages, as JSON.
type Texts = (String, String, String);

/// The same floats to the last bit: what is not a number is itself.
fn are_same(left: &[f32], right: &[f32]) -> bool {
    left.iter().map(|value| value.to_bits()).eq(right.iter().map(|value| value.to_bits()))
}

impl TurnHead {
    pub fn encode(turn: &Turn) -> Result<Vec<u8>, CodecError> {
        let Completion { rollout_logprobs, policy_logprobs, split, .. } = &turn.completion;
        write(
            2,
            HeadBody {
                id: turn.id.to_string(),
                session: turn.session.to_string(),
                index: turn.index,
                main: turn.kind == TurnKind::Main,
                trainable: turn.trainable,
                policy_version: turn.completion.policy_version,
                temperature: turn.completion.temperature,
                finish: match turn.completion.finish_reason {
                    FinishReason::Stop => Finish::Stop,
                    FinishReason::Length => Finish::Length,
                    FinishReason::Cancelled => Finish::Cancelled,
                },
                rollout_logprobs: rollout_logprobs.clone(),
                policy_logprobs: match policy_logprobs {
                    None => PolicyLogprobs::Unknown,
                    Some(policy) if are_same(policy, rollout_logprobs) => PolicyLogprobs::Same,
                    Some(policy) => PolicyLogprobs::Own(policy.clone()),
                },
                starts_in_thinking: split.starts_in_thinking,
                answer_at: split.answer_at as u64,
                calls: split.calls.iter().map(|call| (call.start as u64, call.end as u64)).collect(),
                episode: None,
                spans: Vec::new(),
                images: Vec::new(),
            },
        )
    }

    pub fn id(&self) -> TurnId {
        TurnId(self.0.id.as_str().into())
    }

    pub fn session(&self) -> SessionId {
        SessionId(self.0.session.as_str().into())
    }

    pub fn index(&self) -> u32 {
        self.0.index
    }

    pub fn kind(&self) -> TurnKind {
        if self.0.main { TurnKind::Main } else { TurnKind::Side }
    }

    pub fn trainable(&self) -> bool {
        self.0.trainable
    }

    pub fn policy_version(&self) -> u64 {
        self.0.policy_version
    }

    /// The turn, with what was said in it.
    pub fn with(self, content: &[u8]) -> Result<Turn, CodecError> {
        let (id, session, kind) = (self.id(), self.session(), self.kind());
        let Self(head) = self;
        if head.episode.is_some() || !head.spans.is_empty() || !head.images.is_empty() {
            return Err(CodecError::Episode);
        }
        let ((tools, template_kwargs, messages), _, prompt_ids, response_ids, text): ContentBody =
            read(2, content)?;
        let place = |place: u64| usize::try_from(place).unwrap_or(usize::MAX);
        let calls = head.calls.into_iter().map(|(start, end)| place(start)..place(end)).collect();
        let split = ReplySplit {
            starts_in_thinking: head.starts_in_thinking,
            answer_at: place(head.answer_at),
            calls,
        };
        if !split.fits(&text) {
            return Err(CodecError::Split);
        }
        Ok(Turn {
            id,
            session,
            index: head.index,
            kind,
            trainable: head.trainable,
            messages: from_json(&messages)?,
            tools: from_json(&tools)?,
            template_kwargs: from_json(&template_kwargs)?,
            completion: Completion {
                prompt_ids,
                response_ids,
                policy_logprobs: match head.policy_logprobs {
                    PolicyLogprobs::Unknown => None,
                    PolicyLogprobs::Same => Some(head.rollout_logprobs.clone()),
                    PolicyLogprobs::Own(policy) => Some(policy),
                },
                rollout_logprobs: head.rollout_logprobs,
                policy_version: head.policy_version,
                temperature: head.temperature,
                finish_reason: head.finish.into(),
                text,
                split,
            },
        })
    }
}

impl From<Finish> for FinishReason {
    fn from(finish: Finish) -> Self {
        match finish {
            Finish::Stop => Self::Stop,
            Finish::Length => Self::Length,
            Finish::Cancelled => Self::Cancelled,
        }
    }
}

/// What was said in a turn, and the names of its request's prefixes.
pub(crate) fn encode_content(turn: &Turn, mark: &TurnMark) -> Result<Vec<u8>, CodecError> {
    let Completion { prompt_ids, response_ids, text, .. } = &turn.completion;
    // As a `ContentBody`, without a copy of each part.
    let texts = (json(&*turn.tools)?, json(&*turn.template_kwargs)?, json(&*turn.messages)?);
    write(2, (texts, &*mark.chain, prompt_ids, response_ids, text))
}

/// The names of a request's prefixes.
pub(crate) fn chain_in(content: &[u8]) -> Result<Vec<u64>, CodecError> {
    let (_, chain, ..): ContentBody = read(2, content)?;
    Ok(chain)
}

/// Names what its user said last.
pub(crate) fn asked_in(content: &[u8]) -> Result<Option<u64>, CodecError> {
    let ((_, _, messages), ..): ContentBody = read(2, content)?;
    Ok(asked(&messages))
}

#[derive(Encode, Decode)]
struct WholeBody {
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

impl WholeBody {
    fn into_turn(self) -> Result<Turn, CodecError> {
        let tools = from_json::<Vec<Value>>(&self.tools)?;
        let split = guessed_split(&self.text, &tools);
        Ok(Turn {
            id: TurnId(self.id.into()),
            session: SessionId(self.session.into()),
            index: self.index,
            kind: if self.main { TurnKind::Main } else { TurnKind::Side },
            trainable: self.trainable,
            messages: from_json(&self.messages)?,
            tools,
            template_kwargs: from_json(&self.template_kwargs)?,
            completion: Completion {
                prompt_ids: self.prompt_ids,
                response_ids: self.response_ids,
                rollout_logprobs: self.rollout_logprobs,
                policy_logprobs: None,
                policy_version: self.policy_version,
                temperature: self.temperature,
                finish_reason: self.finish.into(),
                text: self.text,
                split,
            },
        })
    }
}

/// Form 1 does not say whether the prompt left a thought open, so that it is read off the reply: thinking that ends
/// without having begun there does so in a line of its own; within a line the mark is one of the reply's words.
fn guessed_split(text: &str, tools: &[Value]) -> ReplySplit {
    let mut lines = text.lines().take_while(|line| !line.contains("<think>"));
    let starts_in_thinking = lines.any(|line| line.trim() == "</think>");
    ReplySplit::of(text, ParserConfig::new(tools, starts_in_thinking))
}

/// As much of a message as tells what was asked.
#[derive(Deserialize)]
struct Asked {
    #[serde(default)]
    role: String,
    #[serde(default)]
    content: Value,
}

/// Names what a user said last.
fn asked(messages: &str) -> Option<u64> {
    let messages: Vec<Asked> = serde_json::from_str(messages).ok()?;
    let asked = messages.iter().rev().find(|message| message.role == "user")?;
    name_of(&asked.content)
}

/// Names what its user said last.
pub(crate) fn asked_of(turn: &Turn) -> Option<u64> {
    name_of(&turn.messages.iter().rev().find(|message| message["role"] == "user")?["content"])
}

fn name_of(content: &Value) -> Option<u64> {
    let mut name = DefaultHasher::new();
    content.as_str()?.trim().hash(&mut name);
    Some(name.finish())
}
