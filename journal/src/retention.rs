//! Keeps the journal within its limits: settled turns leave when they are old or too many, and the oldest that
//! nobody has judged are given up when too much is open. What was judged and is owed to training stays.

use std::time::{Duration, SystemTime};

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior};

use super::{
    apply::Applying,
    contents,
    error::JournalError,
    record::Record,
    schema::SETTLED,
    store::{Store, millis},
    tally::Tally,
};
use crate::turn::TurnId;

/// What a turn holds: its parts, and its words where they are not left to others.
const BYTES: &str = "(SELECT coalesce(sum(bytes), 0) FROM bodies WHERE turn = turns.no)
    + (SELECT coalesce(sum(bytes), 0) FROM contents WHERE contents.no = turns.no)";

const DAY_MILLIS: i64 = 24 * 3600 * 1000;
/// Turns of one transaction.
const TURNS_AT_ONCE: usize = 64;
/// Pages given back to the file system after one.
const PAGES_AT_ONCE: usize = 1024;
/// Rows kept of steps, versions and operators' requests: small, but they only grow.
const ROWS_KEPT: u32 = 10_000;

/// How much is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Settled turns leave once the journal was written on this many days since they changed, in whole days. Days that
    /// nobody saw do not count: what cannot be undone is not done because a clock was set forward.
    pub keep: Duration,
    /// The database and its files; beyond it the oldest settled turns leave, and where none is left, the oldest that wait
    /// for their next state or a judge are dropped.
    pub max_bytes: u64,
    /// Turns that are not settled; beyond it the oldest that wait for their next state or a judge are dropped.
    pub max_backlog_turns: u64,
    /// How often age and size are looked at.
    pub period: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            keep: Duration::from_secs(30 * 24 * 3600),
            max_bytes: 4 << 30,
            max_backlog_turns: 20_000,
            period: Duration::from_secs(10),
        }
    }
}

/// What one look did.
#[derive(Debug)]
pub(crate) struct Pruned {
    /// Turns that left.
    pub turns: usize,
    /// What the journal holds now.
    pub bytes: u64,
    /// There may be more to prune.
    pub more: bool,
}

/// One small transaction of pruning.
pub(crate) fn prune(store: &Store, retention: &Retention, now: SystemTime) -> Result<Pruned, JournalError> {
    let (pruned, files) =
        prune_rows(&mut store.writing(), retention, millis(now)).map_err(|source| store.refused(source))?;
    // After the commit: a file that is left behind is swept at the next start, one that is missed is a loss.
    for file in files {
        if let Some(folder) = store.folder() {
            folder.remove(&file)?;
        }
    }
    Ok(pruned)
}

fn prune_rows(
    connection: &mut Connection,
    retention: &Retention,
    now: i64,
) -> rusqlite::Result<(Pruned, Vec<String>)> {
    let mut excess = size_bytes(connection)?.saturating_sub(retention.max_bytes);
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let cutoff = cutoff(&transaction, retention.keep, now)?;
    let settled: Vec<(i64, i64, u64)> = transaction
        .prepare_cached(&format!(
            "SELECT no, changed_at, {BYTES} FROM turns WHERE {SETTLED} AND (?1 OR changed_at < ?2) ORDER BY seq LIMIT ?3"
        ))?
        .query_map((excess > 0, cutoff, TURNS_AT_ONCE), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let mut files = Vec::new();
    let mut turns = 0;
    for (no, changed_at, bytes) in settled {
        // Beyond the limit the oldest go, and no more of them than it takes.
        if changed_at >= cutoff && excess == 0 {
            continue;
        }
        files.extend(delete_turn(&transaction, no)?);
        excess = excess.saturating_sub(bytes.max(1));
        turns += 1;
    }
    let mut unnamed =
        transaction.prepare_cached("SELECT NOT EXISTS (SELECT 1 FROM files WHERE file = ?1)")?;
    let mut gone = Vec::new();
    for file in files {
        if unnamed.query_row([&file], |row| row.get(0))? {
            gone.push(file);
        }
    }
    drop(unnamed);
    let in_use = "number IN (SELECT value FROM totals WHERE name IN ('version', 'resumable'))";
    for (table, key, unless) in [("steps", "no", "0"), ("versions", "number", in_use), ("audit", "no", "0")] {
        let old = format!("{key} <= (SELECT max({key}) FROM {table}) - {ROWS_KEPT}");
        transaction.execute(&format!("DELETE FROM {table} WHERE {old} AND NOT {unless}"), [])?;
    }
    // An episode is kept as long as one of its turns, or of its group's.
    transaction.execute(
        "DELETE FROM episodes WHERE ended_at < ?1 AND NOT EXISTS
             (SELECT 1 FROM episodes AS beside JOIN turns ON turns.episode = beside.no
              WHERE beside.team = episodes.team)",
        [if excess > 0 { i64::MAX } else { cutoff }],
    )?;
    transaction.commit()?;
    let mut vacuum = connection.prepare_cached(&format!("PRAGMA incremental_vacuum({PAGES_AT_ONCE})"))?;
    let mut pages = vacuum.query([])?;
    while pages.next()?.is_some() {}
    drop(pages);
    drop(vacuum);
    let bytes = size_bytes(connection)?;
    let free_pages: usize = connection.pragma_query_value(None, "freelist_count", |row| row.get(0))?;
    // What left beyond the limit may have left its words to the turns that go on from it.
    let more =
        turns == TURNS_AT_ONCE || turns > 0 && bytes > retention.max_bytes || free_pages >= PAGES_AT_ONCE;
    Ok((Pruned { turns, bytes, more }, gone))
}

/// What changed before is old: the beginning of the earliest day that is kept. Notes that today was seen.
fn cutoff(transaction: &Transaction<'_>, keep: Duration, now: i64) -> rusqlite::Result<i64> {
    let today = now.div_euclid(DAY_MILLIS);
    transaction.prepare_cached("INSERT OR IGNORE INTO days (day) VALUES (?1)")?.execute([today])?;
    let days = keep.as_secs().div_ceil(DAY_MILLIS as u64 / 1000);
    if days == 0 {
        return Ok(i64::MAX);
    }
    let earliest: Option<i64> = transaction
        .prepare_cached("SELECT day FROM days WHERE day <= ?1 ORDER BY day DESC LIMIT 1 OFFSET ?2")?
        .query_row((today, days - 1), |row| row.get(0))
        .optional()?;
    let by_the_clock = now.saturating_sub(i64::try_from(keep.as_millis()).unwrap_or(i64::MAX));
    Ok(earliest.map_or(i64::MIN, |day| (day * DAY_MILLIS).min(by_the_clock)))
}

fn delete_turn(transaction: &Transaction<'_>, no: i64) -> rusqlite::Result<Vec<String>> {
    let mut files: Vec<String> = transaction
        .prepare_cached("SELECT DISTINCT file FROM bodies WHERE turn = ?1 AND file IS NOT NULL")?
        .query_map([no], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    transaction.prepare_cached("DELETE FROM turns WHERE no = ?1")?.execute([no])?;
    files.extend(contents::release(transaction, no)?);
    Ok(files)
}

/// Pages in use, and the files beside them.
pub(crate) fn size_bytes(connection: &Connection) -> rusqlite::Result<u64> {
    connection
        .prepare_cached(
            "SELECT (page_count - freelist_count) * page_size
                 + (SELECT coalesce(sum(bytes), 0) FROM files)
             FROM pragma_page_count, pragma_freelist_count, pragma_page_size",
        )?
        .query_row([], |row| row.get(0))
}

/// Gives up the oldest open turns that nobody has judged: as many as there are too many, and as many as it takes to
/// come within the limit of bytes, if that is looked at, where nothing settled is left to leave. How many that were, and
/// why.
pub(crate) fn shed(
    store: &Store,
    retention: &Retention,
    tally: &mut Tally,
    now: i64,
    by_size: bool,
) -> Result<Option<(usize, &'static str)>, JournalError> {
    let mut connection = store.writing();
    let mut shed = || -> rusqlite::Result<Option<(usize, &'static str)>> {
        let too_many = tally.open_turns().saturating_sub(retention.max_backlog_turns);
        let excess = match too_many {
            0 if by_size => unsettled_excess(&connection, retention)?,
            _ => 0,
        };
        let (reason, most) = match (too_many, excess) {
            (0, 0) => return Ok(None),
            (0, _) => ("size", TURNS_AT_ONCE),
            _ => ("backlog", too_many.min(TURNS_AT_ONCE as u64) as usize),
        };
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let oldest: Vec<(String, u64)> = transaction
            .prepare_cached(&format!(
                "SELECT id, {BYTES} FROM turns WHERE state IN ('waiting', 'followed') ORDER BY no LIMIT ?1"
            ))?
            .query_map([most], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<rusqlite::Result<_>>()?;
        let mut after = *tally;
        let (mut turns, mut freed) = (0, 0);
        for (id, bytes) in &oldest {
            if reason == "size" && freed >= excess {
                break;
            }
            let record = Record::TurnDropped { turn: TurnId(id.as_str().into()), reason };
            // Found open in this very transaction, so never stale.
            let _done = Applying { connection: &transaction, tally: &mut after, now }.apply(&record, &[])?;
            turns += 1;
            freed += bytes;
        }
        after.save(*tally, &transaction)?;
        transaction.commit()?;
        *tally = after;
        Ok((turns > 0).then_some((turns, reason)))
    };
    shed().map_err(|source| store.refused(source))
}

/// Bytes beyond the limit that no settled turn could give back.
fn unsettled_excess(connection: &Connection, retention: &Retention) -> rusqlite::Result<u64> {
    let excess = size_bytes(connection)?.saturating_sub(retention.max_bytes);
    if excess == 0 {
        return Ok(0);
    }
    let settled = format!("SELECT EXISTS (SELECT 1 FROM turns WHERE {SETTLED})");
    let is_any: bool = connection.prepare_cached(&settled)?.query_row([], |row| row.get(0))?;
    Ok(if is_any { 0 } else { excess })
}
