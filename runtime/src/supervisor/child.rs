//! The life of one child as a plain state machine: where it is, and where it is to go. Every start has a number,
//! so that news of an earlier one is told from news of this one.

use std::collections::VecDeque;

use tokio::time::{Duration, Instant};

use super::{
    spec::{ChildSpec, Restart},
    status::{ChildState, ChildStatus, LastError},
};

/// Names a child for as long as there is a supervisor; a name may come again.
pub type ChildId = u64;

/// What the supervisor must do for a child now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Action {
    /// Start incarnation `generation`.
    Start { generation: u64 },
    /// The start under way is not wanted any more: cut it short if it takes long.
    GiveUpStart,
    /// Stop the running one, after a drain if asked.
    Stop { drain: bool },
    /// Kill it, or cut its start short, now.
    Kill,
    /// Report back when the wait before a restart is over.
    WakeAfter { delay: Duration, generation: u64 },
}

/// Where a child is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Phase {
    /// Nothing is running and nothing is due.
    Down,
    /// The start is under way.
    Starting {
        given_up: bool,
        /// Killed, maybe too late to cut the start short: then what it started is killed.
        killed: bool,
    },
    Up {
        stuck: bool,
    },
    /// Told to end, and not ended yet.
    Ending {
        draining: bool,
    },
    /// Down, until the wait before a restart is over.
    Backoff,
}

/// Where a child is to go.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Goal {
    Up,
    /// Up, but not as the incarnation it is.
    Renewed {
        drain: bool,
    },
    /// Down until someone wants it up.
    Down {
        drain: bool,
    },
    /// Down, and forgotten.
    Removed,
    /// Down: it ended too often.
    Failed,
    /// Down: it ended as it may.
    Finished,
}

impl Goal {
    pub fn is_up(self) -> bool {
        matches!(self, Self::Up | Self::Renewed { .. })
    }

    fn drains(self) -> bool {
        matches!(self, Self::Renewed { drain: true } | Self::Down { drain: true } | Self::Removed)
    }
}

/// Why a child ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Exit {
    /// A panic, an error or a kill.
    pub abnormal: bool,
    /// In words.
    pub reason: String,
}

/// One child and where it is in its life.
pub struct Child {
    pub id: ChildId,
    pub spec: ChildSpec,
    pub phase: Phase,
    pub goal: Goal,
    pub generation: u64,
    /// When it ended by itself, within the intensity's period.
    ends: VecDeque<Instant>,
    status: ChildStatus,
}

impl Child {
    pub fn new(id: ChildId, spec: ChildSpec) -> Self {
        let status = ChildStatus {
            name: spec.name.clone(),
            role: spec.role.clone(),
            state: ChildState::Stopped,
            since: Instant::now(),
            restarts: 0,
            last_error: None,
        };
        let (phase, goal) = (Phase::Down, Goal::Down { drain: false });
        Self { id, spec, phase, goal, generation: 0, ends: VecDeque::new(), status }
    }

    pub fn status(&self) -> &ChildStatus {
        &self.status
    }

    /// It holds what an incarnation holds, or may yet.
    pub fn is_alive(&self) -> bool {
        matches!(self.phase, Phase::Starting { .. } | Phase::Up { .. } | Phase::Ending { .. })
    }

    /// An operator wants it up: the failures so far are forgiven.
    pub fn wanted(&mut self, goal: Goal) {
        self.ends.clear();
        self.goal = goal;
        if self.phase == Phase::Backoff {
            self.phase = Phase::Down;
        }
    }

    pub fn start(&mut self) -> Action {
        self.generation += 1;
        self.goal = Goal::Up;
        self.phase = Phase::Starting { given_up: false, killed: false };
        Action::Start { generation: self.generation }
    }

    /// The start is over, and an incarnation is there.
    pub fn started(&mut self) -> Option<Action> {
        let killed = matches!(self.phase, Phase::Starting { killed: true, .. });
        self.phase = Phase::Up { stuck: false };
        killed.then_some(Action::Kill)
    }

    /// What is alive is to end as a crash would end it.
    pub fn kill(&mut self) -> Option<Action> {
        if let Phase::Starting { killed, .. } = &mut self.phase {
            *killed = true;
        }
        self.is_alive().then_some(Action::Kill)
    }

    /// It is to go down, for now or for good.
    pub fn end(&mut self) -> Option<Action> {
        match self.phase {
            Phase::Up { .. } => {
                let drain = self.goal.drains();
                self.phase = Phase::Ending { draining: drain };
                Some(Action::Stop { drain })
            }
            Phase::Starting { given_up: false, killed } => {
                self.phase = Phase::Starting { given_up: true, killed };
                Some(Action::GiveUpStart)
            }
            // A stop cuts a drain short.
            Phase::Ending { draining: true } if !self.goal.drains() && !self.goal.is_up() => {
                self.phase = Phase::Ending { draining: false };
                Some(Action::Stop { drain: false })
            }
            Phase::Backoff if !self.goal.is_up() => {
                self.phase = Phase::Down;
                None
            }
            Phase::Starting { .. } | Phase::Ending { .. } | Phase::Backoff | Phase::Down => None,
        }
    }

    /// The incarnation, or its start, is no more. `told`: it was to go down anyway.
    pub fn ended(&mut self, exit: Exit, told: bool) -> Option<Action> {
        let ending = matches!(self.phase, Phase::Ending { .. } | Phase::Starting { given_up: true, .. });
        let expected = told || ending;
        self.phase = Phase::Down;
        if exit.abnormal || !expected && self.spec.restart == Restart::Permanent {
            self.note(exit.reason);
        }
        if expected {
            return None;
        }
        match self.spec.restart {
            Restart::Transient | Restart::Temporary if !exit.abnormal => self.goal = Goal::Finished,
            Restart::Temporary => self.goal = Goal::Failed,
            Restart::Permanent | Restart::Transient => return self.ended_by_itself(),
        }
        None
    }

    fn ended_by_itself(&mut self) -> Option<Action> {
        let now = Instant::now();
        self.ends.push_back(now);
        self.ends.retain(|end| now.duration_since(*end) <= self.spec.intensity.period);
        if self.ends.len() > self.spec.intensity.restarts {
            self.goal = Goal::Failed;
            return None;
        }
        self.phase = Phase::Backoff;
        let delay = self.spec.backoff.delay(self.ends.len(), rand::random());
        Some(Action::WakeAfter { delay, generation: self.generation })
    }

    /// A stuck child is not restarted: its thread may be in a driver's call that nothing can interrupt, and a
    /// second incarnation beside it would want the same memory. An operator's restart waits for its end.
    pub fn probed(&mut self, outcome: Result<(), String>) {
        if let Phase::Up { stuck } = &mut self.phase {
            let newly = outcome.is_err() && !*stuck;
            *stuck = outcome.is_err();
            if let (Err(reason), true) = (outcome, newly) {
                self.note(reason);
            }
        }
    }

    fn note(&mut self, reason: String) {
        self.status.last_error = Some(LastError { reason, when: Instant::now() });
    }

    /// Brings the status in line with the rest.
    pub fn settle(&mut self) {
        let coming = match self.status.state {
            ChildState::Starting | ChildState::Stopped | ChildState::Failed => ChildState::Starting,
            _ => ChildState::Restarting,
        };
        let state = match (self.phase, self.goal) {
            (Phase::Up { stuck: true }, _) => ChildState::Stuck,
            (Phase::Up { stuck: false }, _) => ChildState::Running,
            (Phase::Starting { .. } | Phase::Backoff, _) => coming,
            (Phase::Ending { draining: true }, _) => ChildState::Draining,
            (Phase::Ending { .. }, goal) if goal.is_up() => ChildState::Restarting,
            (Phase::Ending { .. }, _) => ChildState::Draining,
            (Phase::Down, goal) if goal.is_up() => coming,
            (Phase::Down, Goal::Failed) => ChildState::Failed,
            (Phase::Down, _) => ChildState::Stopped,
        };
        if self.status.state != state {
            self.status.state = state;
            self.status.since = Instant::now();
        }
        self.status.restarts = self.generation.saturating_sub(1);
    }
}
