//! The parts of a turn: what is kept of each record, and where.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension};

use super::{
    codec::{Body, CodecError, Opinion, TurnBody, TurnHead, asked_in, asked_of, chain_in, encode_content},
    contents::{Base, LastContent, pack_whole},
    error::JournalError,
    folder::{Folder, content_name},
    record::{Record, StepCommit, TurnMark},
    store::Store,
};
use crate::turn::{Turn, TurnId};

/// What is larger lies in a file of its own.
const INLINE_BYTES: usize = 256 << 10;

/// A part of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Turn,
    /// What was said in the turn; in a table of its own.
    Content,
    Mark,
    NextState,
    Opinion,
    /// A person's.
    Rating,
    /// A person's.
    Hint,
    Signal,
    /// Of a step.
    Report,
}

impl Part {
    pub fn name(self) -> &'static str {
        match self {
            Self::Turn => "turn",
            Self::Content => "content",
            Self::Mark => "mark",
            Self::NextState => "next_state",
            Self::Opinion => "opinion",
            Self::Rating => "rating",
            Self::Hint => "hint",
            Self::Signal => "signal",
            Self::Report => "report",
        }
    }
}

/// A body as it is kept.
pub(crate) struct Kept {
    pub part: Part,
    pub bytes: Vec<u8>,
    /// Names the file that it lies in.
    pub file: Option<String>,
    /// Of a content.
    pub base: Base,
}

/// What is kept of `record` in `store`.
pub(crate) fn encode(record: &Record, store: &Store) -> Result<Vec<Kept>, JournalError> {
    fn encoded<T>(part: Part, of: &str, bytes: Result<T, CodecError>) -> Result<T, JournalError> {
        bytes.map_err(|source| JournalError::Form { what: part.name(), of: of.to_owned(), source })
    }
    let place = |part, bytes: Vec<u8>, base| {
        let is_large = store.folder().is_some() && bytes.len() > INLINE_BYTES;
        let file = is_large.then(|| content_name(&bytes));
        Kept { part, bytes, file, base }
    };
    let kept = |part: Part, of: &str, bytes| Ok(place(part, encoded(part, of, bytes)?, Base::default()));
    let one = |part, turn: &TurnId, bytes| Ok(vec![kept(part, &turn.0, bytes)?]);
    match record {
        Record::TurnCompleted { turn, mark } => {
            let content = encoded(Part::Content, &turn.id.0, encode_content(turn, mark))?;
            // A database that cannot be read is told of by whoever writes to it: until then the content is whole.
            let packed = store.read(|bodies| bodies.pack_content(&turn.session, &content));
            let (packed, base) = match packed {
                Ok(packed) => packed,
                Err(_) => encoded(Part::Content, &turn.id.0, pack_whole(&content))?,
            };
            Ok(vec![
                kept(Part::Turn, &turn.id.0, TurnHead::encode(turn))?,
                place(Part::Content, packed, base),
                kept(Part::Mark, &turn.id.0, mark.encode())?,
            ])
        }
        Record::NextStateSeen { turn, next_state, .. } => one(Part::NextState, turn, next_state.encode()),
        Record::Judged { turn, verdict, answers, hints, hint_answers, .. } => {
            let opinion = Opinion {
                verdict: verdict.clone(),
                answers: answers.clone(),
                hints: hints.clone(),
                hint_answers: hint_answers.clone(),
            };
            one(Part::Opinion, turn, opinion.encode())
        }
        Record::Rated { turn, rating } => one(Part::Rating, turn, rating.encode()),
        Record::HintCorrected { turn, hint } => one(Part::Hint, turn, hint.encode()),
        Record::Taught { turn, signal: Some(signal), .. } => one(Part::Signal, turn, signal.encode()),
        Record::StepCompleted(StepCommit { report, .. }) | Record::StepWithheld { report, .. } => {
            let mut report = kept(Part::Report, "a step", report.encode())?;
            report.file = None;
            Ok(vec![report])
        }
        _ => Ok(Vec::new()),
    }
}

/// Reads parts back.
pub(crate) struct Bodies<'c> {
    pub connection: &'c Connection,
    pub folder: Option<&'c Folder>,
    /// Of the database, for errors.
    pub path: &'c Path,
    pub last: LastContent,
}

/// What a list shows of a turn.
pub(crate) struct TurnGlance {
    pub index: u32,
    pub policy_version: u64,
    /// Names what its user said last, where that opens a conversation.
    pub asked: Option<u64>,
}

impl Bodies<'_> {
    /// A turn, whatever form it is kept in.
    pub fn whole_turn(&self, no: i64, id: &str) -> Result<Turn, JournalError> {
        match self.turn_body(no, id)? {
            TurnBody::Whole(turn) => Ok(*turn),
            TurnBody::Head(head) => {
                let content = self.content(no, id)?;
                head.with(&content).map_err(|source| malformed(id, Part::Turn, source))
            }
        }
    }

    /// A turn as it was read, or what is kept apart from its content.
    pub fn turn_body(&self, no: i64, id: &str) -> Result<TurnBody, JournalError> {
        self.find_as(no, id, Part::Turn, TurnBody::decode)?.ok_or_else(|| missing(id, Part::Turn))
    }

    /// How a later request recognises a turn that is kept as `body`.
    pub fn whole_mark(&self, no: i64, id: &str, body: &TurnBody) -> Result<TurnMark, JournalError> {
        let mark: TurnMark = self.get(no, id, Part::Mark)?;
        match body {
            TurnBody::Whole(_) => Ok(mark),
            TurnBody::Head(_) => {
                let chain = chain_in(&self.content(no, id)?);
                let chain = chain.map_err(|source| malformed(id, Part::Content, source))?;
                Ok(TurnMark { chain: chain.into(), ..mark })
            }
        }
    }

    /// As much of a turn as a list shows. Long conversations are long to read, and how they went on is not asked for.
    pub fn glance(&self, no: i64, id: &str) -> Result<TurnGlance, JournalError> {
        let (index, policy_version, asked) = match self.turn_body(no, id)? {
            TurnBody::Whole(turn) => {
                let asked = if turn.index == 1 { asked_of(&turn) } else { None };
                (turn.index, turn.completion.policy_version, asked)
            }
            TurnBody::Head(head) => {
                let asked = match head.index() {
                    1 => asked_in(&self.content(no, id)?),
                    _ => Ok(None),
                };
                let asked = asked.map_err(|source| malformed(id, Part::Content, source))?;
                (head.index(), head.policy_version(), asked)
            }
        };
        Ok(TurnGlance { index, policy_version, asked })
    }

    /// A part that may not be there.
    pub fn find<T: Body>(&self, no: i64, id: &str, part: Part) -> Result<Option<T>, JournalError> {
        self.find_as(no, id, part, T::decode)
    }

    /// The same, read by `decode`.
    pub fn find_as<T>(
        &self,
        no: i64,
        id: &str,
        part: Part,
        decode: fn(&[u8]) -> Result<T, CodecError>,
    ) -> Result<Option<T>, JournalError> {
        let found: Option<(Option<Vec<u8>>, Option<String>)> = self
            .connection
            .prepare_cached("SELECT body, file FROM bodies WHERE turn = ?1 AND part = ?2")
            .and_then(|mut select| {
                select.query_row((no, part.name()), |row| Ok((row.get(0)?, row.get(1)?))).optional()
            })
            .map_err(|source| JournalError::database(self.path, source))?;
        let bytes = match (found, self.folder) {
            (None, _) => return Ok(None),
            (Some((Some(body), _)), _) => body,
            (Some((None, Some(name))), Some(folder)) => folder.read(&name)?,
            (Some(_), _) => Vec::new(),
        };
        decode(&bytes).map(Some).map_err(|source| malformed(id, part, source))
    }

    /// [`Self::opinion`], which has to be there. Of a step of an episode, whose outcome says how good it was, that may be what
    /// a person said, or nothing.
    pub fn get_opinion(&self, no: i64, id: &str) -> Result<Opinion, JournalError> {
        match self.opinion(no, id)? {
            Some(opinion) => Ok(opinion),
            None if self.is_step(id)? => self.by_a_person(no, id, Opinion::default()),
            None => Err(missing(id, Part::Opinion)),
        }
    }

    /// What is made of a turn: what the judge said, and over it what a person did.
    pub fn opinion(&self, no: i64, id: &str) -> Result<Option<Opinion>, JournalError> {
        let opinion: Option<Opinion> = self.find(no, id, Part::Opinion)?;
        opinion.map(|opinion| self.by_a_person(no, id, opinion)).transpose()
    }

    fn by_a_person(&self, no: i64, id: &str, opinion: Opinion) -> Result<Opinion, JournalError> {
        Ok(opinion.overruled(self.find(no, id, Part::Rating)?, self.find(no, id, Part::Hint)?))
    }

    /// A part that has to be there.
    pub fn get<T: Body>(&self, no: i64, id: &str, part: Part) -> Result<T, JournalError> {
        self.find(no, id, part)?.ok_or_else(|| missing(id, part))
    }
}

fn missing(id: &str, part: Part) -> JournalError {
    malformed(id, part, CodecError::Empty)
}

fn malformed(id: &str, part: Part, source: CodecError) -> JournalError {
    JournalError::Form { what: part.name(), of: format!("turn {id}"), source }
}
