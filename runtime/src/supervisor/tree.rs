//! All children as one plain state machine: orders and news go in, what to do next comes out. Two rules hold the
//! groups together: of a `rest_for_one` group a child is up only while those before it are, and it starts or ends
//! only while those after it are down.

use super::{
    child::{Action, Child, ChildId, Exit, Goal, Phase},
    spec::{ChildSpec, Strategy},
};

/// What someone wants of a child.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Order {
    /// Up, whatever incarnation.
    Start,
    /// Up, as a new incarnation.
    Restart { drain: bool },
    /// Down.
    Stop { drain: bool },
    /// Down, and forgotten.
    Remove,
    /// Ended as a crash would.
    Kill,
}

/// What became of an incarnation.
#[derive(Clone, Debug)]
pub enum News {
    /// Its start came to its end.
    Started(Result<(), String>),
    /// It has ended, with all it owned.
    Ended(Exit),
    /// The wait after its end is over.
    Woken,
    /// It answered its probe, or did not.
    Probed(Result<(), String>),
}

/// Why a child that is wanted up is not on its way.
#[derive(Debug, PartialEq)]
pub enum Obstacle {
    /// Someone wants it down.
    Stopped,
    /// It ended too often.
    Failed,
    /// This one, which it needs, is down and stays down.
    Held(String),
}

/// The children in starting order.
#[derive(Default)]
pub struct Tree {
    children: Vec<Child>,
    next: ChildId,
}

impl Tree {
    /// Puts a child behind the last one of its role, or at the end. Its name must be new.
    pub fn add(&mut self, spec: ChildSpec) -> ChildId {
        let id = self.next;
        self.next += 1;
        let last = self.children.iter().rposition(|child| child.spec.role == spec.role);
        self.children.insert(last.map_or(self.children.len(), |last| last + 1), Child::new(id, spec));
        id
    }

    pub fn children(&self) -> &[Child] {
        &self.children
    }

    pub fn get(&self, id: ChildId) -> Option<&Child> {
        self.children.iter().find(|child| child.id == id)
    }

    pub fn named(&self, name: &str) -> Option<&Child> {
        self.children.iter().find(|child| child.spec.name == name)
    }

    fn position(&self, id: ChildId) -> Option<usize> {
        self.children.iter().position(|child| child.id == id)
    }

    /// Whether it is up as it is wanted.
    pub fn is_up(&self, id: ChildId) -> bool {
        self.position(id).is_some_and(|i| self.ready(i) && self.children[i].goal == Goal::Up)
    }

    /// Why waiting for it to be up is in vain.
    pub fn obstacle(&self, id: ChildId) -> Option<Obstacle> {
        let Some(i) = self.position(id) else { return Some(Obstacle::Stopped) };
        match self.children[i].goal {
            Goal::Failed => return Some(Obstacle::Failed),
            Goal::Down { .. } | Goal::Removed | Goal::Finished => return Some(Obstacle::Stopped),
            Goal::Up | Goal::Renewed { .. } => {}
        }
        let held = self.before(i).find(|&j| !self.children[j].goal.is_up() && !self.ready(j))?;
        Some(Obstacle::Held(self.children[held].spec.name.clone()))
    }

    pub fn order(&mut self, id: ChildId, order: Order) -> Vec<(ChildId, Action)> {
        let Some(child) = self.children.iter_mut().find(|child| child.id == id) else { return Vec::new() };
        let up = matches!(child.phase, Phase::Up { .. });
        match order {
            Order::Kill => return child.kill().map(|action| (id, action)).into_iter().collect(),
            Order::Remove => child.goal = Goal::Removed,
            // What is to be forgotten does not come back.
            _ if child.goal == Goal::Removed => {}
            Order::Start if up && child.goal.is_up() => {}
            Order::Start => child.wanted(Goal::Up),
            // An incarnation that is still starting is new enough.
            Order::Restart { drain } if up => child.wanted(Goal::Renewed { drain }),
            Order::Restart { .. } => child.wanted(Goal::Up),
            // One that failed or has finished is down already, and says why.
            Order::Stop { .. } if matches!(child.goal, Goal::Failed | Goal::Finished) => {}
            Order::Stop { drain } => child.goal = Goal::Down { drain },
        }
        self.settled()
    }

    pub fn news(&mut self, id: ChildId, generation: u64, news: News) -> Vec<(ChildId, Action)> {
        let Some(i) = self.position(id).filter(|&i| self.children[i].generation == generation) else {
            return Vec::new();
        };
        let told = self.children[i].goal != Goal::Up || !self.allowed(i);
        let child = &mut self.children[i];
        let action = match news {
            News::Started(Ok(())) => child.started(),
            News::Started(Err(reason)) => child.ended(Exit { abnormal: true, reason }, told),
            News::Ended(exit) => child.ended(exit, told),
            News::Woken => {
                if child.phase == Phase::Backoff {
                    child.phase = Phase::Down;
                }
                None
            }
            News::Probed(outcome) => {
                child.probed(outcome);
                None
            }
        };
        let mut actions: Vec<_> = action.map(|action| (id, action)).into_iter().collect();
        actions.extend(self.settled());
        actions
    }

    /// Others of its group, if it is one of which the rest follows one.
    fn group(&self, i: usize) -> impl Iterator<Item = usize> {
        let strategy = &self.children[i].spec.strategy;
        let grouped = *strategy != Strategy::OneForOne;
        (0..self.children.len())
            .filter(move |&j| grouped && j != i && self.children[j].spec.strategy == *strategy)
    }

    fn before(&self, i: usize) -> impl Iterator<Item = usize> {
        self.group(i).filter(move |&j| j < i)
    }

    /// Nothing that depends on it is alive.
    fn alone(&self, i: usize) -> bool {
        !self.group(i).any(|j| j > i && self.children[j].is_alive())
    }

    /// What it depends on is up to stay, or has finished.
    fn allowed(&self, i: usize) -> bool {
        self.before(i).all(|j| self.ready(j))
    }

    fn ready(&self, i: usize) -> bool {
        let child = &self.children[i];
        match child.goal {
            Goal::Finished => true,
            Goal::Up => matches!(child.phase, Phase::Up { .. }) && self.allowed(i),
            _ => false,
        }
    }

    /// Takes every step that the goals ask for and the groups allow.
    fn settled(&mut self) -> Vec<(ChildId, Action)> {
        let mut actions = Vec::new();
        for i in (0..self.children.len()).rev() {
            let stays = self.children[i].goal == Goal::Up && self.allowed(i);
            if !stays && self.alone(i) {
                let child = &mut self.children[i];
                actions.extend(child.end().map(|action| (child.id, action)));
            }
        }
        self.children.retain(|child| child.goal != Goal::Removed || child.phase != Phase::Down);
        for i in 0..self.children.len() {
            let due = self.children[i].phase == Phase::Down && self.children[i].goal.is_up();
            if due && self.allowed(i) && self.alone(i) {
                let child = &mut self.children[i];
                actions.push((child.id, child.start()));
            }
        }
        self.children.iter_mut().for_each(Child::settle);
        actions
    }
}
