//! The life of one child as a plain state machine: what happened goes in, what to do next comes out. Every start
//! has a number, so that news of an earlier one is told from news of this one.

use std::collections::VecDeque;

use tokio::time::{Duration, Instant};

use super::{
    ChildState, ChildStatus, SupervisorError,
    spec::{ChildSpec, Restart},
};

/// What the supervisor must do for a child now.
#[derive(Debug, PartialEq)]
pub enum Action {
    /// Nothing.
    Wait,
    /// Start incarnation `generation`.
    Start {
        /// Its number.
        generation: u64,
    },
    /// Stop the running one.
    Stop,
    /// Report back when the wait before a restart is over.
    WakeAfter {
        /// The wait.
        delay: Duration,
        /// Of this incarnation.
        generation: u64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    /// Nothing is running and nothing is due.
    Down,
    /// The start is under way.
    Starting {
        /// Stop it as soon as it is up.
        unwanted: bool,
    },
    Up,
    /// Told to end, and not ended yet.
    Ending {
        /// Start it again then.
        again: bool,
    },
    /// Waiting before a restart.
    Backoff,
}

/// Why a child ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Exit {
    /// A panic, an error or a kill.
    pub abnormal: bool,
    /// In words.
    pub reason: String,
}

/// Those who wait for a child to be up, or down.
pub struct Waiters<W> {
    pub up: Vec<W>,
    pub down: Vec<W>,
}

/// One child and where it is in its life. `W` is the port of someone who waits for it.
pub struct Child<W> {
    pub spec: ChildSpec,
    pub waiters: Waiters<W>,
    phase: Phase,
    generation: u64,
    /// When it ended by itself, within the intensity's period.
    ends: VecDeque<Instant>,
    status: ChildStatus,
}

impl<W> Child<W> {
    pub fn new(spec: ChildSpec) -> Self {
        let status = ChildStatus {
            name: spec.name.clone(),
            group: spec.group.clone(),
            state: ChildState::Stopped,
            since: Instant::now(),
            restarts: 0,
            last_error: None,
        };
        let waiters = Waiters { up: Vec::new(), down: Vec::new() };
        Self { spec, waiters, phase: Phase::Down, generation: 0, ends: VecDeque::new(), status }
    }

    pub fn status(&self) -> &ChildStatus {
        &self.status
    }

    pub fn generation(&self) -> u64 {
        self.generation
    }

    pub fn is_up(&self) -> bool {
        self.phase == Phase::Up
    }

    pub fn is_down(&self) -> bool {
        self.phase == Phase::Down
    }

    fn enter(&mut self, phase: Phase, state: ChildState) {
        self.phase = phase;
        if self.status.state != state {
            self.status.state = state;
            self.status.since = Instant::now();
        }
    }

    fn start(&mut self, state: ChildState) -> Action {
        self.generation += 1;
        self.enter(Phase::Starting { unwanted: false }, state);
        Action::Start { generation: self.generation }
    }

    /// Someone wants it up.
    pub fn wanted(&mut self) -> Action {
        match self.phase {
            Phase::Down => self.start(ChildState::Starting),
            Phase::Starting { .. } => {
                self.phase = Phase::Starting { unwanted: false };
                Action::Wait
            }
            Phase::Up => Action::Wait,
            Phase::Ending { .. } => {
                self.phase = Phase::Ending { again: true };
                Action::Wait
            }
            Phase::Backoff => self.start(ChildState::Restarting),
        }
    }

    /// An operator wants a new incarnation.
    pub fn restart_wanted(&mut self) -> Action {
        self.ends.clear();
        if self.generation > 0 && !matches!(self.phase, Phase::Starting { .. }) {
            self.status.restarts += 1;
        }
        if self.phase == Phase::Up {
            self.enter(Phase::Ending { again: true }, ChildState::Restarting);
            return Action::Stop;
        }
        self.wanted()
    }

    /// Someone wants it down.
    pub fn unwanted(&mut self) -> Action {
        match self.phase {
            Phase::Down => {}
            Phase::Starting { .. } => self.phase = Phase::Starting { unwanted: true },
            Phase::Up => {
                self.phase = Phase::Ending { again: false };
                return Action::Stop;
            }
            Phase::Ending { .. } => self.phase = Phase::Ending { again: false },
            Phase::Backoff => self.enter(Phase::Down, ChildState::Stopped),
        }
        Action::Wait
    }

    /// A start came to its end. Returns what those who wait for it are told, once they are.
    pub fn started(&mut self, outcome: Result<(), String>) -> (Action, Option<Result<(), SupervisorError>>) {
        let unwanted = self.phase == Phase::Starting { unwanted: true };
        let name = self.spec.name.clone();
        match outcome {
            Ok(()) if unwanted => {
                self.phase = Phase::Ending { again: false };
                (Action::Stop, Some(Err(SupervisorError::Stopped { name })))
            }
            Ok(()) => {
                self.enter(Phase::Up, ChildState::Running);
                (Action::Wait, Some(Ok(())))
            }
            Err(reason) => {
                self.status.last_error = Some(reason.clone());
                if unwanted {
                    self.enter(Phase::Down, ChildState::Stopped);
                    return (Action::Wait, Some(Err(SupervisorError::Stopped { name })));
                }
                // Who asked for it is told and decides; what restarts by itself tries again.
                let asked = !self.waiters.up.is_empty();
                let action = if asked {
                    self.enter(Phase::Down, ChildState::Failed);
                    Action::Wait
                } else {
                    self.ended_by_itself()
                };
                (action, Some(Err(SupervisorError::Start { name, reason })))
            }
        }
    }

    /// The running incarnation has ended, with all it owned.
    pub fn ended(&mut self, exit: Exit) -> Action {
        if let Phase::Ending { again } = self.phase {
            if again {
                return self.start(ChildState::Restarting);
            }
            self.enter(Phase::Down, ChildState::Stopped);
            return Action::Wait;
        }
        if exit.abnormal || self.spec.restart == Restart::Permanent {
            self.status.last_error = Some(exit.reason);
        }
        match self.spec.restart {
            Restart::Permanent => self.ended_by_itself(),
            Restart::Transient if exit.abnormal => self.ended_by_itself(),
            Restart::Temporary if exit.abnormal => {
                self.enter(Phase::Down, ChildState::Failed);
                Action::Wait
            }
            Restart::Transient | Restart::Temporary => {
                self.enter(Phase::Down, ChildState::Stopped);
                Action::Wait
            }
        }
    }

    fn ended_by_itself(&mut self) -> Action {
        let now = Instant::now();
        self.ends.push_back(now);
        self.ends.retain(|end| now.duration_since(*end) <= self.spec.intensity.period);
        if self.ends.len() > self.spec.intensity.restarts {
            self.enter(Phase::Down, ChildState::Failed);
            return Action::Wait;
        }
        self.enter(Phase::Backoff, ChildState::Restarting);
        let delay = self.spec.backoff.delay(self.ends.len(), rand::random());
        Action::WakeAfter { delay, generation: self.generation }
    }

    /// The wait before a restart is over.
    pub fn woken(&mut self) -> Action {
        if self.phase != Phase::Backoff {
            return Action::Wait;
        }
        self.status.restarts += 1;
        self.start(ChildState::Restarting)
    }
}
