//! `kill -9` in the middle of writing: what was acknowledged is there, and nothing happened twice.

use std::{
    collections::BTreeMap,
    env,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
};

use openclaw_journal::{Record, Recorded, TurnState};
use rand::{RngExt, SeedableRng, rngs::SmallRng};

use crate::turns::*;

/// Tells the child where to write, and under which names.
const DIR: &str = "JOURNAL_TEST_DIR";
const ROUND: &str = "JOURNAL_TEST_ROUND";

/// Not a test: what is killed. Says on its output what was acknowledged.
#[test]
#[ignore = "started by the test below"]
fn writes_until_it_is_killed() {
    let (Ok(dir), Ok(round)) = (env::var(DIR), env::var(ROUND)) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let journal = open(Path::new(&dir));
        supervise(&journal);
        let say = |words: String| {
            let mut out = std::io::stdout().lock();
            writeln!(out, "{words}").and_then(|()| out.flush()).expect("the parent listens until it kills");
        };
        let mut version = journal.last_version_number().await.expect("read");
        for turn in 0.. {
            let names: Vec<String> = (0..4).map(|n| format!("{round}-{turn}-{n}")).collect();
            let written = names.iter().map(|name| {
                let (journal, name) = (journal.clone(), name.clone());
                async move {
                    for (word, record) in [
                        ("waiting", completed(&name)),
                        ("followed", followed(&name)),
                        ("ready", judged(&name)),
                    ] {
                        assert_eq!(journal.record(record).await.expect("written"), Recorded::Done);
                        say(format!("{word} {name}"));
                    }
                }
            });
            futures::future::join_all(written).await;
            version += 1;
            let batch: Vec<_> = names.iter().map(|name| id(name)).collect();
            let leased = Record::BatchLeased { step: version, turns: batch.clone() };
            assert_eq!(journal.record(leased).await.expect("written"), Recorded::Done);
            assert_eq!(journal.record(step(version, batch)).await.expect("written"), Recorded::Done);
            say(format!("version {version}"));
            names.iter().for_each(|name| say(format!("trained {name}")));
        }
    });
}

#[tokio::test]
async fn a_process_killed_while_it_writes_loses_nothing_that_was_acknowledged() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut dice = SmallRng::seed_from_u64(29);
    let mut acknowledged: BTreeMap<String, TurnState> = BTreeMap::new();
    let mut version = 0;
    for round in 0..12 {
        let mut child = Command::new(env::current_exe().expect("this test"))
            .args(["--exact", "kill::writes_until_it_is_killed", "--ignored", "--nocapture"])
            .env(DIR, dir.path())
            .env(ROUND, round.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let mut left: usize = dice.random_range(1..60);
        for line in lines {
            let line = line.expect("text");
            // The harness says something of its own before the first of ours.
            let Some((word, name)) = line.split_once(' ') else { continue };
            if word == "version" {
                version = name.parse().expect("a number");
            } else if let Some(state) = TurnState::ALL.into_iter().find(|state| state.name() == word) {
                acknowledged.insert(name.to_owned(), state);
                left = left.saturating_sub(1);
                if left == 0 {
                    child.kill().expect("it is killed"); // What it said until then is still read.
                }
            }
        }
        child.wait().expect("it has ended");

        let journal = open(dir.path());
        for (name, state) in &acknowledged {
            let row =
                journal.turn(&id(name)).await.expect("read").unwrap_or_else(|| panic!("{name} is lost"));
            assert!(row.state >= *state, "{name} was {state:?} and is {:?}", row.state);
            assert_ne!(row.state, TurnState::Leased, "given back when it is opened");
        }
        assert!(journal.last_version_number().await.expect("read") >= version);
        let kept: BTreeMap<TurnState, u64> = journal.states().await.expect("read").into_iter().collect();
        let (totals, backlog) = (*journal.totals().borrow(), *journal.backlog().borrow());
        assert_eq!(totals.turns, kept.values().sum::<u64>(), "each turn once");
        assert_eq!(totals.trained, kept.get(&TurnState::Trained).copied().unwrap_or(0), "trained on once");
        assert_eq!(totals.trained, 4 * totals.steps, "a step and its turns are one");
        assert_eq!(backlog.ready, kept.get(&TurnState::Ready).copied().unwrap_or(0));
    }
    assert!(acknowledged.len() > 24, "{} turns", acknowledged.len());
}
