//! What is counted rather than listed. It is committed with the records that changed it, so that a restarted run
//! counts on, also over turns that were pruned since.

use rusqlite::Connection;

use super::record::{Backlog, Totals, TurnState};

/// Counts and the numbers that go on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub totals: Totals,
    pub backlog: Backlog,
    /// The version to go on from after a restart.
    pub resumable: u64,
}

/// Where a turn stands, as far as it is counted by it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub state: TurnState,
    pub dead: bool,
    /// Its next state may still be taken back.
    pub provisional: bool,
}

impl Tally {
    /// Those kept by name; the backlog is counted from the turns.
    fn named(&mut self) -> [(&'static str, &mut u64); 19] {
        let Self { totals, backlog, resumable } = self;
        [
            ("sessions", &mut totals.sessions),
            ("turns", &mut totals.turns),
            ("next_states", &mut totals.next_states),
            ("approved", &mut totals.approved),
            ("rejected", &mut totals.rejected),
            ("neutral", &mut totals.neutral),
            ("hinted", &mut totals.hinted),
            ("taught", &mut totals.taught),
            ("samples", &mut totals.samples),
            ("rated", &mut totals.rated),
            ("corrected", &mut totals.corrected),
            ("dropped", &mut totals.dropped),
            ("quarantined", &mut totals.quarantined),
            ("steps", &mut totals.steps),
            ("withheld", &mut totals.withheld),
            ("trained", &mut totals.trained),
            ("version", &mut totals.version),
            ("resumable", resumable),
            ("last_seq", &mut backlog.last_seq),
        ]
    }

    pub fn load(connection: &Connection) -> rusqlite::Result<Self> {
        let mut tally = Self::default();
        let mut select = connection.prepare("SELECT value FROM totals WHERE name = ?1")?;
        for (name, value) in tally.named() {
            let mut rows = select.query([name])?;
            if let Some(row) = rows.next()? {
                *value = row.get(0)?;
            }
        }
        let mut count = connection.prepare(
            "SELECT provisional, died_in IS NOT NULL, count(*) FROM turns WHERE state = ?1 GROUP BY 1, 2",
        )?;
        for state in TurnState::ALL.into_iter().filter(|state| state.is_open()) {
            let mut rows = count.query([state])?;
            while let Some(row) = rows.next()? {
                let place = Place { state, provisional: row.get(0)?, dead: row.get(1)? };
                *tally.count(place).expect("an open state is counted") += row.get::<_, u64>(2)?;
            }
        }
        Ok(tally)
    }

    /// Writes down what differs from `before`.
    pub fn save(mut self, mut before: Self, connection: &Connection) -> rusqlite::Result<()> {
        let mut upsert = connection.prepare_cached(
            "INSERT INTO totals (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = ?2",
        )?;
        for ((name, value), (_, before)) in self.named().into_iter().zip(before.named()) {
            if value != before {
                upsert.execute((name, *value))?;
            }
        }
        Ok(())
    }

    /// Where an open turn is counted; settled ones are not.
    pub fn count(&mut self, Place { state, dead, provisional }: Place) -> Option<&mut u64> {
        let backlog = &mut self.backlog;
        Some(match state {
            _ if dead && state.is_open() => &mut backlog.dead,
            TurnState::Waiting => &mut backlog.waiting,
            TurnState::Followed => &mut backlog.to_judge,
            TurnState::Judged => &mut backlog.to_teach,
            TurnState::Held => &mut backlog.held,
            TurnState::Ready if provisional => &mut backlog.provisional,
            TurnState::Ready => &mut backlog.ready,
            TurnState::Leased => &mut backlog.leased,
            _ => return None,
        })
    }

    pub fn next_seq(&mut self) -> u64 {
        self.backlog.last_seq += 1;
        self.backlog.last_seq
    }

    /// Turns that are not settled, dead ones included.
    pub fn open_turns(&self) -> u64 {
        let Backlog { waiting, to_judge, to_teach, held, ready, provisional, leased, dead, .. } =
            self.backlog;
        waiting + to_judge + to_teach + held + ready + provisional + leased + dead
    }
}
