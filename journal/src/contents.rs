//! What was said in each turn, kept as what is new in it: a conversation is in its next request again, whole, and so a
//! turn's content is packed beside that of an earlier turn of its session, its base. Every so often one is whole.
//!
//! A content stays while its turn does, or one that is packed beside it. Its number is its turn's: no later turn gets it,
//! because whatever keeps it has a higher one.

use std::{cell::RefCell, rc::Rc};

use rusqlite::{Connection, OptionalExtension, Transaction};

use super::{
    bodies::{Bodies, Kept, Part},
    codec::CodecError,
    error::JournalError,
    pack::{pack, unpack},
};
use crate::turn::SessionId;

/// Most contents beneath one, and most bytes that are unpacked for it: what reading a turn may cost.
const MAX_DEPTH: u32 = 63;
const MAX_REACH_BYTES: u64 = 8 << 20;
/// Latest turns of a session that may be a base, where the last is none: a side turn, or another branch.
const CANDIDATES: usize = 3;
/// A content that is packed to this part of itself has found its base.
const GOOD_SHARE: usize = 8;

/// A content beside whose bytes another is packed, and what reading it costs.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Base {
    /// None for one that is whole.
    pub no: Option<i64>,
    /// Contents beneath it.
    pub depth: u32,
    /// Bytes that are unpacked for it, its own included.
    pub reach: u64,
}

/// The content that was read last, by its number: the next turn's is mostly packed beside it.
#[derive(Default)]
pub(crate) struct LastContent(RefCell<Option<(i64, Rc<[u8]>)>>);

/// A content as it is kept.
struct Row {
    base: Option<i64>,
    body: Option<Vec<u8>>,
    file: Option<String>,
}

impl Bodies<'_> {
    /// What was said in a turn whose body is a head.
    pub fn content(&self, no: i64, id: &str) -> Result<Rc<[u8]>, JournalError> {
        let form =
            |source| JournalError::Form { what: Part::Content.name(), of: format!("turn {id}"), source };
        let mut packed = Vec::new();
        let mut next = Some(no);
        let mut known: Option<Rc<[u8]>> = None;
        while let Some(no) = next {
            known =
                self.last.0.borrow().as_ref().filter(|(last, _)| *last == no).map(|(_, bytes)| bytes.clone());
            if known.is_some() {
                break;
            }
            let row = self.content_row(no)?.ok_or_else(|| form(CodecError::Empty))?;
            next = row.base;
            packed.push(row);
        }
        while let Some(Row { body, file, .. }) = packed.pop() {
            let bytes = match (body, file, self.folder) {
                (Some(body), ..) => body,
                (None, Some(name), Some(folder)) => folder.read(&name)?,
                _ => return Err(form(CodecError::Empty)),
            };
            let plain = unpack(&bytes, known.as_deref()).map_err(|error| form(error.into()))?;
            known = Some(plain.into());
        }
        let content = known.ok_or_else(|| form(CodecError::Empty))?;
        self.last.0.replace(Some((no, content.clone())));
        Ok(content)
    }

    fn content_row(&self, no: i64) -> Result<Option<Row>, JournalError> {
        let sql = "SELECT base, body, file FROM contents WHERE no = ?1";
        self.one(sql, [no], |row| Ok(Row { base: row.get(0)?, body: row.get(1)?, file: row.get(2)? }))
    }

    /// `content` packed beside that of an earlier turn of `session`, where it is like one.
    pub fn pack_content(&self, session: &SessionId, content: &[u8]) -> Result<(Vec<u8>, Base), JournalError> {
        let form = |source: CodecError| JournalError::Form {
            what: Part::Content.name(),
            of: format!("a turn of session {session}"),
            source,
        };
        let bytes = content.len() as u64;
        let mut best = pack_whole(content).map_err(form)?;
        let sql = "SELECT turns.no, id, depth, reach FROM turns JOIN contents ON contents.no = turns.no
                   WHERE session = ?1 ORDER BY turns.no DESC LIMIT ?2";
        let candidates = self.select(sql, (&*session.0, CANDIDATES), |row| {
            Ok((
                row.get::<_, i64>(0)?,
                row.get::<_, String>(1)?,
                row.get::<_, u32>(2)?,
                row.get::<_, u64>(3)?,
            ))
        })?;
        for (no, id, depth, reach) in candidates {
            if depth >= MAX_DEPTH || reach.saturating_add(bytes) > MAX_REACH_BYTES {
                continue;
            }
            // One that cannot be read is nobody's base; a reader of its turn tells of it.
            let Ok(base) = self.content(no, &id) else { continue };
            let packed = pack(content, Some(&base)).map_err(|error| form(error.into()))?;
            let found = (packed, Base { no: Some(no), depth: depth + 1, reach: reach + bytes });
            if cost(&found) < cost(&best) {
                best = found;
            }
            if best.0.len() * GOOD_SHARE <= content.len() {
                break;
            }
        }
        Ok(best)
    }
}

/// Bytes that are kept, and a little for those that a reader unpacks: of two bases that serve alike, the smaller.
fn cost((packed, base): &(Vec<u8>, Base)) -> u64 {
    packed.len() as u64 + base.reach / 1024
}

/// `content` packed beside none.
pub(crate) fn pack_whole(content: &[u8]) -> Result<(Vec<u8>, Base), CodecError> {
    Ok((pack(content, None)?, Base { reach: content.len() as u64, ..Base::default() }))
}

/// Keeps the content of the turn `no`.
pub(crate) fn insert(connection: &Connection, no: i64, kept: &Kept) -> rusqlite::Result<()> {
    let Kept { bytes, file, base, .. } = kept;
    let body = file.is_none().then_some(bytes);
    connection
        .prepare_cached(
            "INSERT INTO contents (no, base, depth, reach, body, file, bytes)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute((no, base.no, base.depth, base.reach, body, file, bytes.len()))?;
    Ok(())
}

/// Lets go of the content of a turn that is gone, and of those beneath it that nothing needs any more. The files that
/// they lay in.
pub(crate) fn release(transaction: &Transaction<'_>, no: i64) -> rusqlite::Result<Vec<String>> {
    let mut remove = transaction.prepare_cached(
        "DELETE FROM contents WHERE no = ?1
             AND NOT EXISTS (SELECT 1 FROM contents AS above WHERE above.base = ?1)
             AND NOT EXISTS (SELECT 1 FROM turns WHERE turns.no = ?1)
         RETURNING base, file",
    )?;
    let mut files = Vec::new();
    let mut next = Some(no);
    while let Some(no) = next {
        let removed: Option<(Option<i64>, Option<String>)> =
            remove.query_row([no], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        let Some((base, file)) = removed else { break };
        files.extend(file);
        next = base;
    }
    Ok(files)
}
