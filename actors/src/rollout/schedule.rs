//! Which persona comes next, and which are content.

use std::collections::{BTreeMap, BTreeSet};

use openclaw_environments::persona::Persona;

/// First replies in a row that must keep the rule before a persona counts as satisfied.
pub const IN_A_ROW: usize = 3;

/// Sessions that the learning curve looks back on.
const RECENT: usize = 10;

/// A session that broke off this often with its worker satisfied nobody: no session may end every worker.
const MOST_TRIES: u32 = 3;

/// How far a persona has come.
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

#[derive(Debug)]
struct Track {
    persona: Persona,
    started: usize,
    /// Sessions whose worker is gone, by number; they come first.
    given_back: BTreeSet<usize>,
    /// How often each was.
    tries: BTreeMap<usize, u32>,
    /// By session number: several sessions may run at once and end in any order.
    satisfied: BTreeMap<usize, bool>,
    progress: Progress,
}

/// Hands out sessions in turn until every persona is satisfied or has given up.
#[derive(Debug)]
pub struct Schedule {
    tracks: Vec<Track>,
    next: usize,
    max_sessions: usize,
}

impl Schedule {
    /// Nobody has said anything yet.
    pub fn new(personas: &[Persona], max_sessions: usize) -> Self {
        let track = |&persona| Track {
            persona,
            started: 0,
            given_back: BTreeSet::new(),
            tries: BTreeMap::new(),
            satisfied: BTreeMap::new(),
            progress: Progress::Open,
        };
        Self { tracks: personas.iter().map(track).collect(), next: 0, max_sessions }
    }

    /// The next session: whose, and its number.
    pub fn start(&mut self) -> Option<(Persona, usize)> {
        for _ in 0..self.tracks.len() {
            let index = self.next % self.tracks.len();
            self.next += 1;
            let track = &mut self.tracks[index];
            if track.progress != Progress::Open {
                continue;
            }
            if let Some(number) = track.given_back.pop_first() {
                return Some((track.persona, number));
            }
            if track.started < self.max_sessions {
                track.started += 1;
                return Some((track.persona, track.started));
            }
        }
        None
    }

    /// The worker of a session is gone: it is to be had again.
    pub fn give_back(&mut self, persona: Persona, number: usize) {
        let Some(track) = self.tracks.iter_mut().find(|track| track.persona == persona) else { return };
        let tries = track.tries.entry(number).or_default();
        *tries += 1;
        if *tries < MOST_TRIES {
            track.given_back.insert(number);
        } else {
            self.end(persona, number, false);
        }
    }

    /// A session ended; says how far its persona has come.
    pub fn end(&mut self, persona: Persona, number: usize, first_satisfied: bool) -> Progress {
        let Some(track) = self.tracks.iter_mut().find(|track| track.persona == persona) else {
            return Progress::Open;
        };
        track.satisfied.insert(number, first_satisfied);
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

    /// Share of a persona's last ten sessions whose first reply kept its rule; none before the first has ended. By
    /// sessions and not by time, so that it is the same curve however fast users talk.
    pub fn recently_satisfied(&self, persona: Persona) -> Option<f64> {
        let track = self.tracks.iter().find(|track| track.persona == persona)?;
        let recent: Vec<bool> = track.satisfied.values().rev().take(RECENT).copied().collect();
        let satisfied = recent.iter().filter(|satisfied| **satisfied).count();
        (!recent.is_empty()).then(|| satisfied as f64 / recent.len() as f64)
    }

    /// Every persona is satisfied or has given up.
    pub fn is_over(&self) -> bool {
        self.tracks.iter().all(|track| track.progress != Progress::Open)
    }

    /// How far each persona has come.
    pub fn progress(&self) -> Vec<(Persona, Progress)> {
        self.tracks.iter().map(|track| (track.persona, track.progress)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_in_a_row_by_session_number_whatever_the_order_of_their_ends() {
        let mut schedule = Schedule::new(&[Persona::Student], 72);
        for number in 1..=5 {
            assert_eq!(schedule.start(), Some((Persona::Student, number)));
        }
        let mut end = |number, satisfied| schedule.end(Persona::Student, number, satisfied);
        assert_eq!(end(1, true), Progress::Open);
        assert_eq!(end(3, true), Progress::Open);
        assert_eq!(end(4, true), Progress::Open);
        assert_eq!(end(2, false), Progress::Open, "1 and 3 to 4 are not three in a row");
        assert_eq!(end(5, true), Progress::Satisfied { sessions: 5 });
        assert!(schedule.is_over());
        assert_eq!(schedule.start(), None);
        assert_eq!(schedule.recently_satisfied(Persona::Student), Some(0.8));
        assert_eq!(schedule.recently_satisfied(Persona::Ta), None);
    }

    #[test]
    fn personas_take_turns_and_give_up_at_the_cap() {
        let mut schedule = Schedule::new(&[Persona::Student, Persona::Ta], 2);
        let order: Vec<_> = std::iter::from_fn(|| schedule.start()).collect();
        use Persona::{Student, Ta};
        assert_eq!(order, [(Student, 1), (Ta, 1), (Student, 2), (Ta, 2)]);
        for (persona, number) in order {
            schedule.end(persona, number, false);
        }
        assert_eq!(schedule.progress(), [(Student, Progress::Unsatisfied), (Ta, Progress::Unsatisfied)]);
        assert!(schedule.is_over());
    }

    #[test]
    fn a_session_whose_worker_is_gone_comes_first_and_not_for_ever() {
        let mut schedule = Schedule::new(&[Persona::Student], 3);
        let mut next = || (schedule.start(), schedule.start());
        assert_eq!(next(), (Some((Persona::Student, 1)), Some((Persona::Student, 2))));
        for _ in 0..2 {
            schedule.give_back(Persona::Student, 1);
            assert_eq!(schedule.start(), Some((Persona::Student, 1)));
        }
        schedule.give_back(Persona::Student, 1);
        assert_eq!(schedule.start(), Some((Persona::Student, 3)));
        schedule.end(Persona::Student, 2, true);
        assert_eq!(
            schedule.end(Persona::Student, 3, true),
            Progress::Unsatisfied,
            "the first satisfied nobody"
        );
    }
}
