//! The run's folder while a launch may still be refused: what it was is noted, so that it can be put back.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::Context;
use openclaw_model::durable::{self, Access};
use tracing::{info, warn};

use crate::{
    run_dir::{self, BASE_FILE},
    topology::RESOLVED_FILE,
};

/// Small files that a launch may write anew.
const REWRITTEN: [&str; 2] = [BASE_FILE, RESOLVED_FILE];

/// What lay in its place before a launch.
pub struct RunFolder {
    dir: PathBuf,
    /// Where the run before was put.
    aside: Option<PathBuf>,
    /// Folders that were not there, the innermost first.
    missing: Vec<PathBuf>,
    /// A journal lay in the folder.
    goes_on: bool,
    /// All that lay in it.
    names: BTreeSet<OsString>,
    /// The small files among it.
    files: Vec<(PathBuf, Vec<u8>)>,
}

impl RunFolder {
    /// Notes what is there; for a `fresh` run it is renamed first.
    pub fn take(dir: &Path, fresh: bool) -> anyhow::Result<Self> {
        let aside = if fresh { run_dir::set_aside(dir)? } else { None };
        if let Some(old) = &aside {
            info!(folder = %old.display(), "the run before is set aside");
        }
        let missing = dir.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists());
        let unread = || format!("cannot read run.dir {}", dir.display());
        let mut files = Vec::new();
        for path in REWRITTEN.map(|name| dir.join(name)) {
            match fs::read(&path) {
                Ok(bytes) => files.push((path, bytes)),
                Err(error) if is_nothing(&error) => {}
                Err(error) => return Err(error).with_context(unread),
            }
        }
        Ok(Self {
            dir: dir.to_owned(),
            missing: missing.map(Path::to_owned).collect(),
            goes_on: !matches!(openclaw_journal::inspect(dir), Ok(None)),
            names: names(dir).with_context(unread)?,
            files,
            aside,
        })
    }

    /// Makes it what it was, once nothing of the launch runs any more.
    pub fn put_back(self) {
        let restored = if openclaw_journal::is_in_use(&self.dir) {
            // Another launch may have come in between: all of it is that one's.
            Err(io::Error::from(io::ErrorKind::ResourceBusy))
        } else {
            self.restore()
        };
        if let Err(error) = restored {
            warn!(dir = %self.dir.display(), %error, "what the refused launch has written stays");
        }
    }

    fn restore(&self) -> io::Result<()> {
        for (path, bytes) in &self.files {
            if fs::read(path)? != *bytes {
                durable::write(path, bytes, Access::Owner)?;
            }
        }
        // A journal that was there may name what is new.
        let new = if self.goes_on { BTreeSet::new() } else { names(&self.dir)? };
        for name in new.difference(&self.names) {
            let path = self.dir.join(name);
            if fs::symlink_metadata(&path)?.is_dir() {
                fs::remove_dir_all(&path)?;
            } else {
                fs::remove_file(&path)?;
            }
        }
        for path in &self.missing {
            match fs::remove_dir(path) {
                Err(error) if !is_nothing(&error) => return Err(error),
                _ => {}
            }
        }
        match &self.aside {
            Some(aside) => fs::rename(aside, &self.dir),
            None => Ok(()),
        }
    }
}

/// What lies in `dir`; nothing where that is missing.
fn names(dir: &Path) -> io::Result<BTreeSet<OsString>> {
    match fs::read_dir(dir) {
        Ok(entries) => entries.map(|entry| Ok(entry?.file_name())).collect(),
        Err(error) if is_nothing(&error) => Ok(BTreeSet::new()),
        Err(error) => Err(error),
    }
}

fn is_nothing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
