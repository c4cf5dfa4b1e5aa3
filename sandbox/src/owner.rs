//! Whose something is: the names of all that a supervisor makes tell whether it still lives.

use std::{fs, path::Path};

/// Of the names of all that this process makes.
pub(crate) fn prefix() -> String {
    format!("openclaw-sandbox-{}-", std::process::id())
}

/// Whether a name says that its maker is gone.
pub(crate) fn is_orphan(name: &str) -> bool {
    let maker =
        name.strip_prefix("openclaw-sandbox-").and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
    maker.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists())
}

/// Removes the folders and files of makers that are gone. How many.
pub(crate) fn sweep(dir: &Path) -> usize {
    let mut removed = 0;
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if !entry.file_name().to_str().is_some_and(is_orphan) {
            continue;
        }
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let gone = if is_dir { fs::remove_dir_all(entry.path()) } else { fs::remove_file(entry.path()) };
        removed += usize::from(gone.is_ok());
    }
    removed
}
