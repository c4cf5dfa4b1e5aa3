//! Folders and files as values: what a task starts with, what it should become, and how far the one is from the other.
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::Path,
    time::{Duration, SystemTime},
};

use openclaw_sandbox::{Kind, SandboxError, Session};

/// Entries of a workspace that are looked at; one more stands for all others.
const ENTRIES_MAX: usize = 2000;
/// Folders in folders that are looked at.
const DEPTH_MAX: usize = 16;
/// Longest file that is read; a longer one is told by its length.
const BYTES_MAX: u64 = 64 << 10;

/// An entry of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// A folder.
    Folder,
    /// A file and what is in it.
    File(Vec<u8>),
    /// Anything else, by a number that tells it from others: links, pipes, and files too long to read.
    Other(u64),
}

impl Node {
    /// Files are the same whether or not their last line is ended.
    fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::File(one), Self::File(other)) => one.trim_ascii_end() == other.trim_ascii_end(),
            (one, other) => one == other,
        }
    }
}

/// Entries by their paths, relative to the workspace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree(BTreeMap<String, Node>);

impl Tree {
    /// Adds a folder and those around it.
    pub fn folder(&mut self, path: &str) {
        for (at, _) in path.match_indices('/') {
            self.0.insert(path[..at].to_owned(), Node::Folder);
        }
        self.0.insert(path.to_owned(), Node::Folder);
    }

    /// Adds or replaces a file, with the folders around it.
    pub fn file(&mut self, path: &str, bytes: impl Into<Vec<u8>>) {
        if let Some((folder, _)) = path.rsplit_once('/') {
            self.folder(folder);
        }
        self.0.insert(path.to_owned(), Node::File(bytes.into()));
    }

    /// Takes an entry out.
    pub fn remove(&mut self, path: &str) -> Option<Node> {
        self.0.remove(path)
    }

    /// Puts an entry where another may be.
    pub fn insert(&mut self, path: &str, node: Node) {
        self.0.insert(path.to_owned(), node);
    }

    /// What is at a path.
    pub fn get(&self, path: &str) -> Option<&Node> {
        self.0.get(path)
    }

    /// All paths, in order.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The same for the same paths and contents, everywhere and for ever.
    pub fn hash(&self) -> u64 {
        let mut hash = Fnv::default();
        for (path, node) in &self.0 {
            hash.part(path.as_bytes());
            match node {
                Node::Folder => hash.part(b"d"),
                Node::File(bytes) => {
                    hash.part(b"f");
                    hash.part(bytes);
                }
                Node::Other(number) => hash.part(&number.to_le_bytes()),
            }
        }
        hash.0
    }

    /// How far this is from `goal` for someone who began with `start`: a step for each path that is not as it should be,
    /// and two for each content that the goal needs and that is nowhere any more.
    pub fn distance(&self, start: &Self, goal: &Self) -> usize {
        let paths: BTreeSet<&String> = self.0.keys().chain(goal.0.keys()).collect();
        let wrong = paths.into_iter().filter(|path| match (self.0.get(*path), goal.0.get(*path)) {
            (Some(is), Some(should)) => !is.is_like(should),
            _ => true,
        });
        let (here, there, wanted) = (self.contents(), start.contents(), goal.contents());
        wrong.count() + 2 * wanted.intersection(&there).filter(|content| !here.contains(**content)).count()
    }

    fn contents(&self) -> BTreeSet<&[u8]> {
        let content = |node: &'_ Node| matches!(node, Node::File(_));
        let files = self.0.values().filter(|node| content(node));
        files
            .filter_map(|node| if let Node::File(bytes) = node { Some(bytes.trim_ascii_end()) } else { None })
            .collect()
    }

    /// The workspace of a session. What changes while it is read is read as it happens to be.
    pub fn read(session: &dyn Session) -> Result<Self, SandboxError> {
        let mut tree = Self::default();
        tree.read_folder(session, "", DEPTH_MAX)?;
        Ok(tree)
    }

    fn read_folder(&mut self, session: &dyn Session, folder: &str, depth: usize) -> Result<(), SandboxError> {
        let listing = match session.list(Path::new(folder)) {
            // Gone, or shut.
            Err(SandboxError::Path { .. }) => return Ok(()),
            listing => listing?,
        };
        for entry in listing.entries {
            let name = entry.name.to_string_lossy();
            let path = if folder.is_empty() { name.into_owned() } else { format!("{folder}/{name}") };
            if self.0.len() >= ENTRIES_MAX {
                self.0.insert("...".to_owned(), Node::Other(0));
                return Ok(());
            }
            let node = match entry.kind {
                Kind::Folder => Node::Folder,
                Kind::File if entry.bytes <= BYTES_MAX => match session.read_file(Path::new(&path)) {
                    Ok(bytes) => Node::File(bytes),
                    Err(SandboxError::Path { .. } | SandboxError::TooLarge { .. }) => Node::Other(1),
                    Err(error) => return Err(error),
                },
                Kind::File => Node::Other(entry.bytes),
                Kind::Link | Kind::Other => Node::Other(2),
            };
            let goes_on = node == Node::Folder && depth > 0;
            self.0.insert(path.clone(), node);
            if goes_on {
                self.read_folder(session, &path, depth - 1)?;
            }
        }
        Ok(())
    }

    /// Makes it in a folder of the host, with one time for all: listings of it are the same each time.
    pub fn write(&self, to: &Path) -> io::Result<()> {
        let written = SystemTime::UNIX_EPOCH + Duration::from_secs(1_735_732_800);
        for (path, node) in &self.0 {
            match node {
                Node::Folder => fs::create_dir_all(to.join(path))?,
                Node::File(bytes) => fs::write(to.join(path), bytes)?,
                Node::Other(_) => {}
            }
        }
        // What is inside first: to make it has changed the time of what is around.
        for path in self.0.keys().rev().map(String::as_str).chain([""]) {
            fs::File::open(to.join(path))?.set_modified(written)?;
        }
        Ok(())
    }
}

/// FNV-1a, of parts whose lengths count.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fnv(pub(super) u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    pub(super) fn part(&mut self, bytes: &[u8]) {
        let length = (bytes.len() as u64).to_le_bytes();
        for byte in length.iter().chain(bytes) {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> Tree {
        let mut tree = Tree::default();
        files.iter().for_each(|(path, text)| tree.file(path, *text));
        tree
    }

    #[test]
    fn a_move_is_near_and_a_loss_is_far() {
        let (start, mut goal) = (tree(&[("a/x", "1"), ("b/y", "2")]), tree(&[("b/x", "1"), ("b/y", "2")]));
        goal.folder("a");
        let far = start.distance(&start, &goal);
        assert_eq!((far, goal.distance(&start, &goal)), (2, 0));
        let mut removed = start.clone();
        removed.remove("a/x");
        assert!(removed.distance(&start, &goal) > far, "it is lost");
        let mut elsewhere = removed.clone();
        elsewhere.file("a/z", "1");
        assert_eq!(elsewhere.distance(&start, &goal), far);
        let mut copied = start.clone();
        copied.file("b/x", "1\n");
        assert_eq!(copied.distance(&start, &goal), 1);
    }

    #[test]
    fn a_hash_is_of_paths_and_contents() {
        let one = tree(&[("a/x", "1"), ("b", "2")]);
        assert_eq!(one.hash(), tree(&[("b", "2"), ("a/x", "1")]).hash());
        let others = [tree(&[("a/x", "2"), ("b", "2")]), tree(&[("a/xb", "12")]), Tree::default()];
        assert!(others.iter().all(|other| other.hash() != one.hash()));
        assert_eq!(tree(&[("a", "x")]).hash(), 1_960_650_355_486_727_779, "the same on every machine");
    }
}
