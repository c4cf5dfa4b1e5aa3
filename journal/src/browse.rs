//! What a person reads of a run: conversations, turns with their story, and what was learnt from whom. Reads alone.

use std::{
    collections::{BTreeMap, HashSet},
    time::SystemTime,
};

use serde::Serialize;

use super::{
    bodies::{Bodies, Part},
    codec::Opinion,
    error::JournalError,
    record::{TurnRow, TurnState},
    store::time,
};
use crate::{
    signals::Verdict,
    turn::{SessionId, Turn, TurnId, TurnKind},
};

/// Verdicts that are counted of one conversation, from its latest turn back.
const VERDICTS: usize = 200;

/// A conversation, by its latest turn.
#[derive(Clone, Debug)]
pub struct SessionRow {
    /// Its name.
    pub session: SessionId,
    /// The place of its latest turn in the journal: what a further page starts before.
    pub place: u64,
    /// Its turns that are kept, by where they stand.
    pub states: Vec<(TurnState, u64)>,
    /// Its first kept turn; none where that cannot be read.
    pub opening: Option<Turn>,
    /// Verdicts of its latest turns.
    pub rewards: Vec<Option<i8>>,
    /// The version that answered last; none where the turn cannot be read.
    pub version: Option<u64>,
    /// When its first kept turn was recorded.
    pub first: SystemTime,
    /// When its latest was.
    pub last: SystemTime,
}

/// A turn and what became of it.
#[derive(Clone, Debug)]
pub struct Story {
    /// Its place in the journal: what a further page starts after.
    pub place: u64,
    /// All that is recorded of it.
    pub row: TurnRow,
    /// Who gave it up, and after how many tries, if it is dead.
    pub died: Option<(String, u32)>,
    /// The version that its step made; none while the step is not over, and where it was withheld.
    pub learnt: Option<u64>,
}

/// A turn of a conversation.
#[derive(Debug)]
pub struct Told {
    /// Its place in the journal.
    pub place: u64,
    /// Its id.
    pub turn: TurnId,
    /// Its story, or why it cannot be read.
    pub story: Result<Story, JournalError>,
}

/// A reply that was judged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReplyRow {
    /// Its turn.
    pub turn: TurnId,
    /// Its conversation.
    pub session: SessionId,
    /// Its number in it, from 1.
    pub index: u32,
    /// The version that drew it.
    pub version: u64,
    /// What is learnt from: a person's rating, or what the judge made of it.
    pub reward: Option<i8>,
    /// A person's rating, as what followed it or in the place of the verdict.
    pub rated: Option<i8>,
    /// What the judge made of it; none where it was not asked, or not understood.
    pub judged: Option<i8>,
    /// Names what its user said, if it is the first of its conversation: the same words have the same name in this
    /// process.
    pub asked: Option<u64>,
}

impl Bodies<'_> {
    /// The conversations whose latest turn lies before `before`, the newest first.
    pub fn sessions(&self, before: u64, limit: usize) -> Result<Vec<SessionRow>, JournalError> {
        let sql = "SELECT no, id, session FROM turns AS latest
                   WHERE no < ?1 AND NOT EXISTS
                       (SELECT 1 FROM turns WHERE session = latest.session AND no > latest.no)
                   ORDER BY no DESC LIMIT ?2";
        let before = i64::try_from(before).unwrap_or(i64::MAX);
        let latest = self.select(sql, (before, limit), |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?))
        })?;
        latest.into_iter().map(|(no, id, session)| self.session_row(no, &id, session)).collect()
    }

    fn session_row(&self, latest: i64, id: &str, session: String) -> Result<SessionRow, JournalError> {
        let sql = "SELECT state, count(*) FROM turns WHERE session = ?1 GROUP BY state ORDER BY min(no)";
        let states = self.select(sql, [&session], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let sql = "SELECT no, id, completed_at FROM turns WHERE session = ?1 ORDER BY no LIMIT 1";
        let first = self.one(sql, [&session], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, i64>(2)?))
        })?;
        let last = self.one("SELECT completed_at FROM turns WHERE no = ?1", [latest], |row| row.get(0))?;
        let sql = "SELECT no, id FROM turns WHERE session = ?1 AND EXISTS
                       (SELECT 1 FROM bodies WHERE turn = no AND part = 'opinion')
                   ORDER BY no DESC LIMIT ?2";
        let judged = self
            .select(sql, (&session, VERDICTS), |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?)))?;
        // A turn that cannot be read must not hide the others.
        let opinions = judged.iter().filter_map(|(no, id)| self.get_opinion(*no, id).ok());
        let glance = self.glance(latest, id).ok();
        let (no, id, first) = first.unwrap_or((latest, id.to_owned(), 0));
        Ok(SessionRow {
            session: SessionId(session.into()),
            place: latest as u64,
            states,
            opening: self.whole_turn(no, &id).ok(),
            rewards: opinions.map(|opinion| opinion.verdict.reward).collect(),
            version: glance.map(|glance| glance.policy_version),
            first: time(first),
            last: time(last.unwrap_or(0)),
        })
    }

    /// Turns of a conversation behind `after`, the oldest first. One that cannot be read is its error.
    pub fn stories(&self, session: &SessionId, after: u64, limit: usize) -> Result<Vec<Told>, JournalError> {
        let sql = "SELECT no, id FROM turns WHERE session = ?1 AND no > ?2 ORDER BY no LIMIT ?3";
        let after = i64::try_from(after).unwrap_or(i64::MAX);
        let found = self.select(sql, (&*session.0, after, limit), |row| Ok((row.get(0)?, row.get(1)?)))?;
        let story = |(place, id): (u64, String)| {
            let id = TurnId(id.into());
            let story = self.story(&id).transpose()?;
            Some(Told { place, turn: id, story })
        };
        Ok(found.into_iter().filter_map(story).collect())
    }

    /// One turn's story.
    pub fn story(&self, id: &TurnId) -> Result<Option<Story>, JournalError> {
        let Some(row) = self.turn(id)? else { return Ok(None) };
        let sql = "SELECT no, died_in, died_after FROM turns WHERE id = ?1";
        let found = self.one(sql, [&*id.0], |row| {
            Ok((row.get(0)?, row.get::<_, Option<String>>(1)?, row.get::<_, Option<u32>>(2)?))
        })?;
        let Some((place, died_in, attempts)) = found else { return Ok(None) };
        let learnt = match row.step {
            Some(step) => {
                let sql = "SELECT version FROM steps WHERE step = ?1 ORDER BY no DESC LIMIT 1";
                self.one(sql, [step], |row| row.get::<_, Option<u64>>(0))?.flatten()
            }
            None => None,
        };
        let died = died_in.map(|inbox| (inbox, attempts.unwrap_or(0)));
        Ok(Some(Story { place, row, died, learnt }))
    }

    /// The first turn of the conversation that began last, of those that may be trained on.
    pub fn last_opening(&self) -> Result<Option<Turn>, JournalError> {
        let sql = "SELECT no, id FROM turns AS first
                   WHERE state != 'answered' AND NOT EXISTS
                       (SELECT 1 FROM turns WHERE session = first.session AND no < first.no)
                   ORDER BY no DESC LIMIT 1";
        let found = self.one(sql, (), |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?)))?;
        found.map(|(no, id)| self.whole_turn(no, &id)).transpose()
    }

    /// The last turn of a conversation that is no side turn; looked for among its latest.
    pub fn last_turn_of(&self, session: &SessionId) -> Result<Option<TurnRow>, JournalError> {
        let sql = "SELECT id FROM turns WHERE session = ?1 ORDER BY no DESC LIMIT 32";
        let latest = self.select(sql, [&*session.0], |row| row.get::<_, String>(0))?;
        for id in latest {
            let row = self.turn(&TurnId(id.into()))?;
            if let Some(row) = row.filter(|row| row.turn.kind == TurnKind::Main) {
                return Ok(Some(row));
            }
        }
        Ok(None)
    }

    /// The latest `limit` judged replies by their place. What `known` holds is not read again, unless a person rated
    /// it or another next state took the place of its own: else it never changes.
    pub fn replies(
        &self,
        limit: usize,
        mut known: BTreeMap<u64, ReplyRow>,
    ) -> Result<BTreeMap<u64, ReplyRow>, JournalError> {
        let sql = "SELECT no, id, session, undone > 0 FROM bodies JOIN turns ON no = turn
                   WHERE part = 'opinion' ORDER BY turn DESC LIMIT ?1";
        let judged = self.select(sql, [limit], |row| {
            let (no, id, session) =
                (row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?);
            Ok((no, id, session, row.get::<_, bool>(3)?))
        })?;
        let oldest = judged.last().map_or(i64::MAX, |(no, ..)| *no);
        let sql = "SELECT turn FROM bodies WHERE turn >= ?1 AND part = 'rating'";
        let rated = self.select(sql, [oldest], |row| row.get(0))?;
        let rated: HashSet<i64> = rated.into_iter().collect();
        let mut replies = BTreeMap::new();
        for (no, id, session, undone) in judged {
            let place = no as u64;
            if let Some(reply) = known.remove(&place).filter(|_| !undone && !rated.contains(&no)) {
                replies.insert(place, reply);
                continue;
            }
            let glance = self.glance(no, &id);
            let opinion: Result<Option<Opinion>, _> = self.find(no, &id, Part::Opinion);
            // A turn that cannot be read must not hide the others.
            let (Ok(glance), Ok(Some(opinion))) = (glance, opinion) else { continue };
            let Verdict { reward, rule, .. } = opinion.verdict;
            // The rule for a rating that came as what followed asks no judge.
            let by_rating = rule.as_deref() == Some("rating");
            let rating = match rated.contains(&no) {
                true => self.find(no, &id, Part::Rating).ok().flatten(),
                false => None,
            };
            let reply = ReplyRow {
                turn: TurnId(id.into()),
                session: SessionId(session.into()),
                index: glance.index,
                version: glance.policy_version,
                reward: rating.or(reward),
                rated: rating.or(reward.filter(|_| by_rating)),
                judged: reward.filter(|_| !by_rating),
                asked: glance.asked,
            };
            replies.insert(place, reply);
        }
        Ok(replies)
    }

    /// How many turns taught `version`, and the first of them.
    pub fn taught(
        &self,
        version: u64,
        limit: usize,
    ) -> Result<(u64, Vec<(TurnId, SessionId)>), JournalError> {
        let sql = "SELECT count(*) FROM turns WHERE version = ?1 AND state = 'trained'";
        let count = self.one(sql, [version], |row| row.get(0))?.unwrap_or(0);
        let sql =
            "SELECT id, session FROM turns WHERE version = ?1 AND state = 'trained' ORDER BY seq LIMIT ?2";
        let turns = self.select(sql, (version, limit), |row| {
            let (turn, session): (String, String) = (row.get(0)?, row.get(1)?);
            Ok((TurnId(turn.into()), SessionId(session.into())))
        })?;
        Ok((count, turns))
    }
}
