//! What people wished for, to stand until they say otherwise.

use std::{collections::BTreeSet, time::SystemTime};

use rusqlite::{OptionalExtension, Row};

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
const PASSED_OVER: [&str; 56] = [
    "a", "an", "the", "to", "it", "in", "of", "for", "me", "my", "i", "you", "your", "is", "be", "are",
    "and", "or", "with", "without", "no", "not", "dont", "don't", "isn't", "can't", "doesn't", "stop",
    "avoid", "never", "always", "please", "use", "using", "write", "make", "do", "give", "any", "more",
    "less", "again", "now", "from", "on", "at", "as", "all", "put", "say", "saying", "answer", "reply",
    "want", "anymore", "that",
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
    let wish = wish.replace('\u{2019}', "'").to_lowercase();
    let words = wish.split(|c: char| !c.is_alphanumeric() && c != '\'').map(str::to_owned);
    words.filter(|word| !word.is_empty() && !PASSED_OVER.contains(&word.as_str())).collect()
}

impl Applying<'_> {
    /// What is said of a step of an episode is no person's wish.
    pub(crate) fn voice_wish(&mut self, turn: &TurnId, wish: &str) -> rusqlite::Result<bool> {
        let sql = "SELECT no, body FROM turns JOIN bodies ON turn = no
                   WHERE id = ?1 AND part = ?2 AND episode IS NULL";
        let found: Option<(i64, Option<Vec<u8>>)> = self
            .connection
            .prepare_cached(sql)?
            .query_row((&*turn.0, Part::Mark.name()), |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let Some((place, Some(mark))) = found else { return Ok(false) };
        let Ok(mark) = TurnMark::decode(&mark) else { return Ok(false) };
        let person = mark.person as i64;
        let standing: Vec<(i64, String, String, i64)> = self
            .connection
            .prepare_cached("SELECT no, text, turn, place FROM wishes WHERE person = ?1 ORDER BY no")?
            .query_map([person], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?
            .collect::<Result<_, _>>()?;
        let (over, mut left): (Vec<_>, Vec<_>) = standing
            .into_iter()
            .partition(|(_, text, of, _)| **of == *turn.0 || text == wish || are_about_the_same(text, wish));
        // Who is judged later may have spoken earlier.
        let is_outdated = over.iter().any(|(.., of)| *of > place);
        if is_outdated || over.iter().any(|(_, text, of, _)| text == wish && **of == *turn.0) {
            return Ok(false);
        }
        let surplus = (left.len() + 1).saturating_sub(MOST_WISHES);
        for (no, ..) in over.into_iter().chain(left.drain(..surplus)) {
            self.withdraw_wish(no as u64)?;
        }
        self.connection
            .prepare_cached("INSERT INTO wishes (person, text, turn, place, at) VALUES (?1, ?2, ?3, ?4, ?5)")?
            .execute((person, wish, &*turn.0, place, self.now))?;
        Ok(true)
    }

    pub(crate) fn withdraw_wish(&mut self, wish: u64) -> rusqlite::Result<bool> {
        let sql = "DELETE FROM wishes WHERE no = ?1";
        Ok(self.connection.prepare_cached(sql)?.execute([wish as i64])? > 0)
    }

    /// Nothing is learnt from the turn, or what was said of it was not meant for it.
    pub(crate) fn withdraw_wishes_of(&mut self, turn: &TurnId) -> rusqlite::Result<()> {
        self.connection.prepare_cached("DELETE FROM wishes WHERE turn = ?1")?.execute([&*turn.0])?;
        Ok(())
    }
}

impl Bodies<'_> {
    /// Those that stand, the oldest first; of everybody, or of whoever has a turn that is no step of an episode.
    pub(crate) fn wishes(&self, of: Option<&TurnId>) -> Result<Vec<WishRow>, JournalError> {
        let row = |row: &Row<'_>| {
            Ok(WishRow {
                wish: row.get::<_, i64>(0)? as u64,
                person: row.get::<_, i64>(1)? as u64,
                text: row.get(2)?,
                turn: TurnId(row.get::<_, String>(3)?.into()),
                when: time(row.get(4)?),
            })
        };
        let Some(turn) = of else {
            return self.select("SELECT no, person, text, turn, at FROM wishes ORDER BY no", [], row);
        };
        let sql = "SELECT no FROM turns WHERE id = ?1 AND episode IS NULL";
        let Some(no) = self.one(sql, [&*turn.0], |row| row.get::<_, i64>(0))? else { return Ok(Vec::new()) };
        // A reader of the turn tells of a mark that cannot be read.
        let Ok(mark) = self.get::<TurnMark>(no, &turn.0, Part::Mark) else { return Ok(Vec::new()) };
        let sql = "SELECT no, person, text, turn, at FROM wishes WHERE person = ?1 ORDER BY no";
        self.select(sql, [mark.person as i64], row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_and_its_opposite_are_about_the_same() {
        for (one, other) in [
            ("No capitals, please.", "Use capitals."),
            ("Don\u{2019}t use bold", "Use bold text"),
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
