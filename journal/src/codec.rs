//! The form in which a turn, what followed it, an opinion, a signal and a report are kept: a version byte and a
//! bincode body. JSON stays JSON. Each kind of body counts its versions for itself: a change of layout is a new version
//! of it, and the old ones stay readable.

mod signals;
mod turn;

use std::sync::Arc;

use bincode::{Decode, Encode, config};
use serde::{Serialize, de::DeserializeOwned};

pub(crate) use self::{
    signals::Opinion,
    turn::{TurnBody, TurnHead, asked_in, asked_of, chain_in, encode_content},
};
use super::{pack, record::TurnMark};
use crate::turn::{NextState, NextStateKind, Screen};

/// The largest body.
pub(crate) const LIMIT_BYTES: usize = 256 << 20;

/// Why a body cannot be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// It is empty.
    #[error("nothing is kept")]
    Empty,
    /// A later program wrote it.
    #[error("form {found} is kept, and this program knows them up to {known}")]
    Version {
        /// The version byte.
        found: u8,
        /// The latest that is known of this kind.
        known: u8,
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
    /// It cannot be compressed, or what is compressed is torn.
    #[error("it cannot be unpacked")]
    Pack(#[from] std::io::Error),
    /// A reply's parts lie outside of its text.
    #[error("the parts of the reply lie outside of its text")]
    Split,
    /// A later program wrote it.
    #[error("it is part of an episode, and this program knows none")]
    Episode,
    /// A later program wrote it.
    #[error("a reward of {reward} is kept, and this program knows -1, 0 and 1")]
    Reward {
        /// The reward.
        reward: f32,
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

fn write(version: u8, body: impl Encode) -> Result<Vec<u8>, CodecError> {
    let mut bytes = vec![version];
    bincode::encode_into_std_write(body, &mut bytes, layout())?;
    match bytes.len() {
        larger if larger > LIMIT_BYTES => Err(CodecError::TooLarge { bytes: larger }),
        _ => Ok(bytes),
    }
}

/// A body of this version, the latest of its kind that is asked for.
fn read<T: Decode<()>>(known: u8, bytes: &[u8]) -> Result<T, CodecError> {
    let (found, body) = bytes.split_first().ok_or(CodecError::Empty)?;
    if *found != known {
        return Err(CodecError::Version { found: *found, known });
    }
    let (value, used) = bincode::decode_from_slice(body, layout())?;
    match body.len() - used {
        0 => Ok(value),
        bytes => Err(CodecError::LeftOver { bytes }),
    }
}

/// The same, compressed behind the version byte.
fn write_packed(version: u8, body: impl Encode) -> Result<Vec<u8>, CodecError> {
    let plain = write(version, body)?;
    Ok([&[version], &*pack::pack(&plain[1..], None)?].concat())
}

fn read_packed<T: Decode<()>>(known: u8, bytes: &[u8]) -> Result<T, CodecError> {
    let (version, body) = bytes.split_first().ok_or(CodecError::Empty)?;
    if *version != known {
        return Err(CodecError::Version { found: *version, known });
    }
    read(known, &[&[*version], &*pack::unpack(body, None)?].concat())
}

fn version(bytes: &[u8]) -> Result<u8, CodecError> {
    bytes.first().copied().ok_or(CodecError::Empty)
}

fn json(value: &impl Serialize) -> Result<String, CodecError> {
    Ok(serde_json::to_string(value)?)
}

fn from_json<T: DeserializeOwned>(text: &str) -> Result<Arc<T>, CodecError> {
    Ok(Arc::new(serde_json::from_str(text)?))
}

#[derive(Encode, Decode)]
struct WholeMarkBody {
    chain: Vec<u64>,
    named: bool,
    last: bool,
    reply: u64,
    says_anything: bool,
}

/// The rest of the chain is in the turn's content.
#[derive(Encode, Decode)]
struct MarkBody {
    request: Option<u64>,
    named: bool,
    last: bool,
    reply: u64,
    says_anything: bool,
    person: u64,
    before: u64,
    words: u32,
    opening: String,
}

/// Read back from form 2, its chain names the whole request alone.
impl Body for TurnMark {
    fn encode(&self) -> Result<Vec<u8>, CodecError> {
        let Self { named, last, reply, says_anything, person, before, words, .. } = *self;
        let (request, opening) = (self.chain.last().copied(), self.opening.to_string());
        write(2, MarkBody { request, named, last, reply, says_anything, person, before, words, opening })
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        if version(bytes)? == 1 {
            let WholeMarkBody { chain, named, last, reply, says_anything } = read(1, bytes)?;
            return Ok(Self { chain: chain.into(), named, last, reply, says_anything, ..Self::default() });
        }
        let MarkBody { request, named, last, reply, says_anything, person, before, words, opening } =
            read(2, bytes)?;
        let (chain, opening) = (request.into_iter().collect(), opening.into());
        Ok(Self { chain, named, last, reply, says_anything, person, before, words, opening })
    }
}

#[derive(Encode, Decode)]
struct UnruledNextStateBody {
    kind: Author,
    text: String,
    rating: Option<i8>,
    is_error: bool,
}

#[derive(Encode, Decode)]
struct ScreenlessNextStateBody {
    kind: Author,
    text: String,
    rating: Option<i8>,
    is_error: bool,
    by_rule: Option<String>,
}

#[derive(Encode, Decode)]
struct NextStateBody {
    kind: Author,
    text: String,
    rating: Option<i8>,
    is_error: bool,
    by_rule: Option<String>,
    screen: Option<ScreenBody>,
}

/// What it showed before and then, and where the step has pointed.
type ScreenBody = (Option<String>, String, Option<(f32, f32)>);

#[derive(Encode, Decode)]
enum Author {
    User,
    Tool,
    Feedback,
}

impl Body for NextState {
    fn encode(&self) -> Result<Vec<u8>, CodecError> {
        let Self { kind, text, rating, is_error, by_rule, screen } = self.clone();
        let kind = match kind {
            NextStateKind::User => Author::User,
            NextStateKind::Tool => Author::Tool,
            NextStateKind::Feedback => Author::Feedback,
        };
        match screen {
            // As it was written before there were screens: what is of old stays readable by what is of old.
            None => write(2, ScreenlessNextStateBody { kind, text, rating, is_error, by_rule }),
            Some(Screen { before, after, point }) => {
                let screen = Some((before, after, point));
                write(3, NextStateBody { kind, text, rating, is_error, by_rule, screen })
            }
        }
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let NextStateBody { kind, text, rating, is_error, by_rule, screen } = match version(bytes)? {
            1 => {
                let UnruledNextStateBody { kind, text, rating, is_error } = read(1, bytes)?;
                NextStateBody { kind, text, rating, is_error, by_rule: None, screen: None }
            }
            2 => {
                let ScreenlessNextStateBody { kind, text, rating, is_error, by_rule } = read(2, bytes)?;
                NextStateBody { kind, text, rating, is_error, by_rule, screen: None }
            }
            _ => read(3, bytes)?,
        };
        let kind = match kind {
            Author::User => NextStateKind::User,
            Author::Tool => NextStateKind::Tool,
            Author::Feedback => NextStateKind::Feedback,
        };
        let screen = screen.map(|(before, after, point)| Screen { before, after, point });
        Ok(Self { kind, text, rating, is_error, by_rule, screen })
    }
}

/// A person's rating.
impl Body for i8 {
    fn encode(&self) -> Result<Vec<u8>, CodecError> {
        write(1, self)
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        read(1, bytes)
    }
}

/// A person's hint.
impl Body for String {
    fn encode(&self) -> Result<Vec<u8>, CodecError> {
        write(1, self)
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        read(1, bytes)
    }
}
