//! What could not be written when a process ended, kept in a file elsewhere until the next launch of the same run.
//!
//! The file holds what people said and lies where others may write: in a folder of its owner's alone that bears the
//! run's name, and nothing in it that is somebody else's, or a link, is read.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use openclaw_model::durable::{self, Access};
use rustix::{fs::OFlags, process::geteuid};
use serde::{Deserialize, Serialize};

use crate::record::Record;

/// The form that is written; others are refused by their number.
const FORM: u32 = 1;

/// Why a spill cannot be written, or is not read.
#[derive(Debug, thiserror::Error)]
pub enum SpillError {
    /// The system refuses.
    #[error("{path} cannot be read or written")]
    File {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Somebody else may have made it, or may change it.
    #[error("{path} is not its owner's alone: {problem}")]
    NotOurs {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A thread has them that is in a call of the system which does not return.
    #[error("a writer that does not end holds them")]
    Held,
    /// It is not what a process wrote that ended.
    #[error("{path} is not a spill of this form: {problem}")]
    Form {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

impl SpillError {
    /// The file or folder that it is about.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::File { path, .. } | Self::NotOurs { path, .. } | Self::Form { path, .. } => Some(path),
            Self::Held => None,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Header {
    form: u32,
    /// The run's folder.
    dir: PathBuf,
    records: usize,
}

/// Where a run's spills lie.
pub(crate) struct Spill {
    folder: PathBuf,
    /// The run's folder.
    dir: PathBuf,
}

/// Records that an earlier process could not write.
pub(crate) struct Spilled {
    pub path: PathBuf,
    pub records: Vec<Record>,
}

impl Spill {
    /// Of the run that its journal calls `run` and that lies in `dir`, below `within`.
    pub fn new(within: &Path, run: u64, dir: &Path) -> Self {
        Self { folder: within.join(format!("openclaw-rl-{run:016x}")), dir: dir.to_owned() }
    }

    /// Keeps `records` in a file of their own; they are on that disk when it returns.
    pub fn write(&self, records: &[&Record]) -> Result<PathBuf, SpillError> {
        let failed = |source| SpillError::File { path: self.folder.clone(), source };
        match DirBuilder::new().mode(0o700).create(&self.folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
            _ => self.must_be_ours()?,
        }
        let numbered = |number: u32| self.folder.join(format!("{number:04}.spill"));
        let path = (1..).map(numbered).find(|path| fs::symlink_metadata(path).is_err());
        let path = path.expect("some number is free");
        let header = Header { form: FORM, dir: self.dir.clone(), records: records.len() };
        let mut bytes = Vec::new();
        let encoded = ciborium::into_writer(&header, &mut bytes)
            .and_then(|()| records.iter().try_for_each(|record| ciborium::into_writer(record, &mut bytes)));
        encoded.map_err(|error| SpillError::Form { path: path.clone(), problem: error.to_string() })?;
        durable::write(&path, &bytes, Access::Owner)
            .map_err(|source| SpillError::File { path: path.clone(), source })?;
        // The new folder's name, too.
        durable::sync_folder(self.folder.parent().unwrap_or(Path::new("."))).map_err(failed)?;
        Ok(path)
    }

    /// What earlier processes of this run left, oldest first. A copy of the run's folder bears the same name: what lies
    /// here is the original's for as long as that is there.
    pub fn read(&self) -> Result<Vec<Spilled>, SpillError> {
        match fs::symlink_metadata(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            _ => self.must_be_ours()?,
        }
        let failed = |source| SpillError::File { path: self.folder.clone(), source };
        let mut paths = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_some_and(|end| end == "spill") {
                paths.push(path);
            }
        }
        paths.sort();
        let mut spills = Vec::new();
        for path in paths {
            let (header, records) = read_file(&path)?;
            if header.dir == self.dir || !header.dir.exists() {
                spills.push(Spilled { path, records });
            }
        }
        Ok(spills)
    }

    /// Forgets a spill whose records are committed.
    pub fn remove(&self, spilled: &Spilled) -> Result<(), SpillError> {
        let removed = fs::remove_file(&spilled.path).and_then(|()| durable::sync_folder(&self.folder));
        removed.map_err(|source| SpillError::File { path: spilled.path.clone(), source })?;
        // Others may lie in it still.
        let _ = fs::remove_dir(&self.folder);
        Ok(())
    }

    fn must_be_ours(&self) -> Result<(), SpillError> {
        let path = self.folder.clone();
        let found =
            fs::symlink_metadata(&path).map_err(|source| SpillError::File { path: path.clone(), source })?;
        let problem = if !found.is_dir() {
            "it is no folder"
        } else if found.uid() != geteuid().as_raw() {
            "it belongs to another user"
        } else if found.permissions().mode() & 0o077 != 0 {
            "others may enter it"
        } else {
            return Ok(());
        };
        Err(SpillError::NotOurs { path, problem })
    }
}

fn read_file(path: &Path) -> Result<(Header, Vec<Record>), SpillError> {
    let failed = |source| SpillError::File { path: path.to_owned(), source };
    let malformed = |problem: String| SpillError::Form { path: path.to_owned(), problem };
    let mut file: File = OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NOFOLLOW.bits() as i32)
        .open(path)
        .map_err(failed)?;
    let found = file.metadata().map_err(failed)?;
    if !found.is_file() || found.uid() != geteuid().as_raw() {
        let problem = "it is no file, or belongs to another user";
        return Err(SpillError::NotOurs { path: path.to_owned(), problem });
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(failed)?;
    let mut rest = &bytes[..];
    let header: Header = ciborium::from_reader(&mut rest).map_err(|error| malformed(error.to_string()))?;
    if header.form != FORM {
        return Err(malformed(format!("it has form {}, and this program knows {FORM}", header.form)));
    }
    let mut records = Vec::new();
    for number in 1..=header.records {
        let record = ciborium::from_reader(&mut rest);
        records.push(record.map_err(|error| malformed(format!("record {number}: {error}")))?);
    }
    if !rest.is_empty() {
        return Err(malformed(format!("{} bytes are left over", rest.len())));
    }
    Ok((header, records))
}

/// JSON within a spill, as its own text: numbers stay as they are written.
pub(crate) mod json_text {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned};

    pub fn serialize<T: Serialize, S: Serializer>(value: &Arc<T>, to: S) -> Result<S::Ok, S::Error> {
        let text = serde_json::to_string(&**value).map_err(serde::ser::Error::custom)?;
        text.serialize(to)
    }

    pub fn deserialize<'de, T: DeserializeOwned, D: Deserializer<'de>>(from: D) -> Result<Arc<T>, D::Error> {
        let text = String::deserialize(from)?;
        serde_json::from_str(&text).map(Arc::new).map_err(serde::de::Error::custom)
    }
}
