//! The parts of a turn: what is kept of each record, and where.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension};

use super::{
    codec::{Body, CodecError, Opinion},
    error::JournalError,
    folder::{Folder, content_name},
    record::{Record, StepCommit},
};
use crate::turn::TurnId;

/// What is larger lies in a file of its own.
const INLINE_BYTES: usize = 256 << 10;

/// A part of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Turn,
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
}

/// What is kept of `record`.
pub(crate) fn encode(record: &Record, has_folder: bool) -> Result<Vec<Kept>, JournalError> {
    let kept = |part: Part, of: &str, bytes: Result<Vec<u8>, CodecError>| {
        let form = |source| JournalError::Form { what: part.name(), of: of.to_owned(), source };
        let bytes = bytes.map_err(form)?;
        let file = (has_folder && bytes.len() > INLINE_BYTES).then(|| content_name(&bytes));
        Ok(Kept { part, bytes, file })
    };
    let one = |part, turn: &TurnId, bytes| Ok(vec![kept(part, &turn.0, bytes)?]);
    match record {
        Record::TurnCompleted { turn, mark } => Ok(vec![
            kept(Part::Turn, &turn.id.0, turn.encode())?,
            kept(Part::Mark, &turn.id.0, mark.encode())?,
        ]),
        Record::NextStateSeen { turn, next_state } => one(Part::NextState, turn, next_state.encode()),
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
        Record::Taught { turn, signal: Some(signal) } => one(Part::Signal, turn, signal.encode()),
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
}

impl Bodies<'_> {
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
        let form = |source| JournalError::Form { what: part.name(), of: format!("turn {id}"), source };
        decode(&bytes).map(Some).map_err(form)
    }

    /// [`Self::opinion`], which has to be there.
    pub fn get_opinion(&self, no: i64, id: &str) -> Result<Opinion, JournalError> {
        self.opinion(no, id)?.ok_or_else(|| missing(id, Part::Opinion))
    }

    /// What is made of a turn: what the judge said, and over it what a person did.
    pub fn opinion(&self, no: i64, id: &str) -> Result<Option<Opinion>, JournalError> {
        let Some(opinion) = self.find::<Opinion>(no, id, Part::Opinion)? else { return Ok(None) };
        let rating: Option<i8> = self.find(no, id, Part::Rating)?;
        let hint: Option<String> = self.find(no, id, Part::Hint)?;
        Ok(Some(opinion.overruled(rating, hint)))
    }

    /// A part that has to be there.
    pub fn get<T: Body>(&self, no: i64, id: &str, part: Part) -> Result<T, JournalError> {
        self.find(no, id, part)?.ok_or_else(|| missing(id, part))
    }
}

fn missing(id: &str, part: Part) -> JournalError {
    JournalError::Form { what: part.name(), of: format!("turn {id}"), source: CodecError::Empty }
}
