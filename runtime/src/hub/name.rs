//! How a model of the hub is named.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use hf_hub::{Cache, Repo, RepoType};

/// What stands before a name where a folder could stand, too.
const PREFIX: &str = "hf:";
const MAIN: &str = "main";

/// `OWNER/NAME`, or `OWNER/NAME@REVISION`: a branch, a tag or a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubName {
    /// `OWNER/NAME`.
    pub repository: String,
    /// The branch, tag or commit; `main` where none is named.
    pub revision: String,
}

impl HubName {
    /// The name that a path is, where it is no folder.
    pub fn of_path(path: &Path) -> Option<Result<Self, String>> {
        Some(path.to_str()?.strip_prefix(PREFIX)?.parse())
    }

    /// The repository at a branch, tag or commit.
    pub(super) fn at(&self, revision: &str) -> Repo {
        Repo::with_revision(self.repository.clone(), RepoType::Model, revision.to_owned())
    }

    /// The folder of the commit that was pulled last, if there is one.
    pub fn cached(&self) -> Option<PathBuf> {
        let config = Cache::from_env().repo(self.at(&self.revision)).get("config.json")?;
        config.parent().map(Path::to_owned)
    }
}

impl FromStr for HubName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = text.strip_prefix(PREFIX).unwrap_or(text);
        let (repository, revision) = named.split_once('@').unwrap_or((named, MAIN));
        let is_word = |word: &str| {
            let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            !word.is_empty() && !word.starts_with('.') && !word.contains("..") && word.chars().all(fits)
        };
        let parts = repository.split('/').collect::<Vec<_>>();
        let fits = parts.len() <= 2 && parts.into_iter().chain(revision.split('/')).all(is_word);
        if !fits {
            return Err(format!("\"{text}\" is not OWNER/NAME or OWNER/NAME@REVISION"));
        }
        Ok(Self { repository: repository.to_owned(), revision: revision.to_owned() })
    }
}

impl fmt::Display for HubName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.repository)?;
        if self.revision != MAIN { write!(f, "@{}", self.revision) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_the_hub_writes_them() {
        let read = |text: &str| text.parse::<HubName>();
        for text in ["Qwen/Qwen3-0.6B", "gpt2", "a_b/c.d-e@refs/pr/3", "a/b@0123abc"] {
            assert_eq!(read(text).expect("a name").to_string(), text);
            assert_eq!(HubName::of_path(Path::new(&format!("hf:{text}"))), Some(read(text)));
        }
        assert_eq!(read("a/b@main"), read("hf:a/b"));
        for wrong in ["", "a/b/c", "/b", "a/", "../b", "a/..", "a/b@", "a/b@../c", "a b/c", "https://hub/a/b"]
        {
            assert_eq!(
                read(wrong).expect_err("no name"),
                format!("\"{wrong}\" is not OWNER/NAME or OWNER/NAME@REVISION")
            );
        }
        assert_eq!(HubName::of_path(Path::new("models/nano")), None);
    }
}
