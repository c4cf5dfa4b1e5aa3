//! Everything that is wrong with a topology file, collected so that one run of `check` tells all of it.
//! The first problem of a key hides later ones of the same key and of everything below it; so does a misspelling of
//! it, which is a problem of another key.

use std::{collections::BTreeMap, fmt, path::PathBuf};

/// Why a topology cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TopologyError {
    /// The file could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file was read and is wrong. Each problem stands on its own line.
    #[error("{}", lines(path, problems))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, in the file's order; at least one.
        problems: Vec<Problem>,
    },
}

fn lines(path: &std::path::Path, problems: &[Problem]) -> String {
    let lines = problems.iter().map(|problem| match problem.origin {
        Some(Origin::Line(line)) => format!("{}:{line}: {problem}", path.display()),
        Some(Origin::Override) => format!("--set: {problem}"),
        None => format!("{}: {problem}", path.display()),
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Where a value was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// This line of the file, counted from 1.
    Line(usize),
    /// A `--set` on the command line.
    Override,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key, dotted; empty for the file as a whole.
    pub key: String,
    /// Where the key, or the table it is missing from, was written.
    pub origin: Option<Origin>,
    /// What is wrong with it.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.key.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.key, self.message)
        }
    }
}

/// The problems found so far.
#[derive(Debug, Default)]
pub struct Problems {
    origins: BTreeMap<String, Origin>,
    found: Vec<Problem>,
    misspelt: Vec<String>,
}

impl Problems {
    /// None yet, in a file whose keys were written at `origins`.
    pub fn new(origins: BTreeMap<String, Origin>) -> Self {
        Self { origins, ..Self::default() }
    }

    /// Adds a problem, unless this key or one above it already has one.
    pub fn add(&mut self, key: &str, message: impl Into<String>) {
        self.add_all(key, [message.into()]);
    }

    /// Adds several problems of one key, each on its own line, unless this key or one above it already has one.
    pub fn add_all(&mut self, key: &str, messages: impl IntoIterator<Item = String>) {
        if self.is_unread(key) {
            return;
        }
        let origin = ancestors(key).find_map(|at| self.origins.get(at)).copied();
        let problem = |message| Problem { key: key.to_owned(), origin, message };
        self.found.extend(messages.into_iter().map(problem));
    }

    /// Hides what is found out about a key that is not there because it was misspelt.
    pub fn misspelt(&mut self, key: &str) {
        self.misspelt.push(key.to_owned());
    }

    /// Whether nothing can be said of a key's value: it, or one above it, has a problem or was misspelt.
    pub fn is_unread(&self, key: &str) -> bool {
        let with_problem = self.found.iter().map(|problem| &problem.key);
        with_problem.chain(&self.misspelt).any(|above| covers(above, key))
    }

    /// The problems in the file's order.
    pub fn into_sorted(mut self) -> Vec<Problem> {
        self.found.sort_by_key(|problem| (problem.origin.is_none(), problem.origin));
        self.found
    }
}

/// Whether `below` is `above` or a key inside it.
fn covers(above: &str, below: &str) -> bool {
    below.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// `a.b[0].c`, `a.b[0]`, `a.b`, `a`.
fn ancestors(key: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(key), |key| key.rfind(['.', '[']).map(|end| &key[..end]))
}

/// `name` below `key`.
pub fn join(key: &str, name: &str) -> String {
    if key.is_empty() { name.to_owned() } else { format!("{key}.{name}") }
}

/// ` (did you mean "votes"?)`, when one of the known names is close enough.
pub fn did_you_mean(name: &str, known: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    nearest(name, known).map_or_else(String::new, |near| format!(" (did you mean \"{near}\"?)"))
}

/// The known name that `name` most likely misspells.
pub fn nearest(name: &str, known: impl IntoIterator<Item = impl AsRef<str>>) -> Option<String> {
    let close = known.into_iter().map(|known| (strsim::levenshtein(name, known.as_ref()), known));
    let (distance, known) = close.min_by_key(|(distance, _)| *distance)?;
    (distance <= 1 + name.chars().count() / 4).then(|| known.as_ref().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelt_names_find_their_neighbour_and_strangers_find_none() {
        assert_eq!(nearest("voets", ["votes", "model"]).as_deref(), Some("votes"));
        assert_eq!(nearest("polcy", ["policy"]).as_deref(), Some("policy"));
        assert_eq!(nearest("colour", ["votes", "model"]), None);
    }

    #[test]
    fn a_problem_hides_later_ones_of_its_key_and_below_but_not_of_its_neighbours() {
        let mut problems = Problems::default();
        for key in ["a.b", "a.b", "a.b.c", "a.b[0]", "a.bc", "a"] {
            problems.add(key, "wrong");
        }
        let keys: Vec<_> = problems.into_sorted().into_iter().map(|problem| problem.key).collect();
        assert_eq!(keys, ["a.b", "a.bc", "a"]);
    }

    #[test]
    fn one_key_may_have_several_problems_told_together_and_a_misspelt_one_has_none() {
        let mut problems = Problems::default();
        problems.misspelt("b");
        problems.add_all("a", ["one".to_owned(), "two".to_owned()]);
        problems.add_all("a.b", ["three".to_owned()]);
        problems.add("b.c", "wrong");
        assert!(problems.is_unread("a.b") && problems.is_unread("b") && !problems.is_unread("bc"));
        let told: Vec<_> = problems.into_sorted().into_iter().map(|problem| problem.message).collect();
        assert_eq!(told, ["one", "two"]);
    }

    #[test]
    fn a_missing_key_points_at_the_line_of_its_table() {
        let origins = [("actors".to_owned(), Origin::Line(3)), ("actors.judge".to_owned(), Origin::Line(7))];
        let mut problems = Problems::new(origins.into());
        problems.add("actors.judge.votes", "missing");
        assert_eq!(problems.into_sorted()[0].origin, Some(Origin::Line(7)));
    }
}
