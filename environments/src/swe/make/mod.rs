//! Makes tasks out of a package with tests: one token is changed, and what then fails has to be mended. Rows are written beside
//! the package's archive, for `rows` and `held_out_rows` of [`Settings`](super::Settings).
mod mutate;
mod statement;
mod store;
mod tokens;
mod workshop;

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use openclaw_sandbox::Backend;

pub use self::mutate::{HELD_OUT, Mutation, TRAIN, mutations};
use self::{
    store::{Line, archive, store},
    workshop::{Outcome, Workshop},
};
use crate::{dice::Dice, world::WorldError};

/// What is to be made.
#[derive(Clone, Debug)]
pub struct Order {
    /// An archive of sources (`.tar.gz`), or a folder.
    pub package: PathBuf,
    /// The folder for rows and archives; it is made.
    pub out: PathBuf,
    /// Rows.
    pub count: usize,
    /// Says which changes are tried, and in which order.
    pub seed: u64,
    /// All rows measure; else those of kinds that training does not show.
    pub held_out: bool,
    /// The most that a run of all tests takes.
    pub test_time: Duration,
}

/// What was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Made {
    /// Rows to train on.
    pub train: usize,
    /// Rows that measure.
    pub held_out: usize,
    /// Changes that made no row, by why not.
    pub rejected: BTreeMap<&'static str, usize>,
    /// Tests of the package that pass.
    pub tests: usize,
}

/// A change that was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried<'a> {
    /// What was changed, and how.
    pub mutation: &'a Mutation,
    /// Where.
    pub path: &'a str,
    /// Why it makes no row; none where it does.
    pub rejected: Option<&'static str>,
}

/// Why nothing is made.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// A file cannot be read or written.
    #[error("{} cannot be {doing}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// `read` or `written`.
        doing: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The package is none that tasks can be made of.
    #[error("{package}: {why}")]
    Package {
        /// Its name.
        package: String,
        /// What it lacks.
        why: String,
    },
    /// It cannot be tried here.
    #[error(transparent)]
    World(#[from] WorldError),
}

/// One in so many rows is of a kind that training does not show.
const HELD_OUT_IN: usize = 5;

/// Makes rows, and says how many; fewer than were asked for where the package has no more to give. `watch` is told of each change.
pub fn make(
    order: &Order,
    backend: &dyn Backend,
    watch: &mut dyn FnMut(&Tried<'_>),
) -> Result<Made, MakeError> {
    let archive = archive(&order.package, &order.out)?;
    let package = name_of(&archive);
    let mut workshop = Workshop::open(&package, &archive, order.test_time, backend)?;
    let mut made = Made { tests: workshop.tests(), ..Made::default() };
    let mut lines: Vec<Line> = Vec::new();
    let mut candidates = workshop.candidates()?;
    Dice::new(order.seed).shuffle(&mut candidates);
    let all: Vec<&'static str> = TRAIN.into_iter().chain(HELD_OUT).collect();
    let phases: Vec<(&[&'static str], usize)> = match order.held_out {
        true => vec![(&all, order.count)],
        false => vec![(&HELD_OUT, order.count / HELD_OUT_IN), (&TRAIN, order.count)],
    };
    for (kinds, wanted) in phases {
        let mut queues = in_turn(&candidates, kinds);
        while lines.len() < wanted {
            let Some((path, mutation)) = queues.next() else { break };
            let outcome = workshop.attempt(path, mutation)?;
            let rejected = match &outcome {
                Outcome::Row(_) => None,
                Outcome::Rejected(why) => Some(*why),
            };
            watch(&Tried { mutation, path, rejected });
            match outcome {
                Outcome::Row(row) => {
                    let measures = order.held_out || HELD_OUT.contains(&mutation.kind);
                    *if measures { &mut made.held_out } else { &mut made.train } += 1;
                    lines.push(Line { row: *row, measures });
                }
                Outcome::Rejected(why) => *made.rejected.entry(why).or_default() += 1,
            }
        }
    }
    if lines.is_empty() {
        let why = format!("none of {} changes fails some of its tests and not all", candidates.len());
        return Err(MakeError::Package { package, why });
    }
    store(&order.out, &package, &lines)?;
    Ok(made)
}

/// `toolz-1.2.0` of `toolz-1.2.0.tar.gz`.
fn name_of(archive: &Path) -> String {
    let name = archive.file_name().unwrap_or(archive.as_os_str()).to_string_lossy();
    let name = [".tar.gz", ".tgz", ".tar"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(&name);
    name.to_owned()
}

/// A change and the file that it is made in.
type Candidate = (String, Mutation);

/// One of each kind, then another of each, as long as there are.
fn in_turn<'a>(
    candidates: &'a [Candidate],
    kinds: &'a [&'static str],
) -> impl Iterator<Item = &'a Candidate> {
    let mut queues: Vec<Vec<&Candidate>> = kinds
        .iter()
        .map(|kind| candidates.iter().filter(|(_, mutation)| mutation.kind == *kind).rev().collect())
        .collect();
    let mut next = 0;
    std::iter::from_fn(move || {
        for _ in 0..queues.len() {
            let queue = next % queues.len();
            next += 1;
            if let Some(candidate) = queues[queue].pop() {
                return Some(candidate);
            }
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_come_in_turn() {
        let candidate = |kind: &'static str, line| {
            ("a.py".to_owned(), Mutation { kind, line, at: 0, length: 1, to: String::new() })
        };
        let all = [candidate("logic", 1), candidate("logic", 2), candidate("sign", 3), candidate("text", 4)];
        let kinds = ["text", "logic"];
        let lines: Vec<usize> = in_turn(&all, &kinds).map(|(_, mutation)| mutation.line).collect();
        assert_eq!(lines, [4, 1, 2]);
        assert_eq!(name_of(Path::new("/a/toolz-1.2.0.tar.gz")), "toolz-1.2.0");
    }
}
