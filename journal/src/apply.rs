//! What each record changes.

use rusqlite::{Connection, OptionalExtension};

use super::{
    bodies::{Kept, Part},
    codec::Body,
    contents,
    record::{Record, Recorded, StepCommit, TurnState, WITHDRAWN},
    tally::{Place, Tally},
};
use crate::{
    signals::Verdict,
    turn::{Turn, TurnId, TurnKind},
};

/// Applies records within a transaction.
pub(crate) struct Applying<'c> {
    pub connection: &'c Connection,
    pub tally: &'c mut Tally,
    /// Milliseconds since 1970.
    pub now: i64,
}

struct Found {
    no: i64,
    state: TurnState,
    dead: bool,
    /// Its next state may still be taken back.
    provisional: bool,
    /// Next states that were taken back.
    undone: u32,
}

impl Found {
    fn place(&self) -> Place {
        Place { state: self.state, dead: self.dead, provisional: self.provisional }
    }
}

/// The state that a turn gets.
pub(crate) struct Next<'a> {
    state: TurnState,
    reason: Option<&'a str>,
    step: Option<u64>,
    version: Option<u64>,
}

impl From<TurnState> for Next<'_> {
    fn from(state: TurnState) -> Self {
        Self { state, reason: None, step: None, version: None }
    }
}

impl Applying<'_> {
    pub fn apply(&mut self, record: &Record, bodies: &[Kept]) -> rusqlite::Result<Recorded> {
        let done = match record {
            Record::TurnCompleted { turn, mark } => self.complete(turn, mark.before, bodies)?,
            Record::NextStateSeen { turn, next_state, provisional } => {
                let is_judged = self.is_judged(turn)?;
                let next = if is_judged { TurnState::Followed } else { TurnState::Held };
                let done = self.change(turn, TurnState::Waiting, next.into(), bodies)?;
                if done && *provisional {
                    self.connection
                        .prepare_cached("UPDATE turns SET provisional = 1 WHERE id = ?1")?
                        .execute([&*turn.0])?;
                }
                if let (true, false, Some(rating)) = (done, is_judged, next_state.rating) {
                    self.score(turn, Some(f32::from(rating.signum())))?;
                }
                self.tally.totals.next_states += u64::from(done);
                done
            }
            Record::NextStateSettled { turn } => self.settle_next_state(turn)?,
            Record::NextStateUndone { turn } => self.undo_next_state(turn)?,
            Record::Judged { turn, undone, verdict, hints, teach, wish, .. } => {
                let teach = *teach || self.corrected_hint(turn)?.is_some();
                let next = if teach { TurnState::Judged } else { self.after_signals(turn)? };
                let done = self.is_about(turn, *undone)?
                    && self.change(turn, TurnState::Followed, next.into(), bodies)?;
                if done {
                    self.judge_step(turn, verdict)?;
                    let totals = &mut self.tally.totals;
                    match verdict.reward {
                        Some(1) => totals.approved += 1,
                        Some(-1) => totals.rejected += 1,
                        _ => totals.neutral += 1,
                    }
                    totals.hinted += u64::from(!hints.is_empty());
                    totals.samples += u64::from(next == TurnState::Ready);
                    if next == TurnState::Held {
                        self.release_held(turn)?;
                    }
                    if let Some(wish) = wish {
                        self.voice_wish(turn, wish)?;
                    }
                }
                done
            }
            Record::Taught { turn, undone, signal } => {
                // A teacher that was at it when a person wrote the hint has scored the one before.
                let is_outdated = match (self.corrected_hint(turn)?, signal) {
                    (Some(hint), Some(signal)) => signal.hint != hint,
                    _ => false,
                };
                let next = self.after_signals(turn)?;
                let done = !is_outdated
                    && self.is_about(turn, *undone)?
                    && self.change(turn, TurnState::Judged, next.into(), bodies)?;
                self.tally.totals.samples += u64::from(done && next == TurnState::Ready);
                self.tally.totals.taught += u64::from(done);
                if done && next == TurnState::Held {
                    self.release_held(turn)?;
                }
                done
            }
            Record::TurnDropped { turn, reason } if self.is_last_for_now(turn, reason)? => {
                self.change(turn, TurnState::Waiting, TurnState::Held.into(), &[])?
            }
            Record::TurnDropped { turn, reason } => self.give_up(turn, reason)?,
            Record::TurnWithdrawn { turn } => self.withdraw(turn)?,
            Record::Rated { turn, rating } => {
                let done = self.rate(turn, bodies)?;
                if done {
                    self.score(turn, Some(f32::from(*rating)))?;
                }
                done
            }
            Record::HintCorrected { turn, hint } => {
                self.corrected_hint(turn)?.as_ref() != Some(hint) && self.correct_hint(turn, bodies)?
            }
            Record::WishVoiced { turn, wish } => self.voice_wish(turn, wish)?,
            Record::WishWithdrawn { wish } => self.withdraw_wish(*wish)?,
            Record::TurnDied { turn, inbox, attempts, reason } => {
                self.bury(turn, inbox, *attempts, reason.as_deref())?
            }
            Record::TurnRetried { turn } => self.retry(turn)?,
            Record::BatchLeased { step, turns } => self.lease(*step, turns)?,
            Record::StepCompleted(commit) => self.complete_step(commit, bodies)?,
            Record::VersionKept { version, turns } => self.keep(*version, turns)?,
            Record::VersionRestored { version, base } => self.restore(*version, *base)?,
            Record::VersionsUndone { versions, to } => {
                self.undo(versions)?;
                self.tally.resumable = *to;
                true
            }
            Record::StepWithheld { step, turns, reason, fingerprint, .. } => {
                let next = || Next { reason: Some(reason), ..TurnState::Quarantined.into() };
                let held = self.settle(turns, TurnState::Leased, next)?;
                if held > 0 {
                    self.tally.totals.quarantined += held;
                    self.tally.totals.withheld += 1;
                    self.insert_step((*step, None, Some(reason), turns.len() as u64, fingerprint), bodies)?;
                }
                held > 0
            }
            Record::VersionPublished { version } => self.publish(*version)?,
            Record::RolledBack { to, .. } => {
                let mut known = self.connection.prepare_cached("SELECT 1 FROM versions WHERE number = ?1")?;
                let known = *to == 0 || known.exists([to])?;
                if known {
                    (self.tally.totals.version, self.tally.resumable) = (*to, *to);
                }
                known
            }
            Record::SessionEnded { session } => {
                let sql = "UPDATE turns SET ended_at = ?2 WHERE session = ?1 AND ended_at IS NULL";
                self.connection.prepare_cached(sql)?.execute((&*session.0, self.now))? > 0
            }
            Record::EpisodeBegan { episode } => {
                let done = self.begin_episode(episode)?;
                self.moved(done)
            }
            Record::EpisodeEnded { episode, outcome } => {
                let done = self.end_episode(episode, outcome)?;
                self.moved(done)
            }
            Record::EpisodeAbandoned { episode, reason } => {
                let done = self.abandon_episode(episode, reason)?;
                self.moved(done)
            }
            Record::GroupClosed { group } => self.close_group(group)?,
            Record::Operated { verb, target, outcome } => {
                self.connection
                    .prepare_cached("INSERT INTO audit (verb, target, outcome, at) VALUES (?1, ?2, ?3, ?4)")?
                    .execute((verb, target, outcome, self.now))?;
                true
            }
        };
        Ok(if done { Recorded::Done } else { Recorded::Stale })
    }

    /// Whoever looks again finds something new, though no turn has changed.
    fn moved(&mut self, done: bool) -> bool {
        if done {
            self.tally.next_seq();
        }
        done
    }

    /// `before` names what the policy saw last.
    fn complete(&mut self, turn: &Turn, before: u64, bodies: &[Kept]) -> rusqlite::Result<bool> {
        let is_main = turn.kind == TurnKind::Main;
        let state = if turn.trainable && is_main { TurnState::Waiting } else { TurnState::Answered };
        let inserted = self
            .connection
            .prepare_cached(
                "INSERT OR IGNORE INTO turns (id, session, state, seq, completed_at, changed_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?5)",
            )?
            .execute((&*turn.id.0, &*turn.session.0, state, self.tally.backlog.last_seq + 1, self.now))?;
        if inserted == 0 {
            return Ok(false);
        }
        self.tally.next_seq();
        let no = self.connection.last_insert_rowid();
        self.insert_bodies(no, bodies)?;
        if is_main {
            self.step(no, turn, before)?;
        }
        self.count(Place { state, dead: false, provisional: false }, |counted| counted + 1);
        self.tally.totals.turns += 1;
        self.tally.totals.sessions += u64::from(is_main && turn.index == 1);
        Ok(true)
    }

    /// A new number of change lets the optimizer find what it could not have before.
    pub(crate) fn settle_next_state(&mut self, turn: &TurnId) -> rusqlite::Result<bool> {
        let Some(found) = self.find(turn)?.filter(|found| found.provisional) else { return Ok(false) };
        let seq = (found.state == TurnState::Ready).then(|| self.tally.next_seq());
        self.connection
            .prepare_cached("UPDATE turns SET provisional = 0, seq = coalesce(?2, seq) WHERE no = ?1")?
            .execute((found.no, seq))?;
        self.count(found.place(), |counted| counted - 1);
        self.count(Place { provisional: false, ..found.place() }, |counted| counted + 1);
        Ok(true)
    }

    /// From now on what is under way for the next state that was is about another one.
    fn undo_next_state(&mut self, turn: &TurnId) -> rusqlite::Result<bool> {
        let Some(found) = self.find(turn)?.filter(|found| found.state.is_under_way()) else {
            return Ok(false);
        };
        if self.is_of_closed_episode(turn)? {
            return Ok(false);
        }
        if !self.is_rated(turn)? {
            self.score(turn, None)?;
        }
        self.set(&found, TurnState::Waiting.into())?;
        self.connection
            .prepare_cached("UPDATE turns SET undone = undone + 1 WHERE no = ?1")?
            .execute([found.no])?;
        for part in [Part::NextState, Part::Opinion, Part::Signal] {
            self.connection
                .prepare_cached("DELETE FROM bodies WHERE turn = ?1 AND part = ?2")?
                .execute((found.no, part.name()))?;
        }
        self.withdraw_wishes_of(turn)?;
        Ok(true)
    }

    /// A person's rating stays what it is.
    fn judge_step(&mut self, turn: &TurnId, verdict: &Verdict) -> rusqlite::Result<()> {
        if self.is_rated(turn)? {
            return Ok(());
        }
        self.score(turn, verdict.score())
    }

    fn is_rated(&self, turn: &TurnId) -> rusqlite::Result<bool> {
        let sql = "SELECT 1 FROM bodies JOIN turns ON no = turn WHERE id = ?1 AND part = ?2";
        self.connection.prepare_cached(sql)?.exists((&*turn.0, Part::Rating.name()))
    }

    /// Whether the turn's next state is the one after so many that were taken back.
    fn is_about(&self, turn: &TurnId, undone: u32) -> rusqlite::Result<bool> {
        Ok(self.find(turn)?.is_some_and(|found| found.undone == undone))
    }

    /// The group of a step may be complete without it.
    fn give_up(&mut self, turn: &TurnId, reason: &str) -> rusqlite::Result<bool> {
        let Some(was) = self.drop_turn(turn, reason)? else { return Ok(false) };
        if !matches!(was, TurnState::Ready | TurnState::Leased) {
            self.release_held(turn)?;
        }
        Ok(true)
    }

    /// The state that it was in, if it was open.
    pub(crate) fn drop_turn(&mut self, turn: &TurnId, reason: &str) -> rusqlite::Result<Option<TurnState>> {
        let Some(found) = self.find(turn)?.filter(|found| found.state.is_open()) else { return Ok(None) };
        self.set(&found, Next { reason: Some(reason), ..TurnState::Dropped.into() })?;
        self.tally.totals.dropped += 1;
        self.leave_group(turn, found.state)?;
        Ok(Some(found.state))
    }

    /// Not from a batch: what is learnt from it could not be taken out of it.
    fn withdraw(&mut self, turn: &TurnId) -> rusqlite::Result<bool> {
        match self.find(turn)? {
            Some(found) if found.state != TurnState::Leased => {
                let done = self.give_up(turn, WITHDRAWN)?;
                if done {
                    self.withdraw_wishes_of(turn)?;
                }
                Ok(done)
            }
            _ => Ok(false),
        }
    }

    /// Nobody is handed the turn again for it: whoever reads the verdict next finds the rating.
    fn rate(&mut self, turn: &TurnId, bodies: &[Kept]) -> rusqlite::Result<bool> {
        let Some(found) = self.find(turn)?.filter(|found| found.state.is_under_way() && !found.dead) else {
            return Ok(false);
        };
        self.insert_bodies(found.no, bodies)?;
        self.tally.next_seq();
        self.tally.totals.rated += 1;
        Ok(true)
    }

    fn correct_hint(&mut self, turn: &TurnId, bodies: &[Kept]) -> rusqlite::Result<bool> {
        let Some(found) = self.find(turn)?.filter(|found| !found.dead) else { return Ok(false) };
        match found.state {
            // A judge's hints do not count any more when they come.
            TurnState::Waiting | TurnState::Followed => drop(self.tally.next_seq()),
            // A new number of change lets a teacher find it again.
            TurnState::Judged | TurnState::Ready => self.set(&found, TurnState::Judged.into())?,
            _ => return Ok(false),
        }
        self.connection
            .prepare_cached("DELETE FROM bodies WHERE turn = ?1 AND part = ?2")?
            .execute((found.no, Part::Signal.name()))?;
        self.insert_bodies(found.no, bodies)?;
        self.tally.totals.corrected += 1;
        Ok(true)
    }

    /// The hint that a person wrote.
    fn corrected_hint(&self, turn: &TurnId) -> rusqlite::Result<Option<String>> {
        let sql = "SELECT body FROM bodies JOIN turns ON no = turn WHERE id = ?1 AND part = ?2";
        let body: Option<Option<Vec<u8>>> = self
            .connection
            .prepare_cached(sql)?
            .query_row((&*turn.0, Part::Hint.name()), |row| row.get(0))
            .optional()?;
        // One that lies in a file of its own or cannot be read is no hint; a reader of the turn tells of it.
        Ok(body.flatten().and_then(|body| String::decode(&body).ok()))
    }

    fn bury(
        &mut self,
        turn: &TurnId,
        inbox: &str,
        attempts: u32,
        reason: Option<&str>,
    ) -> rusqlite::Result<bool> {
        let open = |found: &Found| found.state.is_open() && !found.dead;
        let Some(found) = self.find(turn)?.filter(open) else { return Ok(false) };
        self.connection
            .prepare_cached(
                "UPDATE turns SET died_in = ?2, died_after = ?3, died_at = ?4, reason = ?5 WHERE no = ?1",
            )?
            .execute((found.no, inbox, attempts, self.now, reason))?;
        self.count(found.place(), |counted| counted - 1);
        self.count(Place { dead: true, ..found.place() }, |counted| counted + 1);
        self.release_held(turn)?;
        Ok(true)
    }

    /// A new number of change lets the reader find it again.
    fn retry(&mut self, turn: &TurnId) -> rusqlite::Result<bool> {
        let Some(found) = self.find(turn)?.filter(|found| found.dead) else { return Ok(false) };
        self.set(&found, found.state.into())?;
        Ok(true)
    }

    /// All or none: a batch is trained on as a whole.
    fn lease(&mut self, step: u64, turns: &[TurnId]) -> rusqlite::Result<bool> {
        let leasable =
            |found: &Found| matches!(found.state, TurnState::Ready | TurnState::Leased) && !found.provisional;
        for turn in turns {
            if !self.find(turn)?.is_some_and(|found| leasable(&found)) {
                return Ok(false);
            }
        }
        for turn in turns {
            // Read again: a batch that names a turn twice has changed it by now.
            if let Some(found) = self.find(turn)? {
                self.set(&found, Next { step: Some(step), ..TurnState::Leased.into() })?;
            }
        }
        Ok(!turns.is_empty())
    }

    fn complete_step(&mut self, commit: &StepCommit, bodies: &[Kept]) -> rusqlite::Result<bool> {
        let inserted = self
            .connection
            .prepare_cached(
                "INSERT OR IGNORE INTO versions (number, step, base, fingerprint, checkpoint, at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute((
                commit.version,
                commit.step,
                commit.base,
                &commit.fingerprint,
                commit.checkpoint,
                self.now,
            ))?;
        if inserted == 0 {
            return Ok(false);
        }
        if commit.checkpoint {
            self.learn(&commit.turns, commit.version)?;
        }
        self.tally.totals.steps += 1;
        let row = (commit.step, Some(commit.version), None, commit.batch, commit.fingerprint.as_str());
        self.insert_step(row, bodies)?;
        Ok(true)
    }

    /// The folder of `version` holds what was learnt from `turns`.
    fn learn(&mut self, turns: &[TurnId], version: u64) -> rusqlite::Result<()> {
        let next = || Next { version: Some(version), ..TurnState::Trained.into() };
        self.tally.totals.trained += self.settle(turns, TurnState::Leased, next)?;
        self.tally.resumable = version;
        Ok(())
    }

    fn keep(&mut self, version: u64, turns: &[TurnId]) -> rusqlite::Result<bool> {
        let kept = self
            .connection
            .prepare_cached("UPDATE versions SET checkpoint = 1 WHERE number = ?1 AND NOT checkpoint")?
            .execute([version])?;
        if kept > 0 {
            self.learn(turns, version)?;
        }
        Ok(kept > 0)
    }

    fn restore(&mut self, version: u64, base: u64) -> rusqlite::Result<bool> {
        // The base model has no row; any other version that is restored has one.
        let restored = self
            .connection
            .prepare_cached(
                "INSERT OR IGNORE INTO versions (number, step, base, fingerprint, checkpoint, at)
                 SELECT ?1, coalesce(step, 0), ?2, coalesce(fingerprint, ''), 0, ?3
                 FROM (SELECT 1) LEFT JOIN versions ON number = ?2
                 WHERE number IS NOT NULL OR ?2 = 0",
            )?
            .execute((version, base, self.now))?;
        Ok(restored > 0)
    }

    fn undo(&mut self, versions: &[u64]) -> rusqlite::Result<()> {
        for version in versions {
            let lost: Vec<String> = self
                .connection
                .prepare_cached("SELECT id FROM turns WHERE version = ?1 AND state = 'trained' ORDER BY seq")?
                .query_map([version], |row| row.get(0))?
                .collect::<rusqlite::Result<_>>()?;
            let lost: Vec<TurnId> = lost.into_iter().map(|id| TurnId(id.into())).collect();
            let ready = || TurnState::Ready.into();
            self.tally.totals.trained -= self.settle(&lost, TurnState::Trained, ready)?;
            self.connection
                .prepare_cached("UPDATE versions SET checkpoint = 0 WHERE number = ?1")?
                .execute([version])?;
        }
        Ok(())
    }

    fn publish(&mut self, version: u64) -> rusqlite::Result<bool> {
        let published = self
            .connection
            .prepare_cached(
                "UPDATE versions SET published_at = ?2 WHERE number = ?1 AND published_at IS NULL",
            )?
            .execute((version, self.now))?;
        if published > 0 {
            self.tally.totals.version = version;
        }
        Ok(published > 0)
    }

    fn insert_step(
        &self,
        (step, version, withheld, turns, fingerprint): (u64, Option<u64>, Option<&str>, u64, &str),
        bodies: &[Kept],
    ) -> rusqlite::Result<()> {
        let report = bodies.first().map(|kept| kept.bytes.as_slice());
        self.connection
            .prepare_cached(
                "INSERT INTO steps (step, version, withheld, turns, report, fingerprint, at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?
            .execute((step, version, withheld, turns, report, fingerprint, self.now))?;
        Ok(())
    }

    fn find(&self, turn: &TurnId) -> rusqlite::Result<Option<Found>> {
        self.connection
            .prepare_cached(
                "SELECT no, state, died_in IS NOT NULL, provisional, undone FROM turns WHERE id = ?1",
            )?
            .query_row([&*turn.0], |row| {
                let (no, state, dead) = (row.get(0)?, row.get(1)?, row.get(2)?);
                Ok(Found { no, state, dead, provisional: row.get(3)?, undone: row.get(4)? })
            })
            .optional()
    }

    pub(crate) fn change(
        &mut self,
        turn: &TurnId,
        expected: TurnState,
        next: Next<'_>,
        bodies: &[Kept],
    ) -> rusqlite::Result<bool> {
        let Some(found) = self.find(turn)?.filter(|found| found.state == expected) else { return Ok(false) };
        self.set(&found, next)?;
        self.insert_bodies(found.no, bodies)?;
        Ok(true)
    }

    /// How many of `turns` were in the state expected.
    fn settle<'a>(
        &mut self,
        turns: &[TurnId],
        expected: TurnState,
        next: impl Fn() -> Next<'a>,
    ) -> rusqlite::Result<u64> {
        let mut settled = 0;
        for turn in turns {
            settled += u64::from(self.change(turn, expected, next(), &[])?);
        }
        Ok(settled)
    }

    /// Whoever moves a dead turn on has handled it after all.
    fn set(&mut self, found: &Found, next: Next<'_>) -> rusqlite::Result<()> {
        let seq = self.tally.next_seq();
        let Next { state, reason, step, version } = next;
        let provisional = found.provisional && state.is_under_way();
        self.connection
            .prepare_cached(
                "UPDATE turns SET state = ?3, seq = ?4, changed_at = ?5, reason = ?6, step = coalesce(?7, step),
                     version = coalesce(?8, version), provisional = ?9, died_in = NULL, died_after = NULL,
                     died_at = NULL
                 WHERE no = ?1 AND state = ?2",
            )?
            .execute((
                found.no,
                found.state,
                state,
                seq,
                self.now,
                reason,
                step,
                version,
                provisional,
            ))?;
        self.count(found.place(), |counted| counted - 1);
        self.count(Place { state, dead: false, provisional }, |counted| counted + 1);
        Ok(())
    }

    fn count(&mut self, place: Place, change: impl FnOnce(u64) -> u64) {
        if let Some(counted) = self.tally.count(place) {
            *counted = change(*counted);
        }
    }

    fn insert_bodies(&self, turn: i64, bodies: &[Kept]) -> rusqlite::Result<()> {
        let mut insert = self.connection.prepare_cached(
            "INSERT OR REPLACE INTO bodies (turn, part, body, file, bytes) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?;
        for kept in bodies {
            let Kept { part, bytes, file, .. } = kept;
            if *part == Part::Content {
                contents::insert(self.connection, turn, kept)?;
                continue;
            }
            let body = file.is_none().then_some(bytes);
            insert.execute((turn, part.name(), body, file, bytes.len()))?;
        }
        Ok(())
    }
}

/// Batches of a process that is no more go back to where the next optimizer finds them.
pub(crate) fn recover_leased(applying: &mut Applying<'_>) -> rusqlite::Result<u64> {
    let ids: Vec<String> = applying
        .connection
        .prepare("SELECT id FROM turns WHERE state = 'leased' ORDER BY seq")?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    for id in &ids {
        let turn = TurnId(id.as_str().into());
        applying.change(&turn, TurnState::Leased, TurnState::Ready.into(), &[])?;
    }
    Ok(ids.len() as u64)
}
