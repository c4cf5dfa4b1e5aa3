//! The database: one connection that writes, a few that read.
//!
//! A journal in memory has one connection for both.

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::{
    apply::{Applying, recover_leased},
    bodies::Bodies,
    error::JournalError,
    folder::Folder,
    schema,
    tally::Tally,
    wal,
};

/// Idle connections kept for readers.
const READERS_KEPT: usize = 2;
/// SQLite waits this long for its own locks; nobody else has the file open.
pub(crate) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) struct Store {
    folder: Option<Folder>,
    path: PathBuf,
    writing: Mutex<Connection>,
    readers: Mutex<Vec<Connection>>,
}

impl Store {
    /// Opens the journal of a run, takes the run's folder for this process, and finds back what an earlier process
    /// had under way.
    pub fn open(dir: &Path) -> Result<(Self, Tally), JournalError> {
        let folder = Folder::open(dir)?;
        let path = folder.database();
        wal::check(&path)?;
        let connection = connect(&path)?;
        let store =
            Self { folder: Some(folder), path, writing: Mutex::new(connection), readers: Mutex::default() };
        let tally = store.recover()?;
        store.sweep()?;
        Ok((store, tally))
    }

    pub fn in_memory() -> Result<Self, JournalError> {
        let path = PathBuf::from("the journal in memory");
        let mut connection =
            Connection::open_in_memory().map_err(|source| JournalError::database(&path, source))?;
        schema::prepare(&mut connection, &path)?;
        Ok(Self { folder: None, path, writing: Mutex::new(connection), readers: Mutex::default() })
    }

    pub fn folder(&self) -> Option<&Folder> {
        self.folder.as_ref()
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Says which file an error is about.
    pub fn refused(&self, source: rusqlite::Error) -> JournalError {
        JournalError::database(&self.path, source)
    }

    /// A fresh connection, for a writer that follows one that failed.
    pub fn reopen(&self) -> Result<(), JournalError> {
        if self.folder.is_some() {
            lock(&self.readers).clear();
            *self.writing() = connect(&self.path)?;
        }
        Ok(())
    }

    /// The run's name for itself, drawn when its journal was made.
    pub fn run(&self) -> Result<u64, JournalError> {
        let sql = "SELECT value FROM totals WHERE name = 'run'";
        let run = self.writing().query_row(sql, [], |row| row.get::<_, u64>(0));
        run.map_err(|source| self.refused(source))
    }

    /// Brings what lies in the log into the database, and empties the log.
    pub fn checkpoint(&self) -> Result<(), JournalError> {
        lock(&self.readers).clear();
        let is_blocked: bool = self
            .writing()
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))
            .map_err(|source| self.refused(source))?;
        let busy = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY);
        let busy = || rusqlite::Error::SqliteFailure(busy, Some("somebody reads it".to_owned()));
        if is_blocked { Err(self.refused(busy())) } else { Ok(()) }
    }

    /// The connection that writes. A transaction that a panic left open was rolled back while it unwound.
    pub fn writing(&self) -> MutexGuard<'_, Connection> {
        lock(&self.writing)
    }

    /// Reads from one moment of the database. Blocks.
    pub fn read<T>(
        &self,
        read: impl FnOnce(&Bodies<'_>) -> Result<T, JournalError>,
    ) -> Result<T, JournalError> {
        if self.folder.is_none() {
            return self.read_on(&self.writing(), read);
        }
        let idle = lock(&self.readers).pop();
        let reader = match idle {
            Some(reader) => reader,
            None => self.connect_reader().map_err(|source| self.refused(source))?,
        };
        let found = self.read_on(&reader, read);
        let mut readers = lock(&self.readers);
        if found.is_ok() && readers.len() < READERS_KEPT {
            readers.push(reader);
        }
        found
    }

    fn read_on<T>(
        &self,
        connection: &Connection,
        read: impl FnOnce(&Bodies<'_>) -> Result<T, JournalError>,
    ) -> Result<T, JournalError> {
        let transaction = connection.unchecked_transaction().map_err(|source| self.refused(source))?;
        let bodies = Bodies {
            connection: &transaction,
            folder: self.folder.as_ref(),
            path: &self.path,
            last: Default::default(),
        };
        read(&bodies)
    }

    fn connect_reader(&self) -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let reader = Connection::open_with_flags(&self.path, flags)?;
        reader.busy_timeout(BUSY_TIMEOUT)?;
        Ok(reader)
    }

    fn recover(&self) -> Result<Tally, JournalError> {
        let recover = || -> rusqlite::Result<Tally> {
            let mut connection = self.writing();
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let before = Tally::load(&transaction)?;
            let mut tally = before;
            let mut applying =
                Applying { connection: &transaction, tally: &mut tally, now: millis(SystemTime::now()) };
            recover_leased(&mut applying)?;
            tally.save(before, &transaction)?;
            transaction.commit()?;
            Ok(tally)
        };
        recover().map_err(|source| self.refused(source))
    }

    fn sweep(&self) -> Result<(), JournalError> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let named = || -> rusqlite::Result<_> {
            let connection = self.writing();
            let mut select = connection.prepare("SELECT file FROM files")?;
            select.query_map([], |row| row.get(0))?.collect()
        };
        folder.sweep(&named().map_err(|source| self.refused(source))?)
    }
}

fn connect(path: &Path) -> Result<Connection, JournalError> {
    let refused = |source| JournalError::database(path, source);
    let mut connection = Connection::open(path).map_err(refused)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(refused)?;
    schema::prepare(&mut connection, path)?;
    Ok(connection)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Milliseconds since 1970.
pub(crate) fn millis(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// The time that many milliseconds after 1970.
pub(crate) fn time(millis: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(millis.try_into().unwrap_or(0))
}
