//! What a repository holds, and whether a file is what the hub says it is.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use serde::Deserialize;
use sha1::{Digest, Sha1};
use sha2::Sha256;

/// The files of a repository at one commit.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Listing {
    /// The commit.
    pub(super) sha: String,
    pub(super) siblings: Vec<Listed>,
}

/// One file, by its path in the repository.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Listed {
    #[serde(rename = "rfilename")]
    pub(super) name: String,
    pub(super) size: Option<u64>,
    /// Git's name of a small file: SHA-1 of its length and its bytes.
    blob_id: Option<String>,
    /// Of a large one.
    lfs: Option<Large>,
}

#[derive(Clone, Debug, Deserialize)]
struct Large {
    sha256: String,
}

impl Listing {
    /// A commit is a folder's name in the cache.
    pub(super) fn is_sound(&self) -> bool {
        !self.sha.is_empty() && self.sha.bytes().all(|byte| byte.is_ascii_hexdigit())
    }

    pub(super) fn file(&self, name: &str) -> Option<&Listed> {
        self.siblings.iter().find(|file| file.name == name)
    }

    /// The names that end so.
    pub(super) fn ending(&self, end: &str) -> Vec<&str> {
        self.siblings.iter().map(|file| file.name.as_str()).filter(|name| name.ends_with(end)).collect()
    }
}

impl Listed {
    /// What the cache calls its content.
    pub(super) fn sum(&self) -> Option<&str> {
        self.lfs.as_ref().map(|large| large.sha256.as_str()).or(self.blob_id.as_deref())
    }

    /// Whether `path` holds what was listed. The hub names no sum of some files of old: their length has to do.
    pub(super) fn is_at(&self, path: &Path) -> io::Result<bool> {
        let (mut file, length) = (File::open(path)?, path.metadata()?.len());
        if self.size.is_some_and(|size| size != length) {
            return Ok(false);
        }
        let (found, listed) = match (&self.lfs, &self.blob_id) {
            (Some(large), _) => (summed(Sha256::new(), &mut file)?, &large.sha256),
            (None, Some(blob)) => {
                (summed(Sha1::new_with_prefix(format!("blob {length}\0")), &mut file)?, blob)
            }
            (None, None) => return Ok(true),
        };
        Ok(found.eq_ignore_ascii_case(listed))
    }
}

/// The sum of what it holds already and of a file, in hexadecimal.
fn summed(mut sum: impl Digest, file: &mut File) -> io::Result<String> {
    let mut piece = vec![0; 1 << 20];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(sum.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            read => sum.update(&piece[..read]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_held_against_both_kinds_of_sums() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("file");
        std::fs::write(&path, "hello\n").expect("a file");
        let listed = |json: &str| serde_json::from_str::<Listed>(json).expect("a file of a listing");
        // What `git hash-object` and `sha256sum` print of it.
        let small = listed(
            r#"{"rfilename": "file", "size": 6, "blobId": "ce013625030ba8dba906f756967f9e9ca394464a"}"#,
        );
        let large = listed(
            r#"{"rfilename": "file", "size": 6, "blobId": "0", "lfs": {"sha256":
                "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03", "size": 6}}"#,
        );
        for file in [&small, &large] {
            assert!(file.is_at(&path).expect("it can be read"));
        }
        std::fs::write(&path, "hellO\n").expect("a file");
        for file in [&small, &large, &listed(r#"{"rfilename": "file", "size": 7}"#)] {
            assert!(!file.is_at(&path).expect("it can be read"));
        }
        assert!(listed(r#"{"rfilename": "file"}"#).is_at(&path).expect("it can be read"));
    }
}
