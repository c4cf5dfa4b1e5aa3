//! Keeps the journal within its limits: settled turns leave when they are old or too many, and the oldest that
//! nobody has judged are given up when too much is open.

use std::time::{Duration, SystemTime};

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::{
    apply::Applying,
    error::JournalError,
    record::Record,
    schema::SETTLED,
    store::{Store, millis},
    tally::Tally,
};
use crate::turn::TurnId;

/// Turns of one transaction.
const TURNS_AT_ONCE: usize = 64;
/// Pages given back to the file system after one.
const PAGES_AT_ONCE: usize = 1024;
/// Rows kept of steps, versions and operators' requests: small, but they only grow.
const ROWS_KEPT: u32 = 10_000;

/// How much is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Settled turns that changed longer ago leave.
    pub keep: Duration,
    /// The database and its files; beyond it the oldest settled turns leave.
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
pub(crate) struct Pruned {
    /// Turns that left.
    pub turns: usize,
    /// What the journal holds now.
    pub bytes: u64,
}

impl Pruned {
    /// There may be more to prune.
    pub fn is_full(&self) -> bool {
        self.turns == TURNS_AT_ONCE
    }
}

/// One small transaction of pruning.
pub(crate) fn prune(store: &Store, retention: &Retention, now: SystemTime) -> Result<Pruned, JournalError> {
    let cutoff = millis(now.checked_sub(retention.keep).unwrap_or(SystemTime::UNIX_EPOCH));
    let (turns, files, bytes) = prune_rows(&mut store.writing(), cutoff, retention.max_bytes)
        .map_err(|source| store.refused(source))?;
    // After the commit: a file that is left behind is swept at the next start, one that is missed is a loss.
    for file in files {
        if let Some(folder) = store.folder() {
            folder.remove(&file)?;
        }
    }
    Ok(Pruned { turns, bytes })
}

fn prune_rows(
    connection: &mut Connection,
    cutoff: i64,
    max_bytes: u64,
) -> rusqlite::Result<(usize, Vec<String>, u64)> {
    let too_large = size_bytes(connection)? > max_bytes;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let old = format!("{SETTLED} AND (?1 OR changed_at < ?2)");
    let turns: Vec<i64> = transaction
        .prepare_cached(&format!("SELECT no FROM turns WHERE {old} ORDER BY seq LIMIT ?3"))?
        .query_map((too_large, cutoff, TURNS_AT_ONCE), |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let mut files = Vec::new();
    for no in &turns {
        files.extend(delete_turn(&transaction, *no)?);
    }
    let mut unnamed =
        transaction.prepare_cached("SELECT NOT EXISTS (SELECT 1 FROM bodies WHERE file = ?1)")?;
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
    transaction.commit()?;
    let mut vacuum = connection.prepare_cached(&format!("PRAGMA incremental_vacuum({PAGES_AT_ONCE})"))?;
    let mut pages = vacuum.query([])?;
    while pages.next()?.is_some() {}
    drop(pages);
    drop(vacuum);
    Ok((turns.len(), gone, size_bytes(connection)?))
}

fn delete_turn(transaction: &Transaction<'_>, no: i64) -> rusqlite::Result<Vec<String>> {
    let files = transaction
        .prepare_cached("SELECT DISTINCT file FROM bodies WHERE turn = ?1 AND file IS NOT NULL")?
        .query_map([no], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    transaction.prepare_cached("DELETE FROM turns WHERE no = ?1")?.execute([no])?;
    Ok(files)
}

/// Pages in use, and the files beside them.
pub(crate) fn size_bytes(connection: &Connection) -> rusqlite::Result<u64> {
    connection
        .prepare_cached(
            "SELECT (page_count - freelist_count) * page_size
                 + (SELECT coalesce(sum(bytes), 0) FROM (SELECT DISTINCT file, bytes FROM bodies
                        WHERE file IS NOT NULL))
             FROM pragma_page_count, pragma_freelist_count, pragma_page_size",
        )?
        .query_row([], |row| row.get(0))
}

/// Gives up the oldest open turns that nobody has judged, as many as there are too many. How many that were.
pub(crate) fn shed(
    store: &Store,
    retention: &Retention,
    tally: &mut Tally,
    now: i64,
) -> Result<usize, JournalError> {
    let too_many = tally.open_turns().saturating_sub(retention.max_backlog_turns);
    if too_many == 0 {
        return Ok(0);
    }
    let mut connection = store.writing();
    let mut shed = || -> rusqlite::Result<usize> {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let ids: Vec<String> = transaction
            .prepare_cached(
                "SELECT id FROM turns WHERE state IN ('waiting', 'followed') ORDER BY no LIMIT ?1",
            )?
            .query_map([too_many.min(TURNS_AT_ONCE as u64)], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        let mut after = *tally;
        for id in &ids {
            let record = Record::TurnDropped { turn: TurnId(id.as_str().into()), reason: "backlog" };
            // Found open in this very transaction, so never stale.
            let _done = Applying { connection: &transaction, tally: &mut after, now }.apply(&record, &[])?;
        }
        after.save(*tally, &transaction)?;
        transaction.commit()?;
        *tally = after;
        Ok(ids.len())
    };
    shed().map_err(|source| store.refused(source))
}
