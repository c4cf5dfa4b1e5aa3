//! What people wished for, to stand until they say otherwise.

use std::{collections::BTreeSet, time::SystemTime};

use rusqlite::OptionalExtension;

use super::{
    apply::Applying,
    bodies::{Bodies, Part},
    codec::Body,
    error::JournalError,
    record::TurnMark,
    store::time,
};
use crate::turn::TurnId;

/// Wishes of one person that stand at a time; the oldest makes room.
pub const MOST_WISHES: usize = 8;

/// Words that say nothing of what a wish is about. Without them a wish and its opposite are alike.
const PASSED_OVER: [&str; 48] = [
    "a", "an", "the", "to", "it", "in", "of", "for", "me", "my", "i", "you", "your", "is", "be", "are",
    "and", "or", "with", "without", "no", "not", "dont", "don't", "never", "always", "please", "use",
    "write", "make", "do", "give", "any", "more", "less", "again", "now", "from", "on", "at", "as", "all",
    "put", "say", "answer", "reply", "want", "again",
];

/// A wish that stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WishRow {
    /// Its number.
    pub wish: u64,
    /// Whose it is; 0 where the client did not say.
    pub person: u64,
    /// Their words, or a hint writer's.
    pub text: String,
    /// The reply that it was voiced about.
    pub turn: TurnId,
    /// When.
    pub when: SystemTime,
}

/// Whether two wishes are about the same: the later one takes the place of the earlier.
pub fn are_about_the_same(one: &str, other: &str) -> bool {
    let (one, other) = (words(one), words(other));
    let shared = one.intersection(&other).count();
    shared > 0 && 2 * shared >= one.union(&other).count()
}

fn words(wish: &str) -> BTreeSet<String> {
    let words = wish.split(|c: char| !c.is_alphanumeric() && c != '\'').map(str::to_lowercase);
    words.filter(|word| !word.is_empty() && !PASSED_OVER.contains(&word.as_str())).collect()
}

impl Applying<'_> {
    pub(crate) fn voice_wish(&mut self, turn: &TurnId, wish: &str) -> rusqlite::Result<bool> {
        let sql = "SELECT body FROM bodies JOIN turns ON no = turn WHERE id = ?1 AND part = ?2";
        let mark: Option<Option<Vec<u8>>> = self
            .connection
            .prepare_cached(sql)?
            .query_row((&*turn.0, Part::Mark.name()), |row| row.get(0))
            .optional()?;
        let Some(mark) = mark.flatten().and_then(|body| TurnMark::decode(&body).ok()) else {
            return Ok(false);
        };
        let person = mark.person as i64;
        let standing: Vec<(i64, String)> = self
            .connection
            .prepare_cached(
                "SELECT no, text FROM wishes WHERE person = ?1 AND withdrawn_at IS NULL ORDER BY no",
            )?
            .query_map([person], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Result<_, _>>()?;
        if standing.iter().any(|(_, text)| text == wish) {
            return Ok(false);
        }
        let (over, mut left): (Vec<_>, Vec<_>) =
            standing.into_iter().partition(|(_, text)| are_about_the_same(text, wish));
        let surplus = (left.len() + 1).saturating_sub(MOST_WISHES);
        for (no, _) in over.into_iter().chain(left.drain(..surplus)) {
            self.withdraw_wish(no as u64)?;
        }
        self.connection
            .prepare_cached("INSERT INTO wishes (person, text, turn, at) VALUES (?1, ?2, ?3, ?4)")?
            .execute((person, wish, &*turn.0, self.now))?;
        Ok(true)
    }

    pub(crate) fn withdraw_wish(&mut self, wish: u64) -> rusqlite::Result<bool> {
        let sql = "UPDATE wishes SET withdrawn_at = ?2 WHERE no = ?1 AND withdrawn_at IS NULL";
        Ok(self.connection.prepare_cached(sql)?.execute((wish as i64, self.now))? > 0)
    }
}

impl Bodies<'_> {
    /// Those that stand, the oldest first; of everybody, or of whoever has a turn.
    pub(crate) fn wishes(&self, of: Option<&TurnId>) -> Result<Vec<WishRow>, JournalError> {
        let person = match of {
            None => None,
            Some(turn) => {
                let sql = "SELECT turns.no FROM turns WHERE id = ?1";
                let Some(no) = self.one(sql, [&*turn.0], |row| row.get::<_, i64>(0))? else {
                    return Ok(Vec::new());
                };
                Some(self.get::<TurnMark>(no, &turn.0, Part::Mark)?.person as i64)
            }
        };
        let sql = "SELECT no, person, text, turn, at FROM wishes
                   WHERE withdrawn_at IS NULL AND (?1 IS NULL OR person = ?1) ORDER BY no";
        self.select(sql, [person], |row| {
            Ok(WishRow {
                wish: row.get::<_, i64>(0)? as u64,
                person: row.get::<_, i64>(1)? as u64,
                text: row.get(2)?,
                turn: TurnId(row.get::<_, String>(3)?.into()),
                when: time(row.get(4)?),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_and_its_opposite_are_about_the_same() {
        for (one, other) in [
            ("No capitals, please.", "Use capitals."),
            ("End with a thank-you.", "Don't end with a thank-you"),
            ("Answer in at most 5 words", "in at most 9 words"),
        ] {
            assert!(are_about_the_same(one, other), "{one} / {other}");
        }
        for (one, other) in [("No capitals", "No commas"), ("Be brief.", "Greet me first."), ("", "")] {
            assert!(!are_about_the_same(one, other), "{one} / {other}");
        }
    }
}
