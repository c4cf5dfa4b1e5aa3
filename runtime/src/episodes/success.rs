//! `episodes success`: how often tasks were done, by environment, split and version of the policy.

use std::collections::BTreeMap;

use openclaw_journal::{EpisodeRow, EpisodeState, JournalReader};
use serde_json::{Value, json};

use super::{NAME_CELLS, each};
use crate::operate::columns::{Column, lines, short};

/// Most rows of an environment's split.
const MOST_ROWS: u64 = 12;

/// Episodes of one environment, one split and a few versions.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    environment: String,
    split: &'static str,
    /// The first and the last version; none where the first turn has left the journal.
    versions: Option<(u64, u64)>,
    tally: Tally,
}

/// What is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Tally {
    /// Episodes that came out.
    episodes: u64,
    /// Those that did their task.
    successes: u64,
    steps: u64,
}

/// By environment and split, and then by version; none where an episode's first turn has left the journal.
type Counted = BTreeMap<(String, &'static str), BTreeMap<Option<u64>, Tally>>;

/// Reads every episode that came out.
pub(super) fn count(reader: &JournalReader, environment: Option<&str>) -> anyhow::Result<Vec<Row>> {
    let mut counted = Counted::new();
    each(reader, environment, |row| {
        if matches!(row.state, EpisodeState::Ended(_)) {
            add(&mut counted, &row, reader.first_version(row.no)?);
        }
        Ok(true)
    })?;
    Ok(rows(counted))
}

/// An episode is of the version that took its first step. One without a group is no training.
fn add(counted: &mut Counted, row: &EpisodeRow, version: Option<u64>) {
    let EpisodeState::Ended(outcome) = &row.state else { return };
    let split = if row.episode.group.is_some() { "train" } else { "held-out" };
    let versions = counted.entry((row.episode.environment.to_string(), split)).or_default();
    let tally = versions.entry(version).or_default();
    tally.episodes += 1;
    tally.successes += u64::from(outcome.success == Some(true));
    tally.steps += u64::from(row.steps);
}

fn rows(counted: Counted) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for ((environment, split), versions) in counted {
        let known = || versions.keys().filter_map(|version| *version);
        let (first, last) = (known().min().unwrap_or(0), known().max().unwrap_or(0));
        // A row is left for those of no known version.
        let most = MOST_ROWS - u64::from(versions.contains_key(&None));
        let width = (last - first + 1).div_ceil(most);
        let mut ranges: BTreeMap<Option<u64>, Tally> = BTreeMap::new();
        for (version, tally) in versions {
            let of = ranges.entry(version.map(|version| (version - first) / width)).or_default();
            of.episodes += tally.episodes;
            of.successes += tally.successes;
            of.steps += tally.steps;
        }
        rows.extend(ranges.into_iter().map(|(range, tally)| Row {
            environment: environment.clone(),
            split,
            versions: range.map(|range| {
                let begin = first + range * width;
                (begin, (begin + width - 1).min(last))
            }),
            tally,
        }));
    }
    rows
}

impl Tally {
    fn share(self) -> f64 {
        self.successes as f64 / self.episodes.max(1) as f64
    }

    fn mean_steps(self) -> f64 {
        self.steps as f64 / self.episodes.max(1) as f64
    }
}

/// For a person.
pub(super) fn table(rows: &[Row]) -> Vec<String> {
    let columns = [
        Column::Left("ENVIRONMENT"),
        Column::Left("SPLIT"),
        Column::Right("VERSIONS"),
        Column::Right("EPISODES"),
        Column::Right("SUCCESSES"),
        Column::Right("SHARE"),
        Column::Right("STEPS"),
    ];
    let cells = |Row { environment, split, versions, tally }: &Row| {
        let versions = match versions {
            None => "unknown".to_owned(),
            Some((first, last)) if first == last => first.to_string(),
            Some((first, last)) => format!("{first}-{last}"),
        };
        [
            short(environment, NAME_CELLS),
            (*split).to_owned(),
            versions,
            tally.episodes.to_string(),
            tally.successes.to_string(),
            format!("{:.0} %", 100.0 * tally.share()),
            format!("{:.1}", tally.mean_steps()),
        ]
    };
    lines(&columns, &rows.iter().map(cells).collect::<Vec<_>>())
}

/// For a program.
pub(super) fn told(row: &Row) -> Value {
    let Row { environment, split, versions, tally } = row;
    json!({
        "environment": environment,
        "split": split,
        "versions": versions,
        "episodes": tally.episodes,
        "successes": tally.successes,
        "share": tally.share(),
        "mean_steps": tally.mean_steps(),
    })
}

#[cfg(test)]
mod tests {
    use openclaw_journal::Outcome;

    use super::*;
    use crate::episodes::tests::row;

    fn ended(success: bool) -> EpisodeRow {
        let outcome = Outcome { reward: 0.0, success: Some(success), numbers: BTreeMap::new() };
        row(EpisodeState::Ended(outcome))
    }

    #[test]
    fn versions_share_rows_where_there_are_many() {
        let mut counted = Counted::new();
        for version in 3..103 {
            add(&mut counted, &ended(version >= 53), Some(version));
        }
        add(&mut counted, &ended(false), None);
        let mut held_out = ended(true);
        held_out.episode.group = None;
        add(&mut counted, &held_out, Some(7));
        add(&mut counted, &row(EpisodeState::Open), Some(9));
        let rows = rows(counted);
        let of = |split: &str| rows.iter().filter(|row| row.split == split).cloned().collect::<Vec<_>>();
        assert_eq!(of("held-out")[0].versions, Some((7, 7)));
        let train = of("train");
        assert!(train.len() as u64 <= MOST_ROWS, "{train:?}");
        assert_eq!(train.iter().map(|row| row.tally.episodes).sum::<u64>(), 101);
        assert_eq!((train[0].versions, train[1].versions), (None, Some((3, 12))));
        assert_eq!((train[1].tally.share(), train[10].tally.share()), (0.0, 1.0));
        assert_eq!((train[10].versions, train[10].tally.mean_steps()), (Some((93, 102)), 2.0));
        let table = table(&rows);
        assert_eq!(table[0], "ENVIRONMENT  SPLIT     VERSIONS  EPISODES  SUCCESSES  SHARE  STEPS");
        assert_eq!(table[1], "tool_call    held-out         7         1          1  100 %    2.0");
        assert_eq!(told(&rows[2])["versions"], json!([3, 12]));
    }
}
