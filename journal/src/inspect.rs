//! A look at a run's journal from outside, without opening or changing it.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Read},
    path::Path,
};

use super::{error::JournalError, folder, schema};

/// Bytes of SQLite's header.
const HEADER_BYTES: usize = 100;
/// Where the header holds the schema's version, and whose file it is.
const USER_VERSION: usize = 60;
const APPLICATION_ID: usize = 68;

/// What a look at a journal tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// A process writes to it.
    pub in_use: bool,
    /// The version of its schema; 0 for one that was only begun.
    pub schema: u32,
    /// Bytes of its files, large bodies among them. One that goes while it is looked at does not count.
    pub bytes: u64,
}

/// Looks at the journal in a run's folder; `None` where there is none. What `Journal::open` would refuse for its
/// header is an error here too.
pub fn inspect(dir: &Path) -> Result<Option<Inspection>, JournalError> {
    let path = dir.join(folder::DATABASE);
    let refused = |source| JournalError::Folder { path: path.clone(), source };
    let mut header = Vec::with_capacity(HEADER_BYTES);
    match File::open(&path) {
        Ok(file) => file.take(HEADER_BYTES as u64).read_to_end(&mut header).map_err(refused)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(refused(error)),
    };
    let number = |at: usize| {
        let bytes = header.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, u32::from_be_bytes)
    };
    let (found, application) = (number(USER_VERSION), number(APPLICATION_ID));
    let is_sqlite = header.is_empty() || header.starts_with(b"SQLite format 3\0");
    if !is_sqlite || (found, application) != (0, 0) && application != schema::APPLICATION_ID as u32 {
        let what = io::Error::new(io::ErrorKind::InvalidData, "it is not a journal");
        return Err(refused(what));
    }
    let known = schema::known();
    if found > known {
        return Err(JournalError::Newer { path, found, known });
    }
    let size = |name: String| fs::metadata(dir.join(name)).map_or(0, |file| file.len());
    let database: u64 = ["", "-wal"].map(|end| size(format!("{}{end}", folder::DATABASE))).iter().sum();
    let bytes = database + blob_bytes(&dir.join(folder::BLOBS));
    Ok(Some(Inspection { in_use: is_in_use(dir), schema: found, bytes }))
}

fn blob_bytes(blobs: &Path) -> u64 {
    let entries = |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten();
    let files = entries(blobs).flat_map(|folder| entries(&folder.path()));
    files.filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum()
}

/// Whether a process holds a run's folder to write its journal, which need not have begun. What cannot be known is not
/// in use.
pub fn is_in_use(dir: &Path) -> bool {
    // Read alone: a look must not make the file.
    let lock = File::open(dir.join(folder::LOCK));
    lock.is_ok_and(|lock| matches!(lock.try_lock(), Err(TryLockError::WouldBlock)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Journal, JournalConfig, Retention};

    #[test]
    fn a_look_tells_whose_the_journal_is_and_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(inspect(dir.path()).unwrap(), None);
        let config = JournalConfig { dir: dir.path().to_owned(), retention: Retention::default() };
        let journal = Journal::open(config).unwrap();
        assert!(inspect(dir.path()).unwrap().unwrap().in_use);
        drop(journal);
        let names = || {
            let mut names: Vec<_> =
                fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
            names.sort();
            names
        };
        let before = names();
        let look = inspect(dir.path()).unwrap().unwrap();
        assert!(!look.in_use && look.bytes > 0 && look.schema <= schema::known(), "{look:?}");
        assert_eq!(names(), before);
        let folder = dir.path().join(folder::BLOBS).join("ab");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("ab00"), [0; 1000]).unwrap();
        assert_eq!(inspect(dir.path()).unwrap().unwrap().bytes, look.bytes + 1000, "large bodies count");
    }

    #[test]
    fn a_file_that_is_no_journal_or_a_later_one_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(folder::DATABASE);
        fs::write(&path, "notes").unwrap();
        assert!(inspect(dir.path()).unwrap_err().to_string().contains("journal.db"));
        let mut header = [0; HEADER_BYTES];
        header[..16].copy_from_slice(b"SQLite format 3\0");
        header[USER_VERSION..][..4].copy_from_slice(&999u32.to_be_bytes());
        header[APPLICATION_ID..][..4].copy_from_slice(&schema::APPLICATION_ID.to_be_bytes());
        fs::write(&path, header).unwrap();
        assert!(matches!(inspect(dir.path()), Err(JournalError::Newer { found: 999, .. })));
    }
}
