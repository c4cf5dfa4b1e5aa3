//! Files that are whole or not there, whatever ends the process or the power.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// Who may read a new file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Whom the process' umask lets.
    Umask,
    /// Its owner alone.
    Owner,
}

/// Puts `bytes` at `path`, in place of what is there: a reader finds the old file or all of the new one, and once this
/// returns the new one survives a loss of power. A failure leaves the old file as it was.
pub fn write(path: &Path, bytes: &[u8], access: Access) -> io::Result<()> {
    write_with(path, access, |file| file.write_all(bytes))
}

/// The same of what is written piece by piece.
pub fn write_with(
    path: &Path,
    access: Access,
    content: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    let name =
        path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "it has no name"))?;
    let mut unfinished = OsString::from(".");
    unfinished.push(name);
    unfinished.push(format!(".{}.tmp", std::process::id()));
    let unfinished = path.with_file_name(unfinished);
    // What is left of another time may be open to others.
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let written = (|| {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        if access == Access::Owner {
            options.mode(0o600);
        }
        let mut file = options.open(&unfinished)?;
        content(&mut file)?;
        file.sync_all()?;
        fs::rename(&unfinished, path)
    })();
    if written.is_err() {
        // It is nobody's, and may not be there.
        let _ = fs::remove_file(&unfinished);
    }
    written?;
    sync_folder(path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")))
}

/// A folder's entries survive a loss of power only once the folder itself is on the disk.
pub fn sync_folder(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_nothing_else_is_left() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("a.json");
        write(&path, b"one", Access::Umask).expect("written");
        write(&path, b"two", Access::Owner).expect("written over");
        assert_eq!(fs::read(&path).expect("read"), b"two");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).expect("a folder").count(), 1);
    }

    #[test]
    fn a_write_that_fails_leaves_what_was_there() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let taken = dir.path().join("folder");
        fs::create_dir_all(taken.join("inside")).expect("made");
        write(&taken, b"x", Access::Umask).expect_err("a folder cannot be replaced by a file");
        assert!(taken.join("inside").exists());
        assert_eq!(fs::read_dir(dir.path()).expect("a folder").count(), 1);
        assert!(write(Path::new("/"), b"x", Access::Umask).is_err());
    }
}
