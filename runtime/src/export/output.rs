//! Where an export goes. Nothing appears under its name before it is complete, and nothing that is there is replaced
//! unless that is asked for. Names made of a session's id cannot leave their folder.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use anyhow::Context;

use super::ExportError;

/// Bytes of a file's name that come from an id.
const NAME_BYTES: usize = 100;

/// A file that appears when it is complete.
pub struct NewFile {
    path: PathBuf,
    partial: PathBuf,
    file: Option<BufWriter<File>>,
}

impl NewFile {
    /// Refuses a name that is taken, unless it may be replaced.
    pub fn create(path: &Path, replace: bool) -> anyhow::Result<Self> {
        if !replace && path.symlink_metadata().is_ok() {
            return Err(ExportError::Exists { path: path.to_owned() }.into());
        }
        if path.is_dir() {
            return Err(ExportError::Folder { path: path.to_owned() }.into());
        }
        let partial = partial(path)?;
        let file = File::create_new(&partial).with_context(|| cannot_write(&partial))?;
        Ok(Self { path: path.to_owned(), partial, file: Some(BufWriter::new(file)) })
    }

    /// Gives it its name.
    pub fn finish(mut self) -> anyhow::Result<()> {
        let Some(file) = self.file.take() else { return Ok(()) };
        let finish = || {
            file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
            fs::rename(&self.partial, &self.path)
        };
        finish().with_context(|| cannot_write(&self.path))
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.as_mut().expect("only `finish` takes it").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_mut().expect("only `finish` takes it").flush()
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        // It has its name already, or is nobody's.
        let _ = fs::remove_file(&self.partial);
    }
}

/// A folder whose files appear when all of them are complete.
pub struct NewFolder {
    path: PathBuf,
    partial: PathBuf,
}

impl NewFolder {
    /// Refuses a folder that holds something, unless files in it may be replaced; others in it stay.
    pub fn create(path: &Path, replace: bool) -> anyhow::Result<Self> {
        let holds_something = match fs::read_dir(path) {
            Ok(mut entries) => entries.next().is_some(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(error).with_context(|| format!("cannot use {}", path.display())),
        };
        if holds_something && !replace {
            return Err(ExportError::Exists { path: path.to_owned() }.into());
        }
        let partial = partial(path)?;
        fs::create_dir(&partial).with_context(|| cannot_write(&partial))?;
        Ok(Self { path: path.to_owned(), partial })
    }

    /// A new file in it. Its name is `stem` with `ending`; with a number between where another has that name.
    pub fn file(&self, stem: &str, ending: &str) -> anyhow::Result<(String, BufWriter<File>)> {
        let mut name = format!("{stem}{ending}");
        for number in 2.. {
            let path = self.partial.join(&name);
            match File::create_new(&path) {
                Ok(file) => return Ok((name, BufWriter::new(file))),
                // File systems that take A for a.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    name = format!("{stem}~~{number}{ending}");
                }
                Err(error) => return Err(error).with_context(|| cannot_write(&path)),
            }
        }
        unreachable!("the numbers do not end");
    }

    /// Takes a file back.
    pub fn remove(&self, name: &str) -> anyhow::Result<()> {
        let path = self.partial.join(name);
        fs::remove_file(&path).with_context(|| cannot_write(&path))
    }

    /// Gives its files their places.
    pub fn finish(self) -> anyhow::Result<()> {
        if fs::rename(&self.partial, &self.path).is_ok() {
            return Ok(());
        }
        // The folder is there, and holds something.
        let entries = fs::read_dir(&self.partial).with_context(|| cannot_write(&self.partial))?;
        for entry in entries {
            let name = entry.with_context(|| cannot_write(&self.partial))?.file_name();
            let path = self.path.join(&name);
            fs::rename(self.partial.join(&name), &path).with_context(|| cannot_write(&path))?;
        }
        Ok(())
    }
}

impl Drop for NewFolder {
    fn drop(&mut self) {
        // It has its name already, or is nobody's.
        let _ = fs::remove_dir_all(&self.partial);
    }
}

/// Beside `path`, so that a rename is enough.
fn partial(path: &Path) -> anyhow::Result<PathBuf> {
    let Some(name) = path.file_name() else {
        return Err(ExportError::NoName { path: path.to_owned() }.into());
    };
    let above = path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !above.is_dir() {
        return Err(ExportError::NowhereToPut { path: path.to_owned(), above: above.to_owned() }.into());
    }
    let name = format!(".{}.partial-{}", name.to_string_lossy(), std::process::id());
    Ok(path.with_file_name(name))
}

/// For the chain of an error.
pub fn cannot_write(path: &Path) -> String {
    format!("cannot write {}", path.display())
}

/// What a file is called after an id: one name per id, without anything that a path gives a meaning to. Letters, digits,
/// `-`, `_` and dots inside stay; other bytes are written as in a URL; what is too long ends in a hash.
pub fn file_stem(id: &str) -> String {
    let mut stem = String::new();
    for (place, byte) in id.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => stem.push(char::from(byte)),
            b'.' if place > 0 => stem.push('.'),
            _ => stem.push_str(&format!("%{byte:02X}")),
        }
    }
    if stem.is_empty() {
        stem.push('%');
    }
    if stem.len() > NAME_BYTES {
        let hash = crc32c::crc32c(id.as_bytes());
        stem.truncate(NAME_BYTES);
        stem.push_str(&format!("~{hash:08x}"));
    }
    stem
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_id_leaves_the_folder_and_no_two_share_a_file() {
        let long = ["x".repeat(400), format!("{}y", "x".repeat(400)), "ü".repeat(300)];
        let ids = [
            "session-1",
            "../../x",
            "..",
            ".",
            "",
            "%",
            "a/b",
            "a\\b",
            "a%2Fb",
            "a b",
            "a\0b",
            "ü",
            ".hidden",
            "C:x",
            "a~2",
            "\u{1b}[31m",
            "\u{202e}x",
            &long[0],
            &long[1],
            &long[2],
        ];
        let mut stems = HashSet::new();
        for id in ids {
            let stem = file_stem(id);
            assert!(!stem.is_empty() && stem.len() <= 120 && !stem.starts_with('.'), "{id:?}: {stem}");
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_.%~".contains(c);
            assert!(stem.chars().all(plain), "{id:?}: {stem}");
            assert!(stems.insert(stem.clone()), "{id:?}: {stem}");
        }
        assert_eq!(file_stem("session-1.a_B"), "session-1.a_B");
        assert_eq!(file_stem("../../x"), "%2E.%2F..%2Fx");
    }

    #[test]
    fn a_file_appears_when_it_is_complete_and_replaces_nothing_unasked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.jsonl");
        let names = || fs::read_dir(dir.path()).unwrap().count();
        let mut file = NewFile::create(&path, false).unwrap();
        file.write_all(b"one").unwrap();
        assert!(!path.exists());
        drop(file);
        assert_eq!(names(), 0, "what was not finished leaves nothing");
        let mut file = NewFile::create(&path, false).unwrap();
        file.write_all(b"two").unwrap();
        file.finish().unwrap();
        let refused = NewFile::create(&path, false).err().unwrap();
        assert!(
            refused.to_string().contains("out.jsonl") && refused.to_string().contains("--force"),
            "{refused}"
        );
        NewFile::create(&path, true).unwrap().finish().unwrap();
        assert_eq!((fs::read(&path).unwrap(), names()), (Vec::new(), 1));
        assert!(NewFile::create(Path::new("/"), true).is_err());
    }

    #[test]
    fn a_folder_is_filled_at_once_and_keeps_what_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let write = |folder: &NewFolder, stem: &str, text: &str| {
            let (name, mut file) = folder.file(stem, ".json").unwrap();
            file.write_all(text.as_bytes()).unwrap();
            name
        };
        let folder = NewFolder::create(&path, false).unwrap();
        assert_eq!(write(&folder, "a", "1"), "a.json");
        assert_eq!(write(&folder, "a", "2"), "a~~2.json");
        assert!(!path.exists());
        folder.finish().unwrap();
        assert_eq!(fs::read_dir(&path).unwrap().count(), 2);
        assert!(NewFolder::create(&path, false).is_err());
        let folder = NewFolder::create(&path, true).unwrap();
        write(&folder, "a", "3");
        folder.finish().unwrap();
        let text = |name: &str| fs::read_to_string(path.join(name)).unwrap();
        assert_eq!((text("a.json"), text("a~~2.json")), ("3".to_owned(), "2".to_owned()));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
        // An empty folder is as good as none.
        fs::create_dir(dir.path().join("empty")).unwrap();
        let folder = NewFolder::create(&dir.path().join("empty"), false).unwrap();
        write(&folder, "b", "4");
        folder.finish().unwrap();
        assert!(dir.path().join("empty/b.json").exists());
    }
}
