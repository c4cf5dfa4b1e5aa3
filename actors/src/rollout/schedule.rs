//! Which user comes next, and which are content.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use openclaw_environments::world::User;

/// First replies in a row that must be liked before a user counts as satisfied.
pub const IN_A_ROW: usize = 3;

/// Sessions that the learning curve looks back on.
const RECENT: usize = 10;

/// A session that broke off this often with its worker satisfied nobody: no session may end every worker.
const MOST_TRIES: u32 = 3;

/// How far a user has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It goes on.
    Open,
    /// The first of three satisfied first replies in a row ended with this session, counted from 1.
    Satisfied {
        /// Sessions it took, the last of the three included.
        sessions: usize,
    },
    /// It gave up.
    Unsatisfied,
}

/// A session to be played.
#[derive(Clone, Debug)]
pub struct Turn {
    /// Whose.
    pub user: User,
    /// Its number among theirs, from 1.
    pub number: usize,
    /// The user's place in the schedule.
    index: usize,
}

#[derive(Debug)]
struct Track {
    user: User,
    started: usize,
    /// Sessions whose worker is gone, by number; they come first.
    given_back: BTreeSet<usize>,
    /// How often each was.
    tries: BTreeMap<usize, u32>,
    /// By session number: several sessions may run at once and end in any order.
    satisfied: BTreeMap<usize, bool>,
    progress: Progress,
}

/// Hands out sessions in turn until every user is satisfied or has given up.
#[derive(Debug)]
pub struct Schedule {
    tracks: Vec<Track>,
    next: usize,
    max_sessions: usize,
}

impl Schedule {
    /// Nobody has said anything yet.
    pub fn new(users: &[User], max_sessions: usize) -> Self {
        let track = |user: &User| Track {
            user: user.clone(),
            started: 0,
            given_back: BTreeSet::new(),
            tries: BTreeMap::new(),
            satisfied: BTreeMap::new(),
            progress: Progress::Open,
        };
        Self { tracks: users.iter().map(track).collect(), next: 0, max_sessions }
    }

    /// The next session.
    pub fn start(&mut self) -> Option<Turn> {
        for _ in 0..self.tracks.len() {
            let index = self.next % self.tracks.len();
            self.next += 1;
            let track = &mut self.tracks[index];
            if track.progress != Progress::Open {
                continue;
            }
            let number = track.given_back.pop_first().or_else(|| {
                let is_left = track.started < self.max_sessions;
                track.started += usize::from(is_left);
                is_left.then_some(track.started)
            });
            if let Some(number) = number {
                return Some(Turn { user: track.user.clone(), number, index });
            }
        }
        None
    }

    /// The worker of a session is gone: it is to be had again.
    pub fn give_back(&mut self, turn: &Turn) {
        let track = &mut self.tracks[turn.index];
        let tries = track.tries.entry(turn.number).or_default();
        *tries += 1;
        if *tries < MOST_TRIES {
            track.given_back.insert(turn.number);
        } else {
            self.end(turn, false);
        }
    }

    /// A session ended; says how far its user has come.
    pub fn end(&mut self, turn: &Turn, first_satisfied: bool) -> Progress {
        let track = &mut self.tracks[turn.index];
        track.satisfied.insert(turn.number, first_satisfied);
        if track.progress == Progress::Open {
            let mut row = 0;
            // Only sessions without a gap before them count: an earlier one may still break the row.
            for (index, (number, satisfied)) in track.satisfied.iter().enumerate() {
                if *number != index + 1 {
                    break;
                }
                row = if *satisfied { row + 1 } else { 0 };
                if row == IN_A_ROW {
                    track.progress = Progress::Satisfied { sessions: *number };
                    break;
                }
            }
            if track.progress == Progress::Open && track.satisfied.len() == self.max_sessions {
                track.progress = Progress::Unsatisfied;
            }
        }
        track.progress
    }

    /// Share of a user's last ten sessions whose first reply they liked; none before the first has ended. By sessions
    /// and not by time, so that it is the same curve however fast users talk.
    pub fn recently_satisfied(&self, turn: &Turn) -> Option<f64> {
        let track = &self.tracks[turn.index];
        let recent: Vec<bool> = track.satisfied.values().rev().take(RECENT).copied().collect();
        let satisfied = recent.iter().filter(|satisfied| **satisfied).count();
        (!recent.is_empty()).then(|| satisfied as f64 / recent.len() as f64)
    }

    /// Every user is satisfied or has given up.
    pub fn is_over(&self) -> bool {
        self.tracks.iter().all(|track| track.progress != Progress::Open)
    }

    /// How far each user has come.
    pub fn progress(&self) -> Vec<(Arc<str>, Progress)> {
        self.tracks.iter().map(|track| (track.user.name.clone(), track.progress)).collect()
    }
}

#[cfg(test)]
mod tests {
    use openclaw_environments::{registry, world::users_of};

    use super::*;

    fn schedule(users: usize, max_sessions: usize) -> Schedule {
        let environment = registry::make("calculator", registry::Table::new()).expect("it needs nothing");
        let user = |index| users_of(&format!("user-{index}"), &environment);
        Schedule::new(&(0..users).flat_map(user).collect::<Vec<_>>(), max_sessions)
    }

    fn told(turn: Option<Turn>) -> Option<(String, usize)> {
        turn.map(|turn| (turn.user.name.to_string(), turn.number))
    }

    #[test]
    fn three_in_a_row_by_session_number_whatever_the_order_of_their_ends() {
        let mut schedule = schedule(1, 72);
        let turns: Vec<Turn> = (0..5).filter_map(|_| schedule.start()).collect();
        assert_eq!(turns.iter().map(|turn| turn.number).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
        assert_eq!(schedule.recently_satisfied(&turns[0]), None);
        let mut end = |number: usize, satisfied| schedule.end(&turns[number - 1], satisfied);
        assert_eq!(end(1, true), Progress::Open);
        assert_eq!(end(3, true), Progress::Open);
        assert_eq!(end(4, true), Progress::Open);
        assert_eq!(end(2, false), Progress::Open, "1 and 3 to 4 are not three in a row");
        assert_eq!(end(5, true), Progress::Satisfied { sessions: 5 });
        assert!(schedule.is_over());
        assert_eq!(told(schedule.start()), None);
        assert_eq!(schedule.recently_satisfied(&turns[0]), Some(0.8));
    }

    #[test]
    fn users_take_turns_and_give_up_at_the_cap() {
        let mut schedule = schedule(2, 2);
        let turns: Vec<Turn> = std::iter::from_fn(|| schedule.start()).collect();
        let order: Vec<_> = turns.iter().filter_map(|turn| told(Some(turn.clone()))).collect();
        assert_eq!(
            order,
            [0, 1, 0, 1]
                .iter()
                .zip([1, 1, 2, 2])
                .map(|(user, number)| (format!("user-{user}"), number))
                .collect::<Vec<_>>()
        );
        for turn in &turns {
            schedule.end(turn, false);
        }
        let progress: Vec<Progress> = schedule.progress().into_iter().map(|(_, progress)| progress).collect();
        assert_eq!(progress, [Progress::Unsatisfied, Progress::Unsatisfied]);
        assert!(schedule.is_over());
    }

    #[test]
    fn a_session_whose_worker_is_gone_comes_first_and_not_for_ever() {
        let mut schedule = schedule(1, 3);
        let first = schedule.start().expect("a session");
        let second = schedule.start().expect("a session");
        for _ in 0..2 {
            schedule.give_back(&first);
            assert_eq!(schedule.start().map(|turn| turn.number), Some(1));
        }
        schedule.give_back(&first);
        let third = schedule.start().expect("a session");
        assert_eq!(third.number, 3);
        schedule.end(&second, true);
        assert_eq!(schedule.end(&third, true), Progress::Unsatisfied, "the first satisfied nobody");
    }
}
