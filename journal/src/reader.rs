//! A run's journal read from outside: beside the node that writes it, or when nobody does. It takes no lock of the
//! folder and changes no table; each call is a short transaction of its own, so that a writer is never waited for.

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use rusqlite::{Connection, OpenFlags};

use super::{
    bodies::Bodies,
    browse::{Story, Told},
    episode::{EpisodeId, EpisodeRow, EpisodeStory},
    error::JournalError,
    folder::{DATABASE, Folder},
    inspect::inspect,
    record::{StepRow, TurnState, VersionRow},
    schema,
    store::{BUSY_TIMEOUT, time},
};
use crate::turn::{SessionId, TurnId};

/// Reads a run's journal.
pub struct JournalReader {
    connection: Connection,
    folder: Folder,
    path: PathBuf,
}

/// What a step learnt from one turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lesson {
    /// The step.
    pub step: u64,
    /// Where the turn stands.
    pub state: TurnState,
    /// The version that drew it.
    pub version: u64,
    /// What the judge made of it.
    pub reward: Option<i8>,
}

/// A row's place in the journal, which a further page starts after; and the row, or why it cannot be read.
pub type Read<T> = (u64, Result<T, JournalError>);

impl JournalReader {
    /// Opens the journal of a run's folder; `None` where none was written yet.
    pub fn open(dir: &Path) -> Result<Option<Self>, JournalError> {
        if inspect(dir)?.is_none() {
            return Ok(None);
        }
        let path = dir.join(DATABASE);
        let refused = |source| JournalError::database(&path, source);
        let connection = connect(&path).map_err(refused)?;
        // The header of the file knows nothing of what still lies in the log beside it.
        let found = connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(refused)?;
        match schema::known() {
            _ if found == 0 => Ok(None),
            known if found > known => Err(JournalError::Newer { path, found, known }),
            _ => Ok(Some(Self { connection, folder: Folder::look(dir), path })),
        }
    }

    fn read<T>(&self, read: impl FnOnce(&Bodies<'_>) -> Result<T, JournalError>) -> Result<T, JournalError> {
        let transaction = self
            .connection
            .unchecked_transaction()
            .map_err(|source| JournalError::database(&self.path, source))?;
        read(&Bodies {
            connection: &transaction,
            folder: Some(&self.folder),
            path: &self.path,
            last: Default::default(),
        })
    }

    /// How many conversations it has.
    pub fn count_sessions(&self) -> Result<u64, JournalError> {
        let sql = "SELECT count(DISTINCT session) FROM turns";
        Ok(self.read(|bodies| bodies.one(sql, (), |row| row.get(0)))?.unwrap_or(0))
    }

    /// Conversations whose first kept turn lies behind the place `after`, the oldest first, with that place.
    pub fn sessions(&self, after: u64, limit: usize) -> Result<Vec<(u64, SessionId)>, JournalError> {
        let sql = "SELECT no, session FROM turns AS first
                   WHERE no > ?1 AND NOT EXISTS
                       (SELECT 1 FROM turns WHERE session = first.session AND no < first.no)
                   ORDER BY no LIMIT ?2";
        self.read(|bodies| {
            bodies.select(sql, (after, limit), |row| {
                Ok((row.get(0)?, SessionId(row.get::<_, String>(1)?.into())))
            })
        })
    }

    /// Whether a turn of `session` is kept.
    pub fn has_session(&self, session: &SessionId) -> Result<bool, JournalError> {
        let sql = "SELECT 1 FROM turns WHERE session = ?1 LIMIT 1";
        Ok(self.read(|bodies| bodies.one(sql, [&*session.0], |_| Ok(())))?.is_some())
    }

    /// Turns of a conversation behind the place `after`, the oldest first. One that cannot be read is its error.
    pub fn stories(&self, session: &SessionId, after: u64, limit: usize) -> Result<Vec<Told>, JournalError> {
        self.read(|bodies| bodies.stories(session, after, limit))
    }

    /// A turn and what became of it.
    pub fn story(&self, turn: &TurnId) -> Result<Option<Story>, JournalError> {
        self.read(|bodies| bodies.story(turn))
    }

    /// Episodes before the place `before`, the latest first. None in a file that its writer has not opened since there are
    /// such.
    pub fn episodes(&self, before: u64, limit: usize) -> Result<Vec<EpisodeRow>, JournalError> {
        if !self.has_episodes()? {
            return Ok(Vec::new());
        }
        self.read(|bodies| bodies.episodes(before, limit))
    }

    /// An episode, and its steps by their places.
    pub fn episode(&self, id: &EpisodeId) -> Result<Option<EpisodeStory>, JournalError> {
        if !self.has_episodes()? {
            return Ok(None);
        }
        self.read(|bodies| bodies.episode(id))
    }

    /// The version that took the first step that is kept of the episode at this place; none where none is kept.
    pub fn first_version(&self, episode: u64) -> Result<Option<u64>, JournalError> {
        self.read(|bodies| bodies.first_version(episode))
    }

    /// Episodes that turns of a session are steps of, the oldest first.
    pub fn episodes_in(&self, session: &SessionId) -> Result<Vec<EpisodeStory>, JournalError> {
        if !self.has_episodes()? {
            return Ok(Vec::new());
        }
        self.read(|bodies| bodies.episodes_in(session))
    }

    fn has_episodes(&self) -> Result<bool, JournalError> {
        let sql = "SELECT 1 FROM sqlite_schema WHERE name = 'episodes'";
        Ok(self.read(|bodies| bodies.one(sql, (), |_| Ok(())))?.is_some())
    }

    /// Every version, oldest first.
    pub fn versions(&self) -> Result<Vec<VersionRow>, JournalError> {
        self.read(|bodies| bodies.versions())
    }

    /// Steps behind the place `after`, the oldest first.
    pub fn steps(&self, after: u64, limit: usize) -> Result<Vec<Read<StepRow>>, JournalError> {
        self.read(|bodies| bodies.read_steps("WHERE no > ?1 ORDER BY no LIMIT ?2", (after, limit)))
    }

    /// Turns that steps took, behind the place `after`.
    pub fn lessons(&self, after: u64, limit: usize) -> Result<Vec<Read<Lesson>>, JournalError> {
        let sql =
            "SELECT no, id, step, state FROM turns WHERE no > ?1 AND step IS NOT NULL ORDER BY no LIMIT ?2";
        self.read(|bodies| {
            let found = bodies.select(sql, (after, limit), |row| {
                Ok((row.get(0)?, row.get::<_, String>(1)?, row.get(2)?, row.get(3)?))
            })?;
            let lesson = |(no, id, step, state): (i64, String, u64, TurnState)| {
                let glance = bodies.glance(no, &id)?;
                let opinion = bodies.opinion(no, &id)?;
                let reward = opinion.and_then(|opinion| opinion.verdict.reward);
                Ok(Lesson { step, state, version: glance.policy_version, reward })
            };
            Ok(found.into_iter().map(|row| (row.0 as u64, lesson(row))).collect())
        })
    }

    /// Turns that were given up, behind the place `after`, which counts changes: when, and why.
    pub fn dropped(&self, after: u64, limit: usize) -> Result<Vec<(u64, SystemTime, String)>, JournalError> {
        let sql = "SELECT seq, changed_at, coalesce(reason, '') FROM turns
                   WHERE state = 'dropped' AND seq > ?1 ORDER BY seq LIMIT ?2";
        self.read(|bodies| {
            bodies.select(sql, (after, limit), |row| Ok((row.get(0)?, time(row.get(1)?), row.get(2)?)))
        })
    }
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    Ok(connection)
}
