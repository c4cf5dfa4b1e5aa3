//! Whether the database's log can be read as far as it was written. SQLite reads a damaged log up to the damage and
//! says nothing: commits that were acknowledged would be gone, and the run would look like another one's.
//!
//! The end of a log is torn whenever a process dies while it writes: that is one transaction, which nobody was told of.
//! Damage is known by commits behind it.

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use super::error::JournalError;

const HEADER: usize = 32;
const FRAME_HEADER: usize = 24;
/// Without its last bit, which tells the byte order of checksums.
const MAGIC: u32 = 0x377f_0682;
/// Of a page, that SQLite knows.
const PAGE_BYTES: std::ops::RangeInclusive<usize> = 512..=65_536;

/// Refuses a log that is damaged before its last transaction.
pub(crate) fn check(database: &Path) -> Result<(), JournalError> {
    let mut path = database.as_os_str().to_owned();
    path.push("-wal");
    let path = PathBuf::from(path);
    let file = match fs::File::open(&path) {
        Ok(file) => io::BufReader::new(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(JournalError::Blob { path, source }),
    };
    match damage(file).map_err(|source| JournalError::Blob { path: path.clone(), source })? {
        None => Ok(()),
        Some(problem) => Err(JournalError::TornLog { path, problem }),
    }
}

/// What is wrong with a log, <https://sqlite.org/fileformat2.html#walformat>.
fn damage(mut log: impl Read) -> io::Result<Option<String>> {
    let mut header = [0; HEADER];
    // An empty one, or one that was being begun.
    if !fill(&mut log, &mut header)? {
        return Ok(None);
    }
    let page = big(&header, 2) as usize;
    let magic = big(&header, 0);
    let mut sums = Sums { big: magic & 1 == 1, sums: (0, 0) };
    sums.add(&header[..24]);
    if magic & !1 != MAGIC || !PAGE_BYTES.contains(&page) || sums.sums != (big(&header, 6), big(&header, 7)) {
        return Ok(Some("its header is damaged".to_owned()));
    }
    let mut frame = vec![0; FRAME_HEADER + page];
    let (mut number, mut damaged, mut commits_behind) = (0u64, None, 0);
    while fill(&mut log, &mut frame)? {
        number += 1;
        // Frames of an earlier round of the log have other salts.
        if frame[8..16] != header[16..24] {
            // SQLite stops here; behind a zeroed or foreign frame there may still be some of this round.
            damaged.get_or_insert(number);
            continue;
        }
        if damaged.is_none() {
            sums.add(&frame[..8]);
            sums.add(&frame[FRAME_HEADER..]);
            if sums.sums != (big(&frame, 4), big(&frame, 5)) {
                damaged = Some(number);
            }
        }
        // The number of pages of the database: set in the last frame of a transaction.
        commits_behind += u32::from(damaged.is_some() && big(&frame, 1) != 0);
    }
    Ok(damaged.filter(|_| commits_behind > 1).map(|at| {
        format!("it is damaged at frame {at} of {number}, and {commits_behind} transactions lie behind that")
    }))
}

/// Checksums of a log: they go on from frame to frame.
struct Sums {
    big: bool,
    sums: (u32, u32),
}

impl Sums {
    fn add(&mut self, bytes: &[u8]) {
        for pair in bytes.chunks_exact(8) {
            let word = |at: usize| {
                let bytes = pair[at..at + 4].try_into().expect("four of eight");
                if self.big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
            };
            let (first, second) = (word(0), word(4));
            self.sums.0 = self.sums.0.wrapping_add(first).wrapping_add(self.sums.1);
            self.sums.1 = self.sums.1.wrapping_add(second).wrapping_add(self.sums.0);
        }
    }
}

/// The word at a place that counts words.
fn big(bytes: &[u8], word: usize) -> u32 {
    u32::from_be_bytes(bytes[4 * word..4 * word + 4].try_into().expect("four bytes"))
}

/// Whether there was enough to fill the buffer.
fn fill(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match from.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;

    /// A database whose log holds `commits` transactions of a row each, and one of several pages; copied while it is open.
    fn log(commits: usize) -> (tempfile::TempDir, PathBuf, Vec<u8>) {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let live = Connection::open(dir.path().join("live.db")).expect("open");
        live.pragma_update(None, "journal_mode", "wal").expect("wal");
        live.execute_batch("CREATE TABLE t (x)").expect("a table");
        for row in 0..commits {
            live.execute("INSERT INTO t VALUES (?1)", [row]).expect("a row");
        }
        let copy = dir.path().join("copy.db");
        fs::copy(dir.path().join("live.db"), &copy).expect("copied");
        let wal = fs::read(dir.path().join("live.db-wal")).expect("a log");
        (dir, copy, wal)
    }

    fn put(database: &Path, log: &[u8]) -> Result<(), JournalError> {
        fs::write(format!("{}-wal", database.display()), log).expect("written");
        check(database)
    }

    #[test]
    fn a_log_is_whole_or_torn_at_its_end_or_refused_by_name() {
        let (_dir, database, whole) = log(20);
        let frame = FRAME_HEADER + 4096;
        check(&database).expect("no log at all");
        put(&database, &whole).expect("a whole one");
        put(&database, &[]).expect("an empty one");
        put(&database, &whole[..20]).expect("one that was being begun");
        // Wherever the last write was cut, or whatever it left.
        for cut in [1, 100, frame - 1, frame] {
            put(&database, &whole[..whole.len() - cut]).expect("the end was being written");
        }
        let mut last = whole.clone();
        let end = last.len();
        last[end - 50..].fill(0);
        put(&database, &last).expect("the end was being written");
        let frames = (whole.len() - HEADER) / frame;
        for (at, names) in [
            (HEADER + 3 * frame + 500, "frame 4 of"),
            (HEADER + 9 * frame + 10, "frame 10 of"),
            (4, "header"),
        ] {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            let error = put(&database, &damaged).expect_err("damaged").to_string();
            assert!(error.contains("copy.db-wal") && error.contains(names), "{at} of {frames}: {error}");
        }
        let mut zeroed = whole.clone();
        zeroed[HEADER + 2 * frame..HEADER + 3 * frame].fill(0);
        put(&database, &zeroed).expect_err("a page was lost");
    }

    #[test]
    fn frames_of_an_earlier_round_are_no_damage() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("live.db");
        let live = Connection::open(&path).expect("open");
        live.pragma_update(None, "journal_mode", "wal").expect("wal");
        live.execute_batch("CREATE TABLE t (x); BEGIN; INSERT INTO t VALUES (zeroblob(60000)); COMMIT")
            .expect("rows");
        live.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(())).expect("checkpoint");
        for row in 0..3 {
            live.execute("INSERT INTO t VALUES (?1)", [row]).expect("a row");
        }
        check(&path).expect("the log begins anew over an older one");
    }
}
