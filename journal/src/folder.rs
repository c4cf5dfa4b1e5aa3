//! The run's folder: one process writes to it, and large bodies lie there as files named by their content.

use std::{
    collections::HashSet,
    fmt::Write as _,
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
};

use openclaw_model::durable::{self, Access};
use sha2::{Digest, Sha256};

use super::error::JournalError;

/// The database's name in the folder.
pub(crate) const DATABASE: &str = "journal.db";
/// The name of the folder in it where large bodies lie.
pub(crate) const BLOBS: &str = "blobs";
/// The name of the file that the process which writes holds locked.
pub(crate) const LOCK: &str = "lock";

/// The folder. Who opened it holds it until it is dropped; who looks into it holds nothing.
pub(crate) struct Folder {
    dir: PathBuf,
    _lock: Option<File>,
}

impl Folder {
    /// To read what lies in `dir`, whoever writes there.
    pub fn look(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), _lock: None }
    }

    /// Makes `dir` where it is missing, and takes it for this process.
    pub fn open(dir: &Path) -> Result<Self, JournalError> {
        let refused = |path: &Path| {
            let path = path.to_owned();
            move |source| JournalError::Folder { path, source }
        };
        let blobs = dir.join(BLOBS);
        fs::create_dir_all(&blobs).map_err(refused(&blobs))?;
        let path = dir.join(LOCK);
        let lock = File::options().create(true).append(true).open(&path).map_err(refused(&path))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { dir: dir.to_owned(), _lock: Some(lock) }),
            Err(TryLockError::WouldBlock) => Err(JournalError::InUse { dir: dir.to_owned() }),
            Err(TryLockError::Error(source)) => Err(refused(&path)(source)),
        }
    }

    pub fn database(&self) -> PathBuf {
        self.dir.join(DATABASE)
    }

    fn blob(&self, name: &str) -> PathBuf {
        self.dir.join(BLOBS).join(&name[..2]).join(name)
    }

    /// Keeps `bytes` under their name. It is there for good before this returns.
    pub fn keep(&self, name: &str, bytes: &[u8]) -> Result<(), JournalError> {
        let path = self.blob(name);
        let keep = || {
            if path.exists() {
                return Ok(());
            }
            let parent = path.parent().expect("a blob lies in a folder of its own");
            fs::create_dir_all(parent)?;
            durable::write(&path, bytes, Access::Umask)?;
            // The new folder's name, too.
            durable::sync_folder(&self.dir.join(BLOBS))
        };
        keep().map_err(|source| JournalError::Blob { path: path.clone(), source })
    }

    /// What is kept under `name`.
    pub fn read(&self, name: &str) -> Result<Vec<u8>, JournalError> {
        let path = self.blob(name);
        let bytes = fs::read(&path).map_err(|source| JournalError::Blob { path: path.clone(), source })?;
        if content_name(&bytes) != name {
            let source = io::Error::new(io::ErrorKind::InvalidData, "its content is not what its name says");
            return Err(JournalError::Blob { path, source });
        }
        Ok(bytes)
    }

    /// Removes what no row names any more.
    pub fn remove(&self, name: &str) -> Result<(), JournalError> {
        let path = self.blob(name);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(JournalError::Blob { path, source })
            }
            _ => Ok(()),
        }
    }

    /// Removes every file that `named` does not hold: a process that died left it behind.
    pub fn sweep(&self, named: &HashSet<String>) -> Result<(), JournalError> {
        let blobs = self.dir.join(BLOBS);
        let sweep = || -> io::Result<()> {
            for folder in fs::read_dir(&blobs)? {
                for file in fs::read_dir(folder?.path())? {
                    let file = file?;
                    if !file.file_name().to_str().is_some_and(|name| named.contains(name)) {
                        fs::remove_file(file.path())?;
                    }
                }
            }
            Ok(())
        };
        sweep().map_err(|source| JournalError::Blob { path: blobs.clone(), source })
    }
}

/// SHA-256, as 64 hexadecimal digits.
pub(crate) fn content_name(bytes: &[u8]) -> String {
    let mut name = String::with_capacity(64);
    for byte in Sha256::digest(bytes) {
        write!(name, "{byte:02x}").expect("a string takes all that is written");
    }
    name
}
