//! The tables, and how an older file becomes one of today.

use std::path::Path;

use rusqlite::Connection;

use super::error::JournalError;

/// "oclw": tells a journal from any other database.
pub(crate) const APPLICATION_ID: i32 = 0x6f63_6c77;

/// States in which nothing more is done with a turn.
pub(crate) const SETTLED: &str = "state IN ('answered', 'trained', 'dropped', 'quarantined')";

/// Each brings a file from the version before it to its own, which is its place in the list, from 1. What has been
/// released is never changed.
const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE turns (
        no           INTEGER PRIMARY KEY,  -- order of arrival
        id           TEXT NOT NULL UNIQUE,
        session      TEXT NOT NULL,
        state        TEXT NOT NULL,
        seq          INTEGER NOT NULL,     -- order of changes, over all turns
        reason       TEXT,                 -- why it was dropped or quarantined
        step         INTEGER,              -- that leased it last
        version      INTEGER,              -- whose folder holds what was learnt from it
        died_in      TEXT,                 -- the inbox that gave it up
        died_after   INTEGER,              -- attempts
        died_at      INTEGER,
        completed_at INTEGER NOT NULL,     -- milliseconds since 1970, as every time here
        changed_at   INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX turns_by_state ON turns (state, seq);
    CREATE INDEX turns_settled ON turns (seq)
        WHERE state IN ('answered', 'trained', 'dropped', 'quarantined');
    CREATE INDEX turns_dead ON turns (died_at) WHERE died_in IS NOT NULL;
    CREATE INDEX turns_by_version ON turns (version, seq) WHERE version IS NOT NULL;
    CREATE INDEX turns_by_session ON turns (session, no);
    CREATE INDEX turns_by_time ON turns (completed_at, session);

    CREATE TABLE bodies (
        turn  INTEGER NOT NULL REFERENCES turns (no) ON DELETE CASCADE,
        part  TEXT NOT NULL,               -- turn, mark, next_state, opinion or signal
        body  BLOB,                        -- or, where it is large:
        file  TEXT,                        -- the SHA-256 that names it under blobs/
        bytes INTEGER NOT NULL,
        PRIMARY KEY (turn, part)
    ) STRICT;
    CREATE INDEX bodies_by_file ON bodies (file, bytes) WHERE file IS NOT NULL;

    CREATE TABLE steps (
        no          INTEGER PRIMARY KEY,
        step        INTEGER NOT NULL,
        version     INTEGER,               -- none where it was withheld
        withheld    TEXT,                  -- why
        turns       INTEGER NOT NULL,
        report      BLOB NOT NULL,
        fingerprint TEXT NOT NULL,
        at          INTEGER NOT NULL
    ) STRICT;

    CREATE TABLE versions (
        number       INTEGER PRIMARY KEY,
        step         INTEGER NOT NULL,
        base         INTEGER NOT NULL,     -- the version it was trained from, or whose weights it has
        fingerprint  TEXT NOT NULL,
        checkpoint   INTEGER NOT NULL,
        published_at INTEGER,
        at           INTEGER NOT NULL
    ) STRICT;

    CREATE TABLE totals (
        name  TEXT PRIMARY KEY,
        value INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    ",
    "
    CREATE TABLE audit (
        no      INTEGER PRIMARY KEY,
        verb    TEXT NOT NULL,
        target  TEXT NOT NULL,
        outcome TEXT NOT NULL,
        at      INTEGER NOT NULL
    ) STRICT;
    ",
    "
    CREATE TABLE days (
        day INTEGER PRIMARY KEY            -- since 1970, UTC: one on which the journal was written
    ) STRICT;
    INSERT OR IGNORE INTO days SELECT completed_at / 86400000 FROM turns;
    INSERT OR IGNORE INTO days SELECT changed_at / 86400000 FROM turns;
    ",
    "
    CREATE TABLE contents (
        no    INTEGER PRIMARY KEY,         -- its turn's, which may be gone
        base  INTEGER REFERENCES contents (no), -- the one that it is packed beside; none for one that is whole
        depth INTEGER NOT NULL,            -- contents beneath it
        reach INTEGER NOT NULL,            -- bytes that are unpacked for it, its own included
        body  BLOB,                        -- or, where it is large:
        file  TEXT,                        -- the SHA-256 that names it under blobs/
        bytes INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX contents_by_base ON contents (base) WHERE base IS NOT NULL;
    CREATE INDEX contents_by_file ON contents (file, bytes) WHERE file IS NOT NULL;
    CREATE VIEW files AS
        SELECT file, bytes FROM bodies WHERE file IS NOT NULL
        UNION SELECT file, bytes FROM contents WHERE file IS NOT NULL;
    ",
    "
    ALTER TABLE turns ADD COLUMN ended_at INTEGER;  -- when a client ended its session, behind its reply
    INSERT INTO totals VALUES ('run', random() & 0x7fffffffffffffff); -- the run's name for itself
    ",
    "
    ALTER TABLE turns ADD COLUMN provisional INTEGER NOT NULL DEFAULT 0; -- its next state may still be taken back
    ALTER TABLE turns ADD COLUMN undone INTEGER NOT NULL DEFAULT 0;      -- next states that were taken back
    CREATE INDEX turns_provisional ON turns (no) WHERE provisional;
    ",
    "
    CREATE TABLE episodes (
        no          INTEGER PRIMARY KEY,
        id          TEXT NOT NULL UNIQUE,
        session     TEXT NOT NULL,
        environment TEXT NOT NULL,
        task        TEXT NOT NULL,
        seed        INTEGER,
        team        TEXT NOT NULL,         -- its group's name, or its own where it has none
        team_of     INTEGER NOT NULL,      -- episodes of the group; negative once it was closed without all of them
        grouped     INTEGER NOT NULL,
        judged      INTEGER NOT NULL,      -- by steps
        outcome     TEXT,                  -- JSON, once it came out
        abandoned   TEXT,                  -- why
        began_at    INTEGER NOT NULL,
        ended_at    INTEGER
    ) STRICT;
    CREATE INDEX episodes_open ON episodes (session) WHERE ended_at IS NULL;
    CREATE INDEX episodes_by_team ON episodes (team);
    CREATE TABLE episode_steps (
        turn    TEXT PRIMARY KEY,          -- its name, which stays when the turn has left
        episode INTEGER NOT NULL REFERENCES episodes (no) ON DELETE CASCADE,
        place   INTEGER NOT NULL,
        state   INTEGER NOT NULL,          -- names what was seen before it
        score   REAL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX episode_steps_by_episode ON episode_steps (episode, place);
    ALTER TABLE turns ADD COLUMN episode INTEGER; -- that it is a step of
    CREATE INDEX turns_by_episode ON turns (episode) WHERE episode IS NOT NULL;
    ",
    "
    CREATE TABLE wishes (
        no     INTEGER PRIMARY KEY AUTOINCREMENT, -- none is given twice
        person INTEGER NOT NULL,           -- as marks name them; 0 where nobody is named
        text   TEXT NOT NULL,
        turn   TEXT NOT NULL,              -- the name of the one that it was voiced about, which may be gone
        place  INTEGER NOT NULL,           -- its number
        at     INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX wishes_by_person ON wishes (person, no);
    ",
];

/// The latest version of the schema.
pub(crate) fn known() -> u32 {
    MIGRATIONS.len() as u32
}

/// Makes `connection` fit to write: durable commits, and the tables of today.
pub(crate) fn prepare(connection: &mut Connection, path: &Path) -> Result<(), JournalError> {
    let damaged = |source| JournalError::database(path, source);
    connection.set_prepared_statement_cache_capacity(64);
    // Takes effect on a new file only, before its first table.
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL").map_err(damaged)?;
    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(())).map_err(damaged)?;
    for (pragma, value) in [("synchronous", "FULL"), ("foreign_keys", "ON"), ("temp_store", "MEMORY")] {
        connection.pragma_update(None, pragma, value).map_err(damaged)?;
    }
    // A WAL that grew over a burst shrinks again.
    connection.query_row("PRAGMA journal_size_limit = 4194304", [], |_| Ok(())).map_err(damaged)?;
    migrate(connection, path, MIGRATIONS.len())
}

/// Applies what is missing, up to version `up_to`; each migration is one transaction.
pub(crate) fn migrate(connection: &mut Connection, path: &Path, up_to: usize) -> Result<(), JournalError> {
    let refused = |source| JournalError::database(path, source);
    let pragma = |connection: &Connection, name| -> rusqlite::Result<i64> {
        connection.pragma_query_value(None, name, |row| row.get(0))
    };
    let found = pragma(connection, "user_version").map_err(refused)?;
    let application = pragma(connection, "application_id").map_err(refused)?;
    let is_new = application == 0 && found == 0;
    if !is_new && application != i64::from(APPLICATION_ID) {
        let source = rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_NOTADB),
            Some("it belongs to another application".to_owned()),
        );
        return Err(refused(source));
    }
    let known = MIGRATIONS.len();
    let found = usize::try_from(found).unwrap_or(usize::MAX);
    if found > known {
        let (found, known) = (found.try_into().unwrap_or(u32::MAX), known as u32);
        return Err(JournalError::Newer { path: path.to_owned(), found, known });
    }
    for (index, migration) in MIGRATIONS.iter().enumerate().take(up_to).skip(found) {
        let step = || -> rusqlite::Result<()> {
            let transaction = connection.unchecked_transaction()?;
            transaction.execute_batch(migration)?;
            transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
            transaction.pragma_update(None, "user_version", index as i64 + 1)?;
            transaction.commit()
        };
        step().map_err(refused)?;
    }
    Ok(())
}
