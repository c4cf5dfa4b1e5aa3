//! Which episode comes next: groups of one task each, and between them, now and then, the same held-out tasks again.
//!
//! It follows from the settings alone. What of it is done is in the journal, where a worker looks before it begins: a run
//! that was killed goes on where it was.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use openclaw_environments::{
    dice::Dice,
    world::{Split, drawn},
};

/// A ticket that came back this often without an end is abandoned: no episode may end every worker.
const MOST_TRIES: u32 = 3;

/// How many episodes of which tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanConfig {
    /// The environment's name in the topology.
    pub environment: Arc<str>,
    /// Which tasks are drawn, and in which order.
    pub seed: u64,
    /// Episodes of each task.
    pub group: u32,
    /// Groups; none goes on for ever.
    pub groups: Option<u64>,
    /// Tasks of each split, where they have an end.
    pub tasks: [Option<u64>; 2],
    /// Held-out tasks of a measurement; 0 measures nothing.
    pub held_out: u64,
    /// Groups between two measurements. The first comes before the first group.
    pub held_out_every: u64,
}

/// An episode to be played.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket {
    /// The measurement that it belongs to or comes after, from 0.
    round: u64,
    /// Whether it is of a group.
    trains: bool,
    /// The group's number, or the held-out task's.
    pub of: u64,
    /// Its number in the group.
    pub member: u32,
}

impl Ticket {
    /// What its task is for.
    pub fn split(self) -> Split {
        if self.trains { Split::Train } else { Split::HeldOut }
    }
}

/// Hands out tickets; shared by all workers of an environment, and outlives them.
#[derive(Debug)]
pub struct Plan {
    config: PlanConfig,
    /// The next one that was never handed out.
    next: Option<Ticket>,
    /// Those that came back; they come first.
    given_back: BTreeSet<(Ticket, u32)>,
    under_way: usize,
    tally: Tally,
    /// Task numbers of an epoch, where tasks have an end.
    order: Option<(u64, Vec<u64>)>,
}

/// What came of a plan's episodes since this process began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Trained on: how many came out, and how many of them well.
    pub train: (u64, u64),
    /// Held out: the same, of the latest measurement that has any.
    pub held_out: (u64, u64),
    /// Without an outcome.
    pub abandoned: u64,
    round: u64,
}

impl Plan {
    /// From its beginning.
    pub fn new(config: PlanConfig) -> Self {
        let first = Ticket { round: 0, trains: config.held_out == 0, of: 0, member: 0 };
        let next = (config.groups != Some(0)).then_some(first);
        Self { config, next, given_back: BTreeSet::new(), under_way: 0, tally: Tally::default(), order: None }
    }

    /// What it was made from.
    pub fn config(&self) -> &PlanConfig {
        &self.config
    }

    /// The next episode, and how often it came back.
    fn take(&mut self) -> Option<(Ticket, u32)> {
        let taken = match self.given_back.pop_first() {
            Some(back) => back,
            None => {
                let ticket = self.next?;
                self.next = self.after(ticket);
                (ticket, 0)
            }
        };
        self.under_way += 1;
        Some(taken)
    }

    fn after(&self, ticket: Ticket) -> Option<Ticket> {
        let PlanConfig { group, groups, held_out, held_out_every, .. } = self.config;
        let measures = held_out > 0;
        if !ticket.trains {
            let next = ticket.of + 1;
            return Some(match next < held_out {
                true => Ticket { of: next, ..ticket },
                false => Ticket { trains: true, of: ticket.round * held_out_every, ..ticket },
            })
            .filter(|next| !next.trains || groups.is_none_or(|groups| next.of < groups));
        }
        if ticket.member + 1 < group {
            return Some(Ticket { member: ticket.member + 1, ..ticket });
        }
        let of = ticket.of + 1;
        let is_over = groups.is_some_and(|groups| of >= groups);
        if measures && (is_over || of.is_multiple_of(held_out_every)) {
            // The last measurement is of what all groups have come to.
            return Some(Ticket { round: ticket.round + 1, trains: false, of: 0, member: 0 });
        }
        (!is_over).then_some(Ticket { of, member: 0, ..ticket })
    }

    /// The number of a ticket's task within its split.
    pub fn task(&mut self, ticket: Ticket) -> u64 {
        let tasks = self.config.tasks[usize::from(!ticket.trains)];
        match (tasks, ticket.trains) {
            (None, true) => drawn(self.config.seed, ticket.of, None),
            (None, false) => ticket.of,
            (Some(tasks), false) => ticket.of % tasks.max(1),
            (Some(tasks), true) => {
                let tasks = tasks.max(1);
                let (epoch, at) = (ticket.of / tasks, ticket.of % tasks);
                if self.order.as_ref().is_none_or(|(of, _)| *of != epoch) {
                    self.order = Some((epoch, shuffled(tasks, self.config.seed ^ epoch << 32)));
                }
                self.order.as_ref().map_or(at, |(_, order)| order[at as usize])
            }
        }
    }

    /// The name of a ticket's group: for one that is held out, its own.
    pub fn group_name(&self, ticket: Ticket) -> String {
        let PlanConfig { environment, seed, .. } = &self.config;
        match ticket.trains {
            true => format!("{environment}-{seed}-train-{}", ticket.of),
            false => format!("{environment}-{seed}-held-out-{}-{}", ticket.round, ticket.of),
        }
    }

    /// The name of a ticket's episode.
    pub fn episode_name(&self, ticket: Ticket) -> String {
        let group = self.group_name(ticket);
        if ticket.trains { format!("{group}-{}", ticket.member) } else { group }
    }

    /// Episodes that are being played.
    pub fn under_way(&self) -> usize {
        self.under_way
    }

    /// What came of those that were.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Every episode has come to an end.
    pub fn is_over(&self) -> bool {
        self.next.is_none() && self.given_back.is_empty() && self.under_way == 0
    }

    fn end(&mut self, ticket: Ticket, success: Option<bool>) {
        self.under_way -= 1;
        let Some(success) = success else {
            self.tally.abandoned += 1;
            return;
        };
        if !ticket.trains && self.tally.round != ticket.round {
            (self.tally.round, self.tally.held_out) = (ticket.round, (0, 0));
        }
        let counted = if ticket.trains { &mut self.tally.train } else { &mut self.tally.held_out };
        *counted = (counted.0 + 1, counted.1 + u64::from(success));
    }
}

fn shuffled(tasks: u64, seed: u64) -> Vec<u64> {
    let mut order: Vec<u64> = (0..tasks).collect();
    let mut dice = Dice::new(seed);
    for at in (1..order.len()).rev() {
        order.swap(at, dice.index(at + 1));
    }
    order
}

/// A ticket that was taken. Dropped before its end, it is given back.
pub(super) struct Held {
    plan: Arc<Mutex<Plan>>,
    /// The episode.
    pub ticket: Ticket,
    tries: u32,
    ended: bool,
}

impl Held {
    /// The next one; none when all were handed out.
    pub fn take(plan: &Arc<Mutex<Plan>>) -> Option<Self> {
        let (ticket, tries) = locked(plan).take()?;
        Some(Self { plan: plan.clone(), ticket, tries, ended: false })
    }

    /// It was tried too often to be tried again.
    pub fn is_hopeless(&self) -> bool {
        self.tries >= MOST_TRIES
    }

    /// It came to an end; none is without an outcome.
    pub fn end(mut self, success: Option<bool>) {
        self.ended = true;
        locked(&self.plan).end(self.ticket, success);
    }

    /// It was played before this process began, or by another worker.
    pub fn skip(mut self) {
        self.ended = true;
        locked(&self.plan).under_way -= 1;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.ended {
            let mut plan = locked(&self.plan);
            plan.under_way -= 1;
            plan.given_back.insert((self.ticket, self.tries + 1));
        }
    }
}

/// No panic of a worker leaves it half changed.
pub(super) fn locked(plan: &Mutex<Plan>) -> MutexGuard<'_, Plan> {
    plan.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> PlanConfig {
        PlanConfig {
            environment: "sums".into(),
            seed: 7,
            group: 2,
            groups: Some(3),
            tasks: [None, None],
            held_out: 1,
            held_out_every: 2,
        }
    }

    fn names(config: PlanConfig) -> Vec<String> {
        let plan = Arc::new(Mutex::new(Plan::new(config)));
        let mut names = Vec::new();
        while let Some(held) = Held::take(&plan) {
            names.push(locked(&plan).episode_name(held.ticket));
            held.end(Some(true));
        }
        assert!(locked(&plan).is_over());
        names
    }

    #[test]
    fn groups_and_measurements_take_turns() {
        let expected = [
            "held-out-0-0",
            "train-0-0",
            "train-0-1",
            "train-1-0",
            "train-1-1",
            "held-out-1-0",
            "train-2-0",
            "train-2-1",
            "held-out-2-0",
        ];
        assert_eq!(names(config()), expected.map(|name| format!("sums-7-{name}")));
        assert_eq!(names(PlanConfig { held_out: 0, groups: Some(1), ..config() }).len(), 2);
        assert_eq!(names(PlanConfig { groups: Some(0), ..config() }).len(), 0);
        // As many groups as there are between two measurements: one before, one behind.
        assert_eq!(names(PlanConfig { groups: Some(2), ..config() }).len(), 6);
    }

    #[test]
    fn what_comes_back_comes_first_and_not_for_ever() {
        let plan = Arc::new(Mutex::new(Plan::new(config())));
        let first = Held::take(&plan).expect("a ticket").ticket;
        for _ in 1..MOST_TRIES {
            let again = Held::take(&plan).expect("a ticket");
            assert_eq!((again.ticket, again.is_hopeless()), (first, false));
        }
        let last = Held::take(&plan).expect("a ticket");
        assert!(last.is_hopeless());
        last.end(None);
        assert_eq!(locked(&plan).tally().abandoned, 1);
        assert_ne!(Held::take(&plan).expect("another").ticket, first);
    }

    #[test]
    fn an_epoch_has_each_task_once_in_an_order_of_its_own() {
        let mut plan = Plan::new(PlanConfig { tasks: [Some(10), Some(1)], ..config() });
        let ticket = |of| Ticket { round: 0, trains: true, of, member: 0 };
        let mut epoch = |from: u64| (from..from + 10).map(|of| plan.task(ticket(of))).collect::<Vec<_>>();
        let (first, second) = (epoch(0), epoch(10));
        assert_ne!(first, second);
        for epoch in [first, second] {
            assert_eq!(epoch.into_iter().collect::<BTreeSet<_>>(), (0..10).collect());
        }
    }
}
