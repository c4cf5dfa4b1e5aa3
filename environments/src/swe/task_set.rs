//! Rows of a file, one JSON object a line. A line that cannot be used is an error, never a row left out.
use std::{
    collections::BTreeSet,
    fs::File,
    io::{BufRead, BufReader, Read},
    path::Path,
    sync::Arc,
};

use super::row::Row;
use crate::world::WorldError;

/// Longest line that is read, in bytes.
const LINE_BYTES_MAX: u64 = 32 << 20;
/// Most rows that are read from one file.
const ROWS_MAX: usize = 200_000;

/// The rows of a file; `key` is the setting that names it.
pub fn read(key: &str, path: &Path) -> Result<Vec<Arc<Row>>, WorldError> {
    let refuse = |what: String| WorldError::Settings(format!("{key}: {}{what}", path.display()));
    let file = File::open(path).map_err(|error| refuse(format!(" cannot be read: {error}")))?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let (mut rows, mut ids) = (Vec::new(), BTreeSet::new());
    let (mut reader, mut line) = (BufReader::new(file), Vec::new());
    for number in 1.. {
        let at = |what: String| refuse(format!(":{number}: {what}"));
        line.clear();
        let read = reader.by_ref().take(LINE_BYTES_MAX + 1).read_until(b'\n', &mut line);
        if read.map_err(|error| at(error.to_string()))? == 0 {
            break;
        }
        if line.len() as u64 > LINE_BYTES_MAX {
            return Err(at(format!("longer than {LINE_BYTES_MAX} bytes")));
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        if rows.len() == ROWS_MAX {
            return Err(at(format!("more than {ROWS_MAX} rows")));
        }
        let row = Row::parse(&line, folder).map_err(at)?;
        if !ids.insert(row.id.clone()) {
            return Err(at(format!("instance_id {} is there twice", row.id)));
        }
        rows.push(Arc::new(row));
    }
    if rows.is_empty() {
        return Err(refuse(" has no rows".to_owned()));
    }
    Ok(rows)
}
