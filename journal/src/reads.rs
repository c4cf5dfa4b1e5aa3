//! What is read back.

use std::{sync::Arc, time::SystemTime};

use rusqlite::{OptionalExtension, Params, Row};

use super::{
    bodies::{Bodies, Part},
    codec::{Body, Opinion, TurnBody},
    episodes::Groups,
    error::JournalError,
    reader::Read,
    record::*,
    store::{millis, time},
    tally::Tally,
};
use crate::{
    episode::OWN_SESSIONS,
    signals::{Evaluate, Judged, Sample},
    turn::{Turn, TurnId},
};

/// Rows, and the turns among them whose parts cannot be read.
pub(crate) struct Page<T> {
    pub rows: Vec<T>,
    pub unreadable: Vec<(TurnId, JournalError)>,
}

struct Pending {
    no: i64,
    seq: u64,
    id: String,
    undone: u32,
}

impl Bodies<'_> {
    pub fn evaluations(&self, after: u64, limit: usize) -> Result<Page<(u64, Evaluate)>, JournalError> {
        self.pending(TurnState::Followed, after, limit, |&Pending { no, ref id, undone, .. }| {
            let turn = Arc::new(self.whole_turn(no, id)?);
            Ok(Evaluate { turn, next_state: self.get(no, id, Part::NextState)?, undone })
        })
    }

    pub fn judged(&self, after: u64, limit: usize) -> Result<Page<(u64, Judged)>, JournalError> {
        self.pending(TurnState::Judged, after, limit, |&Pending { no, ref id, undone, .. }| {
            let turn = Arc::new(self.whole_turn(no, id)?);
            let Opinion { verdict, hints, .. } = self.get_opinion(no, id)?;
            Ok(Judged { turn, verdict, hints, undone })
        })
    }

    pub fn samples(&self, after: u64, limit: usize) -> Result<Page<(u64, Sample)>, JournalError> {
        let mut groups = Groups::new();
        self.pending(TurnState::Ready, after, limit, |found| self.sample(found.no, &found.id, &mut groups))
    }

    fn sample(&self, no: i64, id: &str, groups: &mut Groups) -> Result<Sample, JournalError> {
        let turn = Arc::new(self.whole_turn(no, id)?);
        let standing = self.standing(no, id, groups)?;
        let verdict = self.get_opinion(no, id)?.verdict;
        Ok(Sample { turn, verdict, teacher: self.find(no, id, Part::Signal)?, standing })
    }

    fn pending<T>(
        &self,
        state: TurnState,
        after: u64,
        limit: usize,
        mut read: impl FnMut(&Pending) -> Result<T, JournalError>,
    ) -> Result<Page<(u64, T)>, JournalError> {
        // What is judged and taught may still be taken back; what is learnt may not.
        let sql = "SELECT no, seq, id, undone FROM turns
                   WHERE state = ?1 AND seq > ?2 AND died_in IS NULL AND NOT (state = 'ready' AND provisional)
                   ORDER BY seq LIMIT ?3";
        let found = self.select(sql, (state, after, limit), |row| {
            Ok(Pending { no: row.get(0)?, seq: row.get(1)?, id: row.get(2)?, undone: row.get(3)? })
        })?;
        let mut page = Page { rows: Vec::with_capacity(found.len()), unreadable: Vec::new() };
        for found in found {
            match read(&found) {
                Ok(work) => page.rows.push((found.seq, work)),
                Err(error) => page.unreadable.push((TurnId(found.id.into()), error)),
            }
        }
        Ok(page)
    }

    /// Turns whose next state may still be taken back, oldest first.
    pub fn provisional_turns(&self) -> Result<Vec<TurnId>, JournalError> {
        let sql = "SELECT id FROM turns WHERE provisional ORDER BY no";
        self.select(sql, (), |row| Ok(TurnId(row.get::<_, String>(0)?.into())))
    }

    /// Those of `turns` that a person rated or whose hint a person wrote, or that had another next state before, as they
    /// are to be learnt from now.
    pub fn overruled(&self, turns: &[TurnId]) -> Result<Vec<Sample>, JournalError> {
        let sql = "SELECT no FROM turns WHERE id = ?1 AND (undone > 0 OR EXISTS
                       (SELECT 1 FROM bodies WHERE turn = no AND part IN ('rating', 'hint')))";
        let (mut samples, mut groups) = (Vec::new(), Groups::new());
        for turn in turns {
            if let Some(no) = self.one(sql, [&*turn.0], |row| row.get(0))? {
                samples.push(self.sample(no, &turn.0, &mut groups)?);
            }
        }
        Ok(samples)
    }

    pub fn trainable(&self, turns: &[TurnId]) -> Result<Vec<TurnId>, JournalError> {
        let mut trainable = Vec::new();
        for turn in turns {
            let sql =
                "SELECT 1 FROM turns WHERE id = ?1 AND state IN ('ready', 'leased') AND NOT provisional";
            if self.one(sql, [&*turn.0], |_| Ok(()))?.is_some() {
                trainable.push(turn.clone());
            }
        }
        Ok(trainable)
    }

    pub fn open_turns(&self, since: SystemTime) -> Result<Page<RecordedTurn>, JournalError> {
        let sql = "SELECT no, id, state, completed_at, ended_at IS NOT NULL FROM turns
                   WHERE (state = 'waiting' OR session IN (SELECT session FROM turns WHERE completed_at >= ?1))
                       AND substr(session, 1, length(?2)) <> ?2
                   ORDER BY no";
        let found = self.select(sql, (millis(since), OWN_SESSIONS), |row| {
            let (no, id): (i64, String) = (row.get(0)?, row.get(1)?);
            Ok((no, id, row.get::<_, TurnState>(2)?, row.get::<_, i64>(3)?, row.get::<_, bool>(4)?))
        })?;
        let mut page = Page { rows: Vec::with_capacity(found.len()), unreadable: Vec::new() };
        for (no, id, state, completed, ended) in found {
            let waiting = state == TurnState::Waiting;
            match self.recorded(no, &id, waiting, time(completed)) {
                Ok(mut recorded) => {
                    recorded.mark.last |= ended;
                    page.rows.push(recorded);
                }
                Err(error) => page.unreadable.push((TurnId(id.into()), error)),
            }
        }
        Ok(page)
    }

    fn recorded(
        &self,
        no: i64,
        id: &str,
        waiting: bool,
        completed: SystemTime,
    ) -> Result<RecordedTurn, JournalError> {
        let body = self.turn_body(no, id)?;
        let mark = if waiting { self.whole_mark(no, id, &body)? } else { self.get(no, id, Part::Mark)? };
        let (turn, session, index, kind, trainable) = match body {
            TurnBody::Whole(turn) => {
                let Turn { id, session, index, kind, trainable, .. } = *turn;
                (id, session, index, kind, trainable)
            }
            TurnBody::Head(head) => (head.id(), head.session(), head.index(), head.kind(), head.trainable()),
        };
        let mut mark: TurnMark = mark;
        if !waiting {
            // There are many of them, and long conversations have long chains.
            mark.chain = mark.chain.last().copied().into_iter().collect();
        }
        let rated = if waiting { self.find(no, id, Part::Rating)? } else { None };
        Ok(RecordedTurn { turn, session, index, kind, trainable, mark, waiting, rated, completed })
    }

    pub fn turn(&self, id: &TurnId) -> Result<Option<TurnRow>, JournalError> {
        let sql = "SELECT *, died_in IS NOT NULL AS dead FROM turns WHERE id = ?1";
        let found = self.one(sql, [&*id.0], |row| {
            let (no, completed): (i64, i64) = (row.get("no")?, row.get("completed_at")?);
            let (state, dead, reason) = (row.get("state")?, row.get("dead")?, row.get("reason")?);
            // A file that its writer has not opened since does not have the column.
            let provisional: bool = row.get("provisional").unwrap_or_default();
            Ok((no, state, dead, provisional, reason, row.get("step")?, row.get("version")?, completed))
        })?;
        let Some((no, state, dead, provisional, reason, step, version, completed)) = found else {
            return Ok(None);
        };
        let (verdict, answers, hints, hint_answers) = match self.opinion(no, &id.0)? {
            Some(Opinion { verdict, answers, hints, hint_answers }) => {
                (Some(verdict), answers, hints, hint_answers)
            }
            None => Default::default(),
        };
        let corrected: Option<String> = self.find(no, &id.0, Part::Hint)?;
        // Also where no judge has read the turn yet.
        let hints = corrected.as_ref().map_or(hints, |hint| vec![hint.clone()]);
        Ok(Some(TurnRow {
            turn: Arc::new(self.whole_turn(no, &id.0)?),
            state,
            dead,
            reason,
            step,
            version,
            next_state: self.find(no, &id.0, Part::NextState)?,
            provisional,
            verdict,
            answers,
            hints,
            hint_answers,
            rated: self.find(no, &id.0, Part::Rating)?,
            corrected,
            signal: self.find(no, &id.0, Part::Signal)?,
            completed: time(completed),
        }))
    }

    pub fn states(&self) -> Result<Vec<(TurnState, u64)>, JournalError> {
        self.select("SELECT state, count(*) FROM turns GROUP BY state", (), |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
    }

    pub fn versions(&self) -> Result<Vec<VersionRow>, JournalError> {
        self.select(&format!("{VERSION} ORDER BY number"), (), version)
    }

    pub fn current_version(&self) -> Result<Option<VersionRow>, JournalError> {
        let tally = self.tally()?;
        self.one(&format!("{VERSION} WHERE number = ?1"), [tally.totals.version], version)
    }

    pub fn resumable_version(&self) -> Result<Option<VersionRow>, JournalError> {
        let tally = self.tally()?;
        self.one(&format!("{VERSION} WHERE number = ?1"), [tally.resumable], version)
    }

    pub fn last_version_number(&self) -> Result<u64, JournalError> {
        let last = self.one("SELECT coalesce(max(number), 0) FROM versions", (), |row| row.get(0))?;
        Ok(last.unwrap_or(0))
    }

    pub fn last_step(&self) -> Result<u64, JournalError> {
        let last = self.one("SELECT coalesce(max(step), 0) FROM steps", (), |row| row.get(0))?;
        Ok(last.unwrap_or(0))
    }

    pub fn steps(&self, limit: usize) -> Result<Vec<StepRow>, JournalError> {
        let latest = self.read_steps("ORDER BY no DESC LIMIT ?1", [limit])?;
        latest.into_iter().map(|(_, step)| step).collect()
    }

    /// The steps that `which` chooses, each with its place, or why it cannot be read.
    pub fn read_steps<P: Params>(&self, which: &str, params: P) -> Result<Vec<Read<StepRow>>, JournalError> {
        let columns = "no, step, version, withheld, turns, fingerprint, at, report";
        let rows = self.select(&format!("SELECT {columns} FROM steps {which}"), params, |row| {
            let step = StepRow {
                step: row.get(1)?,
                version: row.get(2)?,
                withheld: row.get(3)?,
                turns: row.get(4)?,
                fingerprint: row.get(5)?,
                when: time(row.get(6)?),
                report: Default::default(),
            };
            Ok((row.get(0)?, step, row.get::<_, Vec<u8>>(7)?))
        })?;
        let read = |(place, row, report): (u64, StepRow, Vec<u8>)| {
            let of = format!("step {}", row.step);
            let form = |source| JournalError::Form { what: Part::Report.name(), of, source };
            (place, Body::decode(&report).map_err(form).map(|report| StepRow { report, ..row }))
        };
        Ok(rows.into_iter().map(read).collect())
    }

    pub fn dead(&self, limit: usize) -> Result<Vec<DeadTurn>, JournalError> {
        let sql = "SELECT id, state, died_in, died_after, died_at, reason FROM turns
                   WHERE died_in IS NOT NULL ORDER BY died_at, no LIMIT ?1";
        self.select(sql, [limit], |row| {
            Ok(DeadTurn {
                turn: TurnId(row.get::<_, String>(0)?.into()),
                state: row.get(1)?,
                inbox: row.get(2)?,
                attempts: row.get(3)?,
                when: time(row.get(4)?),
                reason: row.get(5)?,
            })
        })
    }

    pub fn audit(&self, limit: usize) -> Result<Vec<AuditRow>, JournalError> {
        let sql = "SELECT at, verb, target, outcome FROM audit ORDER BY no DESC LIMIT ?1";
        self.select(sql, [limit], |row| {
            Ok(AuditRow {
                when: time(row.get(0)?),
                verb: row.get(1)?,
                target: row.get(2)?,
                outcome: row.get(3)?,
            })
        })
    }

    fn tally(&self) -> Result<Tally, JournalError> {
        Tally::load(self.connection).map_err(|source| JournalError::database(self.path, source))
    }

    pub(crate) fn select<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, JournalError> {
        self.connection
            .prepare_cached(sql)
            .and_then(|mut select| select.query_map(params, read)?.collect())
            .map_err(|source| JournalError::database(self.path, source))
    }

    pub(crate) fn one<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, JournalError> {
        self.connection
            .prepare_cached(sql)
            .and_then(|mut select| select.query_row(params, read).optional())
            .map_err(|source| JournalError::database(self.path, source))
    }
}

const VERSION: &str =
    "SELECT number, step, base, fingerprint, checkpoint, published_at IS NOT NULL, at FROM versions";

fn version(row: &Row<'_>) -> rusqlite::Result<VersionRow> {
    Ok(VersionRow {
        number: row.get(0)?,
        step: row.get(1)?,
        base: row.get(2)?,
        fingerprint: row.get(3)?,
        checkpoint: row.get(4)?,
        published: row.get(5)?,
        when: time(row.get(6)?),
    })
}
