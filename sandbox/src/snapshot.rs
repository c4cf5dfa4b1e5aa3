//! A workspace at one moment.

use std::{fs::File, path::Path, sync::Arc};

use tempfile::TempPath;

use crate::SandboxError;

/// A workspace at one moment. Clones share it; its file goes with the last of them. What is in it was written by
/// untrusted code, so it is unpacked in a sandbox only.
#[derive(Clone, Debug)]
pub struct Snapshot {
    file: Arc<TempPath>,
}

impl Snapshot {
    /// An empty one in `dir`, to be written.
    pub(crate) fn create(dir: &Path) -> Result<(Self, File), SandboxError> {
        let prefix = format!("{}snapshot-", crate::owner::prefix());
        let (file, path) = tempfile::Builder::new()
            .prefix(&prefix)
            .tempfile_in(dir)
            .map_err(|source| SandboxError::io("make a file for a snapshot", source))?
            .into_parts();
        Ok((Self { file: Arc::new(path) }, file))
    }

    pub(crate) fn open(&self) -> Result<File, SandboxError> {
        File::open(&*self.file).map_err(|source| SandboxError::io("open a snapshot", source))
    }
}
