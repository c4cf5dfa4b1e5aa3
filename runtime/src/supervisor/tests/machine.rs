//! The tree against a world that does anything: orders, crashes, failing starts and stale news at random.

use std::collections::HashMap;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::super::{
    child::{Action, Child, ChildId, Exit, Goal},
    spec::{ChildSpec, Intensity, Restart, Strategy},
    status::ChildState,
    tree::{News, Order, Tree},
};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Real {
    Starting,
    /// Started, of which nobody knows yet.
    Started,
    Up,
    /// Killed, of which nobody knows yet.
    Killed,
    /// Told to end.
    Ending,
}

/// What really runs, and everything that must hold of it.
struct World {
    rng: ChaCha8Rng,
    tree: Tree,
    real: HashMap<ChildId, (u64, Real)>,
    /// What was killed when its start was over and nobody knew.
    killed: HashMap<ChildId, u64>,
    sleeping: Vec<(ChildId, u64)>,
    starts: usize,
}

fn spec(name: String, role: &str, group: Option<&str>, restart: Restart) -> ChildSpec {
    let mut spec = ChildSpec::new(name, role, |_| async { Err("the tree starts nothing".into()) });
    spec.restart = restart;
    spec.intensity = Intensity { restarts: 3, ..spec.intensity };
    if let Some(group) = group {
        spec.rest_for_one(group);
    }
    spec
}

impl World {
    fn new(seed: u64) -> Self {
        let mut tree = Tree::default();
        for (name, group, restart) in [
            ("a", None, Restart::Permanent),
            ("b", Some("g"), Restart::Permanent),
            ("c", Some("h"), Restart::Permanent),
            ("d", Some("g"), Restart::Transient),
            ("e", Some("h"), Restart::Permanent),
            ("f", Some("g"), Restart::Permanent),
            ("g", None, Restart::Temporary),
        ] {
            tree.add(spec(name.to_owned(), name, group, restart));
        }
        let rng = ChaCha8Rng::seed_from_u64(seed);
        let mut world =
            Self { rng, tree, real: HashMap::new(), killed: HashMap::new(), sleeping: Vec::new(), starts: 0 };
        for id in world.ids() {
            world.order(id, Order::Start);
        }
        world
    }

    fn ids(&self) -> Vec<ChildId> {
        self.tree.children().iter().map(|child| child.id).collect()
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        (!from.is_empty()).then(|| from[self.rng.random_range(0..from.len())])
    }

    fn failed(&self) -> Vec<ChildId> {
        let failed = |child: &&Child| child.status().state == ChildState::Failed;
        self.tree.children().iter().filter(failed).map(|child| child.id).collect()
    }

    fn order(&mut self, id: ChildId, order: Order) {
        let failed = self.failed();
        let actions = self.tree.order(id, order);
        let forgiven = matches!(order, Order::Start | Order::Restart { .. }).then_some(id);
        self.act(actions, &failed, forgiven);
    }

    fn news(&mut self, id: ChildId, generation: u64, news: News) {
        let failed = self.failed();
        let actions = self.tree.news(id, generation, news);
        self.act(actions, &failed, None);
    }

    fn neighbours(&self, id: ChildId) -> (Vec<ChildId>, Vec<ChildId>) {
        let strategy = |id| &self.tree.get(id).expect("it is asked for while it is there").spec.strategy;
        let at = self.ids().iter().position(|&other| other == id).expect("as above");
        let group = |ids: &[ChildId]| -> Vec<ChildId> {
            let of_one = *strategy(id) != Strategy::OneForOne;
            ids.iter().copied().filter(|&other| of_one && strategy(other) == strategy(id)).collect()
        };
        (group(&self.ids()[..at]), group(&self.ids()[at + 1..]))
    }

    fn act(&mut self, actions: Vec<(ChildId, Action)>, failed: &[ChildId], forgiven: Option<ChildId>) {
        for (id, action) in actions {
            match action {
                Action::Start { generation } => {
                    let (before, after) = self.neighbours(id);
                    assert!(!self.real.contains_key(&id), "started beside its former self");
                    assert!(!failed.contains(&id) || forgiven == Some(id), "failed, and nobody asked for it");
                    for other in before {
                        let child = self.tree.get(other).expect("it is in the group");
                        let up = matches!(self.real.get(&other), Some((_, Real::Up | Real::Killed)));
                        assert!(up || child.goal == Goal::Finished, "started before what it needs");
                    }
                    assert!(after.iter().all(|other| !self.real.contains_key(other)), "started under others");
                    self.real.insert(id, (generation, Real::Starting));
                    self.starts += 1;
                }
                Action::Stop { .. } => {
                    let (_, after) = self.neighbours(id);
                    assert!(after.iter().all(|other| !self.real.contains_key(other)), "stopped under others");
                    let real = self.real.get_mut(&id).expect("only what is there can be stopped");
                    assert!(!matches!(real.1, Real::Starting | Real::Started));
                    real.1 = Real::Ending;
                }
                Action::GiveUpStart => assert!(matches!(self.real[&id].1, Real::Starting | Real::Started)),
                Action::Kill => {
                    let real = self.real.get_mut(&id).expect("only what is there can be killed");
                    match real.1 {
                        Real::Up => real.1 = Real::Killed,
                        // Its start cannot be cut short any more.
                        Real::Started => drop(self.killed.insert(id, real.0)),
                        Real::Starting | Real::Killed | Real::Ending => {}
                    }
                }
                Action::WakeAfter { generation, .. } => self.sleeping.push((id, generation)),
            }
        }
        for child in self.tree.children() {
            assert_eq!(child.is_alive(), self.real.contains_key(&child.id), "{:?}", child.status());
        }
        let known = self.ids();
        assert!(self.real.keys().all(|id| known.contains(id)), "forgotten while it was alive");
    }

    /// Something that was under way comes to its end. Without `faults` it ends well.
    fn proceed(&mut self, faults: bool) -> bool {
        let mut live: Vec<_> =
            self.real.iter().map(|(&id, &(generation, real))| (id, generation, real)).collect();
        live.sort_by_key(|(id, ..)| *id);
        live.retain(|(_, _, real)| faults || *real != Real::Up);
        let asleep = self.sleeping.len();
        if live.is_empty() && asleep == 0 {
            return false;
        }
        let n = self.rng.random_range(0..live.len() + asleep);
        if n >= live.len() {
            let (id, generation) = self.sleeping.swap_remove(n - live.len());
            self.news(id, generation, News::Woken);
            return true;
        }
        let (id, generation, real) = live[n];
        let fault = faults && self.rng.random_bool(0.3);
        let crash = Exit { abnormal: true, reason: "crash".to_owned() };
        match real {
            Real::Starting if fault => {
                self.real.remove(&id);
                self.news(id, generation, News::Started(Err("no".to_owned())));
            }
            Real::Starting => {
                self.real.insert(id, (generation, Real::Started));
            }
            Real::Started => {
                self.real.insert(id, (generation, Real::Up));
                self.news(id, generation, News::Started(Ok(())));
                if self.killed.remove(&id).is_some_and(|killed| killed == generation) {
                    assert_ne!(self.real.get(&id), Some(&(generation, Real::Up)), "a kill was forgotten");
                }
            }
            Real::Up if fault => {
                let abnormal = self.rng.random_bool(0.7);
                self.real.remove(&id);
                self.news(id, generation, News::Ended(Exit { abnormal, ..crash }));
            }
            Real::Up => {
                let outcome = if self.rng.random_bool(0.5) { Ok(()) } else { Err("silent".to_owned()) };
                self.news(id, generation, News::Probed(outcome));
            }
            Real::Ending | Real::Killed => {
                self.real.remove(&id);
                self.news(id, generation, News::Ended(crash));
            }
        }
        true
    }

    fn disturb(&mut self) {
        let ids = self.ids();
        let Some(id) = self.pick(&ids) else { return };
        let drain = self.rng.random_bool(0.5);
        match self.rng.random_range(0..14) {
            0..=2 => self.order(id, Order::Start),
            3..=5 => self.order(id, Order::Restart { drain }),
            6 | 7 => self.order(id, Order::Stop { drain }),
            8 => self.order(id, Order::Kill),
            9 if self.rng.random_bool(0.2) => self.order(id, Order::Remove),
            9 | 10 => {
                let name = format!("n{}", self.rng.random_range(0..100));
                if ids.len() < 10 && self.tree.named(&name).is_none() {
                    let group = [None, Some("g"), Some("h")][self.rng.random_range(0..3)];
                    let id = self.tree.add(spec(name, "n", group, Restart::Permanent));
                    self.order(id, Order::Start);
                }
            }
            _ => {
                let generation = self.tree.get(id).expect("it was just picked").generation;
                let exit = Exit { abnormal: true, reason: "an old story".to_owned() };
                let stale = [News::Woken, News::Started(Ok(())), News::Ended(exit)];
                let news = stale[self.rng.random_range(0..3)].clone();
                let before = self.tree.get(id).map(|child| (child.phase, child.goal));
                self.news(id, generation.wrapping_sub(1), news);
                assert_eq!(self.tree.get(id).map(|child| (child.phase, child.goal)), before);
            }
        }
    }

    /// Every child that is wanted up and not held back is up; every other is down.
    fn assert_settled(&self) {
        for child in self.tree.children() {
            let (before, _) = self.neighbours(child.id);
            let held = before.iter().any(|&other| {
                let other = self.tree.get(other).expect("it is in the group");
                !other.goal.is_up() && other.goal != Goal::Finished
            });
            let up = matches!(self.real.get(&child.id), Some((_, Real::Up)));
            assert_eq!(up, child.goal.is_up() && !held, "{:?}", child.status());
            assert_eq!(up, self.tree.is_up(child.id));
            assert_eq!(
                child.goal.is_up() && held,
                child.goal.is_up() && self.tree.obstacle(child.id).is_some()
            );
        }
    }
}

#[test]
fn whatever_happens_no_child_lives_twice_and_groups_keep_their_order() {
    let (mut starts, mut failures) = (0, 0);
    for seed in 0..300 {
        let mut world = World::new(seed);
        for _ in 0..300 {
            if world.rng.random_bool(0.25) {
                world.disturb();
            } else {
                world.proceed(true);
            }
        }
        failures += world.failed().len();
        while world.proceed(false) {}
        world.assert_settled();

        let ids = world.ids();
        for id in ids {
            world.order(id, Order::Restart { drain: false });
            while world.proceed(false) {}
        }
        let running = |child: &Child| child.status().state == ChildState::Running;
        assert!(world.tree.children().iter().all(running), "seed {seed}: a restart brings each back");
        starts += world.starts;
    }
    assert!(
        starts > 10_000 && failures > 100,
        "the world did too little: {starts} starts, {failures} failures"
    );
}
