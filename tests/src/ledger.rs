//! What a run's journal says of it, read from the file alone, as an auditor would.

use std::{
    collections::{BTreeMap, HashSet},
    path::Path,
};

use rusqlite::{Connection, OpenFlags};

/// A journal, opened to be read; the node may be running.
pub struct Ledger {
    journal: Connection,
}

impl Ledger {
    /// Of the run in this folder.
    pub fn open(run_dir: &Path) -> Self {
        let path = run_dir.join("journal.db");
        let journal = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY);
        Self { journal: journal.expect("the journal can be read") }
    }

    fn rows<T: rusqlite::types::FromSql, U: rusqlite::types::FromSql>(&self, query: &str) -> Vec<(T, U)> {
        let mut statement = self.journal.prepare(query).expect("a query");
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("rows");
        rows.collect::<Result<_, _>>().expect("two columns of these types")
    }

    /// How many turns are in each state.
    pub fn states(&self) -> BTreeMap<String, u64> {
        self.rows("SELECT state, count(*) FROM turns GROUP BY state").into_iter().collect()
    }

    /// Turns that somebody has yet to work on, dead ones included.
    pub fn under_way(&self) -> u64 {
        let states = self.states();
        ["followed", "judged", "ready", "leased"].iter().filter_map(|state| states.get(*state)).sum()
    }

    /// Those of `ids` that are not in the journal.
    pub fn missing<'a>(&self, ids: impl IntoIterator<Item = &'a String>) -> Vec<String> {
        let known: HashSet<String> =
            self.rows::<String, i64>("SELECT id, no FROM turns").into_iter().map(|(id, _)| id).collect();
        ids.into_iter().filter(|id| !known.contains(*id)).cloned().collect()
    }

    /// Those of `ids` that wait as if nobody had rated them.
    pub fn not_rated<'a>(&self, ids: impl IntoIterator<Item = &'a String>) -> Vec<String> {
        let rated =
            "SELECT id, no FROM turns WHERE no IN (SELECT turn FROM bodies WHERE part = 'next_state')";
        let rated: HashSet<String> = self.rows::<String, i64>(rated).into_iter().map(|(id, _)| id).collect();
        ids.into_iter().filter(|id| !rated.contains(*id)).cloned().collect()
    }

    /// Those of `sessions` that are as if nobody had ended them.
    pub fn not_ended<'a>(&self, sessions: impl IntoIterator<Item = &'a String>) -> Vec<String> {
        let open = self.rows::<String, i64>("SELECT session, no FROM turns WHERE ended_at IS NULL");
        let open: HashSet<String> = open.into_iter().map(|(session, _)| session).collect();
        sessions.into_iter().filter(|session| open.contains(*session)).cloned().collect()
    }

    /// The numbers of each episode's steps, in order, by the names of episodes.
    pub fn episode_steps(&self) -> BTreeMap<String, Vec<u64>> {
        let mut steps: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        let query =
            "SELECT episodes.id, place FROM episode_steps JOIN episodes ON no = episode ORDER BY no, place";
        for (episode, place) in self.rows::<String, u64>(query) {
            steps.entry(episode).or_default().push(place);
        }
        steps
    }

    /// Episodes by how they stand: `open`, `ended`, or why they were abandoned.
    pub fn episodes(&self) -> BTreeMap<String, u64> {
        let state = "CASE WHEN abandoned IS NOT NULL THEN abandoned WHEN outcome IS NULL THEN 'open' ELSE 'ended' END";
        self.rows(&format!("SELECT {state}, count(*) FROM episodes GROUP BY 1")).into_iter().collect()
    }

    /// The numbers of the steps that were applied.
    pub fn steps(&self) -> Vec<u64> {
        let steps =
            self.rows::<u64, u64>("SELECT step, version FROM steps WHERE withheld IS NULL ORDER BY step");
        steps.into_iter().map(|(step, _)| step).collect()
    }

    /// Versions that live on: those with a folder, and those that they were trained from. A version that lived in
    /// memory alone is lost with its process, and its samples are learnt from again.
    fn lasting_versions(&self) -> HashSet<u64> {
        let bases: BTreeMap<u64, u64> = self.rows("SELECT number, base FROM versions").into_iter().collect();
        let kept = self.rows::<u64, u64>("SELECT number, base FROM versions WHERE checkpoint");
        let mut lasting = HashSet::new();
        for (mut version, _) in kept {
            while version > 0 && lasting.insert(version) {
                version = bases[&version];
            }
        }
        lasting
    }

    /// Panics unless the steps, withheld ones included, are numbered without a gap from 1, and every sample was learnt from in one lasting step
    /// alone: a step that counts more turns than name it has lost one to a later step.
    pub fn assert_trained_once(&self) {
        let all = self.rows::<u64, i64>("SELECT step, no FROM steps ORDER BY step");
        let numbers: Vec<u64> = all.into_iter().map(|(step, _)| step).collect();
        assert_eq!(
            numbers,
            (1..=numbers.len() as u64).collect::<Vec<_>>(),
            "steps are numbered without a gap"
        );
        let lasting = self.lasting_versions();
        let of_version = self.rows::<u64, u64>("SELECT version, step FROM steps WHERE withheld IS NULL");
        let lost: HashSet<u64> = of_version
            .iter()
            .filter(|(version, _)| !lasting.contains(version))
            .map(|(_, step)| *step)
            .collect();
        let mut counted: BTreeMap<u64, u64> =
            self.rows("SELECT step, turns FROM steps WHERE withheld IS NULL").into_iter().collect();
        counted.retain(|step, _| !lost.contains(step));
        let named: BTreeMap<u64, u64> = self
            .rows("SELECT step, count(*) FROM turns WHERE state = 'trained' GROUP BY step")
            .into_iter()
            .collect();
        assert_eq!(named, counted, "turns that name each lasting step, and those it counted");
    }
}
