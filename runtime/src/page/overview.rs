//! What the page opens on: whether the replies get better, by the judge's word and by a person's, and what two of them
//! look like.

use std::collections::BTreeMap;

use openclaw_journal::{JournalError, ReplyRow, Turn};
use serde::Serialize;

use super::{Page, Text, reply::ReplyParts, story};

/// Replies at each end of the curve that are compared.
const COMPARED: usize = 20;
/// Fewer than this at each end say nothing.
const COMPARED_AT_LEAST: usize = 5;
/// Standard errors that a difference must have to be more than chance.
const CERTAIN: f64 = 2.0;
/// Characters of a question and of each part of a reply.
const SHOWN_CHARS: usize = 600;
/// Characters of a question that can be asked again.
const QUESTION_CHARS: usize = 8000;

/// The answer, what it rests on, and an example.
#[derive(Debug, Serialize)]
pub(super) struct Overview {
    answer: Answer,
    /// Judged first replies of conversations, oldest first.
    replies: Vec<Point>,
    ratings: Ratings,
    pair: Option<Pair>,
    /// What the last user began a conversation with, if it may be learnt from.
    question: Option<Text>,
}

/// Whether it gets better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Trend {
    TooLittle,
    Better,
    NotYet,
    Worse,
}

#[derive(Debug, PartialEq, Serialize)]
struct Answer {
    trend: Trend,
    /// Judged first replies of conversations.
    judged: usize,
    /// The first of them.
    before: Share,
    /// The latest.
    after: Share,
}

/// How many were approved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct Share {
    approved: usize,
    of: usize,
}

#[derive(Debug, Serialize)]
struct Point {
    version: u64,
    approved: bool,
}

/// What people said with a rating, and what the judge had made of the same replies.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Ratings {
    rated: usize,
    good: usize,
    /// Rated replies that the judge read, too.
    judged: usize,
    /// Those of them that it and the person agree on.
    agreed: usize,
}

/// Two first replies by different versions.
#[derive(Debug, Serialize)]
struct Pair {
    /// The question is the same, word for word.
    same_question: bool,
    before: Example,
    after: Example,
}

#[derive(Debug, Serialize)]
struct Example {
    turn: String,
    session: String,
    version: u64,
    asked: Text,
    reply: ReplyParts,
    reward: Option<i8>,
    /// The verdict is a person's.
    rated: bool,
}

impl Page {
    pub(super) async fn overview(&self) -> Result<Overview, JournalError> {
        let replies = self.received.replies().await?;
        let pair = match choose(&replies) {
            Some((same_question, before, after)) => {
                let (before, after) = (self.example(before).await?, self.example(after).await?);
                before.zip(after).map(|(before, after)| Pair { same_question, before, after })
            }
            None => None,
        };
        let opening = self.journal.last_opening().await?;
        let question =
            opening.as_ref().and_then(story::opening).map(|asked| Text::cut(&asked, QUESTION_CHARS));
        let first = |reply: &&ReplyRow| reply.index == 1 && reply.reward.is_some();
        let point = |reply: &ReplyRow| Point { version: reply.version, approved: reply.reward == Some(1) };
        let points: Vec<Point> = replies.values().filter(first).map(point).collect();
        Ok(Overview {
            answer: answer(&points.iter().map(|point| point.approved).collect::<Vec<_>>()),
            replies: points,
            ratings: ratings(replies.values()),
            pair,
            question,
        })
    }

    /// None where it cannot be read, or has left the journal since.
    async fn example(&self, reply: &ReplyRow) -> Result<Option<Example>, JournalError> {
        let Some(row) = self.journal.turn(&reply.turn).await? else { return Ok(None) };
        let turn: &Turn = &row.turn;
        Ok(Some(Example {
            turn: reply.turn.to_string(),
            session: reply.session.to_string(),
            version: reply.version,
            asked: Text::cut(&story::opening(turn).unwrap_or_default(), SHOWN_CHARS),
            reply: ReplyParts::cut(&turn.completion.text, &turn.completion.split, SHOWN_CHARS),
            reward: reply.reward,
            rated: reply.rated.is_some(),
        }))
    }
}

/// Whether the latest first replies are approved of more often than the first ones, beyond chance.
fn answer(approved: &[bool]) -> Answer {
    let part = COMPARED.min(approved.len() / 2);
    let share =
        |of: &[bool]| Share { approved: of.iter().filter(|approved| **approved).count(), of: of.len() };
    let (before, after) = (share(&approved[..part]), share(&approved[approved.len() - part..]));
    let trend = if part < COMPARED_AT_LEAST { Trend::TooLittle } else { trend(before, after) };
    Answer { trend, judged: approved.len(), before, after }
}

fn trend(before: Share, after: Share) -> Trend {
    // One more of each kind than there were: what was never seen is not impossible.
    let rate = |share: Share| (share.approved as f64 + 1.0) / (share.of as f64 + 2.0);
    let variance = |share: Share| rate(share) * (1.0 - rate(share)) / (share.of as f64 + 2.0);
    let sigmas = (rate(after) - rate(before)) / (variance(before) + variance(after)).sqrt();
    match sigmas {
        better if better > CERTAIN => Trend::Better,
        worse if worse < -CERTAIN => Trend::Worse,
        _ => Trend::NotYet,
    }
}

fn ratings<'a>(replies: impl Iterator<Item = &'a ReplyRow>) -> Ratings {
    let mut ratings = Ratings::default();
    for reply in replies {
        let Some(rated) = reply.rated else { continue };
        ratings.rated += 1;
        ratings.good += usize::from(rated == 1);
        if let Some(judged) = reply.judged {
            ratings.judged += 1;
            ratings.agreed += usize::from(judged == rated);
        }
    }
    ratings
}

/// Two first replies whose versions are furthest apart, to the same question if one was asked twice, and the latest of
/// those. What became of them does not count, so that neither success nor failure is picked.
fn choose(replies: &BTreeMap<u64, ReplyRow>) -> Option<(bool, &ReplyRow, &ReplyRow)> {
    let firsts = || replies.values().filter(|reply| reply.index == 1);
    let mut first_of: BTreeMap<u64, &ReplyRow> = BTreeMap::new();
    let mut same: Option<(&ReplyRow, &ReplyRow)> = None;
    for reply in firsts() {
        let Some(asked) = reply.asked else { continue };
        let before = *first_of.entry(asked).or_insert(reply);
        let apart = |(before, after): (&ReplyRow, &ReplyRow)| after.version.saturating_sub(before.version);
        if before.version < reply.version && apart((before, reply)) >= same.map_or(1, apart) {
            same = Some((before, reply));
        }
    }
    if let Some((before, after)) = same {
        return Some((true, before, after));
    }
    let before = firsts().next()?;
    let after = firsts().next_back()?;
    (before.version < after.version).then_some((false, before, after))
}

#[cfg(test)]
mod tests {
    use openclaw_journal::{SessionId, TurnId};

    use super::*;

    fn reply(version: u64, asked: u64) -> ReplyRow {
        ReplyRow {
            turn: TurnId(format!("{version}-{asked}").into()),
            session: SessionId("s".into()),
            index: 1,
            version,
            reward: Some(1),
            rated: None,
            judged: Some(1),
            asked: Some(asked),
        }
    }

    fn placed(replies: &[ReplyRow]) -> BTreeMap<u64, ReplyRow> {
        (1..).zip(replies.iter().cloned()).collect()
    }

    fn trend_of(before: usize, after: usize, of: usize) -> Trend {
        let part = |approved| (0..of).map(move |place| place < approved);
        answer(&part(before).chain(part(after)).collect::<Vec<_>>()).trend
    }

    #[test]
    fn it_gets_better_only_beyond_chance() {
        assert_eq!(trend_of(0, 4, 4), Trend::TooLittle);
        assert_eq!(trend_of(0, 5, 5), Trend::Better);
        assert_eq!(trend_of(5, 0, 5), Trend::Worse);
        assert_eq!(trend_of(1, 3, 5), Trend::NotYet);
        assert_eq!(trend_of(8, 11, 20), Trend::NotYet);
        assert_eq!(trend_of(4, 14, 20), Trend::Better);
        let none = answer(&[]);
        assert_eq!((none.trend, none.judged), (Trend::TooLittle, 0));
    }

    #[test]
    fn the_judge_agrees_where_it_read_what_a_person_rated() {
        let rated = |rated, judged| ReplyRow { rated, judged, ..reply(1, 1) };
        let replies =
            [rated(Some(1), Some(1)), rated(Some(-1), Some(1)), rated(Some(1), None), rated(None, Some(1))];
        let expected = Ratings { rated: 3, good: 2, judged: 2, agreed: 1 };
        assert_eq!(ratings(replies.iter()), expected);
    }

    #[test]
    fn a_pair_answers_the_same_question_if_one_was_asked_twice_and_is_picked_by_nothing_else() {
        let chosen = |replies: &[ReplyRow]| {
            let replies = placed(replies);
            choose(&replies)
                .map(|(same, before, after)| (same, before.turn.to_string(), after.turn.to_string()))
        };
        let named = |same, before: &str, after: &str| Some((same, before.to_owned(), after.to_owned()));
        assert_eq!(chosen(&[]), None);
        assert_eq!(chosen(&[reply(0, 1), reply(0, 1)]), None, "one version");
        assert_eq!(chosen(&[reply(0, 1), reply(1, 2), reply(3, 3)]), named(false, "0-1", "3-3"));
        let twice = [reply(0, 1), reply(1, 2), reply(2, 1), reply(3, 2), reply(4, 5)];
        assert_eq!(chosen(&twice), named(true, "1-2", "3-2"), "the latest of those as far apart");
        let later = ReplyRow { index: 2, ..reply(9, 1) };
        assert_eq!(chosen(&[reply(0, 1), later]), None, "not the first of its conversation");
    }
}
