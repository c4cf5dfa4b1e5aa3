//! What records of episodes change, and how episodes are read back.
//!
//! Steps are held until their episode has come out and the others of its group too: a method compares them. What it sees
//! of a group is in tables of its own, which turns that are trained on and leave change no more.

use std::{collections::BTreeMap, sync::Arc};

use rusqlite::{OptionalExtension, Row, params};

use crate::{
    JournalError,
    apply::Applying,
    bodies::Bodies,
    episode::{
        Episode, EpisodeId, EpisodeRow, EpisodeState, EpisodeStep, EpisodeStory, Group, GroupEpisode,
        OWN_SESSIONS, Outcome, Standing,
    },
    record::TurnState,
    store::time,
    turn::{SessionId, Turn, TurnId},
};

/// Why turns of an episode without an outcome are dropped.
const ABANDONED: &str = "episode_abandoned";
/// Nothing follows a turn, for one of these reasons: in an episode, which has an outcome, it is a step all the same.
const UNFOLLOWED: [&str; 4] = ["idle", "session_done", "session_overflow", "overflow"];

impl Applying<'_> {
    pub(crate) fn begin_episode(&mut self, episode: &Episode) -> rusqlite::Result<bool> {
        if self.open_episode(&episode.session)?.is_some() {
            return Ok(false);
        }
        let Episode { id, session, environment, task, seed, group, judged } = episode;
        let (team, of) = group.as_ref().map_or((&id.0, 1), |group| (&group.name, group.of));
        let sql = "INSERT OR IGNORE INTO episodes
                       (id, session, environment, task, seed, team, team_of, grouped, judged, began_at)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
        // SQLite's integers have a sign.
        let seed = seed.map(u64::cast_signed);
        let inserted = self.connection.prepare_cached(sql)?.execute(params![
            &*id.0,
            &*session.0,
            &**environment,
            &**task,
            seed,
            &**team,
            of,
            group.is_some(),
            judged,
            self.now
        ])?;
        Ok(inserted > 0)
    }

    /// The episode that a turn of this session is a step of.
    fn open_episode(&self, session: &SessionId) -> rusqlite::Result<Option<i64>> {
        let sql = "SELECT no FROM episodes WHERE session = ?1 AND ended_at IS NULL";
        self.connection.prepare_cached(sql)?.query_row([&*session.0], |row| row.get(0)).optional()
    }

    /// Makes a turn a step of its session's episode, if it has one.
    pub(crate) fn step(&mut self, no: i64, turn: &Turn, state: u64) -> rusqlite::Result<()> {
        let Some(episode) = self.open_episode(&turn.session)? else { return Ok(()) };
        self.connection
            .prepare_cached("UPDATE turns SET episode = ?2 WHERE no = ?1")?
            .execute((no, episode))?;
        let sql = "INSERT OR IGNORE INTO episode_steps (turn, episode, place, state)
                   SELECT ?1, ?2, coalesce(max(place) + 1, 0), ?3 FROM episode_steps WHERE episode = ?2";
        self.connection.prepare_cached(sql)?.execute((&*turn.id.0, episode, state.cast_signed()))?;
        Ok(())
    }

    /// Where a turn goes that a method could learn from: a step waits for the rest of its group.
    pub(crate) fn after_signals(&self, turn: &TurnId) -> rusqlite::Result<TurnState> {
        Ok(if self.episode_of(turn)?.is_some() { TurnState::Held } else { TurnState::Ready })
    }

    /// What follows a step of an episode whose outcome alone counts is for nobody to judge.
    pub(crate) fn is_judged(&self, turn: &TurnId) -> rusqlite::Result<bool> {
        let sql = "SELECT judged FROM turns JOIN episodes ON episodes.no = turns.episode WHERE turns.id = ?1";
        let judged: Option<bool> =
            self.connection.prepare_cached(sql)?.query_row([&*turn.0], |row| row.get(0)).optional()?;
        Ok(judged.unwrap_or(true))
    }

    fn episode_of(&self, turn: &TurnId) -> rusqlite::Result<Option<i64>> {
        let sql = "SELECT episode FROM turns WHERE id = ?1";
        let found: Option<Option<i64>> =
            self.connection.prepare_cached(sql)?.query_row([&*turn.0], |row| row.get(0)).optional()?;
        Ok(found.flatten())
    }

    /// What a judge, a rule or a person made of a step.
    pub(crate) fn score(&mut self, turn: &TurnId, score: Option<f32>) -> rusqlite::Result<()> {
        self.connection
            .prepare_cached("UPDATE episode_steps SET score = ?2 WHERE turn = ?1")?
            .execute((&*turn.0, score))?;
        Ok(())
    }

    /// Whether a turn that nothing follows is a step of an episode that goes on; its outcome is still to come.
    pub(crate) fn is_last_for_now(&self, turn: &TurnId, reason: &str) -> rusqlite::Result<bool> {
        let sql = "SELECT 1 FROM turns JOIN episodes ON episodes.no = turns.episode
                   WHERE turns.id = ?1 AND state = 'waiting' AND died_in IS NULL AND episodes.ended_at IS NULL";
        Ok(UNFOLLOWED.contains(&reason) && self.connection.prepare_cached(sql)?.exists([&*turn.0])?)
    }

    /// A step that is given up before its group is complete is none of it.
    pub(crate) fn leave_group(&mut self, turn: &TurnId, was: TurnState) -> rusqlite::Result<()> {
        if !matches!(was, TurnState::Ready | TurnState::Leased) {
            let sql = "DELETE FROM episode_steps WHERE turn = ?1";
            self.connection.prepare_cached(sql)?.execute([&*turn.0])?;
        }
        Ok(())
    }

    pub(crate) fn end_episode(&mut self, id: &EpisodeId, outcome: &Outcome) -> rusqlite::Result<bool> {
        let json = serde_json::to_string(outcome)
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
        let Some(episode) = self.close(id, Some(&json), None)? else { return Ok(false) };
        // Nothing follows them any more, and what did is not taken back.
        for turn in self.turns_of(episode, TurnState::Waiting)? {
            self.change(&turn, TurnState::Waiting, TurnState::Held.into(), &[])?;
        }
        for turn in self.provisional_of(episode)? {
            self.settle_next_state(&turn)?;
        }
        self.release_of(episode)?;
        Ok(true)
    }

    pub(crate) fn abandon_episode(&mut self, id: &EpisodeId, reason: &str) -> rusqlite::Result<bool> {
        let Some(episode) = self.close(id, None, Some(reason))? else { return Ok(false) };
        // All of them, before the others of its group are let go: else those that are held would go with these.
        for state in [TurnState::Waiting, TurnState::Followed, TurnState::Judged, TurnState::Held] {
            for turn in self.turns_of(episode, state)? {
                self.drop_turn(&turn, ABANDONED)?;
            }
        }
        self.release_of(episode)?;
        Ok(true)
    }

    pub(crate) fn close_group(&mut self, group: &str) -> rusqlite::Result<bool> {
        let sql = "UPDATE episodes SET team_of = -team_of WHERE team = ?1 AND team_of > 0
                   AND NOT EXISTS (SELECT 1 FROM episodes WHERE team = ?1 AND ended_at IS NULL)";
        let closed = self.connection.prepare_cached(sql)?.execute([group])? > 0;
        if closed {
            self.release(group)?;
        }
        Ok(closed)
    }

    fn close(
        &mut self,
        id: &EpisodeId,
        outcome: Option<&str>,
        abandoned: Option<&str>,
    ) -> rusqlite::Result<Option<i64>> {
        let sql = "UPDATE episodes SET outcome = ?2, abandoned = ?3, ended_at = ?4
                   WHERE id = ?1 AND ended_at IS NULL RETURNING no";
        self.connection
            .prepare_cached(sql)?
            .query_row((&*id.0, outcome, abandoned, self.now), |row| row.get(0))
            .optional()
    }

    fn turns_of(&self, episode: i64, state: TurnState) -> rusqlite::Result<Vec<TurnId>> {
        self.connection
            .prepare_cached("SELECT id FROM turns WHERE episode = ?1 AND state = ?2 ORDER BY no")?
            .query_map((episode, state), turn_id)?
            .collect()
    }

    fn provisional_of(&self, episode: i64) -> rusqlite::Result<Vec<TurnId>> {
        self.connection
            .prepare_cached("SELECT id FROM turns WHERE episode = ?1 AND provisional ORDER BY no")?
            .query_map([episode], turn_id)?
            .collect()
    }

    /// Nothing that followed a step is taken back once its episode is over.
    pub(crate) fn is_of_closed_episode(&self, turn: &TurnId) -> rusqlite::Result<bool> {
        let sql = "SELECT 1 FROM turns JOIN episodes ON episodes.no = turns.episode
                   WHERE turns.id = ?1 AND episodes.ended_at IS NOT NULL";
        self.connection.prepare_cached(sql)?.exists([&*turn.0])
    }

    /// Lets the group of a turn's episode go, if it is complete.
    pub(crate) fn release_held(&mut self, turn: &TurnId) -> rusqlite::Result<()> {
        self.episode_of(turn)?.map_or(Ok(()), |episode| self.release_of(episode))
    }

    /// Lets the group of an episode go, if it is complete.
    fn release_of(&mut self, episode: i64) -> rusqlite::Result<()> {
        let sql = "SELECT team FROM episodes WHERE no = ?1";
        let team: Option<String> =
            self.connection.prepare_cached(sql)?.query_row([episode], |row| row.get(0)).optional()?;
        team.map_or(Ok(()), |team| self.release(&team))
    }

    /// A group is complete when as many of its episodes as it is to have are over, and nobody is at any of its steps. A
    /// dead turn holds nobody up.
    fn release(&mut self, team: &str) -> rusqlite::Result<()> {
        let sql = "SELECT
                (SELECT count(*) FILTER (WHERE ended_at IS NULL) = 0 AND count(*) >= max(team_of)
                 FROM episodes WHERE team = ?1)
                AND NOT EXISTS (SELECT 1 FROM turns JOIN episodes ON episodes.no = turns.episode
                    WHERE team = ?1 AND state IN ('waiting', 'followed', 'judged') AND died_in IS NULL)";
        let complete: Option<bool> =
            self.connection.prepare_cached(sql)?.query_row([team], |row| row.get(0))?;
        if complete != Some(true) {
            return Ok(());
        }
        let sql = "SELECT id FROM turns WHERE state = 'held'
                   AND episode IN (SELECT no FROM episodes WHERE team = ?1) ORDER BY no";
        let held: Vec<TurnId> = self
            .connection
            .prepare_cached(sql)?
            .query_map([team], turn_id)?
            .collect::<rusqlite::Result<_>>()?;
        for turn in held {
            let done = self.change(&turn, TurnState::Held, TurnState::Ready.into(), &[])?;
            self.tally.totals.samples += u64::from(done);
        }
        Ok(())
    }
}

/// Groups that were read, by their names, so that a page of samples shares them.
pub(crate) type Groups = BTreeMap<Arc<str>, Arc<Vec<GroupEpisode>>>;

fn turn_id(row: &Row<'_>) -> rusqlite::Result<TurnId> {
    Ok(TurnId(row.get::<_, String>(0)?.into()))
}

const EPISODE: &str =
    "SELECT no, id, session, environment, task, seed, team, team_of, grouped, judged, outcome,
    abandoned, began_at, ended_at, (SELECT count(*) FROM episode_steps WHERE episode = no) FROM episodes";

fn episode_row(row: &Row<'_>) -> rusqlite::Result<EpisodeRow> {
    let text = |at: usize| row.get::<_, String>(at).map(Arc::<str>::from);
    let (team, of, grouped): (Arc<str>, i32, bool) = (text(6)?, row.get(7)?, row.get(8)?);
    let (outcome, abandoned): (Option<String>, Option<String>) = (row.get(10)?, row.get(11)?);
    let state = match (outcome, abandoned) {
        (Some(outcome), _) => EpisodeState::Ended(read_outcome(10, &outcome)?),
        (_, Some(reason)) => EpisodeState::Abandoned(reason),
        _ => EpisodeState::Open,
    };
    Ok(EpisodeRow {
        no: row.get(0)?,
        episode: Episode {
            id: EpisodeId(text(1)?),
            session: SessionId(text(2)?),
            environment: text(3)?,
            task: text(4)?,
            seed: row.get::<_, Option<i64>>(5)?.map(i64::cast_unsigned),
            group: grouped.then_some(Group { name: team, of: of.unsigned_abs() }),
            judged: row.get(9)?,
        },
        state,
        began: time(row.get(12)?),
        ended: row.get::<_, Option<i64>>(13)?.map(time),
        steps: row.get(14)?,
    })
}

fn read_outcome(column: usize, json: &str) -> rusqlite::Result<Outcome> {
    serde_json::from_str(json).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, error.into())
    })
}

impl Bodies<'_> {
    /// Whether a turn is a step of an episode.
    pub fn is_step(&self, turn: &str) -> Result<bool, JournalError> {
        let found: Option<i64> =
            self.one("SELECT 1 FROM episode_steps WHERE turn = ?1", [turn], |row| row.get(0))?;
        Ok(found.is_some())
    }

    /// Episodes before the place `before`, the latest first.
    pub fn episodes(&self, before: u64, limit: usize) -> Result<Vec<EpisodeRow>, JournalError> {
        let sql = format!("{EPISODE} WHERE no < ?1 ORDER BY no DESC LIMIT ?2");
        self.select(&sql, (i64::try_from(before).unwrap_or(i64::MAX), limit), episode_row)
    }

    /// An episode, and its steps by their places.
    pub fn episode(&self, id: &EpisodeId) -> Result<Option<EpisodeStory>, JournalError> {
        let row = self.one(&format!("{EPISODE} WHERE id = ?1"), [&*id.0], episode_row)?;
        let Some(row) = row else { return Ok(None) };
        let steps = self.steps_of(row.no as i64)?;
        Ok(Some((row, steps)))
    }

    /// The one that is open in a session, else the last that was.
    pub fn episode_in(&self, session: &SessionId) -> Result<Option<EpisodeRow>, JournalError> {
        let sql = format!("{EPISODE} WHERE session = ?1 ORDER BY ended_at IS NOT NULL, no DESC LIMIT 1");
        self.one(&sql, [&*session.0], episode_row)
    }

    /// The version that took the first step that is kept of the episode at this place; none where none is kept.
    pub fn first_version(&self, episode: u64) -> Result<Option<u64>, JournalError> {
        let sql = "SELECT no, id FROM turns WHERE episode = ?1 ORDER BY no LIMIT 1";
        let found = self.one(sql, [episode], |row| Ok((row.get(0)?, row.get::<_, String>(1)?)))?;
        found.map(|(no, id)| Ok(self.glance(no, &id)?.policy_version)).transpose()
    }

    /// Those that turns of a session are steps of, the oldest first.
    pub fn episodes_in(&self, session: &SessionId) -> Result<Vec<EpisodeStory>, JournalError> {
        let sql = format!("{EPISODE} WHERE no IN (SELECT episode FROM turns WHERE session = ?1) ORDER BY no");
        let rows = self.select(&sql, [&*session.0], episode_row)?;
        let told = |row: EpisodeRow| self.steps_of(row.no as i64).map(|steps| (row, steps));
        rows.into_iter().map(told).collect()
    }

    /// Those of agents outside that go on although nothing has happened in them since. One of the node's own goes on
    /// when its worker does.
    pub fn idle_episodes(&self, since: i64) -> Result<Vec<EpisodeId>, JournalError> {
        let sql = "SELECT id FROM episodes AS idle WHERE ended_at IS NULL AND began_at < ?1
                   AND substr(session, 1, length(?2)) <> ?2 AND NOT EXISTS
                       (SELECT 1 FROM turns WHERE episode = idle.no AND max(completed_at, changed_at) >= ?1)";
        self.select(sql, (since, OWN_SESSIONS), |row| Ok(EpisodeId(row.get::<_, String>(0)?.into())))
    }

    /// Groups that want further episodes, of which none goes on and none was since.
    pub fn idle_groups(&self, since: i64) -> Result<Vec<String>, JournalError> {
        let sql = "SELECT team FROM episodes GROUP BY team
                   HAVING count(*) < max(team_of) AND count(*) = count(ended_at) AND max(ended_at) < ?1";
        self.select(sql, [since], |row| row.get(0))
    }

    /// The steps of an episode, by their places.
    pub fn steps_of(&self, episode: i64) -> Result<Vec<(u32, EpisodeStep)>, JournalError> {
        let sql = "SELECT place, turn, score, state FROM episode_steps WHERE episode = ?1 ORDER BY place";
        self.select(sql, [episode], |row| {
            let state: i64 = row.get(3)?;
            let step = EpisodeStep {
                turn: TurnId(row.get::<_, String>(1)?.into()),
                score: row.get(2)?,
                state: state.cast_unsigned(),
            };
            Ok((row.get(0)?, step))
        })
    }

    /// Where the turn of this place stands in its group, which is read once for all that are in `groups`.
    pub fn standing(
        &self,
        no: i64,
        turn: &str,
        groups: &mut Groups,
    ) -> Result<Option<Standing>, JournalError> {
        let sql = format!("{EPISODE} WHERE no = (SELECT episode FROM turns WHERE no = ?1)");
        let Some(EpisodeRow { episode, .. }) = self.one(&sql, [no], episode_row)? else {
            return Ok(None);
        };
        let sql = "SELECT place FROM episode_steps WHERE turn = ?1";
        let Some(step) = self.one(sql, [turn], |row| row.get(0))? else { return Ok(None) };
        let team = episode.group.as_ref().map_or(&episode.id.0, |group| &group.name).clone();
        let group = match groups.get(&team) {
            Some(group) => group.clone(),
            None => groups.entry(team.clone()).or_insert(Arc::new(self.group(&team)?)).clone(),
        };
        Ok(Some(Standing { episode: Arc::new(episode), step, group }))
    }

    /// The episodes of a group that came out, by their names.
    fn group(&self, team: &str) -> Result<Vec<GroupEpisode>, JournalError> {
        let sql = "SELECT no, id, outcome FROM episodes WHERE outcome IS NOT NULL AND team = ?1 ORDER BY id";
        let came_out = self.select(sql, [team], |row| {
            let outcome = read_outcome(2, &row.get::<_, String>(2)?)?;
            Ok((row.get::<_, i64>(0)?, EpisodeId(row.get::<_, String>(1)?.into()), outcome))
        })?;
        let mut group = Vec::with_capacity(came_out.len());
        for (no, id, outcome) in came_out {
            group.push(GroupEpisode { id, outcome, steps: self.steps_of(no)?.into_iter().collect() });
        }
        Ok(group)
    }
}
