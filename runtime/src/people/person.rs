//! A person: the name that requests say, and the folder that it becomes.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

/// Whoever no request names.
const UNNAMED: &str = "unnamed";
/// Longer names are cut in the folder, and told apart by their hash.
const MOST_CHARACTERS: usize = 64;
/// In a folder, stands between a name that no folder can have and its hash.
const HASHED: char = '@';

/// Who has a model. Ordered and compared by the folder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Person {
    folder: String,
}

impl Person {
    /// The one that a request names, or who is not named.
    pub fn named(name: Option<&str>) -> Self {
        let name = name.map(str::trim).filter(|name| !name.is_empty()).unwrap_or(UNNAMED);
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
        if name.len() <= MOST_CHARACTERS && name.chars().all(plain) && !name.starts_with(['.', '-']) {
            return Self { folder: name.to_owned() };
        }
        let lower = name.to_lowercase();
        let readable = lower.chars().map(|c| if plain(c) { c } else { '_' }).take(32).collect::<String>();
        let readable = readable.trim_start_matches(['.', '-']);
        let hash = Sha256::digest(name.as_bytes());
        let hash: String = hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Self { folder: format!("{readable}{HASHED}{hash}") }
    }

    /// The one whose folder is called so.
    pub fn of_folder(folder: &str) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// What the folder below `people/` is called.
    pub fn folder(&self) -> &str {
        &self.folder
    }

    /// What its node's actor is called.
    pub fn actor(&self) -> String {
        format!("person.{}", self.folder)
    }

    /// Its run's folder, in that of the house.
    pub fn dir(&self, people: &Path) -> PathBuf {
        people.join(&self.folder)
    }
}

impl fmt::Display for Person {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.folder)
    }
}

/// The folder of everyone's runs in that of a house.
pub fn folder_of(run_dir: &Path) -> PathBuf {
    run_dir.join("people")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_a_folder_of_its_own_that_is_one_folder() {
        let folder = |name: &str| Person::named(Some(name)).folder().to_owned();
        assert_eq!(folder("ada"), "ada");
        assert_eq!(folder(" ada.l-2 "), "ada.l-2");
        assert_eq!(Person::named(None), Person::named(Some("  ")));
        let long = "x".repeat(300);
        let strange =
            ["Ada", "ADA", "ada@example.org", "../ada", "..", ".", "-rf", "a/b", "a b", "élan", "a@b", &long];
        let mut folders: Vec<_> = strange.iter().map(|name| folder(name)).collect();
        for folder in &folders {
            assert!(folder.contains('@') && folder.len() < 80, "{folder}");
            assert!(
                !folder.contains('/') && !folder.starts_with(['.', '-']) && folder.is_ascii(),
                "{folder}"
            );
            // What is a folder already stays it: nobody takes another's by its name.
            assert_ne!(Person::named(Some(folder)).folder(), folder);
        }
        folders.sort();
        folders.dedup();
        assert_eq!(folders.len(), strange.len());
    }
}
