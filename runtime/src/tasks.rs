//! `openclaw-rl tasks`: tasks for agents, made here.

use std::{
    io::{self, Write},
    path::PathBuf,
    time::Duration,
};

use clap::{Args, Subcommand};
use openclaw_environments::swe::make::{Made, Order, Tried, make};
use openclaw_sandbox::Bubblewrap;

/// Examples for `--help`.
pub const EXAMPLES: &str = "\
Needs bubblewrap, git, and python3 with pytest. What a package asks for beside these has to be on this machine.

Examples:
  openclaw-rl tasks make-swe --package toolz-1.2.0.tar.gz --out data/swe --count 40 --seed 17
  openclaw-rl tasks make-swe --package src/my-package --out data/swe --count 20 --held-out";

/// What to make.
#[derive(Debug, Subcommand)]
pub enum Tasks {
    /// Makes tasks of a Python package with tests: one token is changed, and what then fails has to be mended.
    ///
    /// Writes train.jsonl, held_out.jsonl and the package's archive, for an environment of kind `swe`. Rows of the same package are
    /// replaced, those of others stay.
    MakeSwe(MakeSweArgs),
}

/// Arguments of `tasks make-swe`.
#[derive(Clone, Debug, Args)]
pub struct MakeSweArgs {
    /// An archive of the package's sources, or a folder.
    #[arg(long, value_name = "ARCHIVE_OR_FOLDER")]
    package: PathBuf,
    /// The folder for the rows.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Rows.
    #[arg(long, value_name = "N", default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    count: u32,
    /// Says which changes are tried, and in which order.
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// All rows measure, and none is trained on; else one in five, of kinds of changes that training does not show.
    #[arg(long)]
    held_out: bool,
    /// The most that a run of all of the package's tests may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    test_secs: u64,
}

/// Makes them and says how many.
pub fn run(tasks: &Tasks) -> anyhow::Result<()> {
    let Tasks::MakeSwe(args) = tasks;
    let order = Order {
        package: args.package.clone(),
        out: args.out.clone(),
        count: args.count as usize,
        seed: args.seed,
        held_out: args.held_out,
        test_time: Duration::from_secs(args.test_secs),
    };
    let mut watch = |tried: &Tried<'_>| {
        let Tried { mutation, path, rejected } = tried;
        eprintln!("{path}:{}: {}: {}", mutation.line + 1, mutation.kind, rejected.unwrap_or("a task"));
    };
    let made = make(&order, &Bubblewrap::default(), &mut watch)?;
    writeln!(io::stdout(), "{}: {}", args.out.display(), told(&made))?;
    let wanted = order.count;
    if made.train + made.held_out < wanted {
        eprintln!(
            "{}: no more than these, of {wanted}: no other change makes a task",
            args.package.display()
        );
    }
    Ok(())
}

/// What was made, in a line.
fn told(made: &Made) -> String {
    let Made { train, held_out, tests, .. } = made;
    let mut told = format!("{train} rows to train on, {held_out} held out, over {tests} tests");
    let rejected: Vec<String> = made.rejected.iter().map(|(why, count)| format!("{count} {why}")).collect();
    if !rejected.is_empty() {
        told.push_str(&format!("; rejected: {}", rejected.join(", ")));
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_is_told_in_a_line() {
        let rejected = [("all tests fail", 2), ("no test fails", 7)].into();
        let made = Made { train: 8, held_out: 2, tests: 90, rejected };
        assert_eq!(
            told(&made),
            "8 rows to train on, 2 held out, over 90 tests; rejected: 2 all tests fail, 7 no test fails"
        );
    }
}
